"""What is sent to a run's queries and updates, and what comes back, in the caller's terms. Pure; both clients use it.

A handler is a closure of the workflow, so a caller names it. Its types may be given by name and `returns=`, or by passing a function of the
same name and signature, which stands for it:

    def add(item: Item) -> int: ...                       # at module level, beside the workflow

    handle.update(add, Item(sku="tea"))                   # an int for the type checker, and checked before it is sent
    handle.update("add", Item(sku="tea"), returns=int)
    handle.update("add", item=Item(sku="tea"))            # Any
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Mapping
from datetime import timedelta
from functools import lru_cache
from typing import Any, Generic, NamedTuple, NoReturn, TypeVar, overload

from durable import requests
from durable.core.names import checked_name
from durable.errors import (
    InvalidOption,
    QueryFailed,
    QueryTimeout,
    UnknownQuery,
    UnknownUpdate,
    UpdateFailed,
    UpdateRejected,
    UpdateUnfinished,
    WorkflowClosed,
)
from durable.failure import decode_failure
from durable.ids import uuid7
from durable.payload import ArgumentsCodec, ValueCodec
from durable.store import updates
from durable.store.calls import Call, Sent
from durable.store.updates import Answered, Silence, UpdateState

R = TypeVar("R")

QUERY_TIMEOUT_S = 10.0

_POSITIONAL = ValueCodec(list[Any], field="arguments")
_BY_NAME = ValueCodec(dict[str, Any], field="arguments")
_PLAIN = (str, int, float, bool, type(None))


class Addressed(NamedTuple):
    """A message to a handler: its name, its arguments as JSON text (an object, or an array by position), and how its result is read."""

    name: str
    payload: str
    result: ValueCodec | None


class UpdateRequest(Generic[R]):
    """An update to send with a start: `client.start(cart, id="c-1", with_update=UpdateRequest("add", item, returns=int))`.

    `id` makes it idempotent; a new one by default. Raises PayloadError when the arguments cannot be stored, InvalidOption.
    """

    @overload
    def __init__(
        self, update: str, /, *args: Any, returns: type[R], id: str | None = None, **arguments: Any
    ) -> None: ...
    @overload
    def __init__(
        self: UpdateRequest[Any],
        update: str,
        /,
        *args: Any,
        id: str | None = None,
        **arguments: Any,
    ) -> None: ...
    @overload
    def __init__(
        self,
        update: Callable[..., Coroutine[Any, Any, R]],
        /,
        *args: Any,
        id: str | None = None,
        **arguments: Any,
    ) -> None: ...
    @overload
    def __init__(
        self, update: Callable[..., R], /, *args: Any, id: str | None = None, **arguments: Any
    ) -> None: ...
    def __init__(
        self,
        update: Any,
        /,
        *args: Any,
        returns: Any = None,
        id: str | None = None,
        **arguments: Any,
    ) -> None:
        self.id = str(uuid7()) if id is None else requests.text("id", id, requests.MAX_ID)
        self.addressed = addressed("update", update, args, arguments, returns)

    @classmethod
    def from_json(cls, update: str, arguments: Any, *, id: str | None = None) -> UpdateRequest[Any]:
        """With arguments that are JSON already: a mapping by name, or a sequence by position."""
        request: UpdateRequest[Any] = UpdateRequest(update, id=id)
        request.addressed = in_json("update", update, arguments)
        return request

    @property
    def name(self) -> str:
        return self.addressed.name

    def call(self, workflow_id: str, actor: Any = None) -> Call[Sent[str]]:
        """The call that sends it. Raises InvalidOption."""
        name, payload, _ = self.addressed
        return updates.send_update(workflow_id, self.id, name, payload, requests.actor(actor))


def addressed(
    kind: str, handler: Any, args: tuple[Any, ...], arguments: Mapping[str, Any], returns: Any
) -> Addressed:
    """A message to the handler of that name, or that a function stands for. Raises PayloadError, InvalidOption."""
    if callable(handler):
        codec = _codec(getattr(handler, "fn", handler))
        return Addressed(codec.name, codec.encode(args, arguments), codec.result)
    name = checked_name(kind, handler)
    if args and arguments:
        raise InvalidOption(
            f"{kind} {name!r} got arguments by position and by name; its signature is not known here: give all in one way"
        )
    result = None if returns is None else ValueCodec(returns, field=f"result of {name}")
    if arguments:
        return Addressed(name, _BY_NAME.encode(_as_json(dict(arguments))), result)
    return Addressed(name, _POSITIONAL.encode(_as_json(args)), result)


def in_json(kind: str, handler: str, arguments: Any) -> Addressed:
    """A message whose arguments are JSON already. Raises PayloadError, InvalidOption."""
    codec = _BY_NAME if isinstance(arguments, Mapping) else _POSITIONAL
    return Addressed(checked_name(kind, handler), codec.encode(arguments), None)


@lru_cache(maxsize=1024)
def _codec(fn: Any) -> ArgumentsCodec:
    return ArgumentsCodec(fn, name=fn.__name__)


def _as_json(value: Any) -> Any:
    """A value whose type nobody told us, by the type that it has."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, list | tuple | set | frozenset):
        return [_as_json(member) for member in value]
    if isinstance(value, dict):
        return {key: _as_json(member) for key, member in value.items()}
    return json.loads(ValueCodec(type(value), field="arguments").encode(value))


# -- what comes back ------------------------------------------------------------------------------------------------------


def answer_of(question: str, answered: Answered, codec: ValueCodec | None) -> Any:
    """What a query gave. Raises UnknownQuery, or QueryFailed with what its code raised as the cause."""
    if answered.failure is None:
        return _decoded(answered.result, codec)
    cause = decode_failure(answered.failure)
    if isinstance(cause, UnknownQuery):
        raise cause
    raise QueryFailed(f"{question} failed: {cause}") from cause


def check_accepted(update: str, state: UpdateState | None) -> bool:
    """Whether it was accepted. Raises UpdateRejected, UnknownUpdate, or WorkflowClosed when it never will be."""
    if state is None:
        raise UnknownUpdate(
            f"nobody has requested {update}, or the transaction of the request was rolled back"
        )
    if state.status == "rejected":
        cause = decode_failure(state.failure or {})
        if isinstance(cause, UnknownUpdate):
            raise cause
        raise UpdateRejected(f"{update} was rejected: {cause}") from cause
    if state.status == "aborted" and not state.accepted:
        raise WorkflowClosed(f"{update} was not accepted any more: {state.reason}")
    return state.accepted


def outcome_of(update: str, state: UpdateState, codec: ValueCodec | None) -> Any:
    """What an update that has ended gave. Raises UpdateFailed with the handler's exception as the cause, UpdateUnfinished."""
    if state.status == "completed":
        return _decoded(state.result, codec)
    if state.status == "failed":
        cause = decode_failure(state.failure or {})
        raise UpdateFailed(f"{update} failed: {cause}") from cause
    raise UpdateUnfinished(
        f"{update} was accepted, and the workflow ended before its handler did ({state.reason})"
    )


def raise_query_timeout(question: str, timeout_s: float, silence: Silence | None) -> NoReturn:
    raise QueryTimeout(f"{question} got no answer within {timeout_s:g} s: {_why(silence)}")


def update_timeout(
    update: str, stage: str, error: TimeoutError, silence: Silence | None
) -> TimeoutError:
    """The error to raise when an update takes longer than its caller waits."""
    within = str(error).partition(" within ")[2].partition(";")[0]
    why = f": {_why(silence)}" if stage == "accepted" else "; its handler goes on"
    return TimeoutError(f"{update} has not been {stage} within {within}{why}")


def _why(silence: Silence | None) -> str:
    if silence is None:
        return "there is no such workflow any more"
    if not silence.workers:
        return f"no live worker serves the queue {silence.queue!r}; start one: durable-worker MODULE --queue {silence.queue}"
    if silence.review is not None:
        return f"the run needs review ({silence.review.get('kind')}); `durable show` says why"
    if silence.refused:
        return f"none of the workers that serve the queue {silence.queue!r} knows the workflow"
    if not silence.begun:
        return "the run has not begun" + (": its start is delayed" if silence.delayed else "")
    return "its worker is busy, or blocked by a turn that takes long"


def _decoded(text: str | None, codec: ValueCodec | None) -> Any:
    if codec is not None:
        return codec.decode("null" if text is None else text)
    return None if text is None else json.loads(text)


def timeout_s(timeout: timedelta | float | None) -> float:
    """How long a query waits, in seconds. Raises InvalidOption."""
    return QUERY_TIMEOUT_S if timeout is None else requests.timeout_s(timeout)
