"""Groups and chains of jobs, checked and described before anything is written (C18)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from durable import enqueueing, targets
from durable.definitions import Activity
from durable.enqueueing import Item, JobOptions
from durable.errors import InvalidOption
from durable.ids import uuid7
from durable.store.bulk import Bulk

Seal = Callable[[str], str]


class JobCall:
    """An activity with its arguments, to be enqueued when something happens: `JobCall(send_report, "monday")`.

    `options(queue=..., priority=...)` gives the same call with other options. The arguments are checked when it is used.
    """

    def __init__(self, activity: Activity[..., Any], /, *args: Any, **arguments: Any) -> None:
        self.activity = activity
        self.args = args
        self.arguments = arguments
        self.given = JobOptions()

    def options(self, *, queue: str | None = None, priority: int | None = None) -> JobCall:
        """The same call in another queue, or with another priority."""
        other = JobCall(self.activity, *self.args, **self.arguments)
        other.given = replace(self.given, queue=queue, priority=priority)
        return other


def described(
    call: JobCall, seal: Seal | None, group_id: str | None = None, **context: Any
) -> dict[str, Any]:
    """A job as the database will make it later. Raises PayloadError, InvalidOption, UnknownActivity."""
    if not isinstance(call, JobCall):
        raise InvalidOption(f"{call!r} is no durable.JobCall(activity, ...)")
    target = targets.of_activity(call.activity)
    job_id, given = enqueueing.one(
        target, call.activity, call.args, call.arguments, replace(call.given, **context), None
    )
    text = given["input"] if seal is None else seal(given["input"])
    return {
        "job_id": job_id,
        "name": given["name"],
        "queue": given["queue"],
        "priority": given["priority"],
        "input": json.loads(text),
        "options": json.loads(given["options"]),
        "group_id": group_id,
    }


def following(
    call: JobCall | None, actor: Any, headers: Mapping[str, Any] | None, seal: Seal | None
) -> str | None:
    """The job that follows a run's end, as JSON text; it acts for the run's actor. Raises as `described`."""
    if call is None:
        return None
    job = described(call, seal, actor=actor, headers=headers)
    return json.dumps({key: value for key, value in job.items() if key != "job_id"})


def group(
    activity: Activity[..., Any],
    items: Iterable[Item],
    options: JobOptions,
    name: str | None,
    callbacks: Mapping[str, JobCall | None],
    seal: Seal | None,
) -> tuple[str, Bulk, dict[str, str]]:
    """A group's id, its jobs, and the ids of its callbacks by event. Raises as `enqueue_many` does."""
    called = {event: described(call, seal) for event, call in callbacks.items() if call is not None}
    many = enqueueing.many(targets.of_activity(activity), activity, items, options, seal)
    group_id = str(uuid7())
    extra = {"group_id": group_id, "group_name": name, "callbacks": json.dumps(called)}
    many.given = {**many.given, **extra}
    return group_id, many, {event: job["job_id"] for event, job in called.items()}


def chain(calls: Sequence[JobCall], seal: Seal | None) -> list[dict[str, Any]]:
    """The jobs of a chain; each but the last is a group of its own, whose success brings the next. Raises InvalidOption, PayloadError."""
    if not calls:
        raise InvalidOption("a chain needs at least one JobCall")
    last = len(calls) - 1
    return [
        described(call, seal, None if place == last else str(uuid7()))
        for place, call in enumerate(calls)
    ]
