"""What a durable call returns: futures that history settles.

All are CPython futures, so gather, wait, shield, timeout and TaskGroup treat them as their own. What differs: cancelling one
takes back the command that opened it, or asks for its end; `result()` blocks on a fiber; and one that nobody ever
looked at is noticed.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from durable.core import fiber
from durable.core.commands import Command
from durable.core.events import ACTIVITY_CANCEL_REQUESTED, TIMER_CANCELLED, Event
from durable.core.loop import OrderedFuture, _init_future
from durable.errors import ActivityError, ActivityTimeout, DurableError
from durable.failure import decode_failure

if TYPE_CHECKING:
    from durable.core.run import Run
    from durable.payload import ValueCodec

T = TypeVar("T")

Cancellation = Literal["try", "wait", "abandon"]
"""What cancelling a running activity does. "try": ask it to stop, and raise CancelledError at once. "wait": ask, and raise
only when it has ended, however it ended. "abandon": raise at once and let it run."""

_iterate: Callable[[Any], Generator[Any, None, Any]] = asyncio.Future.__await__

_result: Callable[[Any], Any] = asyncio.Future.result


class DurableFuture(OrderedFuture[T]):
    """The base of all: a future with an `id`, stable within the run.

    `await` it, `yield` it in a generator workflow, call `result()` in a plain `def` workflow.
    """

    __slots__ = ("_run", "line", "observed")

    def __init__(self, run: Run, line: str) -> None:
        loop = run.loop
        _init_future(self, loop=loop)
        loop.created = self.number = loop.created + 1
        self._run = run
        self.line = line
        self.observed = False

    @property
    def id(self) -> str:
        """What it is called in errors and warnings; an activity call's also in its history."""
        raise NotImplementedError

    def __await__(self) -> Generator[Any, None, T]:
        self.observed = True
        return _iterate(self)

    __iter__ = __await__  # for `yield from`

    def result(self) -> T:
        """The value, or the failure raised. On the fiber of a plain `def` workflow it waits for it.

        Raises asyncio.InvalidStateError elsewhere while the future is pending: there `await` it.
        """
        self.observed = True
        if not self.done():
            if fiber.on_fiber():
                fiber.block(self)
            else:
                self._refuse_to_block()
        result: T = _result(self)
        return result

    def exception(self) -> BaseException | None:
        self.observed = True
        return super().exception()

    def cancel(self, msg: Any | None = None) -> bool:
        """Give the operation up. False if it had already ended."""
        if self.done():
            return False
        if not self._give_up(msg):
            return True
        return super().cancel(msg)

    def _give_up(self, msg: Any | None) -> bool:
        """Take back what was asked. False to stay pending until the outcome arrives."""
        raise NotImplementedError

    def _refuse_to_block(self) -> None:
        raise asyncio.InvalidStateError(
            f"{self.id} has no result yet, and only the body of a plain `def` workflow can block for it;"
            " use `await` here (or `yield` in a generator workflow)"
        )

    def _settled(self) -> None:
        """Remember a result that nobody has asked for so far."""
        if not self.observed and not self._callbacks:
            self._run.remember_unclaimed(self)


class NeverFuture(DurableFuture[Any]):
    """What a dying coroutine gets when it does not take Evicted for an answer: something to wait for in peace."""

    __slots__ = ("_instead_of",)

    def __init__(self, run: Run, instead_of: str) -> None:
        DurableFuture.__init__(self, run, "")
        self._instead_of = instead_of

    @property
    def id(self) -> str:
        return f"never a {self._instead_of}"

    def _give_up(self, msg: Any | None) -> bool:  # noqa: ARG002
        return True


class OperationFuture(DurableFuture[T]):
    """The outcome of something that was started and runs elsewhere: an activity, a child."""

    __slots__ = ("_asked", "_cancellation", "_codec", "_command", "_id", "name", "seq")

    kind: ClassVar[str]
    asks_to_end: ClassVar[str]

    def __init__(
        self,
        run: Run,
        name: str,
        id: str,
        codec: ValueCodec,
        cancellation: Cancellation,
        command: Command,
    ) -> None:
        DurableFuture.__init__(self, run, command.line)
        self._id = id
        self.seq = 0
        self.name = name
        self._codec = codec
        self._cancellation = cancellation
        self._command = command
        self._asked: list[Any] | None = None

    @property
    def id(self) -> str:
        return self._id

    def waiting(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "name": self.name,
            "id": self.id,
            "seq": self.seq,
            "line": self.line,
        }

    def _give_up(self, msg: Any | None) -> bool:
        run = self._run
        if run.is_inert():
            return True
        if not self.seq:
            self._command.struck = True
            return True
        if self._cancellation != "wait":
            run.forget(self.seq)
        if self._cancellation != "abandon" and self._asked is None:
            run.emit(Command(self.asks_to_end, {"ref": self.seq}))
        self._asked = [msg]
        return self._cancellation != "wait"

    def ask_to_end(self) -> None:
        """Ask for its end and stay pending until it has ended; if it completes all the same, that is its outcome."""
        run = self._run
        if self.done() or run.is_inert():
            return
        if not self.seq:
            self.cancel()
        else:
            run.emit(Command(self.asks_to_end, {"ref": self.seq}))

    # -- the effects of the closing events; named in machine.py -----------------------------------------------------------

    def complete(self, event: Event) -> None:
        if self._asked is None:
            self.set_result(self._codec.decode("null" if event.payload is None else event.payload))
            self._settled()
        else:
            OrderedFuture.cancel(self, *self._asked)

    def _close_with(self, error: DurableError, event: Event) -> None:
        if self._asked is not None:
            OrderedFuture.cancel(self, *self._asked)
            return
        if failure := event.body.get("failure"):
            error.__cause__ = decode_failure(failure)
        self.set_exception(error)
        self._settled()


class ActivityFuture(OperationFuture[T]):
    """An activity that was started: its result, or ActivityError, ActivityTimeout, or CancelledError once cancelled."""

    __slots__ = ()

    kind = "activity"
    asks_to_end = ACTIVITY_CANCEL_REQUESTED

    def fail(self, event: Event) -> None:
        body = event.body
        error = ActivityError(self.name, self.id, body.get("attempt"), body.get("retry_state"))
        self._close_with(error, event)

    def time_out(self, event: Event) -> None:
        body = event.body
        kind = body.get("timeout") or "start_to_close"
        error = ActivityTimeout(
            kind, self.name, self.id, body.get("attempt"), body.get("retry_state") or "timeout"
        )
        self._close_with(error, event)

    def be_cancelled(self, event: Event) -> None:
        """Ended by a cancel: ours (then CancelledError), or somebody's from outside, which to us is a failure."""
        message = f"activity {self.name!r} was cancelled from outside the workflow"
        error = ActivityError(
            self.name, self.id, event.body.get("attempt"), "cancelled", message=message
        )
        self._close_with(error, event)


class Timer:
    """A durable timer; `action` runs when it fires. Not awaitable by itself."""

    __slots__ = (
        "_command",
        "_open",
        "_run",
        "action",
        "fire_at_us",
        "is_deadline",
        "line",
        "reason",
        "seq",
    )

    def __init__(
        self,
        run: Run,
        fire_at_us: int,
        reason: str,
        action: Callable[[], Any],
        command: Command,
    ) -> None:
        self.seq = 0
        self.fire_at_us = fire_at_us
        self.reason = reason
        self.action = action
        self.line = command.line
        self._run = run
        self._command = command
        self._open = True
        self.is_deadline = False

    def waiting(self) -> dict[str, Any]:
        return {
            "kind": "timer", "name": self.reason, "seq": self.seq, "line": self.line, "until_us": self.fire_at_us,
        }  # fmt: skip

    def cancel(self) -> None:
        if not self._open or self._run.is_inert():
            return
        self._open = False
        if not self.seq:
            self._command.struck = True
        else:
            self._run.forget(self.seq)
            self._run.emit(Command(TIMER_CANCELLED, {"ref": self.seq}))

    def fire(self, _event: Event) -> None:
        self._open = False
        self.action()


class _Deadlined(DurableFuture[T]):
    """Waits for something that may have a deadline; the deadline is a durable timer."""

    __slots__ = ("_since_us", "_timer")

    def __init__(self, run: Run, line: str) -> None:
        DurableFuture.__init__(self, run, line)
        self._since_us = run.now_us
        self._timer: Timer | None = None

    @property
    def id(self) -> str:
        return f"{self._reason} {self.line}"

    @property
    def _reason(self) -> str:
        """What it waits for; compared on replay (C13), so without the line."""
        raise NotImplementedError

    def set_deadline(self, after_us: int | None) -> None:
        """Raise TimeoutError if nothing has happened by then; at once if there is no time at all."""
        if after_us is None or self.done():
            return
        if after_us > 0:
            self._timer = self._run.start_timer(after_us, self._reason, self._expire, self.line)
            self._timer.is_deadline = True
        else:
            self._expire()

    def _expire(self) -> None:
        if not self.done():
            self._leave()
            self.set_exception(TimeoutError(f"{self._reason}: nothing happened in time"))
            self._settled()

    def _give_up(self, msg: Any | None) -> bool:  # noqa: ARG002
        self._leave()
        self._disarm()
        return True

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _leave(self) -> None:
        """Stop being told."""
        raise NotImplementedError

    def _entry(self, kind: str, name: str) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "kind": kind, "name": name, "line": self.line, "since_us": self._since_us,
        }  # fmt: skip
        if self._timer is not None:
            entry |= {"seq": self._timer.seq, "until_us": self._timer.fire_at_us}
        return entry


class TimerFuture(DurableFuture[None]):
    """A durable sleep."""

    __slots__ = ("timer",)

    timer: Timer | None

    @property
    def id(self) -> str:
        return f"sleep {self.line}"

    def wake(self) -> None:
        if not self.done():
            self.set_result(None)
            self._settled()

    def _give_up(self, msg: Any | None) -> bool:  # noqa: ARG002
        if self.timer is not None:
            self.timer.cancel()
        return True


class SignalFuture(_Deadlined[T]):
    """The next signal of a name. A signal that was delivered but never picked up goes back to the buffer (C11)."""

    __slots__ = ("_codec", "_received", "_returned", "name")

    def __init__(self, run: Run, name: str, codec: ValueCodec, line: str) -> None:
        _Deadlined.__init__(self, run, line)
        self.name = name
        self._codec = codec
        self._received: Event | None = None
        self._returned = False

    @property
    def _reason(self) -> str:
        return f"signal {self.name}"

    def __await__(self) -> Generator[Any, None, T]:
        """Await; if the awaiting task is cancelled in the very turn of the delivery, the signal is not lost."""
        self.observed = True
        if not self.done():
            try:
                yield from _iterate(self)
            except BaseException:
                self.put_back()
                raise
        return self.result()

    __iter__ = __await__

    def deliver(self, event: Event) -> None:
        self._received = event
        payload = event.payload
        self.set_result(self._codec.decode("null" if payload is None else payload))
        self._disarm()
        self._settled()

    @property
    def sender(self) -> Mapping[str, Any]:
        """Who sent the signal that was received, as stored: `actor` and `headers`, each only if there is one."""
        body = {} if self._received is None else self._received.body
        return {key: body[key] for key in ("actor", "headers") if key in body}

    def waiting(self) -> dict[str, Any]:
        return self._entry("signal", self.name)

    def put_back(self) -> None:
        """Give back a signal that was delivered and that nobody has looked at."""
        if (
            self._received is not None
            and not self._returned
            and not self.cancelled()
            and super().exception() is None
        ):
            self._returned = True
            self._run.return_signal(self._received)

    def _leave(self) -> None:
        self._run.stop_receiving(self)


class ConditionFuture(_Deadlined[None]):
    """True some day: `wait_until(predicate)`."""

    __slots__ = ("_context", "_predicate")

    def __init__(self, run: Run, predicate: Callable[[], Any], line: str) -> None:
        _Deadlined.__init__(self, run, line)
        self._predicate = predicate
        self._context = contextvars.copy_context()

    @property
    def _reason(self) -> str:
        return "wait_until"

    def check(self) -> bool:
        """Settle if the predicate holds (or raises). Whether this future is done."""
        if self.done():
            return True
        try:
            holds = self._run.asking(self._context, self._predicate)
        except Exception as error:
            self.set_exception(error)
        else:
            if not holds:
                return False
            self.set_result(None)
        self._disarm()
        self._settled()
        return True

    def waiting(self) -> dict[str, Any]:
        name = getattr(self._predicate, "__qualname__", repr(self._predicate))
        return self._entry(getattr(self._predicate, "kind", "condition"), name)

    def _leave(self) -> None:
        return  # done futures are dropped at the next check
