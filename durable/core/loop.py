"""The deterministic event loop: plain asyncio code that runs the same way every time.

The problem. A workflow is an ordinary coroutine with gather, timeouts, locks and task groups. Replay must run it again, in
another process, weeks later, and every callback must run in the same order. asyncio's own loop asks the operating
system for the time and for ready sockets, so its order is an accident.

What does not work. A loop that only swaps the clock: asyncio keeps tasks in *sets* (`wait`, `as_completed`, `TaskGroup`),
sets iterate by hash, and the default hash is a memory address. Re-implementing gather and friends over lists: authors
import asyncio's, libraries do too. Sandboxing the module: proxies leak and cost more than the work itself. One shared
loop for all runs: `loop.time()`, the ready queue and the current task would belong to nobody.

The solution. One loop object per run, made only of what CPython's own Task, Future, Handle and TimerHandle ask for: a first-in
first-out queue, `call_later` as a durable timer, a frozen clock. Tasks and futures are subclasses whose hash is a creation
number, so sets of them iterate by creation and not by address. The loop never waits: `run_until_quiet` drains the queue,
asks the conditions, and returns; what happens next arrives as an event. While a turn runs, it is *the running loop* of the
thread, and afterwards the outer one is put back, because the worker itself lives on asyncio. Activate runs from a plain
callback of the outer loop, never inside one of its tasks (CPython 3.14 keeps one current task per thread).

`as_completed` puts bare coroutines into a set before it makes tasks of them; their order would be lost before we see them.
`create_task` notices that caller and makes the tasks in the order of the list that the author passed.

What can still fail. Objects that only `gather()` makes (its combined future) hash by address; a set of those iterates
at random. Replay's comparison (C13) then reports it. A callback that never returns cannot be interrupted from here: the
worker's watchdog does. One that always schedules another is stopped after `STEP_LIMIT` steps.
"""

from __future__ import annotations

import asyncio
import ctypes
import sys
from asyncio.events import _get_running_loop, _set_running_loop
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar
from uuid import UUID

from durable.core import guard
from durable.core.commands import drain_code
from durable.core.durations import duration_us
from durable.core.nothing import NO_ITEMS, NO_KEYS
from durable.core.stacks import stack_of
from durable.errors import BlockingCall, Evicted

if TYPE_CHECKING:
    from durable.core.futures import Timer
    from durable.core.run import Run

T = TypeVar("T")

Outer = tuple[Any, Any]
"""The running loop and the hooks of whoever called us."""

STEP_LIMIT = 100_000
"""Callbacks in one turn, plus ten for each event of the turn, before the run counts as spinning."""

_STUBBORN_THROWS = 100
"""How often a dying coroutine may suspend again before it is left suspended for ever."""


class OrderedFuture(asyncio.Future[T]):
    """CPython's future, hashed by a number instead of its address."""

    __slots__ = ("number",)

    def __init__(self, loop: DeterministicLoop) -> None:
        _init_future(self, loop=loop)
        loop.created = self.number = loop.created + 1

    def __hash__(self) -> int:
        return self._loop.hash_base + self.number  # type: ignore[attr-defined, no-any-return]


_init_future: Callable[..., None] = asyncio.Future.__init__


class DurableTask(asyncio.Task[T]):
    """CPython's task, hashed by a number, and able to hold a cancellation back while a saga compensates (C9)."""

    __slots__ = ("held", "masks", "number")

    def __init__(self, coro: Any, loop: DeterministicLoop, name: str | None, context: Any) -> None:
        loop.created = number = loop.created + 1
        self.number = loop.hash_base + number  # first: registering the task asks for its hash
        self.masks = 0
        self.held: list[Any] = NO_ITEMS
        super().__init__(coro, loop=loop, name=name or f"task-{loop.created}", context=context)
        self._log_destroy_pending = False

    def __hash__(self) -> int:
        return self.number

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel as asyncio does, or keep the request until `unmask()`."""
        if self.masks and not self.done():
            self.held = self.held or []
            self.held.append(msg)
            return True
        return super().cancel(msg)

    def mask(self) -> None:
        """Hold cancellations back from now on; nests."""
        self.masks += 1

    def unmask(self) -> bool:
        """Undo one `mask()`. True if a held cancellation is now due: it is raised at the next suspension."""
        self.masks -= 1
        if self.masks or not self.held:
            return False
        held, self.held = self.held, NO_ITEMS
        for msg in held:
            super().cancel(msg)
        return True


def apart(awaitable: Awaitable[T]) -> Awaitable[T]:
    """A coroutine as a task of its own, so that timeouts inside it reach it although the calling task is masked."""
    if asyncio.iscoroutine(awaitable):
        return asyncio.ensure_future(awaitable)
    return awaitable


class DurableTimerHandle(asyncio.TimerHandle):
    """What `call_later` returns; its timer is durable."""

    __slots__ = ("timer",)

    timer: Timer | None


class DeterministicLoop(asyncio.AbstractEventLoop):
    """The loop of one run. `created` counts its tasks and futures."""

    def __init__(self, run: Run) -> None:
        guard.install(current)
        self.run = run
        self.created = 0
        # The low bits are the creation number, so small sets iterate by creation; the high bits keep asyncio's
        # process-wide sets of tasks from piling ten thousand runs' first tasks into one bucket.
        self.hash_like(run.run_id)
        self._ready: list[asyncio.Handle] = []  # a deque would hold 600 bytes for a parked run
        self._tasks: list[
            DurableTask[Any]
        ] = []  # strong: asyncio holds tasks weakly, and the GC has no order
        self._tasks_limit = 16
        self._asyncgens: list[AsyncGenerator[Any, Any]] = NO_ITEMS
        self._asyncgens_limit = 16
        self._early: dict[Any, DurableTask[Any]] = NO_KEYS

    def hash_like(self, run_id: UUID) -> None:
        """Have tasks hash as those of this run; before the first one."""
        self.hash_base = (run_id.int & (2**40 - 1)) << 20

    # -- running ------------------------------------------------------------------------------------------------------

    def enter(self) -> Outer:
        """Become the thread's running loop; the answer is for `leave`."""
        outer = (_get_running_loop(), sys.get_asyncgen_hooks())
        _set_running_loop(self)
        sys.set_asyncgen_hooks(self._keep_asyncgen, _leave_asyncgen)
        return outer

    @staticmethod
    def leave(outer: Outer) -> None:
        """Put the outer loop back."""
        loop, hooks = outer
        sys.set_asyncgen_hooks(*hooks)
        _set_running_loop(loop)

    def run_until_quiet(self, events: int) -> None:
        """Run callbacks and re-check conditions until neither gives anything more to do."""
        limit = self._drain(STEP_LIMIT + 10 * events)
        while self.run.conditions and self.run.settle_conditions():
            limit = self._drain(limit)

    def run_queue(self, events: int) -> None:
        """Run callbacks alone; no condition is checked."""
        self._drain(STEP_LIMIT + 10 * events)

    def swap_queue(self, queue: Any) -> Any:
        """Put another queue of callbacks in place, and return the one that was there."""
        before, self._ready = self._ready, queue
        return before

    def _drain(self, limit: int) -> int:
        """Run callbacks until none is left, at most `limit`; what is left of the limit."""
        ready = self._ready
        while ready:
            handles: list[Any] = ready[:]
            ready.clear()
            for handle in handles:
                if handle._cancelled:
                    continue
                try:
                    handle._context.run(handle._callback, *handle._args)
                except KeyboardInterrupt:
                    raise
                except (SystemExit, Evicted):  # already recorded, by its task or by the execution
                    pass
                except BaseException as error:
                    self.call_exception_handler(
                        {"message": "a callback raised", "exception": error}
                    )
                limit -= 1
                if not limit:
                    self._refuse_to_spin(handle)
        return limit

    def _refuse_to_spin(self, handle: Any) -> NoReturn:
        task = getattr(handle._callback, "__self__", None)
        lines = stack_of(task.get_coro()) if isinstance(task, asyncio.Task) else []
        where = f" at {lines[-1]}" if lines else ""
        raise BlockingCall(
            f"the workflow took over {STEP_LIMIT:,} steps in one turn without waiting for anything durable{where}."
            " A loop around asyncio.sleep(0) spins for ever here: wait for an event, a signal or"
            " durable.wait_until(...) instead. The run is parked; deploy corrected code to resume it"
        )

    def tear_down(self) -> list[str]:
        """End all coroutines without running anything durable (C12). The lines of those that would not die."""
        alive = [task.get_coro() for task in self._tasks if not task.done()]
        survivors = self._kill_all(alive) if alive or self._asyncgens else []
        _alive.discard(self)
        self._tasks.clear()
        self._asyncgens = NO_ITEMS
        self._ready.clear()
        return survivors

    def _kill_all(self, coros: list[Any]) -> list[str]:
        survivors: list[str] = []
        outer = self.enter()
        try:
            for coro in coros:
                survivors += _kill(coro)
            for generator in self._asyncgens:
                survivors += _kill(
                    generator.athrow(Evicted("the run is being dropped from memory"))
                )
        finally:
            self.leave(outer)
        return survivors

    def tasks(self) -> list[DurableTask[Any]]:
        """All tasks that still matter: not done, or failed with nobody looking."""
        self._tasks = [task for task in self._tasks if not task.done() or task._log_traceback]
        return self._tasks

    def _keep_asyncgen(self, generator: AsyncGenerator[Any, Any]) -> None:
        if len(self._asyncgens) >= self._asyncgens_limit:
            self._asyncgens = [it for it in self._asyncgens if it.ag_frame is not None]  # type: ignore[attr-defined]
            self._asyncgens_limit = 2 * len(self._asyncgens) + 16
        self._asyncgens = self._asyncgens or []
        self._asyncgens.append(generator)

    # -- what Task, Future and Handle ask for -------------------------------------------------------------------------

    # Every future asks, and a call of bool() is the cheapest False.
    get_debug = staticmethod(bool)  # pyright: ignore[reportAssignmentType]

    def is_running(self) -> bool:
        return _get_running_loop() is self

    def is_closed(self) -> bool:
        return False

    def time(self) -> float:
        """Seconds since the run started, by the turn's frozen clock."""
        return self.run.elapsed_us() / 1_000_000

    def create_future(self) -> OrderedFuture[Any]:
        return OrderedFuture(self)

    def create_task(  # type: ignore[override]
        self,
        coro: Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: Any = None,
        **_eager: Any,
    ) -> DurableTask[T]:
        """A task that the loop keeps alive. `eager_start` of newer Pythons is ignored: one order for all versions."""
        if (caller := sys._getframe(1)).f_code in _ENSURE_FUTURE and (
            early := self._in_given_order(coro, caller)
        ):
            return early
        return self._new_task(coro, name, context)

    def _new_task(
        self, coro: Coroutine[Any, Any, T], name: str | None, context: Any
    ) -> DurableTask[T]:
        task: DurableTask[T] = DurableTask(coro, self, name, context)
        if len(self._tasks) >= self._tasks_limit:
            self._tasks_limit = 2 * len(self.tasks()) + 16
        _alive.add(self)
        self._tasks.append(task)
        return task

    def begin_task(self, coro: Coroutine[Any, Any, Any], name: str, context: Any) -> None:
        """A task whose first steps run now, before what waits in the queue. Not to be called from within a task."""
        self._new_task(coro, name, context)
        first: Any = self._ready.pop()
        first._context.run(first._callback, *first._args)

    def _in_given_order(self, coro: Any, frame: Any) -> DurableTask[Any] | None:
        """The task for `coro` if asyncio.as_completed wants it (see the essay)."""
        while frame is not None and frame.f_code in _ENSURE_FUTURE:
            frame = frame.f_back
        while frame is not None and frame.f_code.co_name == "<setcomp>":
            frame = frame.f_back
        if frame is None or frame.f_code is not _AS_COMPLETED:
            return None
        given = frame.f_locals.get("aws", frame.f_locals.get("fs"))
        if not isinstance(given, list | tuple | dict):
            raise BlockingCall(
                f"as_completed got a {type(given).__name__} of coroutines, whose order is lost before a task exists;"
                " pass a list, or tasks made with asyncio.create_task"
            )
        return self._tasks_in_order(given, coro)

    def _tasks_in_order(self, given: Any, wanted: Any) -> DurableTask[Any]:
        if not self._early:
            distinct = dict.fromkeys(item for item in given if asyncio.iscoroutine(item))
            self._early = {item: self._new_task(item, None, None) for item in distinct}
        if wanted not in self._early:
            raise BlockingCall(
                "as_completed got an awaitable that is neither a coroutine nor a future, and would lose its order;"
                " pass tasks made with asyncio.create_task"
            )
        return self._early.pop(wanted)

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: Any = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        return self._call_after_us(duration_us("delay", delay), callback, args, context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        return self._call_after_us(duration_us("when", when - self.time()), callback, args, context)

    def _call_after_us(
        self, delay_us: int, callback: Callable[..., Any], args: tuple[Any, ...], context: Any
    ) -> asyncio.TimerHandle:
        when = self.time() + delay_us / 1_000_000
        handle = DurableTimerHandle(when, callback, args, self, context)
        handle.timer = None
        if delay_us <= 0:
            self._ready.append(handle)
        else:
            handle.timer = self.run.start_timer(
                delay_us, "call_later", partial(self._ready.append, handle)
            )
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        timer = getattr(handle, "timer", None)
        if timer is not None:
            timer.cancel()

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """asyncio reports here what nobody retrieved; it becomes a warning of the run, never a log line."""
        error = context.get("exception")
        detail = f": {error!r}" if error is not None else ""
        self.run.warn(f"{context.get('message')}{detail}")

    async def shutdown_asyncgens(self) -> None:
        return None


_alive: set[DeterministicLoop] = set()
"""Every loop with tasks, until it is torn down. A loop that was merely dropped would have its coroutines closed by the garbage
collector, at any moment, and what they call in their `finally` would count as calls of the run that is active just then."""


def _leave_asyncgen(_generator: AsyncGenerator[Any, Any]) -> None:
    """The GC found an unfinished generator of a run that is gone: leave it, running it would not be inert."""


def _kill(coro: Any) -> list[str]:
    """Throw Evicted into a coroutine until it ends; leak it if it never does.

    A coroutine that catches everything in a loop would do so again when the garbage collector closes it, then without
    a loop to refuse its calls, and spin for ever. So it is kept suspended: one reference that is never given back.
    """
    for _ in range(_STUBBORN_THROWS):
        try:
            coro.throw(Evicted("the run is being dropped from memory"))
        except BaseException:  # however it ended, it ended; nobody is left to be told
            return []
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(coro))
    return stack_of(coro)[-1:] or ["?"]


def current() -> Run | None:
    """The run whose code is calling, or None outside workflows."""
    loop = _get_running_loop()
    return loop.run if type(loop) is DeterministicLoop else None


def current_task() -> DurableTask[Any]:
    """The task whose code is calling; only inside a workflow."""
    task = asyncio.current_task()
    assert isinstance(task, DurableTask)
    return task


_REPLACEMENTS = {
    "run_in_executor": "an activity (a sync activity runs in a thread)",
    "set_default_executor": "an activity",
    "call_soon_threadsafe": "a signal",
    "run_forever": "`await`",
    "run_until_complete": "`await`",
    "add_signal_handler": "a durable Signal",
    "remove_signal_handler": "a durable Signal",
    **dict.fromkeys(
        [
            "create_connection",
            "create_server",
            "create_unix_connection",
            "create_unix_server",
            "create_datagram_endpoint",
            "connect_accepted_socket",
            "connect_read_pipe",
            "connect_write_pipe",
            "subprocess_exec",
            "subprocess_shell",
            "sendfile",
            "start_tls",
            "getaddrinfo",
            "getnameinfo",
            "add_reader",
            "remove_reader",
            "add_writer",
            "remove_writer",
            "sock_recv",
            "sock_recv_into",
            "sock_recvfrom",
            "sock_recvfrom_into",
            "sock_sendall",
            "sock_sendto",
            "sock_connect",
            "sock_accept",
            "sock_sendfile",
        ],
        "an activity",
    ),
}


def _forbidden(name: str, replacement: str) -> Callable[..., NoReturn]:
    def refuse(self: DeterministicLoop, *_args: Any, **_kwargs: Any) -> NoReturn:
        what = f"{name} of the event loop leaves the run"
        raise guard.violation(self.run, what, replacement, sys._getframe(1))

    return refuse


for _name, _replacement in _REPLACEMENTS.items():
    setattr(DeterministicLoop, _name, _forbidden(_name, _replacement))

_ENSURE_FUTURE = frozenset(
    fn.__code__
    for name in ("ensure_future", "_ensure_future")
    if (fn := getattr(asyncio.tasks, name, None)) is not None
)
_AS_COMPLETED_ITERATOR: Any = getattr(asyncio.tasks, "_AsCompletedIterator", None)  # since 3.13
_AS_COMPLETED = (
    _AS_COMPLETED_ITERATOR.__init__ if _AS_COMPLETED_ITERATOR else asyncio.as_completed
).__code__
drain_code.add(DeterministicLoop._drain.__code__)
