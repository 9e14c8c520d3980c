"""What calling a workflow inside a workflow returns (C15)."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Protocol, TypeVar

from durable.core.commands import Command
from durable.core.events import CHILD_CANCEL_REQUESTED, CHILD_SIGNALLED, Event
from durable.core.futures import DurableFuture, OperationFuture
from durable.errors import ActorRequired, ChildWorkflowError, DurableError

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

    `.id` is the child's workflow id, under which clients find it. `.cause` of the error is what the child raised.
    """

    __slots__ = ()

    kind = "child"
    asks_to_end = CHILD_CANCEL_REQUESTED

    def signal(self, signal: TypedSignal[V], value: V) -> None:
        """Send the child a signal; it is delivered in the order of the calls, also before the child runs (C11).

        Raises PayloadError when the value does not fit the signal, DurableError when the child has ended.
        """
        run = self._run
        if run.is_inert():
            return
        if self.done():
            raise DurableError(
                f"child workflow {self.name!r} ({self.id!r}) has ended; nobody would receive {signal.name!r}"
            )
        if signal.require_actor and run.start.get("actor") is None:
            raise ActorRequired("signal", signal.name)
        body = {"workflow_id": self.id, "name": signal.name}
        run.emit(Command(CHILD_SIGNALLED, body, signal.codec.encode(value)))

    # -- the effects of the closing events; named in machine.py -----------------------------------------------------------

    def fail(self, event: Event) -> None:
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
