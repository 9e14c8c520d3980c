"""Testing code that enqueues jobs, without a database: `inline`, `manual`, `perform`, `assert_enqueued`.

Both modes hold for the current context: the test, what it calls, and the tasks that it starts. Tests in other tasks, threads or xdist workers have
their own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from durable import enqueueing, targets
from durable.client_sync import Client
from durable.core.job_life import UNFINISHED
from durable.definitions import Activity
from durable.descriptions import JobDescription
from durable.enqueueing import JobOptions
from durable.errors import InvalidOption
from durable.recorded_jobs import RecordedJob, Recorder, recorder

TOLERANCE = timedelta(seconds=1)

Found = RecordedJob | JobDescription


@contextlib.contextmanager
def manual() -> Iterator[Recorder]:
    """Within the block clients keep jobs in memory instead of writing them; look at them, and `drain()` them when it suits."""
    with _recording(Recorder()) as kept:
        yield kept


@contextlib.contextmanager
def inline(*, raises: bool = True) -> Iterator[Recorder]:
    """Within the block each job runs at once, in this process, with its first attempt.

    What the activity raises is raised by `enqueue`; with `raises=False` it is kept on the job, and `handle.result()` raises it.
    """
    with _recording(Recorder(inline=True, raises=raises)) as kept:
        yield kept


@contextlib.contextmanager
def _recording(kept: Recorder) -> Iterator[Recorder]:
    token = recorder.set(kept)
    try:
        yield kept
    finally:
        recorder.reset(token)


def perform(job: RecordedJob | Activity[..., Any], /, *args: Any, **arguments: Any) -> RecordedJob:
    """Run one attempt of a recorded job, or of an activity with these arguments, as a worker would.

    Arguments and result pass through JSON and their types, `activity_info()` and `heartbeat()` work, and the answer says what became of it:
    `state`, `result`, `error`, `attempt`, `snoozes`. Raises PayloadError if the arguments do not fit.
    """
    if isinstance(job, Activity):
        target = targets.of_activity(job)
        job_id, given = enqueueing.one(target, job, args, arguments, JobOptions(), None)
        job = RecordedJob(job, job_id, given)
    elif args or arguments:
        raise InvalidOption("a recorded job has its arguments already; perform it without")
    job.run()
    return job


def all_enqueued(
    activity: Activity[..., Any] | str | None = None,
    *,
    arguments: Mapping[str, Any] | None = None,
    queue: str | None = None,
    priority: int | None = None,
    tags: Sequence[str] | None = None,
    meta: Mapping[str, Any] | None = None,
    at: datetime | None = None,
    client: Client | None = None,
) -> list[Found]:
    """The jobs that fit every given fact, oldest first: of the current mode, or the unfinished ones in `client`'s database.

    `arguments` and `meta`: contain this (nested objects too). `at`: scheduled for then, give or take a second. `tags`: all of these.
    """
    name = activity.name if isinstance(activity, Activity) else activity
    wanted_tags = set(enqueueing.tags(tags) or ())
    return [
        job
        for job in _jobs(client)
        if name in (None, job.name)
        and queue in (None, job.queue)
        and priority in (None, _priority(job))
        and wanted_tags <= set(job.tags or ())
        and _contains(job.meta or {}, meta or {})
        and _contains(job.arguments, arguments or {})
        and (at is None or abs(job.scheduled_at - at) <= TOLERANCE)
    ]


def assert_enqueued(
    activity: Activity[..., Any] | str | None = None,
    *,
    count: int | None = None,
    client: Client | None = None,
    **facts: Any,
) -> Found:
    """Assert that a job with these facts (see `all_enqueued`) is there, or just `count` of them; return the first.

    Raises AssertionError listing what is there instead.
    """
    found = all_enqueued(activity, client=client, **facts)
    if found and (count is None or len(found) == count):
        return found[0]
    wanted = "a job" if count is None else f"{count} jobs"
    raise AssertionError(
        f"expected {wanted} like {_shown(activity, facts)}; {len(found)} fit\nthere are:\n{_listed(client)}"
    )


def refute_enqueued(
    activity: Activity[..., Any] | str | None = None, *, client: Client | None = None, **facts: Any
) -> None:
    """Assert that there is no job with these facts. Raises AssertionError naming those that there are."""
    if found := all_enqueued(activity, client=client, **facts):
        ids = ", ".join(job.job_id for job in found)
        raise AssertionError(f"expected no job like {_shown(activity, facts)}; found {ids}")


def _jobs(client: Client | None) -> Sequence[Found]:
    if client is not None:
        return list(reversed(client.jobs(state=sorted(UNFINISHED), limit=10_000)))
    kept = recorder.get()
    if kept is None:
        raise InvalidOption(
            "no job is recorded here: use durable.testing.manual() or inline(), or pass client="
        )
    return kept.jobs


def _priority(job: Found) -> int:
    return int(job.given["priority"]) if isinstance(job, RecordedJob) else job.priority


def _contains(value: Any, part: Any) -> bool:
    if isinstance(part, Mapping):
        return isinstance(value, Mapping) and all(
            key in value and _contains(value[key], each) for key, each in part.items()
        )
    return bool(value == part)


def _shown(activity: Activity[..., Any] | str | None, facts: Mapping[str, Any]) -> str:
    name = activity.name if isinstance(activity, Activity) else activity
    told = {"activity": name, **facts}
    return (
        ", ".join(f"{key}={value!r}" for key, value in told.items() if value is not None) or "any"
    )


def _listed(client: Client | None) -> str:
    lines = [
        f"  {job.name} {job.arguments} {job.state} in queue {job.queue}" for job in _jobs(client)
    ]
    return "\n".join(lines[:20]) or "  none"
