"""Local activities: run by the worker process that owns the run, without a job row. `durable.local(activity)(...)`.

The problem. A job costs rows: its opening event, the job, its closing event. Small steps that must be recorded, and need no queue, are dear that way.

What does not work. Running the function inside the turn: the loop would stand still, and nothing could be cancelled. Writing down each
beginning, as an activity's is: that is half of the rows that were to be saved.

The solution. Only the end is an event, inbound as every end: it carries the call's id, name, options and the digest of its arguments, so that
replay can find the call that it ends and compare the two (C13). What has begun and not ended is what the code has called and nobody has ended: a function of
the history, so a worker that takes the run over knows by replay what to run. It then runs *again*: at least once, also where
the function had returned and only its commit was missing.

A turn fixes its time by its rows. A first turn that only calls local activities would have none; it leaves FirstTurnTaken, which need not be written before
the first end is, and which replay reads over.

A failed attempt is tried again in process. When the wait before the next one is long, the failure is an event of its own, LocalActivityBackedOff, which has the
count of attempts so far and starts a durable timer; the call is due again when that fires, wherever the run lives then.

What can still fail. A call whose future was given up leaves no trace, so replay cannot compare it: its answer, if it still comes, is evidence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from durable.core.commands import Command
from durable.core.events import (
    LOCAL_ACTIVITY_BACKED_OFF,
    LOCAL_ACTIVITY_COMPLETED,
    LOCAL_ACTIVITY_FAILED,
    Event,
)
from durable.core.futures import ActivityFuture, Cancellation
from durable.core.loop import OrderedFuture
from durable.errors import NondeterminismError
from durable.payload import digest

if TYPE_CHECKING:
    from durable.core.futures import Timer
    from durable.core.run import Run
    from durable.payload import ArgumentsCodec

T = TypeVar("T")

LOCAL_ACTIVITY = "local activity"
"""What the command of a call is named in `NondeterminismError`; no event has this type."""


LOCAL_EVENTS = frozenset(
    {LOCAL_ACTIVITY_COMPLETED, LOCAL_ACTIVITY_FAILED, LOCAL_ACTIVITY_BACKED_OFF}
)


class LocalTarget(Protocol):
    """What the worker needs of the activity: to decode the arguments, call the function and encode the result."""

    @property
    def name(self) -> str: ...
    @property
    def fn(self) -> Any: ...
    @property
    def is_async(self) -> bool: ...
    @property
    def arguments(self) -> ArgumentsCodec: ...


class LocalFuture(ActivityFuture[T]):
    """A local activity that was called: its outcome, as that of an ActivityFuture.

    For the worker: `target` with `payload` (arguments as JSON text) is due to run as attempt number `attempt`, unless it `is_to_end`.
    """

    __slots__ = ("_timer", "_turn", "attempt", "called_us", "cancellation", "target")

    kind = LOCAL_ACTIVITY

    def __init__(
        self, run: Run, target: LocalTarget, cancellation: Cancellation, command: Command
    ) -> None:
        body = command.body
        super().__init__(
            run, body["name"], body["id"], target.arguments.result, cancellation, command
        )
        self.target = target
        self.cancellation: Cancellation = cancellation
        self.attempt = 1
        self.called_us = run.now_us
        self._turn = run.turn
        self._timer: Timer | None = None

    @property
    def body(self) -> dict[str, Any]:
        """What each event about this call carries; the worker adds `attempt` and more to a copy."""
        body = self._command.body
        if not body["digest"]:
            body["digest"] = digest(self.payload)
        return body

    @property
    def payload(self) -> str:
        return self._command.payload or "{}"

    @property
    def is_to_end(self) -> bool:
        """The code gave it up and waits for its end (`cancellation="wait"`)."""
        return self._asked is not None

    def waiting(self) -> dict[str, Any]:
        return {"kind": self.kind, "name": self.name, "id": self.id, "line": self.line}

    def _give_up(self, msg: Any | None) -> bool:
        run = self._run
        if run.is_inert():
            return True
        begun = run.turn != self._turn
        if self._timer is not None:
            self._timer.cancel()
            run.give_up_local(self)
            return True
        if begun and self._cancellation == "wait":
            self._asked = [msg]
            return False
        run.give_up_local(self)
        return True

    # -- the effects of the events; named in machine.py ---------------------------------------------------------------------

    def is_meant_by(self, body: dict[str, Any]) -> bool:
        """Whether an event's body is about this very call: name, options, arguments."""
        mine = _view(self.body)
        if not body["digest"]:  # concealed by a codec, and the arguments themselves are not stored
            mine["digest"] = ""
        return mine == _view(body)

    def compare(self, event: Event) -> None:
        """In replay: raises NondeterminismError unless the event is about this very call (C13)."""
        if self._run.replaying and not self.is_meant_by(event.body):
            expected = {"type": LOCAL_ACTIVITY, **_view(event.body)}
            got = {"type": LOCAL_ACTIVITY, **_view(self.body)}
            raise NondeterminismError(
                event_seq=event.seq, expected=expected, got=got, line=self.line
            )

    def fail(self, event: Event) -> None:
        (self.time_out if "timeout" in event.body else super().fail)(event)

    def back_off(self, event: Event) -> None:
        """Long enough for a durable timer; the next attempt is due when that fires."""
        if self._asked is not None:
            OrderedFuture.cancel(self, *self._asked)
            return
        self.attempt = event.body["attempt"] + 1
        delay_us = max(1, event.body["delay_us"])
        self._timer = self._run.start_timer(
            delay_us, f"retry of {self.name}", self._be_due, self.line
        )

    def _be_due(self) -> None:
        self._timer = None
        self._run.make_due(self)


_COMPARED = ("name", "id", "digest", "retry", "timeouts")


def _view(body: dict[str, Any]) -> dict[str, Any]:
    return {key: body[key] for key in _COMPARED if key in body}


def lost_track_of(event: Event) -> NondeterminismError:
    """The error when history ends a local activity that the code has not called."""
    expected = {"type": LOCAL_ACTIVITY, **_view(event.body)}
    return NondeterminismError(
        event_seq=event.seq, expected=expected, got=None, line=event.body.get("line")
    )
