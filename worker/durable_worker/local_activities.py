"""Local activities: run in this process, beside the run that called them (see durable/core/local.py).

What is due is a function of the run's history: `sync` compares it with what runs here, after each commit of the run and after a replay. So an activity
begins only when the turn that called it is written (C3; the first turn alone may wait for the first outcome), and ends without a
trace when its run is dropped: whoever owns the run next runs it again.

Each has a slot while its function runs, `local_slots` in all, so that a wide fan-out takes turns. Short back-off is waited out here, without a slot; a long
one goes to the run, which starts a durable timer.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from durable import activity_context
from durable.activity_context import ActivityCancelledError, ActivityContext, ActivityInfo
from durable.activity_outcomes import ActivityOutcome, Cancel, Snooze
from durable.context import rebuilt, rebuilt_headers
from durable.core.events import (
    LOCAL_ACTIVITY_BACKED_OFF,
    LOCAL_ACTIVITY_COMPLETED,
    LOCAL_ACTIVITY_FAILED,
    Message,
)
from durable.core.local import LocalFuture
from durable.core.nothing import NO_KEYS
from durable.core.policy import RetryPolicy, delay_s, merge, why_final
from durable.failure import encode_failure
from durable.interceptors import ActivityExecution, attempting
from durable.job_errors import JobCancelled
from durable_worker.clock import DatabaseClock
from durable_worker.faults import reach
from durable_worker.runs import LiveRun

LONGEST_WAIT_S = 5.0
"""A longer back-off is a durable timer's."""

_LOOK_S = 1.0
"""What runs through a whole interval of this length is shown in `waiting_on`."""


class LocalAttempt:
    """A local activity that is due, from its first attempt here to its outcome."""

    __slots__ = (
        "cancelled",
        "context",
        "delivered",
        "future",
        "lost",
        "number",
        "run",
        "seen",
        "task",
        "thread",
        "timed_out",
        "timer",
    )  # fmt: skip

    def __init__(self, run: LiveRun, future: LocalFuture[Any]) -> None:
        self.run = run
        self.future = future
        self.number = future.attempt
        self.context: ActivityContext | None = None
        self.task: asyncio.Task[None] | None = None
        self.thread: Future[Any] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.timed_out: str | None = None
        self.cancelled = False  # the code asked for its end, and waits for it
        self.lost = False  # nobody wants the outcome
        self.delivered = False
        self.seen = False  # running when somebody looked

    def is_told_to_stop(self) -> bool:
        """What `durable.heartbeat()` asks."""
        return self.cancelled or self.lost or self.timed_out is not None


class LocalActivities:
    """Runs what runs of this worker have called locally."""

    def __init__(
        self,
        clock: DatabaseClock,
        slots: int,
        *,
        deliver: Callable[[LiveRun, Message], None],
        show: Callable[[LiveRun], None],
    ) -> None:
        self._clock = clock
        self._slots = slots
        self._deliver = deliver
        self._show = show
        self._looking: asyncio.TimerHandle | None = None
        self._waiting: deque[LocalAttempt] = deque()
        self._running: set[LocalAttempt] = set()
        self._threads = ThreadPoolExecutor(max_workers=slots, thread_name_prefix="durable-local")
        self.starting = True
        self.idle = asyncio.Event()
        self.idle.set()

    def __len__(self) -> int:
        return len(self._running)

    # -- what is due ------------------------------------------------------------------------------

    def sync(self, run: LiveRun) -> None:
        """Begin what is due and does not run, stop what nobody waits for any more."""
        run.locals = run.locals or {}
        due, here = run.execution.locals, run.locals
        for call_id in [it for it, attempt in here.items() if due.get(it) is not attempt.future]:
            attempt = here.pop(call_id)
            if not attempt.delivered and attempt.future.cancellation != "abandon":
                self._stop(attempt)
        for call_id, future in due.items():
            known = here.get(call_id)
            if known is None and self.starting:
                here[call_id] = attempt = LocalAttempt(run, future)
                self._enqueue(attempt)
            elif known is not None and future.is_to_end:
                self._cancel(known)

    def stop(self, run: LiveRun) -> None:
        """The run is dropped or closed: nothing of it runs on here."""
        attempts, run.locals = list(run.locals.values()), NO_KEYS
        for attempt in attempts:
            self._stop(attempt)

    def hurry(self) -> None:
        """Stop everything that runs (second SIGTERM); the runs are given back, and others begin again."""
        for attempt in list(self._running):
            self._stop(attempt)

    def close(self) -> None:
        """Take no more thread work."""
        if self._looking is not None:
            self._looking.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _stop(self, attempt: LocalAttempt) -> None:
        attempt.lost = True
        self._interrupt(attempt)

    def _cancel(self, attempt: LocalAttempt) -> None:
        """Ask an attempt to end (C9): an async one is cancelled, a thread learns it at its next heartbeat; one that waits ends here."""
        if attempt.cancelled or attempt.delivered:
            return
        attempt.cancelled = True
        if attempt.task is None:
            self._give_up(attempt)
        elif attempt.future.target.is_async:
            self._interrupt(attempt)

    def _give_up(self, attempt: LocalAttempt) -> None:
        if attempt.timer is not None:
            attempt.timer.cancel()
        failure = encode_failure(asyncio.CancelledError("the workflow has cancelled this activity"))
        self._end(attempt, LOCAL_ACTIVITY_FAILED, {"failure": failure, "retry_state": "cancelled"})

    def _interrupt(self, attempt: LocalAttempt) -> None:
        if attempt.timer is not None:
            attempt.timer.cancel()
        if attempt.task is not None:  # soon: one that has not begun could not give its slot back
            asyncio.get_running_loop().call_soon(attempt.task.cancel)

    # -- running ----------------------------------------------------------------------------------

    def _enqueue(self, attempt: LocalAttempt) -> None:
        """Run it when a slot is free."""
        if attempt.future.is_to_end:  # taken over from a worker that died in between
            self._cancel(attempt)
        elif self._slots > 0 and not self._waiting:
            self._start(attempt)
        else:
            self._waiting.append(attempt)

    def _return_slot(self) -> None:
        self._slots += 1
        while self._slots > 0 and self._waiting:
            attempt = self._waiting.popleft()
            if self.starting and not attempt.lost and not attempt.delivered:
                self._start(attempt)

    def _start(self, attempt: LocalAttempt) -> None:
        self._slots -= 1
        self._running.add(attempt)
        self.idle.clear()
        loop = asyncio.get_running_loop()
        if self._looking is None:
            self._looking = loop.call_later(_LOOK_S, self._look)
        limit_s, kind = self._limit(attempt)
        if limit_s is not None:
            attempt.timer = loop.call_later(limit_s, self._time_out, attempt, kind)
        now_us = self._clock.now_us()
        deadline_us = None if limit_s is None else now_us + int(limit_s * 1e6)
        attempt.context = ActivityContext(
            lambda: _info(attempt, deadline_us),
            lambda _details: None,
            attempt.is_told_to_stop,
            attempt.future.target.is_async,
        )
        attempt.task = loop.create_task(self._run(attempt))

    def _limit(self, attempt: LocalAttempt) -> tuple[float | None, str]:
        """How long (s) this attempt may run, and which timeout says so."""
        timeouts = attempt.future.body.get("timeouts") or {}
        limits = []
        if "start_to_close_s" in timeouts:
            limits.append((timeouts["start_to_close_s"], "start_to_close"))
        if (left_s := self._left_s(attempt)) is not None:
            limits.append((max(0.0, left_s), "schedule_to_close"))
        return min(limits, default=(None, ""))

    def _left_s(self, attempt: LocalAttempt) -> float | None:
        limit_s = (attempt.future.body.get("timeouts") or {}).get("schedule_to_close_s")
        if limit_s is None:
            return None
        left_s: float = limit_s - (self._clock.now_us() - attempt.future.called_us) / 1e6
        return left_s

    async def _run(self, attempt: LocalAttempt) -> None:
        reach("local.before")
        try:
            payload = await self._call(attempt)
            reach("local.after")
        except ActivityOutcome as outcome:
            self._leave(attempt)
            self._decided(attempt, outcome)
        except (asyncio.CancelledError, ActivityCancelledError) as error:
            self._leave(attempt)
            self._cancelled(attempt, error)
        except BaseException as error:
            self._leave(attempt)
            self._failed(attempt, error)
        else:
            self._leave(attempt)
            self._end(attempt, LOCAL_ACTIVITY_COMPLETED, {}, payload)

    async def _call(self, attempt: LocalAttempt) -> str:
        target = attempt.future.target
        assert attempt.context is not None
        args, kwargs = target.arguments.decode(attempt.future.payload)
        activity_context.enter(attempt.context)  # this task has a context of its own
        value = await attempting(
            ActivityExecution(attempt.future.name, args, kwargs),
            lambda call: self._run_function(attempt, call.args, call.kwargs),
        )
        if isinstance(value, ActivityOutcome):
            raise value
        return target.arguments.result.encode(value)

    async def _run_function(
        self, attempt: LocalAttempt, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        target = attempt.future.target
        if target.is_async:
            return await target.fn(*args, **kwargs)
        context = contextvars.copy_context()
        attempt.thread = self._threads.submit(context.run, target.fn, *args, **kwargs)
        return await asyncio.wrap_future(attempt.thread)

    def _leave(self, attempt: LocalAttempt) -> None:
        """The function has ended, or we wait for it no longer; a thread keeps the slot until it ends."""
        attempt.task = None
        if attempt.timer is not None:
            attempt.timer.cancel()
        self._running.discard(attempt)
        if not self._running:
            self.idle.set()
        thread, attempt.thread = attempt.thread, None
        if thread is None or thread.done():
            self._return_slot()
            return
        loop = asyncio.get_running_loop()
        thread.add_done_callback(
            lambda _: loop.is_closed() or loop.call_soon_threadsafe(self._return_slot)
        )

    def _look(self) -> None:
        """Show the runs of what takes long, once each."""
        for attempt in list(self._running):
            if attempt.seen:
                self._show(attempt.run)
            attempt.seen = True
        more = bool(self._running)
        loop = asyncio.get_running_loop()
        self._looking = loop.call_later(_LOOK_S, self._look) if more else None

    # -- endings ----------------------------------------------------------------------------------

    def _end(
        self, attempt: LocalAttempt, type: str, extra: dict[str, Any], payload: str | None = None
    ) -> None:
        if attempt.lost or attempt.delivered:
            return
        attempt.delivered = True
        body = {**attempt.future.body, "attempt": attempt.number, **extra}
        self._deliver(attempt.run, Message(type, self._clock.now_us(), body, payload))

    def _cancelled(self, attempt: LocalAttempt, error: BaseException) -> None:
        """The task was cancelled: by its timeout, by its run, or by the function itself."""
        if attempt.timed_out:
            self._failed(attempt, TimeoutError(f"{attempt.timed_out} timeout"))
        elif attempt.cancelled:
            self._give_up(attempt)
        else:
            self._failed(attempt, error)

    def _decided(self, attempt: LocalAttempt, outcome: ActivityOutcome) -> None:
        """The activity itself said what shall become of it."""
        if isinstance(outcome, Snooze) and not attempt.cancelled:
            self._again(attempt, encode_failure(outcome), outcome.delay_s, attempt.number)
        elif isinstance(outcome, Cancel):
            failure = encode_failure(JobCancelled(outcome.reason))
            body = {"failure": failure, "retry_state": "cancelled"}
            self._end(attempt, LOCAL_ACTIVITY_FAILED, body)
        else:
            self._failed(attempt, outcome, getattr(outcome, "delay_s", None))

    def _failed(
        self, attempt: LocalAttempt, error: BaseException, wait_s: float | None = None
    ) -> None:
        if attempt.lost:
            return
        policy = merge(RetryPolicy.from_body(attempt.future.body.get("retry") or {}))
        failure = encode_failure(error)
        if (why := self._why_final(attempt, policy, error)) is not None:
            body: dict[str, Any] = {"failure": failure, "retry_state": why}
            if attempt.timed_out:
                body["timeout"] = attempt.timed_out
            self._end(attempt, LOCAL_ACTIVITY_FAILED, body)
            return
        if wait_s is None:
            wait_s = delay_s(policy, attempt.number, random.random())  # noqa: S311 - jitter
        self._again(attempt, failure, wait_s, attempt.number + 1)

    def _again(
        self, attempt: LocalAttempt, failure: dict[str, Any], wait_s: float, number: int
    ) -> None:
        """Attempt `number` follows after `wait_s`, if there is time for it: here, or by a timer of the run."""
        if attempt.lost:
            return
        left_s = self._left_s(attempt)
        if left_s is not None and wait_s >= left_s:
            late = {"retry_state": "timeout", "timeout": "schedule_to_close"}
            self._end(attempt, LOCAL_ACTIVITY_FAILED, {"failure": failure, **late})
        elif wait_s > LONGEST_WAIT_S:
            attempt.number = number - 1  # the run counts on from the number in the event
            wait = {"failure": failure, "delay_us": int(wait_s * 1e6)}
            self._end(attempt, LOCAL_ACTIVITY_BACKED_OFF, wait)
        else:
            attempt.number = number
            attempt.timed_out = None
            attempt.timer = asyncio.get_running_loop().call_later(wait_s, self._enqueue, attempt)

    def _why_final(
        self, attempt: LocalAttempt, policy: RetryPolicy, error: BaseException
    ) -> str | None:
        """Why no further attempt follows; None if one does."""
        if attempt.cancelled or attempt.timed_out == "schedule_to_close":
            return "cancelled" if attempt.cancelled else "timeout"
        return why_final(policy, attempt.number, error)

    def _time_out(self, attempt: LocalAttempt, kind: str) -> None:
        """End an attempt at its limit. A thread cannot be killed: its attempt ends now, and its answer counts for nothing."""
        attempt.timed_out = kind
        self._interrupt(attempt)


def _info(attempt: LocalAttempt, deadline_us: int | None) -> ActivityInfo:
    run, future = attempt.run, attempt.future
    start = run.execution.start
    limit = merge(RetryPolicy.from_body(future.body.get("retry") or {})).max_attempts
    return ActivityInfo(
        workflow_id=run.workflow_id,
        run_id=UUID(run.run_id),
        activity_id=future.id,
        name=future.name,
        queue=run.queue,
        attempt=attempt.number,
        max_attempts=limit or 0,
        idempotency_key=f"{run.run_id}/local/{future.id}",
        actor=rebuilt(start.get("actor")),
        deadline=None if deadline_us is None else _instant(deadline_us),
        heartbeat_details=(),
        scheduled_at=_instant(future.called_us),
        headers=rebuilt_headers(start.get("headers")),
    )


def _instant(at_us: int) -> datetime:
    return datetime.fromtimestamp(at_us / 1e6, tz=UTC)
