"""Jobs in memory: what `durable.testing` puts in the place of the database, and running them in this process.

While a Recorder is the current one (a context variable, so each test, task and xdist worker has its own), clients hand their checked enqueues
to it. A recorded job goes through the states that the database would give it, by the same rules; only time and other processes are missing.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import threading
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from durable import activity_context
from durable.activity_context import ActivityContext, ActivityInfo
from durable.activity_outcomes import ActivityOutcome, Cancel, Retry, Snooze
from durable.context import rebuilt, rebuilt_headers
from durable.core.job_life import ENDED, JobState
from durable.core.policy import RetryPolicy, delay_s, merge, why_final
from durable.definitions import Activity
from durable.descriptions import JobDescription, JobReceipt
from durable.errors import InvalidOption
from durable.failure import encode_failure
from durable.job_errors import JobCancelled, JobRefused
from durable.payload import value_codec
from durable.store.job_calls import Enqueued, JobOutcome

_details = value_codec(Any)
MOST_RUNS = 10_000
"""A drain that runs more than this is taken for a job that enqueues itself for ever."""


@dataclass
class RecordedJob:
    """A job that a client has enqueued under a recorder. `arguments` are plain JSON, as the database would hold them.

    `state`, `attempt`, `errors` and `snoozes` are as in `JobDescription`; `result` is what the activity returned, having been JSON.
    """

    activity: Activity[..., Any]
    job_id: str
    given: Mapping[str, Any]
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    state: JobState = "available"
    scheduled_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    attempt: int = 0
    snoozes: int = 0
    errors: list[dict[str, Any]] = field(default_factory=list)
    result_text: str | None = None
    error: BaseException | None = None
    details: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        at_us = self.given["at_us"]
        if at_us is not None:
            self._wait_until(datetime.fromtimestamp(at_us / 1e6, UTC))
        else:
            self._wait_until(self.created_at + timedelta(seconds=self.given["delay_s"]))

    def _wait_until(self, at: datetime, state: JobState = "scheduled") -> None:
        self.scheduled_at = at
        self.state = state if at > datetime.now(UTC) else "available"

    @property
    def name(self) -> str:
        return self.activity.name

    @property
    def queue(self) -> str:
        return str(self.given["queue"])

    @property
    def tags(self) -> list[str]:
        return self.given["tags"] or []

    @property
    def meta(self) -> Any:
        return json.loads(self.given["meta"] or "null")

    @property
    def options(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.given["options"])
        return found

    @property
    def arguments(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.given["input"])
        return found

    @property
    def result(self) -> Any:
        return (
            None
            if self.result_text is None
            else self.activity.arguments.result.decode(self.result_text)
        )

    # -- as the database would answer -----------------------------------------------------------------------------

    def outcome(self) -> JobOutcome:
        return JobOutcome(self.state, self.name, self.attempt, self.result_text, self.errors)

    def description(self) -> JobDescription:
        ended = self.created_at if self.state in ENDED else None
        limit = (self.options.get("retry") or {}).get("max_attempts")
        return JobDescription(
            self.job_id, self.name, self.queue, self.given["priority"], self.state, self.attempt, limit, self.snoozes, self.created_at,
            self.scheduled_at, ended, None, None, self.errors, self.given["tags"], self.meta, self.given["key"], self.arguments,
            None if self.result_text is None else json.loads(self.result_text), None,
        )  # fmt: skip

    def cancel(self, reason: str | None) -> JobReceipt:
        if self.state in ENDED:
            return JobReceipt(self.job_id, "ended", self.state)
        self._cancelled(reason or "no reason was given")
        return JobReceipt(self.job_id, "cancelled", self.state)

    def retry(self) -> None:
        self.state, self.result_text = "available", None

    def edit(self, changes: Mapping[str, Any], text: str | None) -> None:
        """Raises JobRefused."""
        if self.state in ENDED:
            raise JobRefused(f"job {self.job_id} has ended; retry it first")
        given = {
            key: value for key, value in changes.items() if key in ("priority", "queue", "tags")
        }
        given |= {"meta": json.dumps(changes["meta"])} if "meta" in changes else {}
        given |= {"input": text} if text is not None else {}
        self.given = {**self.given, **given}
        if "at_us" in changes:
            self._wait_until(datetime.fromtimestamp(changes["at_us"] / 1e6, UTC))
        elif "delay_s" in changes:
            self._wait_until(datetime.now(UTC) + timedelta(seconds=changes["delay_s"]))

    def _cancelled(self, reason: str) -> None:
        self.state = "cancelled"
        self._note(JobCancelled(reason))

    def _note(self, error: BaseException, **more: Any) -> None:
        self.error = error
        at = datetime.now(UTC).isoformat()
        self.errors.append(
            {"attempt": self.attempt, "at": at, "failure": encode_failure(error), **more}
        )

    # -- running ----------------------------------------------------------------------------------------------------

    async def run_async(self) -> None:
        """Run one attempt, in the caller's own loop and task."""
        token = self._enter()
        try:
            args, kwargs = self.activity.arguments.decode(self.given["input"])
            value = self.activity.fn(*args, **kwargs)
            self._returned(await value if self.activity.is_async else value)
        except (Exception, ActivityOutcome, asyncio.CancelledError) as error:
            self._raised(error)
        finally:
            activity_context.leave(token)

    def run(self) -> None:
        """Run one attempt here and now; an async activity in a loop of its own, in a thread if a loop runs here."""
        if not self.activity.is_async:
            _finish(self.run_async())
            return
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(asyncio.run, self.run_async()))
        thread.start()
        thread.join()

    def _enter(self) -> Any:
        if self.activity.transactional:
            raise InvalidOption(
                f"{self.name} needs a connection whose transaction records it; test it with durable.testing.environment()"
            )
        self.attempt += 1
        self.state, self.error = "executing", None
        context = ActivityContext(
            self._info, self._heartbeat, lambda: False, self.activity.is_async
        )
        return activity_context.enter(context)

    def _heartbeat(self, details: tuple[Any, ...]) -> None:
        self.details = tuple(json.loads(_details.encode(list(details))))

    def _info(self) -> ActivityInfo:
        options = self.options
        return ActivityInfo(
            None, None, self.job_id, self.name, self.queue, self.attempt, self._policy().max_attempts or 0, f"{self.job_id}/0",
            rebuilt(options.get("actor")), None, self.details, self.scheduled_at, rebuilt_headers(options.get("headers")),
            snoozes=self.snoozes,
        )  # fmt: skip

    def _policy(self) -> RetryPolicy:
        return merge(RetryPolicy.from_body(self.options.get("retry") or {}))

    def _returned(self, value: Any) -> None:
        if isinstance(value, ActivityOutcome):
            raise value
        if self.activity.chunk is not None:
            for each in value:
                if isinstance(each, BaseException):
                    raise each
        self.result_text = self.activity.arguments.result.encode(value)
        self.state = "completed"

    def _raised(self, error: BaseException) -> None:
        now = datetime.now(UTC)
        if isinstance(error, Cancel):
            self._cancelled(error.reason)
        elif isinstance(error, Snooze):
            self.attempt -= 1
            self.snoozes += 1
            self._wait_until(now + timedelta(seconds=error.delay_s))
        else:
            self._failed(error, now)

    def _failed(self, error: BaseException, now: datetime) -> None:
        policy = self._policy()
        if (why := why_final(policy, self.attempt, error)) is not None:
            self.state = "discarded"
            self._note(error, retry_state=why)
            return
        wait_s = error.delay_s if isinstance(error, Retry) else None
        wait_s = delay_s(policy, self.attempt, 1.0) if wait_s is None else wait_s
        self._note(error, delay_s=wait_s)
        self.state, self.scheduled_at = "retryable", now + timedelta(seconds=wait_s)


class Recorder:
    """Takes the enqueues of clients while it is current. `jobs` are all of them, in order; `inline`: each runs at once."""

    def __init__(self, *, inline: bool = False, raises: bool = True) -> None:
        self.jobs: list[RecordedJob] = []
        self.inline = inline
        self.raises = raises

    def __iter__(self) -> Iterator[RecordedJob]:
        return iter(self.jobs)

    def __len__(self) -> int:
        return len(self.jobs)

    async def take_async(
        self, activity: Activity[..., Any] | None, job_id: str, given: Mapping[str, Any]
    ) -> tuple[RecordedJob, Enqueued]:
        """Keep a job; run it if they run at once."""
        job, answer = self._keep(activity, job_id, given)
        if self.inline and answer.outcome == "created":
            await job.run_async()
            self._show(job)
        return job, answer

    def take(
        self, activity: Activity[..., Any] | None, job_id: str, given: Mapping[str, Any]
    ) -> tuple[RecordedJob, Enqueued]:
        job, answer = self._keep(activity, job_id, given)
        if self.inline and answer.outcome == "created":
            job.run()
            self._show(job)
        return job, answer

    def _keep(
        self, activity: Activity[..., Any] | None, job_id: str, given: Mapping[str, Any]
    ) -> tuple[RecordedJob, Enqueued]:
        if activity is None:
            raise InvalidOption("a job in memory needs the activity's code; import its module here")
        for job in self.jobs:
            if job.job_id == job_id:
                return job, Enqueued(job_id, job.state, "existing")
            if (
                given["key"] is not None
                and job.given["key"] == given["key"]
                and job.state in (job.given["states"] or ())
            ):
                return job, Enqueued(job.job_id, job.state, "conflict")
        made = RecordedJob(activity, job_id, given)
        self.jobs.append(made)
        return made, Enqueued(job_id, made.state, "created")

    def _show(self, job: RecordedJob) -> None:
        if self.raises and job.error is not None:
            raise job.error

    # -- draining ---------------------------------------------------------------------------------------------------

    def drain(self, *, with_scheduled: bool = False, queue: str | None = None) -> dict[str, int]:
        """Run all jobs that may run, and those that they enqueue, until none is left; return how many are in each state.

        `with_scheduled`: those that wait for their time too (scheduled, retryable). `queue`: only its jobs. Raises InvalidOption when more
        than ten thousand attempts do not come to an end.
        """
        wanted: set[str] = {"available", *(("scheduled", "retryable") if with_scheduled else ())}
        for _ in range(MOST_RUNS):
            ready = [it for it in self.jobs if it.state in wanted and queue in (None, it.queue)]
            if not ready:
                return self.counts()
            min(ready, key=lambda it: (it.given["priority"], it.scheduled_at)).run()
        raise InvalidOption(
            f"{MOST_RUNS} attempts did not drain the queue; does a job enqueue or snooze itself for ever?"
        )

    def counts(self) -> dict[str, int]:
        """How many jobs are in each state."""
        found: dict[str, int] = {}
        for job in self.jobs:
            found[job.state] = found.get(job.state, 0) + 1
        return found


recorder: ContextVar[Recorder | None] = ContextVar("durable_recorder", default=None)
"""Where clients of this context hand their jobs; None: to the database."""


def _finish(coroutine: Any) -> None:
    """Run a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    raise InvalidOption("a sync activity waited for something")
