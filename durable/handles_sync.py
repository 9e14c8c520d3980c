# Generated from durable/handles_async.py by tests/unasync.py; edit that file.

"""What `start` and `handle` give: one workflow, by its id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from durable import outcomes, requests
from durable.conversation_sync import Conversation
from durable.core.causes import Explanation
from durable.descriptions import (
    CancelReceipt,
    HistoryEvent,
    MoveReceipt,
    PendingJob,
    RunDescription,
    SignalEvidence,
    SignalReceipt,
)
from durable.evidence_sync import RunEvidence
from durable.histories import RecordedHistory
from durable.interceptors import ClientRequest, sending
from durable.operations_sync import RunOperations
from durable.payload import ValueCodec
from durable.signals import Signal
from durable.store import calls
from durable.store.histories import read_recorded

if TYPE_CHECKING:
    from durable.client_sync import Client
    from durable.store.client_session_sync import Transaction

R = TypeVar("R")
V = TypeVar("V")


class Handle(Conversation, RunOperations[R], RunEvidence):
    """A workflow by its id; made by a client's `start` and `handle`, never fails by itself.

    `run_id` is None for a handle made from an id alone: such a handle means the newest run of the id. One made by `start` reads its own
    run and what continues it (continue-as-new); signals and commands go to the newest run of the id either way. `created` tells whether this
    very `start` made the run (C20); None for a handle that no start gave.
    """

    def __init__(
        self,
        client: Client,
        workflow_id: str,
        run_id: str | None,
        codec: ValueCodec | None,
        *,
        created: bool | None = None,
    ) -> None:
        self._client = client
        self._codec = codec
        self.workflow_id = workflow_id
        self.run_id = run_id
        self.created = created

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.workflow_id!r}>"

    def result(self, timeout: timedelta | float | None = None) -> R:
        """Wait for the end and return the workflow's result; plain JSON if its type is not known here.

        Raises WorkflowFailed (`.cause` is what the code raised), WorkflowCancelled, WorkflowTerminated, WorkflowNotFound, and
        TimeoutError after `timeout` (seconds or timedelta); the workflow goes on then (C10).
        """
        outcome = self.outcome(timeout)
        codec = self._codec or self._client._result_codec(outcome.workflow, outcome.version)
        result: R = outcomes.result_of(self.workflow_id, outcome, codec)
        return result

    def outcome(self, timeout: timedelta | float | None = None) -> calls.RunOutcome:
        """Wait for the end and return it undecoded. Raises WorkflowNotFound and TimeoutError as `result` does."""
        waiting = outcomes.Waiting(f"workflow {self.workflow_id!r}", timeout)
        return self._client._outcome(self.workflow_id, self.run_id, waiting)

    def signal(
        self,
        signal: Signal[V] | str,
        value: V | None = None,
        *,
        dedupe_key: str | None = None,
        actor: Any = None,
        headers: Mapping[str, Any] | None = None,
        connection: Transaction | None = None,
    ) -> SignalReceipt:
        """Send a signal (C11). The value is checked against the signal's type before anything is written.

        A name instead of a Signal is looked up among those imported here, then among those that workers have registered.
        `dedupe_key`: a second signal of the same name and key is a duplicate and is not delivered. `actor` and `headers` travel
        with it; see `durable.sender`.

        Raises PayloadError, ActorRequired, UnknownSignal (nothing was written), and WorkflowNotFound and WorkflowClosed, after the attempt has
        been written down.
        """

        def send(asked: ClientRequest) -> SignalReceipt:
            name, payload, strict = self._client._signal_payload(signal, asked.args[0])
            call = requests.signal(
                self.workflow_id,
                name,
                payload,
                dedupe_key,
                asked.actor,
                asked.headers,
                require_actor=strict,
            )
            return self._client._send(call, connection)

        name = signal if isinstance(signal, str) else getattr(signal, "name", repr(signal))
        request = ClientRequest("signal", name, self.workflow_id, (value,), {}, actor, headers)
        return sending(request, send)

    def cancel(
        self,
        reason: str | None = None,
        *,
        actor: Any = None,
        connection: Transaction | None = None,
    ) -> CancelReceipt:
        """Ask the workflow to stop: it sees CancelledError once and may compensate (C9).

        Raises WorkflowNotFound or WorkflowClosed.
        """
        call = calls.request_cancel(
            self.workflow_id, requests.reason(reason), requests.actor(actor)
        )
        return self._client._send(call, connection)

    def terminate(
        self, reason: str, *, actor: Any = None, connection: Transaction | None = None
    ) -> None:
        """End the workflow by force: its code is not told and compensates nothing.

        Raises WorkflowNotFound or WorkflowClosed.
        """
        call = calls.terminate_run(self.workflow_id, requests.reason(reason), requests.actor(actor))
        self._client._send(call, connection)

    def move(
        self,
        build: str | None,
        *,
        reason: str | None = None,
        actor: Any = None,
        connection: Transaction | None = None,
    ) -> MoveReceipt:
        """Pin the workflow to another worker build, or free it from any (None); kept as an operator's command.

        Meant for runs whose build has no worker any more: the new build's code must be able to replay them (`durable verify`).
        A worker of another build that has it loses it at once. Raises InvalidOption, WorkflowNotFound or WorkflowClosed.
        """
        call = calls.move_run(
            self.workflow_id,
            requests.build(build),
            requests.reason(reason),
            requests.actor(actor),
        )
        return self._client._send(call, connection)

    def describe(self) -> RunDescription:
        """How the workflow stands. Raises WorkflowNotFound."""
        return self._client._execute(calls.describe_run(self.workflow_id, self.run_id))

    def history(self, after: int = 0) -> Sequence[HistoryEvent]:
        """Its events after number `after`, in order (C1). Raises WorkflowNotFound."""
        events = self._client._execute(calls.read_history(self.workflow_id, self.run_id, after))
        if not events and after < 1:
            raise calls.not_found(self.workflow_id)
        return events

    def export(self) -> RecordedHistory:
        """Its history as it is recorded, to be saved (`.save(path)`) and replayed elsewhere. Raises WorkflowNotFound."""
        return self._client._execute(read_recorded(self.workflow_id, self.run_id))

    def signals(self) -> Sequence[SignalEvidence]:
        """Each attempt to signal it, and what became of it (C11); empty when there is none."""
        return self._client._execute(calls.read_signals(self.workflow_id, self.run_id))

    def pending(self) -> Sequence[PendingJob]:
        """Its activities and timers that have not ended; empty when there is none."""
        return self._client._execute(calls.read_pending(self.workflow_id, self.run_id))

    def explain(self, step: str | None = None) -> Explanation:
        """Why it does not go on: operator status, every cause, what is waited for with its source lines, and what can be done.

        `step`: of a DAG a step; of another workflow a pending activity, by the id of its call or the number of its event. Raises WorkflowNotFound, and
        InvalidOption for a step that is not there.
        """
        return self._client._explain_run(self.workflow_id, self.run_id, step)
