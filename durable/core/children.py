"""What calling a workflow inside a workflow returns (C15)."""

from __future__ import annotations

import zlib
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from durable.core.commands import Command
from durable.core.events import CHILD_CANCEL_REQUESTED, CHILD_SIGNALLED, CHILD_STARTED, Event
from durable.core.futures import DurableFuture, OperationFuture, Timer
from durable.core.policy import RetryPolicy, delay_s, is_excluded, merge
from durable.errors import ActorRequired, ChildWorkflowError, DurableError
from durable.failure import decode_failure
from durable.payload import digest

if TYPE_CHECKING:
    from durable.payload import ValueCodec

T = TypeVar("T")
V = TypeVar("V")


class TypedSignal(Protocol[V]):
    """What we need to know of a `durable.Signal`."""

    @property
    def name(self) -> str: ...
    @property
    def codec(self) -> ValueCodec: ...
    @property
    def require_actor(self) -> bool: ...
    def receive(self, timeout: timedelta | float | None = None) -> DurableFuture[V]: ...


class ChildFuture(OperationFuture[T]):
    """A child workflow that was started: its result, or ChildWorkflowError, or CancelledError once cancelled.

    `.id` is the child's workflow id, under which clients find it. `.cause` of the error is what the child raised. With a retry policy a child that
    fails is started again, after the policy's wait, as another run under the same id; only the last failure is seen.
    """

    __slots__ = ("_attempt", "_timer", "retry")

    kind = "child"
    asks_to_end = CHILD_CANCEL_REQUESTED

    def __init__(self, *given: Any) -> None:
        OperationFuture.__init__(self, *given)
        self.retry: RetryPolicy | None = None
        self._attempt = 1
        self._timer: Timer | None = None

    def signal(self, signal: TypedSignal[V], value: V) -> None:
        """Send the child a signal; it is delivered in the order of the calls, also before the child runs (C11).

        Raises PayloadError when the value does not fit the signal, DurableError when the child has ended or waits to be started again.
        """
        run = self._run
        if run.is_inert():
            return
        if self.done() or self._timer is not None:
            raise DurableError(
                f"child workflow {self.name!r} ({self.id!r}) has ended; nobody would receive {signal.name!r}"
            )
        if signal.require_actor and run.start.get("actor") is None:
            raise ActorRequired("signal", signal.name)
        body = {"workflow_id": self.id, "name": signal.name}
        run.emit(Command(CHILD_SIGNALLED, body, signal.codec.encode(value)))

    # -- the effects of the closing events; named in machine.py -----------------------------------------------------------

    def fail(self, event: Event) -> None:
        if not self._to_be_started_again(event):
            self._end("failed", event)

    def be_cancelled(self, event: Event) -> None:
        """Ended by a cancel: ours (then CancelledError), or somebody's from outside, which to us is a failure."""
        self._end("cancelled", event)

    def be_terminated(self, event: Event) -> None:
        self._end("terminated", event)

    def be_rejected(self, event: Event) -> None:
        """It never started: a running workflow has its id."""
        self._end("rejected", event)

    def _end(self, outcome: str, event: Event) -> None:
        run_id, reason = event.body.get("run_id"), event.body.get("reason")
        error = ChildWorkflowError(self.name, self.id, run_id, outcome, reason=reason)
        self._close_with(error, event)

    # -- started again ----------------------------------------------------------------------------------------------------

    def _to_be_started_again(self, event: Event) -> bool:
        if self.retry is None or self._asked is not None:
            return False
        policy = merge(self.retry)
        if policy.max_attempts and self._attempt >= policy.max_attempts:
            return False
        failure = event.body.get("failure")
        if failure and is_excluded(policy, decode_failure(failure)):
            return False
        wait_s = delay_s(policy, self._attempt, _unit(f"{self._run.run_id}/{event.seq}"))
        self._attempt += 1
        if wait_us := int(wait_s * 1e6):
            reason = f"retry of {self.name}"
            self._timer = self._run.start_timer(wait_us, reason, self._start_again, self.line)
        else:
            self._start_again()
        return True

    def _start_again(self) -> None:
        self._timer = None
        self.seq = 0
        before = self._command
        body = {**before.body, "digest": ""}
        if not self._run.replaying and before.payload is not None:
            body["digest"] = digest(before.payload)
        self._command = Command(CHILD_STARTED, body, before.payload, self.line)
        self._command.operation = self
        self._run.emit(self._command)

    def _give_up(self, msg: Any | None) -> bool:
        if self._timer is None:
            return OperationFuture._give_up(self, msg)
        self._timer.cancel()
        self._timer = None
        return True


def _unit(of: str) -> float:
    """A number in 0..1 for the jitter: the same in every replay, another one for each failure."""
    return zlib.crc32(of.encode()) / 2**32
