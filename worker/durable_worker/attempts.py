"""Attempts: the activities and jobs that run in this process.

An attempt arrives in one of two ways: *eagerly*, straight from the commit of the turn that scheduled it (its row was inserted as executing under our lease),
or *claimed* from the queue. It ends in exactly one record: an outcome, a retry, or a put-back; the database fences each by owner and
attempt number (C5), so an attempt that was taken away meanwhile changes nothing.

If the run that waits for the outcome lives in this process, the outcome goes into its next turn (merged turn); otherwise to the inbox.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

from durable import activity_context
from durable.activity_context import ActivityCancelledError, ActivityContext, CompletedElsewhere
from durable.activity_outcomes import ActivityOutcome, Cancel, Retry, Snooze
from durable.core.events import Event
from durable.core.policy import RetryPolicy, delay_s, merge, why_final
from durable.definitions import Activity
from durable.failure import encode_failure
from durable.interceptors import ActivityExecution, around_activities, attempting
from durable.job_errors import JobCancelled
from durable.payload import value_codec
from durable.store import batch
from durable.store.batch import Completion, Outcome, PutBack
from durable.store.engine import ClaimedJob, Heartbeat
from durable.store.fences import TransactionRefused
from durable_worker.attempt_facts import carried_by, info_of, parsed_options
from durable_worker.chunks import Chunks
from durable_worker.clock import DatabaseClock
from durable_worker.committer import Committer
from durable_worker.elsewhere import parked, token_maker
from durable_worker.faults import reach
from durable_worker.processes import Processes
from durable_worker.runs import LiveRun
from durable_worker.slots import Slots
from durable_worker.transactions import TransactionalAttempts

logger = logging.getLogger("durable.worker")

_UNKNOWN_DELAY_S = 3.0
_MOST_THREADS = 1_000
_details_codec = value_codec(Any)


class Attempt:
    """One execution of an activity, from hand-over to its record."""

    __slots__ = (
        "activity", "attempt", "begun", "cancel_requested", "context", "details", "dirty", "heard_at", "input",
        "kind", "lost", "name", "options", "queue", "run_id", "seq", "shard", "silence_s", "task", "thread",
        "timed_out", "timer", "workflow_id",
    )  # fmt: skip

    def __init__(
        self, shard: int, run_id: str, seq: int, attempt: int, activity: Activity[Any, Any]
    ) -> None:
        self.shard = shard
        self.run_id = run_id
        self.seq = seq
        self.attempt = attempt
        self.activity = activity
        self.kind = "activity"
        self.name = activity.name
        self.queue = "default"
        self.input: str | None = None
        self.options: Mapping[str, Any] = {}
        self.workflow_id: str | None = None
        self.context: ActivityContext | None = None
        self.task: asyncio.Task[Any] | None = None
        self.thread: Future[Any] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.details: str | None = None
        self.dirty = False
        self.cancel_requested = False
        self.timed_out: str | None = None
        self.lost = False
        self.silence_s: float | None = None
        self.heard_at = 0.0
        self.begun = 0.0


class Attempts:
    """Runs attempts within the slots of each queue."""

    def __init__(
        self,
        committer: Committer,
        clock: DatabaseClock,
        activities: Mapping[str, Activity[Any, Any]],
        queues: Mapping[str, int],
        *,
        worker_name: str,
        freed: Callable[[], None],
        due: Callable[[int], None],
        hint: Callable[[str], None],
        transactions: TransactionalAttempts,
    ) -> None:
        self._hint = hint
        self._transactions = transactions
        self._committer = committer
        self._clock = clock
        self._activities = activities
        self.slots = Slots(queues, freed)
        self._worker_name = worker_name
        self._due = due
        self._running: dict[tuple[str, int], Attempt] = {}
        self._by_run: dict[str, set[int]] = {}
        self._threads = ThreadPoolExecutor(  # made when needed; none waits for a slot that it has, however many an operator adds
            max_workers=max(_MOST_THREADS, sum(queues.values())),
            thread_name_prefix="durable-activity",
        )
        self.processes = Processes()
        self._chunks = Chunks()
        self.deliver_outcome: Callable[[Outcome], bool]
        self.starting = True
        self.idle = asyncio.Event()  # set while nothing runs here
        self.idle.set()

    # -- slots ------------------------------------------------------------------------------------

    def take_slot(self, name: str, queue: str) -> bool:
        """Reserve a slot for an eager attempt; see AttemptHandOver."""
        return self.starting and name in self._activities and self.slots.take_for_eager(queue)

    def return_slot(self, queue: str) -> None:
        """Give a slot back; what was claimed ahead for it begins at once."""
        job = self.slots.give_back(queue)
        if job is not None:
            self._begin(job, self._activities[job.name])

    def wanted(self) -> dict[str, int]:
        """Return how many jobs to claim, by queue."""
        return self.slots.wanted() if self.starting else {}

    def release_held(self, *, everything: bool = False) -> None:
        """Give back what was claimed ahead in vain."""
        for job in self.slots.release(everything=everything):
            self._put_back(job)

    def _put_back(self, job: ClaimedJob) -> None:
        note = {"kind": "no_free_slot"}
        self._committer.write(PutBack(job.shard, job.run_id, job.seq, job.attempt, 0.0, note))

    def __len__(self) -> int:
        return len(self._running)

    def held(self) -> dict[tuple[str, int], int]:
        """Return the attempt numbers of the jobs held, by (run id, seq)."""
        found = {(job.run_id, job.seq): job.attempt for job in self.slots.held()}
        found.update((key, attempt.attempt) for key, attempt in self._running.items())
        return found

    # -- hand-over --------------------------------------------------------------------------------

    def start_eager(self, run: LiveRun, event: Event) -> None:
        """Run what a turn of ours has just scheduled."""
        body = event.body
        attempt = Attempt(run.shard, run.run_id, event.seq, 1, self._activities[body["name"]])
        attempt.queue = body["queue"]
        attempt.input = event.payload
        attempt.options = body
        attempt.workflow_id = run.workflow_id
        start = run.execution.start
        self._start(attempt, start, None, event.at_us, event.at_us)

    def start_claimed(self, job: ClaimedJob) -> None:
        """Run a claimed job, or put it back if this worker's code does not know it (rolling deploys)."""
        activity = self._activities.get(job.name)
        if activity is None:
            self._put_back_claimed(
                job, "unknown_activity", f"worker {self._worker_name} has no activity {job.name!r}"
            )
            return
        if job.unreadable is not None:
            self._put_back_claimed(job, "unreadable", job.unreadable)
            return
        if self.slots.take(job):
            self._begin(job, activity)

    def start_taken(self, job: ClaimedJob) -> None:
        """Run a job for which `take_slot` took a slot before it was made."""
        if self.starting:
            self._begin(job, self._activities[job.name])
        else:
            self.return_slot(job.queue)
            self._put_back(job)

    def _begin(self, job: ClaimedJob, activity: Activity[Any, Any]) -> None:
        attempt = Attempt(job.shard, job.run_id, job.seq, job.attempt, activity)
        attempt.kind = job.kind
        attempt.queue = job.queue
        attempt.input = job.input
        attempt.options = parsed_options(job.options)
        attempt.workflow_id = job.workflow_id
        carried = carried_by(job, attempt.options)
        self._start(attempt, carried, job.heartbeat, job.scheduled_us, job.created_us)

    def _put_back_claimed(self, job: ClaimedJob, kind: str, message: str) -> None:
        """For another worker, whose code or keys can run it."""
        logger.warning("%s put back: %s", job.name, message)
        note = {"kind": kind, "message": message}
        wait_s = _UNKNOWN_DELAY_S * random.uniform(0.5, 1.5)  # noqa: S311 - jitter
        self._committer.write(PutBack(job.shard, job.run_id, job.seq, job.attempt, wait_s, note))

    def _start(
        self,
        attempt: Attempt,
        carried: Mapping[str, Any],
        heartbeat: str | None,
        scheduled_us: int,
        created_us: int,
    ) -> None:
        self._running[attempt.run_id, attempt.seq] = attempt
        self.idle.clear()
        if attempt.kind == "activity":
            self._by_run.setdefault(attempt.run_id, set()).add(attempt.seq)
        loop = asyncio.get_running_loop()
        attempt.begun = loop.time()
        limit_s = None
        if timeouts := attempt.options.get("timeouts"):
            limit_s, kind = self._limit(timeouts, created_us)
            if limit_s is not None:
                attempt.timer = loop.call_later(limit_s, self._time_out, attempt, kind)
            attempt.silence_s = timeouts.get("heartbeat_s")
            attempt.heard_at = loop.time()
        now_us = 0 if limit_s is None else self._clock.now_us()
        attempt.context = ActivityContext(
            lambda: info_of(
                attempt,
                carried,
                heartbeat,
                scheduled_us,
                None if limit_s is None else now_us + int(limit_s * 1e6),
            ),
            lambda details: self._heartbeat(attempt, details),
            lambda: attempt.cancel_requested or attempt.lost or attempt.timed_out is not None,
            attempt.activity.is_async,
            None if attempt.activity.transactional else token_maker(attempt, self._committer.write),
        )
        attempt.task = loop.create_task(self._run(attempt))

    def _limit(self, timeouts: Mapping[str, float], created_us: int) -> tuple[float | None, str]:
        """Return how long (s) this attempt may run and which timeout says so."""
        limits = []
        if "start_to_close_s" in timeouts:
            limits.append((timeouts["start_to_close_s"], "start_to_close"))
        if "schedule_to_close_s" in timeouts:
            elapsed_s = (self._clock.now_us() - created_us) / 1e6
            limits.append(
                (max(0.0, timeouts["schedule_to_close_s"] - elapsed_s), "schedule_to_close")
            )
        return min(limits, default=(None, ""))

    # -- running ----------------------------------------------------------------------------------

    async def _run(self, attempt: Attempt) -> None:
        reach("attempt.before")
        try:
            payload = await self._call(attempt)
            reach("attempt.after")
        except ActivityOutcome as outcome:
            self._decided(attempt, outcome)
        except (asyncio.CancelledError, ActivityCancelledError) as error:
            self._cancelled(attempt, error)
        except CompletedElsewhere as elsewhere:
            if not attempt.lost:
                self._committer.write(parked(attempt, elsewhere.token))
        except TransactionRefused as refused:
            if refused.verdict == "cancelled":
                self._ended(attempt, "ActivityCancelled", {"started": True}, None)
        except BaseException as error:
            self._failed(attempt, error)
        else:
            if payload is not None:
                self._returned(attempt, payload)
        finally:
            self._forget(attempt)

    async def _call(self, attempt: Attempt) -> str | None:
        """Call the function. Returns its result as JSON text; None: it is recorded already."""
        if not attempt.activity.transactional:
            value = await self._call_with(attempt, attempt.activity.fn)
            if isinstance(value, ActivityOutcome):
                raise value
            return attempt.activity.arguments.result.encode(value)
        with self._transactions.watched(attempt):
            hint = await self._call_with(attempt, self._transactions.recording(attempt))
        if hint is not None:
            self._hint(hint)
        return None

    async def _call_with(self, attempt: Attempt, function: Callable[..., Any]) -> Any:
        activity = attempt.activity
        assert attempt.context is not None
        args, kwargs = activity.arguments.decode(attempt.input or "{}")
        activity_context.enter(attempt.context)  # this task has a context of its own
        if around_activities():
            return await attempting(
                ActivityExecution(activity.name, args, kwargs),
                lambda call: self._run_function(attempt, function, call.args, call.kwargs),
            )
        return await self._run_function(attempt, function, args, kwargs)

    async def _run_function(
        self,
        attempt: Attempt,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Any:
        if (chunk := attempt.activity.chunk) is not None:
            items = [*args, *kwargs.values()][0]
            call = partial(self._run_plainly, attempt, function)
            return await self._chunks.join(attempt.name, chunk, items, call)
        return await self._run_plainly(attempt, function, *args, **kwargs)

    async def _run_plainly(
        self, attempt: Attempt, function: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        if attempt.activity.is_async:
            return await function(*args, **kwargs)
        if attempt.activity.process:
            assert attempt.context is not None
            return await self.processes.run(attempt.activity, args, kwargs, attempt.context)
        context = contextvars.copy_context()
        attempt.thread = self._threads.submit(context.run, function, *args, **kwargs)
        return await asyncio.wrap_future(attempt.thread)

    def _forget(self, attempt: Attempt) -> None:
        key = (attempt.run_id, attempt.seq)
        if attempt.timer is not None:
            attempt.timer.cancel()
        attempt.context = attempt.task = None  # cycles, which only the garbage collector would find
        if self._running.get(key) is attempt:
            del self._running[key]
            if attempt.kind == "activity":
                siblings = self._by_run[attempt.run_id]
                siblings.discard(attempt.seq)
                if not siblings:
                    del self._by_run[attempt.run_id]
        if not self._running:
            self.idle.set()
        if attempt.thread is None or attempt.thread.done():
            self.return_slot(attempt.queue)
        else:  # a thread cannot be stopped: its slot is free when it ends, not when we stop waiting for it
            loop = asyncio.get_running_loop()
            attempt.thread.add_done_callback(
                lambda _: (
                    loop.is_closed() or loop.call_soon_threadsafe(self.return_slot, attempt.queue)
                )
            )

    # -- endings ----------------------------------------------------------------------------------

    def _ended(
        self, attempt: Attempt, kind: str, extra: dict[str, Any], payload: str | None
    ) -> None:
        if attempt.lost:
            return
        if attempt.timed_out and kind == "ActivityCompleted":
            logger.info(
                "%s finished after its timeout; the answer is offered all the same", attempt.name
            )
        body = {"ref": attempt.seq, "attempt": attempt.attempt, **extra}
        outcome = Outcome(
            attempt.shard, attempt.run_id, attempt.seq, attempt.attempt, kind, body, payload
        )
        if attempt.kind != "activity" or not self.deliver_outcome(outcome):
            self._committer.write(outcome)

    def _returned(self, attempt: Attempt, payload: str) -> None:
        if attempt.kind == "activity" or attempt.timed_out or attempt.lost:
            self._ended(attempt, "ActivityCompleted", {}, payload)
        else:
            self._committer.write(
                Completion(attempt.shard, attempt.run_id, attempt.attempt, payload)
            )

    def _decided(self, attempt: Attempt, outcome: ActivityOutcome) -> None:
        """The activity itself said what shall become of it."""
        if attempt.lost:
            return
        if isinstance(outcome, Snooze):
            self._again(attempt, outcome.delay_s, None)
        elif isinstance(outcome, Cancel):
            failure = encode_failure(JobCancelled(outcome.reason))
            kind = "ActivityFailed" if attempt.kind == "activity" else "ActivityCancelled"
            self._ended(attempt, kind, {"failure": failure, "retry_state": "cancelled"}, None)
        elif isinstance(outcome, Retry):
            self._failed(attempt, outcome, outcome.delay_s)

    def _failed(self, attempt: Attempt, error: BaseException, wait_s: float | None = None) -> None:
        if attempt.lost:
            return
        failure = encode_failure(error)
        policy = merge(RetryPolicy.from_body(attempt.options.get("retry") or {}))
        if attempt.cancel_requested or attempt.timed_out == "schedule_to_close":
            self._exhausted(attempt, failure, "non_retryable")
            return
        if (why := why_final(policy, attempt.attempt, error)) is not None:
            self._exhausted(attempt, failure, why)
            return
        if wait_s is None:
            counted = attempt.attempt - attempt.options.get("snoozes", 0)
            wait_s = delay_s(policy, counted, random.random())  # noqa: S311 - jitter
        self._again(attempt, wait_s, {"failure": failure})

    def _again(self, attempt: Attempt, wait_s: float, error: dict[str, Any] | None) -> None:
        """Another attempt after `wait_s`; without an error this one does not count."""
        self._committer.write(
            batch.Retry(attempt.shard, attempt.run_id, attempt.seq, attempt.attempt, wait_s, error)
        )
        self._due(self._clock.now_us() + int(wait_s * 1e6))

    def _exhausted(self, attempt: Attempt, failure: dict[str, Any], state: str) -> None:
        body: dict[str, Any] = {"failure": failure, "retry_state": state}
        if attempt.timed_out:
            body["timeout"] = attempt.timed_out
        if _waits_for_an_operator(attempt):
            key = (attempt.shard, attempt.run_id, attempt.seq, attempt.attempt)
            self._committer.write(batch.Retry(*key, batch.NO_RETRY, body))
            return
        kind = "ActivityTimedOut" if attempt.timed_out else "ActivityFailed"
        self._ended(attempt, kind, body, None)

    def _cancelled(self, attempt: Attempt, error: BaseException) -> None:
        """The task was cancelled: by its timeout, by its run, by the loss of its fence, or by the worker's hurry."""
        if attempt.lost:
            return
        if attempt.timed_out:
            self._failed(attempt, TimeoutError(f"{attempt.timed_out} timeout"))
        elif attempt.cancel_requested:
            self._ended(attempt, "ActivityCancelled", {"started": True}, None)
        elif self.starting:
            self._failed(attempt, error)
        else:
            self._committer.write(
                PutBack(
                    attempt.shard,
                    attempt.run_id,
                    attempt.seq,
                    attempt.attempt,
                    0.0,
                    {"kind": "worker_stopped"},
                )
            )

    # -- interruptions ----------------------------------------------------------------------------

    def _time_out(self, attempt: Attempt, kind: str) -> None:
        """End an attempt at its limit. A thread cannot be killed: its attempt ends now, the thread's answer will be refused."""
        attempt.timed_out = kind
        self._cancel_task(attempt)

    def expire_silent(self) -> None:
        """Time out attempts that owe a heartbeat."""
        now = asyncio.get_running_loop().time()
        for attempt in list(self._running.values()):
            if (
                attempt.silence_s
                and not attempt.timed_out
                and now - attempt.heard_at > attempt.silence_s
            ):
                self._time_out(attempt, "heartbeat")

    def cancel(self, run_id: str, seq: int) -> None:
        """Tell an attempt to stop (C9): an async one is cancelled, a thread learns it at its next heartbeat."""
        attempt = self._running.get((run_id, seq))
        if attempt is None:
            if (job := self.slots.forget(run_id, seq)) is not None:
                self._put_back(job)  # which ends it
            return
        if attempt.cancel_requested:
            return
        attempt.cancel_requested = True
        if attempt.activity.can_be_stopped:
            self._cancel_task(attempt)

    def cancel_run(self, run_id: str) -> None:
        """Tell every attempt of a run to stop."""
        for seq in tuple(self._by_run.get(run_id, ())):
            self.cancel(run_id, seq)

    def drop(self, attempt: Attempt) -> None:
        """The fence is lost: somebody else may be running this attempt's successor. Stop, record nothing."""
        if self._running.get((attempt.run_id, attempt.seq)) is attempt:
            attempt.lost = True
            self._cancel_task(attempt)

    def forget_all(self) -> None:
        """Drop every attempt: the database has declared this worker dead."""
        self.slots.release(everything=True)
        for attempt in list(self._running.values()):
            self.drop(attempt)

    def _cancel_task(self, attempt: Attempt) -> None:
        if (
            attempt.task is not None
        ):  # soon, not now: one that has not begun yet could not record how it ended
            asyncio.get_running_loop().call_soon(attempt.task.cancel)

    def hurry(self) -> None:
        """Stop every attempt now (second SIGTERM). Threads are left to the lease."""
        for attempt in list(self._running.values()):
            if attempt.activity.can_be_stopped:
                self._cancel_task(attempt)

    def close(self) -> None:
        """Take no more thread work."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    # -- heartbeats -------------------------------------------------------------------------------

    def _heartbeat(self, attempt: Attempt, details: tuple[Any, ...]) -> None:
        """Called by the activity, maybe in a thread: keep the latest, the next beat stores it."""
        attempt.details = _details_codec.encode(list(details))
        attempt.heard_at = time.monotonic()
        attempt.dirty = True

    def keep_dirty(self, beats: list[tuple[Attempt, Heartbeat]]) -> None:
        """The beats did not arrive: what they said must be said again."""
        for attempt, beat in beats:
            attempt.dirty = attempt.dirty or beat.details is not None

    def heartbeats(self, *, dirty_only: bool) -> list[tuple[Attempt, Heartbeat]]:
        """Return what to tell the database of the running attempts."""
        beats = []
        for attempt in self._running.values():
            if dirty_only and not attempt.dirty:
                continue
            interval_s = (attempt.options.get("timeouts") or {}).get("heartbeat_s")
            dirty, attempt.dirty = attempt.dirty, False  # first: a thread may say more meanwhile
            details = attempt.details if dirty else None
            beats.append(
                (
                    attempt,
                    Heartbeat(
                        attempt.shard,
                        attempt.run_id,
                        attempt.seq,
                        attempt.attempt,
                        details,
                        interval_s,
                    ),
                )
            )
        return beats


def _waits_for_an_operator(attempt: Attempt) -> bool:
    """Rather than give the failure to its run (on_exhausted="pause")."""
    asked = attempt.options.get("on_exhausted") == "pause"
    return asked and attempt.kind == "activity" and not attempt.cancel_requested
