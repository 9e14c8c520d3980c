"""What workflow code may call: time, randomness, waiting. All of it answers the same on replay (C13)."""

from __future__ import annotations

import asyncio
import random as _random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn, TypeVar
from uuid import UUID

from durable.context import rebuilt, rebuilt_headers
from durable.core import fiber
from durable.core.durations import duration_us
from durable.core.futures import DurableFuture
from durable.core.history_length import LONG_HISTORY
from durable.core.loop import apart, current, current_task
from durable.core.run import Run
from durable.errors import NotInWorkflow

T = TypeVar("T")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class WorkflowInfo:
    """What a run knows about itself; `durable.info()`.

    `history_length` is the number of events at the beginning of this turn; from 10,000 on it is `continue_as_new_suggested`.
    `is_replaying` is for logging only: code that
    decides by it is not deterministic. `schedule_id` and `scheduled_for` are those of the slot that started the run; None for others.
    """

    workflow_id: str
    run_id: UUID
    workflow: str
    version: int
    queue: str
    priority: int
    actor: Any
    headers: dict[str, Any]
    started_at: datetime
    history_length: int
    is_replaying: bool
    continue_as_new_suggested: bool
    schedule_id: str | None = None
    scheduled_for: datetime | None = None


def _run(call: str) -> Run:
    run = current()
    if run is None:
        raise NotInWorkflow(
            f"durable.{call} works inside a workflow only, and no workflow is calling"
        )
    return run


def _instant(at_us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=at_us)


def in_workflow() -> bool:
    """Whether workflow code is calling."""
    return current() is not None


def info() -> WorkflowInfo:
    """Facts about the calling run. Raises NotInWorkflow outside a workflow, like everything here."""
    run = _run("info()")
    start = run.start
    slot = start.get("schedule") or {}
    return WorkflowInfo(
        workflow_id=run.workflow_id,
        run_id=run.run_id,
        workflow=run.definition.name,
        version=run.version,
        queue=run.defaults.queue,
        priority=run.defaults.priority,
        actor=rebuilt(start.get("actor")),
        headers=rebuilt_headers(start.get("headers")),
        started_at=_instant(run.started_us),
        history_length=run.last_seq,
        is_replaying=run.replaying,
        continue_as_new_suggested=run.last_seq >= LONG_HISTORY,
        schedule_id=slot.get("id"),
        scheduled_for=_instant(slot["slot_us"]) if slot else None,
    )


def actor() -> Any:
    """Who started the run, as the client said; `current_actor()` says it anywhere."""
    return rebuilt(_run("actor()").start.get("actor"))


def now() -> datetime:
    """The time of this turn, in UTC. It stands still until the workflow waits."""
    return _instant(_run("now()").now_us)


def time() -> float:
    """The time of this turn, in seconds since the epoch."""
    return _run("time()").now_us / 1_000_000


def random() -> _random.Random:
    """The run's random generator, seeded by its id: always the same one within a run."""
    run = _run("random()")
    run.is_inert()  # drawing moves the generator on: a query may not
    state = run.author_state
    if "random" not in state:
        state["random"] = _random.Random(run.run_id.int)  # noqa: S311
    generator: _random.Random = state["random"]
    return generator


def uuid4() -> UUID:
    """A UUID from the run's random generator."""
    _run("uuid4()")
    return UUID(int=random().getrandbits(128), version=4)


def continue_as_new(*args: Any, **kwargs: Any) -> NoReturn:
    """End this run and start the same workflow anew with these arguments, under the same id and with an empty history.

    `this_workflow.continue_as_new(...)` does the same with checked types, and may name another version. Signals that nobody has
    received and an undelivered cancel go along; so do queue, priority, actor, headers, attributes and memo. Activities and timers that
    are still pending end with this run; its children go on by themselves, and their results go nowhere (C15). Results and
    handles follow. Raises PayloadError when the arguments do not fit.
    """
    run = _run("continue_as_new()")
    definition, version = run.definition, run.version
    run.continue_as_new(definition.name, version, definition.arguments, args, kwargs)


def checkpoint(*args: Any, **kwargs: Any) -> None:
    """Continue as new with these arguments if the history has become long, and this is a safe point; else do nothing.

    For loops that never end: `durable.checkpoint(total)` at the end of each round, with the workflow's own arguments as they should now
    be. Safe means that nothing would be lost: no activity, timer, child or other task of the run is under way. Signals that nobody has
    received go along. Otherwise the next call looks again. Raises PayloadError when the arguments do not fit.
    """
    run = _run("checkpoint()")
    if run.last_seq >= LONG_HISTORY and run.is_idle():
        continue_as_new(*args, **kwargs)


def sleep(duration: timedelta | float) -> DurableFuture[None]:
    """Wait durably: `await durable.sleep(timedelta(days=3))`, or seconds. Survives restarts; holds no worker meanwhile.

    In a plain `def` workflow the call itself waits. Zero or less only lets other tasks run. Raises InvalidOption if
    the duration is not finite or longer than a century.
    """
    return _waited(_run("sleep()").sleep(duration_us("duration", duration)))


def wait_until(
    predicate: Callable[[], Any], timeout: timedelta | float | None = None
) -> DurableFuture[None]:
    """Wait until `predicate()` is true; it is asked whenever something has happened in the run, and must only read.

    In a plain `def` workflow the call itself waits. Raises TimeoutError when it is still false after `timeout` (a
    timedelta, or seconds), and whatever the predicate raises.
    """
    timeout_us = None if timeout is None else duration_us("timeout", timeout)
    return _waited(_run("wait_until()").wait_until(predicate, timeout_us))


def _waited(future: DurableFuture[None]) -> DurableFuture[None]:
    """In the blocking style a call that gives no value waits by itself: nobody would think of `.result()`."""
    if fiber.on_fiber():
        future.result()
    return future


def wait(awaitable: Awaitable[T]) -> T:
    """In a plain `def` workflow: wait for any awaitable, `durable.wait(asyncio.gather(a, b))`.

    Raises NotInWorkflow elsewhere, where `await` or `yield` does the same.
    """
    _run("wait()")
    result: T = fiber.block(apart(awaitable) if current_task().masks else awaitable)
    return result


shield = asyncio.shield
gather = asyncio.gather
