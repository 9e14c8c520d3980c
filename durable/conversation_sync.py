# Generated from durable/conversation_async.py by tests/unasync.py; edit that file.

"""Queries and updates of a workflow, as its handle offers them (C14)."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, overload

from durable import messages, outcomes, requests
from durable.descriptions import UpdateEvidence
from durable.ids import uuid7
from durable.messages import UpdateRequest
from durable.payload import ValueCodec
from durable.store import updates
from durable.store.updates import Answered, UpdateState

if TYPE_CHECKING:
    from durable.client_sync import Client
    from durable.store.client_session_sync import Transaction

T = TypeVar("T")


class UpdateHandle(Generic[T]):
    """An update by its id; made by `start_update` and `update_handle`."""

    def __init__(self, client: Client, workflow_id: str, id: str, codec: ValueCodec | None) -> None:
        self._client = client
        self._codec = codec
        self.workflow_id = workflow_id
        self.id = id

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id!r} of {self.workflow_id!r}>"

    def accepted(self, timeout: timedelta | float | None = None) -> None:
        """Wait until the workflow has accepted the update; from then on it survives every crash.

        Raises UpdateRejected (`.cause` is what the validator raised), UnknownUpdate, WorkflowClosed, and TimeoutError after
        `timeout` (seconds or timedelta), which says why nobody answers.
        """
        self._wait("accepted", timeout)

    def result(self, timeout: timedelta | float | None = None) -> T:
        """Wait for the end and return what the handler returned; plain JSON if its type is not known here.

        Raises what `accepted` raises, UpdateFailed (`.cause` is what the handler raised), and UpdateUnfinished when the workflow ended first.
        """
        state = self._wait("completed", timeout)
        result: T = messages.outcome_of(self._name, state, self._codec)
        return result

    def _wait(self, stage: str, timeout: timedelta | float | None) -> UpdateState:
        waiting = outcomes.Waiting(self._name, timeout)
        call = updates.read_update(self.workflow_id, self.id)
        while True:
            state = self._client._execute(call)
            accepted = messages.check_accepted(self._name, state)
            if state is not None and (state.has_ended or (accepted and stage == "accepted")):
                return state
            try:
                gap_s = waiting.gap_s()
            except TimeoutError as error:
                silence = self._client._execute(updates.explain_silence(self.workflow_id, None))
                late = "completed" if accepted else "accepted"
                raise messages.update_timeout(self._name, late, error, silence) from None
            time.sleep(gap_s)

    @property
    def _name(self) -> str:
        return f"update {self.id!r} of workflow {self.workflow_id!r}"


class Conversation:
    """What a workflow's handle can ask and have done: `query`, `update`, `start_update`.

    A handler is named, or a function of its name and signature stands for it (see `durable.messages`); `returns` is the type of its result.
    Arguments go by position or by name; those that have the name of an option here (`id`, `timeout`, ...) go by position.
    """

    _client: Client
    workflow_id: str
    run_id: str | None

    @overload
    def query(
        self,
        query: str,
        /,
        *args: Any,
        returns: type[T],
        timeout: timedelta | float | None = None,
        **arguments: Any,
    ) -> T: ...

    @overload
    def query(
        self,
        query: str,
        /,
        *args: Any,
        timeout: timedelta | float | None = None,
        **arguments: Any,
    ) -> Any: ...

    @overload
    def query(
        self,
        query: Callable[..., T],
        /,
        *args: Any,
        timeout: timedelta | float | None = None,
        **arguments: Any,
    ) -> T: ...

    def query(
        self,
        query: Any,
        /,
        *args: Any,
        returns: Any = None,
        timeout: timedelta | float | None = None,
        **arguments: Any,
    ) -> Any:
        """Ask a query, also of a run that sleeps or has ended; it sees the run's last committed turn.

        Raises UnknownQuery, QueryFailed (`.cause` is what the query raised), WorkflowNotFound, PayloadError, and QueryTimeout after `timeout` (seconds or
        timedelta; 10 s by default), which says why nobody answers.
        """
        name, payload, codec = messages.addressed("query", query, args, arguments, returns)
        return self._ask(name, payload, codec, messages.timeout_s(timeout))

    def query_json(
        self, query: str, arguments: Any, *, timeout: timedelta | float | None = None
    ) -> Any:
        """`query` with arguments that are JSON already, a mapping by name or a list by position; answers plain JSON."""
        name, payload, codec = messages.in_json("query", query, arguments)
        return self._ask(name, payload, codec, messages.timeout_s(timeout))

    def _ask(self, name: str, payload: str, codec: ValueCodec | None, timeout_s: float) -> Any:
        what = f"query {name!r} of workflow {self.workflow_id!r}"
        waiting, query_id = outcomes.Waiting(what, timeout_s), str(uuid7())
        ask = updates.ask_query(query_id, self.workflow_id, self.run_id, name, payload)
        self._client._send(ask, None)
        while True:
            answer = self._client._execute(updates.take_answer(self.workflow_id, query_id))
            if isinstance(answer, Answered):
                return messages.answer_of(what, answer, codec)
            if not answer:  # the server crashed, and lost it
                self._client._send(ask, None)
            try:
                gap_s = waiting.gap_s()
            except TimeoutError:
                self._give_up(what, query_id, timeout_s)
            time.sleep(gap_s)

    def _give_up(self, what: str, query_id: str, timeout_s: float) -> NoReturn:
        silence = self._client._execute(updates.explain_silence(self.workflow_id, query_id))
        self._client._execute(updates.drop_query(self.workflow_id, query_id))
        messages.raise_query_timeout(what, timeout_s, silence)

    @overload
    def start_update(
        self,
        update: str,
        /,
        *args: Any,
        returns: type[T],
        id: str | None = None,
        actor: Any = None,
        connection: Transaction | None = None,
        **arguments: Any,
    ) -> UpdateHandle[T]: ...

    @overload
    def start_update(
        self,
        update: str,
        /,
        *args: Any,
        id: str | None = None,
        actor: Any = None,
        connection: Transaction | None = None,
        **arguments: Any,
    ) -> UpdateHandle[Any]: ...

    @overload
    def start_update(
        self,
        update: UpdateRequest[T],
        /,
        *,
        actor: Any = None,
        connection: Transaction | None = None,
    ) -> UpdateHandle[T]: ...

    @overload
    def start_update(
        self,
        update: Callable[..., Coroutine[Any, Any, T]],
        /,
        *args: Any,
        id: str | None = None,
        actor: Any = None,
        connection: Transaction | None = None,
        **arguments: Any,
    ) -> UpdateHandle[T]: ...

    @overload
    def start_update(
        self,
        update: Callable[..., T],
        /,
        *args: Any,
        id: str | None = None,
        actor: Any = None,
        connection: Transaction | None = None,
        **arguments: Any,
    ) -> UpdateHandle[T]: ...

    def start_update(
        self,
        update: Any,
        /,
        *args: Any,
        returns: Any = None,
        id: str | None = None,
        actor: Any = None,
        connection: Transaction | None = None,
        **arguments: Any,
    ) -> UpdateHandle[Any]:
        """Request an update and return its handle, whose `accepted()` and `result()` wait; the request itself does not.

        `id` makes it idempotent over the run and those that continue it: a second request of an id gets what became of the first, unless that was
        rejected. A new one by default.

        Raises PayloadError, InvalidOption, WorkflowNotFound, WorkflowClosed; nothing is written then.
        """
        request: UpdateRequest[Any] = (
            update
            if isinstance(update, UpdateRequest)
            else UpdateRequest(update, *args, returns=returns, id=id, **arguments)
        )
        self._client._send(request.call(self.workflow_id, actor), connection)
        return self.update_handle(request)

    @overload
    def update(
        self,
        update: str,
        /,
        *args: Any,
        returns: type[T],
        id: str | None = None,
        actor: Any = None,
        timeout: timedelta | float | None = None,
        **arguments: Any,
    ) -> T: ...

    @overload
    def update(
        self,
        update: str,
        /,
        *args: Any,
        id: str | None = None,
        actor: Any = None,
        timeout: timedelta | float | None = None,
        **arguments: Any,
    ) -> Any: ...

    @overload
    def update(
        self,
        update: Callable[..., Coroutine[Any, Any, T]],
        /,
        *args: Any,
        id: str | None = None,
        actor: Any = None,
        timeout: timedelta | float | None = None,
        **arguments: Any,
    ) -> T: ...

    @overload
    def update(
        self,
        update: Callable[..., T],
        /,
        *args: Any,
        id: str | None = None,
        actor: Any = None,
        timeout: timedelta | float | None = None,
        **arguments: Any,
    ) -> T: ...

    def update(
        self,
        update: Any,
        /,
        *args: Any,
        returns: Any = None,
        id: str | None = None,
        actor: Any = None,
        timeout: timedelta | float | None = None,
        **arguments: Any,
    ) -> Any:
        """Request an update and wait for what its handler returns; see `start_update`, and the handle's `result` for what is raised.

        After `timeout` (seconds or timedelta; for ever by default) TimeoutError is raised, and the update goes on.
        """
        handle = self.start_update(update, *args, returns=returns, id=id, actor=actor, **arguments)
        return handle.result(timeout)

    @overload
    def update_handle(self, update: UpdateRequest[T]) -> UpdateHandle[T]: ...
    @overload
    def update_handle(self, update: str, returns: type[T]) -> UpdateHandle[T]: ...
    @overload
    def update_handle(self, update: str) -> UpdateHandle[Any]: ...
    def update_handle(
        self, update: UpdateRequest[Any] | str, returns: Any = None
    ) -> UpdateHandle[Any]:
        """The handle of an update by its id, or of the one that was sent with the start; nothing is looked up yet. Raises InvalidOption."""
        if isinstance(update, UpdateRequest):
            codec = update.addressed.result
            return UpdateHandle(self._client, self.workflow_id, update.id, codec)
        chosen = requests.text("id", update, requests.MAX_ID)
        codec = None if returns is None else ValueCodec(returns, field=f"result of {chosen}")
        return UpdateHandle(self._client, self.workflow_id, chosen, codec)

    def updates(self) -> Sequence[UpdateEvidence]:
        """Each update that was requested, and what became of it; empty when there is none."""
        return self._client._execute(updates.list_updates(self.workflow_id, self.run_id))
