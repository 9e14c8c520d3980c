"""The state of a run between two turns, and what workflow code can ask of it.

The author API (`durable.sleep`, calling an activity, `signal.receive`) comes down to the verbs of `Run`: each gives a command or
joins a queue, and returns the future that history will settle. `Execution`, in the next file, moves a run through its turns.

Nothing here runs author code, except predicates, which must only read.
"""

from __future__ import annotations

import contextvars
import inspect
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, NoReturn, TypeVar, cast
from uuid import UUID

from durable.core import events as e
from durable.core import semantics
from durable.core.children import ChildFuture
from durable.core.commands import Command, source_line
from durable.core.durations import LONGEST_US
from durable.core.futures import (
    ActivityFuture,
    ConditionFuture,
    DurableFuture,
    NeverFuture,
    SignalFuture,
    Timer,
    TimerFuture,
)
from durable.core.handlers import Handlers
from durable.core.local import LOCAL_ACTIVITY, LocalFuture, lost_track_of
from durable.core.loop import DeterministicLoop, DurableTask
from durable.core.nothing import NO_ITEMS, NO_KEYS, NO_NAMES
from durable.core.plans import ActivityPlan, ChildPlan, Definition, LocalPlan, run_defaults
from durable.errors import (
    ContinueAsNew,
    Evicted,
    InvalidOption,
    LimitExceeded,
    PayloadError,
    ReadOnlyViolation,
)
from durable.payload import ArgumentsCodec, ValueCodec, digest

T = TypeVar("T")

LONGEST_WORKFLOW_ID = 1000

MAX_PENDING = 10_000
"""How many operations may be pending at once, with the commands of the turn. Histories rely on it: it belongs to the semantics version (C16)."""

SHOWN_WAITS = 16
"""How many waits `waiting_on` lists one by one."""

_REFUSALS = 100
"""How many calls a dying coroutine may make and get Evicted for, before they just never complete."""


class _ClosedQueue:
    """Stands in for the loop's queue of callbacks: who wants to wake or start something is refused."""

    def __init__(self, rule: str) -> None:
        self.rule = rule
        self.touched = False

    def append(self, _handle: Any) -> None:
        self.touched = True
        raise ReadOnlyViolation(self.rule)


class Run:
    """One run as its own code sees it. `start` is what WorkflowStarted said beyond what has a name of its own here, `now_us` the time of this turn."""

    __slots__ = (  # a dictionary of so many names would be a fifth of a parked run
        "_asking", "_author_state", "_buffered", "_cancel_reason", "_chosen_ids", "_commands", "_counts", "_itself",
        "_locals_given_up", "_main", "_origins", "_patches", "_pending", "_poison", "_provisional", "_reading",
        "_receivers", "_refused", "_replayed", "_semantics", "_unclaimed", "_unclaimed_limit", "_warnings",
        "cancel_requested", "closed", "conditions", "defaults", "definition", "gate", "handlers", "last_seq",
        "locals", "loop", "now_us", "replaying", "run_id", "start", "started_us", "tainted", "turn", "version", "workflow_id",
    )  # fmt: skip

    def __init__(self, definition: Definition, run_id: UUID, workflow_id: str) -> None:
        self.definition = definition
        self.run_id = run_id
        self.workflow_id = workflow_id
        self.closed = False
        self.replaying = False
        self.last_seq = 0
        self.turn = 0
        self.now_us = 0
        self.started_us = 0
        self.version = 1
        self._semantics = 1
        self.start: Mapping[str, Any] = NO_KEYS
        self.defaults = run_defaults("default", 5, "null")
        self._itself: tuple[UUID, str]  # while there are origins
        self._origins: list[Sequence[Any]] = NO_ITEMS
        self._replayed: tuple[Sequence[e.Event], int, int] = ((), 0, 0)
        self._reset()

    def _reset(self) -> None:
        """The state before the first turn."""
        self.gate = ""  # why durable calls are refused just now; empty: they are not
        self.cancel_requested = False
        self._author_state: dict[str, Any] = NO_KEYS
        self._unclaimed: list[DurableFuture[Any]] = NO_ITEMS
        self._unclaimed_limit = 16
        self._asking = False
        self._reading = False
        self.tainted = False  # read-only code may have left something behind: drop the execution
        self.handlers: Handlers | None = None
        self._refused = 0
        self._poison: BaseException | None = None
        self._cancel_reason: str | None = None
        self._main: DurableTask[Any] | None = None
        self._provisional = False
        self._commands: list[Command] = []
        self._pending: dict[int, Any] = {}
        self.locals: dict[str, LocalFuture[Any]] = NO_KEYS  # local activities that are due, by id
        self._locals_given_up: set[str] = NO_NAMES
        self.conditions: list[ConditionFuture] = NO_ITEMS
        self._buffered: dict[str, deque[e.Event]] = NO_KEYS
        self._receivers: dict[str, list[SignalFuture[Any]]] = NO_KEYS
        self._counts: dict[str, int] = {}
        self._chosen_ids: set[str] = NO_NAMES
        self._patches: dict[str, bool] = NO_KEYS
        self._warnings: list[str] = NO_ITEMS
        self.loop = DeterministicLoop(self)  # type: ignore[abstract]

    @property
    def author_state(self) -> dict[str, Any]:
        """What modules of the author API keep per run."""
        self._author_state = self._author_state or {}
        return self._author_state

    # -- who it is --------------------------------------------------------------------------------------------------------

    def _begin_origins(self, origins: Sequence[Sequence[Any]]) -> None:
        """Take the turns that were copied from other runs (a reset, a fork) as the runs that took them: [last turn, run id, workflow id] each.

        Their code had used those ids: in arguments, for random numbers, to name children.
        """
        if taken := [it for it in origins if it[0] > 0]:
            self._origins, self._itself = taken, (self.run_id, self.workflow_id)
            self._be(UUID(self._origins[0][1]), self._origins[0][2])
            self.loop.hash_like(self.run_id)

    def _leave_origin(self) -> None:
        """Become who takes the next turn, with random numbers of its own."""
        while self._origins and self._origins[0][0] <= self.turn:
            self._origins.pop(0)
            run_id, workflow_id = self._itself
            if self._origins:
                run_id, workflow_id = UUID(self._origins[0][1]), self._origins[0][2]
            self._be(run_id, workflow_id)
            self.author_state.pop("random", None)

    def _be(self, run_id: UUID, workflow_id: str) -> None:
        self.run_id, self.workflow_id = run_id, workflow_id

    def waiting_on(self) -> list[dict[str, Any]]:
        """What the run waits for, for `explain`: kind, name, line and, where there is one, seq and until_us."""
        pending = self._pending
        if (
            not self._receivers
            and not self.conditions
            and not self.locals
            and len(pending) < SHOWN_WAITS
        ):
            return [operation.waiting() for operation in pending.values()]
        waits: list[Any] = [it for queue in self._receivers.values() for it in queue]
        waits += islice(self.locals.values(), SHOWN_WAITS)
        waits += self.conditions
        # A deadline is told by what it is the deadline of.
        waits += [
            it
            for it in islice(pending.values(), 2 * SHOWN_WAITS)
            if not getattr(it, "is_deadline", False)
        ]
        shown = [wait.waiting() for wait in waits[:SHOWN_WAITS]]
        more = len(pending) + len(self.conditions) + len(self.locals) - 2 * SHOWN_WAITS
        return [*shown, {"kind": "more", "name": f"over {more} more"}] if more > 0 else shown

    def warn(self, text: str) -> None:
        """Add to the next decision's warnings; silent in replay and after the end (C17)."""
        if self.replaying or self.gate:
            return
        self._warnings = self._warnings or []
        self._warnings.append(text)

    # -- effects of arrivals ----------------------------------------------------------------------------------------------

    def request_cancel(self, reason: str | None) -> None:
        """Deliver the one cancellation to the main task, where it waits (C9); in the first turn that is its first await."""
        main = self._main
        assert main is not None
        if self.cancel_requested:
            return
        self.cancel_requested = True
        self._cancel_reason = reason
        if inspect.getcoroutinestate(main.get_coro()) == inspect.CORO_CREATED:  # type: ignore[arg-type]
            self.loop.call_soon(main.cancel, reason)
        else:
            main.cancel(msg=reason)

    def deliver_signal(self, event: e.Event) -> None:
        """To whoever waits longest, else into the buffer (C11)."""
        if not self._hand_over(event):
            self._buffer(event.body["name"]).append(event)

    def return_signal(self, event: e.Event) -> None:
        """Undo a delivery: it is the next one again."""
        if not self.gate and not self._hand_over(event):
            self._buffer(event.body["name"]).appendleft(event)

    def _buffer(self, name: str) -> deque[e.Event]:
        """The signals of this name that wait to be received, for one more."""
        self._buffered = self._buffered or {}
        return self._buffered.setdefault(name, deque())

    def _hand_over(self, event: e.Event) -> bool:
        name = event.body["name"]
        receivers = self._receivers.get(name)
        if not receivers:
            return False
        receiver = receivers.pop(0)
        if not receivers:
            del self._receivers[name]
        receiver.deliver(event)
        return True

    def expects_local(self, body: dict[str, Any]) -> bool:
        """Whether an outcome is that of a local activity which the code has called, as it called it."""
        future = self.locals.get(body["id"])
        if future is None:
            return body["id"] in self._locals_given_up
        return future.is_meant_by(body)

    def called_locally(self, event: e.Event) -> LocalFuture[Any] | None:
        """The call that a local activity's event is about; None if the code gave it up. Raises NondeterminismError if there is none."""
        call_id = event.body["id"]
        if call_id in self.locals:
            return self.locals.pop(call_id)
        if call_id not in self._locals_given_up:
            raise lost_track_of(event)
        return None

    def make_due(self, future: LocalFuture[Any]) -> None:
        """Have the worker run a local activity's next attempt."""
        self.locals = self.locals or {}
        self.locals[future.id] = future

    def give_up_local(self, future: LocalFuture[Any]) -> None:
        """Its outcome, if there will be one, is only evidence."""
        if self.locals:
            self.locals.pop(future.id, None)
        self._locals_given_up = self._locals_given_up or set()
        self._locals_given_up.add(future.id)

    # -- the author's side: what the author API calls ---------------------------------------------------------------------

    def start_activity(
        self, plan: ActivityPlan, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> ActivityFuture[Any]:
        """Command an activity. Raises PayloadError when the arguments cannot be stored, LimitExceeded when too much is pending."""
        if self.gate:
            return self._refuse(ActivityFuture)
        if len(self._pending) + len(self._commands) >= MAX_PENDING:
            self._refuse_too_many("activity")
        name, template, arguments, cancellation, chosen_id = plan
        payload = arguments.encode(args, kwargs)
        body = template.copy()
        body["id"] = call_id = (
            self._next_id(name) if chosen_id is None else self._choose_id(chosen_id)
        )
        if not self.replaying:  # there the text itself is compared
            body["digest"] = digest(payload)
        body["line"] = line = source_line(3)
        command = Command(e.ACTIVITY_SCHEDULED, body, payload, line)
        future: ActivityFuture[Any] = ActivityFuture(
            self, name, call_id, arguments.result, cancellation, command
        )
        command.operation = future
        self._commands.append(command)
        return future

    def call_locally(
        self, plan: LocalPlan, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> LocalFuture[Any]:
        """Have the worker run an activity itself. Raises PayloadError when the arguments cannot be stored."""
        if self.gate:
            return self._refuse(LocalFuture)
        target, template, cancellation, chosen_id = plan
        payload = target.arguments.encode(args, kwargs)
        line = source_line(3)
        call_id = self._next_id(target.name) if chosen_id is None else self._choose_id(chosen_id)
        body = {**template, "id": call_id, "digest": "", "line": line}
        future = LocalFuture[Any](
            self, target, cancellation, Command(LOCAL_ACTIVITY, body, payload, line)
        )
        self.make_due(future)
        return future

    def start_child(
        self, plan: ChildPlan, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> ChildFuture[Any]:
        """Command a child workflow. Raises PayloadError when the arguments cannot be stored, InvalidOption for an id too long."""
        if self.gate:
            return self._refuse(ChildFuture)
        if len(self._pending) + len(self._commands) >= MAX_PENDING:
            self._refuse_too_many("child workflow")
        payload = plan.arguments.encode(args, kwargs)
        workflow_id = plan.workflow_id or self._name_child(plan.name)
        if len(workflow_id) > LONGEST_WORKFLOW_ID:
            raise InvalidOption(
                f"the child's id would have {len(workflow_id)} characters; give it one of at most {LONGEST_WORKFLOW_ID}"
                f" with {plan.name}.options(id=...)"
            )
        line = source_line(3)
        body = {**plan.body, "workflow_id": workflow_id, "digest": "", "line": line}
        if not self.replaying:
            body["digest"] = digest(payload)
        command = Command(e.CHILD_STARTED, body, payload, line)
        command.operation = future = ChildFuture[Any](
            self, plan.name, workflow_id, plan.arguments.result, plan.cancellation, command
        )
        future.retry = plan.retry
        self._commands.append(command)
        return future

    def continue_as_new(
        self,
        name: str,
        version: int,
        arguments: ArgumentsCodec,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> NoReturn:
        """End the run here, for a successor. Raises PayloadError when the arguments cannot be stored."""
        if self.gate:
            self._refuse(ContinueAsNew)
        raise ContinueAsNew(name, version, arguments.encode(args, kwargs))

    def patched(self, patch_id: str, *, deprecated: bool = False) -> bool:
        """Whether the run has the change: answered once, live by yes, in replay by whether this turn holds the mark."""
        answer = self._patches.get(patch_id)
        if answer is None:
            if self.gate:
                self._refuse(bool)
                return False
            self._patches = self._patches or {}
            answer = self._patches[patch_id] = not self.replaying or self._is_marked(patch_id)
            if answer:
                body: dict[str, Any] = {"id": patch_id, "line": (line := source_line(2))}
                if deprecated:
                    body["deprecated"] = True
                self._commands.append(Command(e.PATCH_RECORDED, body, None, line))
        return answer

    def _is_marked(self, patch_id: str) -> bool:
        history, begin, end = self._replayed
        return any(
            row.type == e.PATCH_RECORDED and row.body["id"] == patch_id
            for row in islice(history, begin, end)
        )

    def follows(self, rule: str) -> bool:
        """Whether this run was started under a semantics version that has the rule (C16)."""
        return semantics.holds(rule, self._semantics)

    def is_idle(self) -> bool:
        """Whether the calling main task is all there is: to end the run here would leave nothing unfinished."""
        others = [it for it in self.loop.tasks() if it is not self._main and not it.done()]
        started = any(it.operation is not None and not it.struck for it in self._commands)
        waits = self._pending or self.conditions or self._receivers or self.locals
        return not (others or started or waits)

    def unread_signals(self) -> list[int]:
        """The numbers of the signals that arrived and that nobody has received."""
        return sorted(it.seq for buffered in self._buffered.values() for it in buffered)

    def _name_child(self, name: str) -> str:
        """Unlike that of any child of this run, and of the runs that this one continues: those may still be open."""
        times = self.start.get("continued", 0)
        before = f"{self.workflow_id}/{times}" if times else self.workflow_id
        return f"{before}/{self._next_id(name)}"

    def start_timer(
        self, delay_us: int, reason: str, action: Callable[[], Any], line: str | None = None
    ) -> Timer:
        """Command a timer that will call `action` in the turn in which it fires."""
        if self.gate:
            return self._refuse(Timer)
        if len(self._pending) + len(self._commands) >= MAX_PENDING:
            self._refuse_too_many("timer")
        if delay_us > LONGEST_US:
            raise InvalidOption(
                f"a timer of {delay_us / 1e6:,.0f} seconds; give at most a hundred years"
            )
        fire_at_us = self.now_us + delay_us
        where = source_line(3) if line is None else line
        command = Command(
            e.TIMER_STARTED,
            {"fire_at_us": fire_at_us, "reason": reason, "line": where},
            None,
            where,
        )
        command.operation = timer = Timer(self, fire_at_us, reason, action, command)
        self._commands.append(command)
        return timer

    def sleep(self, delay_us: int) -> TimerFuture:
        """A future that a timer completes; without a delay it completes once other tasks have run."""
        if self.gate:
            return self._refuse(TimerFuture)
        line = source_line(3)
        future = TimerFuture(self, line)
        future.timer = None
        if delay_us > 0:
            future.timer = self.start_timer(delay_us, "sleep", future.wake, line)
        else:
            self.loop.call_soon(future.wake)
        return future

    def receive(self, name: str, codec: ValueCodec, timeout_us: int | None) -> SignalFuture[Any]:
        """The next signal of this name, from the buffer or when it comes."""
        if self.gate:
            return self._refuse(SignalFuture)
        future: SignalFuture[Any] = SignalFuture(self, name, codec, source_line(3))
        if buffered := self._buffered.get(name):
            event = buffered.popleft()
            if not buffered:
                del self._buffered[name]
            self._read(future, event)
        else:
            self._receivers = self._receivers or {}
            self._receivers.setdefault(name, []).append(future)
            future.set_deadline(timeout_us)
        return future

    def _read(self, future: SignalFuture[Any], event: e.Event) -> None:
        """Deliver from within author code; what cannot be read parks the run, whatever that code catches (C8)."""
        try:
            future.deliver(event)
        except PayloadError as error:
            self.spoil(error)
            raise Evicted(self.gate) from error

    def spoil(self, error: Exception) -> None:
        """Nothing of this turn will be kept: `error` comes out of it, whatever author code does, and parks the run (C8)."""
        if self._reading:
            return  # the error goes to whoever asked
        self._poison = self._poison or error
        self.gate = "this turn is spoilt, and the run will be parked"

    def signals_buffered(self, name: str) -> int:
        """How many signals of this name wait to be received."""
        return len(self._buffered.get(name, ()))

    def stop_receiving(self, future: SignalFuture[Any]) -> None:
        """Take a receiver out of the queue."""
        if receivers := self._receivers.get(future.name):
            receivers.remove(future)
            if not receivers:
                del self._receivers[future.name]

    def wait_until(self, predicate: Callable[[], Any], timeout_us: int | None) -> ConditionFuture:
        """A future that completes as soon as the predicate holds; asked now, and whenever the loop is quiet."""
        if self.gate:
            return self._refuse(ConditionFuture)
        future = ConditionFuture(self, predicate, source_line(3))
        if not future.check():
            self.conditions = self.conditions or []
            self.conditions.append(future)
            future.set_deadline(timeout_us)
        return future

    def asking(self, context: contextvars.Context, predicate: Callable[[], Any]) -> Any:
        """Call a predicate; it must only read."""
        self.gate = "a wait_until predicate must only read state; it may not start or cancel anything durable"
        self._asking = True
        try:
            return context.run(predicate)
        finally:
            self.gate = ""
            self._asking = False

    def read_only(
        self,
        rule: str,
        context: contextvars.Context,
        fn: Callable[..., T],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> T:
        """Call author code that may look at the run but not touch it. Raises ReadOnlyViolation where it tries to."""
        loop, closed = self.loop, _ClosedQueue(rule)
        gate, asking, created, queue = (
            self.gate,
            self._asking,
            loop.created,
            loop.swap_queue(closed),
        )
        self.gate, self._asking, self._reading = rule, True, True
        try:
            return context.copy().run(fn, *args, **kwargs)
        finally:
            self.gate, self._asking, self._reading = gate, asking, False
            loop.created = created
            loop.swap_queue(queue)
            self.tainted = self.tainted or closed.touched

    def registry(self) -> Handlers:
        """Where the run's queries and updates are registered. Raises ReadOnlyViolation in a query or predicate."""
        if self.gate:
            self._refuse(Handlers)
        if self.handlers is None:
            self.handlers = Handlers(self)
        return self.handlers

    def settle_conditions(self) -> bool:
        """Ask all conditions; whether any was settled."""
        still = [condition for condition in self.conditions if not condition.check()]
        changed = len(still) != len(self.conditions)
        self.conditions = still or NO_ITEMS
        return changed

    def remember_unclaimed(self, future: DurableFuture[Any]) -> None:
        """It has ended and nobody has asked for it; at the end of the run that is worth a warning."""
        if len(self._unclaimed) >= self._unclaimed_limit:
            self._unclaimed = [it for it in self._unclaimed if not it.observed]
            self._unclaimed_limit = 2 * len(self._unclaimed) + 16
        self._unclaimed = self._unclaimed or []
        self._unclaimed.append(future)

    def is_inert(self) -> bool:
        """Whether cancelling tells nobody, because the run is being torn down. Raises in a predicate."""
        if self._asking:
            raise ReadOnlyViolation(self.gate)
        return bool(self.gate)

    def emit(self, command: Command) -> None:
        """Add a command that opens nothing."""
        self._commands.append(command)

    def note(self, type: str, body: dict[str, Any]) -> None:
        """Command a note about the run: attributes, details."""
        if self.gate:
            self._refuse(Command)
        line = source_line(2)
        self._commands.append(Command(type, {**body, "line": line}, None, line))

    def _refuse_too_many(self, what: str) -> NoReturn:
        raise LimitExceeded(
            f"one more {what}, with {len(self._pending):,} operations pending",
            MAX_PENDING,
            "Await some before starting more, or spread the work over child workflows.",
        )

    def forget(self, seq: int) -> None:
        """An operation was given up: its closing event will only be evidence."""
        self._pending.pop(seq, None)

    def elapsed_us(self) -> int:
        """Since the run started, by the turn's clock."""
        return self.now_us - self.started_us

    def _next_id(self, name: str) -> str:
        counts = self._counts
        while True:
            counts[name] = count = counts.get(name, 0) + 1
            call_id = f"{name}-{count}"
            if call_id not in self._chosen_ids:
                return call_id

    def _choose_id(self, call_id: str) -> str:
        name, _, number = call_id.rpartition("-")
        taken = call_id in self._chosen_ids or (
            number.isdecimal() and 0 < int(number) <= self._counts.get(name, 0)
        )
        if taken:
            raise InvalidOption(
                f"id={call_id!r} was already used in this run; an id names one activity call"
            )
        self._chosen_ids = self._chosen_ids or set()
        self._chosen_ids.add(call_id)
        return call_id

    def _refuse(self, kind: type[T]) -> T:
        """No durable call now: raise, or after many refusals give something that never completes (see loop.py)."""
        if self._asking:
            raise ReadOnlyViolation(self.gate)
        self._refused += 1
        if self._refused <= _REFUSALS:
            raise Evicted(self.gate)
        return cast("T", NeverFuture(self, kind.__name__))
