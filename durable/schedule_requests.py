"""What a caller asks of a schedule, checked before anything is written (C18). Pure, and shared by both clients and the command line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal, TypedDict

from durable import enqueueing, requests, targets
from durable.core.names import checked_name, checked_priority
from durable.core.schedule_policy import Overlap, Policy, undecided
from durable.core.schedule_times import Calendar, Times
from durable.definitions import Activity, Workflow, registered_activities
from durable.enqueueing import JobOptions
from durable.errors import InvalidOption, UnknownWorkflow
from durable.payload import ValueCodec, digest
from durable.requests import Target
from durable.schedules import (
    Moment,
    checked_overlap,
    checked_policy,
    checked_times,
    in_words,
    instant_us,
    next_times,
)
from durable.store.calls import Definition
from durable.store.schedule_calls import StoredSchedule

OnExisting = Literal["update", "keep", "fail"]

MOST_BACKFILLED = 10_000
MAX_NOTE = 8192
_TIMES = ("cron", "every", "offset", "calendar", "timezone", "exclude", "start", "end", "jitter")
_ARGUMENTS = ValueCodec(dict[str, Any], field="arguments")


class ScheduleChanges(TypedDict, total=False):
    """What a schedule is made of; in an update, what is not given stays.

    When: `cron` (one expression or several), `every` with `offset`, `calendar` (`durable.Calendar`s and datetimes), all together; `timezone`, an IANA
    name, for expressions, calendars and datetimes without a zone; `exclude`: `Calendar`s, dates (whole days) and datetimes; `start`, `end`, both
    included; `jitter`: each slot starts later by up to this much, always by the same. An update that gives any of these replaces all of them.

    How: `overlap` while the run before is open (see `Overlap`; "skip" by default); `catch_up`: how late a slot may still start, a year by default;
    `pause_on_failure`: the schedule pauses itself when a run fails.

    `by`: who makes this change, for the log of commands. What: `arguments` by name, `queue`, `priority` (0-9), and for workflows `actor`, `headers`, `attributes`, `memo`, as in `start`.
    """

    cron: str | Sequence[str]
    every: timedelta | float
    offset: timedelta | float
    calendar: Calendar | datetime | Sequence[Calendar | datetime]
    timezone: str
    exclude: Moment | Sequence[Moment]
    start: datetime
    end: datetime
    jitter: timedelta | float
    overlap: Overlap
    catch_up: timedelta | float
    pause_on_failure: bool
    arguments: Mapping[str, Any]
    queue: str
    priority: int
    actor: Any
    headers: Mapping[str, str]
    attributes: Mapping[str, Any]
    memo: Mapping[str, Any]
    by: Any


class ScheduleOptions(ScheduleChanges, total=False):
    """Also when a schedule is created: `paused` with a `note`, and what to do when the id is in use (`on_existing`): "update" it in place, which
    leaves a pause as it is, "keep" it as it is, or "fail".
    """

    paused: bool
    note: str
    on_existing: OnExisting


_KNOWN = frozenset(ScheduleOptions.__annotations__) | frozenset(ScheduleChanges.__annotations__)


@dataclass(frozen=True, slots=True)
class ScheduleDescription:
    """A schedule as it is now. `times` says when it is due in words, `next` the coming slots (which are skipped while it is `paused`).

    `kind` and `name`: the workflow or job that it starts, with `arguments`. `open`: how many of its runs go on; `waiting`: how many slots wait to
    start. `declared`: by code, with `schedule=`. Durations are seconds.
    """

    schedule_id: str
    kind: Literal["workflow", "job"]
    name: str
    queue: str
    priority: int
    arguments: Any
    times: str
    timezone: str
    spec: dict[str, Any]
    overlap: Overlap
    catch_up_s: float
    jitter_s: float
    pause_on_failure: bool
    paused: bool
    note: str | None
    next: list[datetime]
    open: int
    waiting: int
    declared: bool
    revision: int
    created_at: datetime
    updated_at: datetime


def described(stored: StoredSchedule, count: int) -> ScheduleDescription:
    """What a stored schedule says, with its next `count` slots."""
    times, policy, action = stored.times, stored.policy, stored.action
    return ScheduleDescription(
        stored.schedule_id,
        action["kind"],
        action["name"],
        action["queue"],
        action["priority"],
        json.loads(stored.input or "null"),
        in_words(times),
        times.timezone,
        times.to_body(),
        policy.overlap,
        policy.catch_up_us / 1_000_000,
        times.jitter_us / 1_000_000,
        policy.pause_on_failure,
        stored.paused,
        stored.note,
        next_times(times, max(stored.now_us, stored.cursor_us), count),
        stored.open,
        stored.waiting,
        stored.declared,
        stored.revision,
        stored.created_at,
        stored.updated_at,
    )


# -- what to start ----------------------------------------------------------------------------------------------------


def local_target(target: Any) -> tuple[str, Target] | None:
    """The kind and the target of a definition, or of the name of one that this process has imported."""
    if isinstance(target, Activity):
        return "job", targets.of_activity(target)
    if isinstance(target, Workflow):
        return "workflow", targets.of_workflow(target)
    if not isinstance(target, str):
        msg = f"schedule takes a function decorated with @workflow or @activity, or its name, not {target!r}"
        raise UnknownWorkflow(msg)
    if (workflow := targets.local_workflow(target)) is not None:
        return "workflow", workflow
    found = [each for each in registered_activities() if each.name == target]
    return ("job", _by_name(found[0])) if found else None


def _by_name(activity: Activity[..., Any]) -> Target:
    """An activity that takes its arguments as a mapping of plain JSON."""
    target, codec = targets.of_activity(activity), activity.arguments

    def encode(args: tuple[Any, ...], arguments: Mapping[str, Any]) -> str:
        given = _ARGUMENTS.encode(targets._by_name(args, arguments))
        return codec.encode(*targets._read(codec.decode, given))

    return replace(target, encode=encode)


def registered_target(kind: str, definition: Definition) -> tuple[str, Target]:
    """What a worker has registered: `kind` is the definition's, workflow or activity."""
    return ("workflow" if kind == "workflow" else "job"), targets.of_definition(definition)


def unknown(name: str, workflows: Sequence[str], activities: Sequence[str]) -> UnknownWorkflow:
    return targets.unknown_workflow(name, [*workflows, *activities])


# -- creating and changing --------------------------------------------------------------------------------------------


def created(
    kind: str, target: Target, args: tuple[Any, ...], options: ScheduleOptions, now_us: int
) -> dict[str, Any]:
    """The parameters of a new schedule. Raises InvalidOption or PayloadError; nothing is written then."""
    _refuse_unknown(options, _KNOWN)
    times = _times(options)
    _refuse_past(times, now_us)
    action, given = _action(kind, target, args, options)
    return {
        **_stored(times, _policy(Policy(), options)),
        "action": json.dumps(action),
        "input": given,
        "paused": bool(options.get("paused")),
        "note": note(options.get("note")),
        "actor": requests.actor(options.get("by")),
    }


def changed(
    stored: StoredSchedule, target: tuple[str, Target] | None, options: ScheduleChanges
) -> dict[str, Any]:
    """The parameters of a schedule with changes. Raises as `created`."""
    _refuse_unknown(options, frozenset(ScheduleChanges.__annotations__))
    retimed = any(name in options for name in _TIMES)
    times = _times(options) if retimed else stored.times
    if retimed:
        _refuse_past(times, stored.now_us)
    action: dict[str, Any] = stored.action
    given = stored.input
    if target is not None:
        action, given = _action(*target, (), options)
    elif any(name in options for name in ("arguments", "actor", "headers", "attributes", "memo")):
        raise InvalidOption(
            "arguments, actor, headers, attributes and memo are changed together with the target they are for; give it too"
        )
    else:
        action = _moved(action, options)
    return {
        **_stored(times, _policy(stored.policy, options)),
        "action": json.dumps(action),
        "input": given,
        "actor": requests.actor(options.get("by")),
    }


def backfilled(
    stored: StoredSchedule, start: datetime, end: datetime, most: int = MOST_BACKFILLED
) -> list[int]:
    """The slots from `start` to `end`, both included, that have passed. Raises InvalidOption when there are too many."""
    first, last = (instant_us(each, stored.times.timezone) for each in (start, end))
    if first > last:
        raise InvalidOption(f"the backfill's end {end} is before its start {start}")
    found = undecided(stored.times, first - 1, min(last, stored.now_us), most)
    if len(found) > most:
        raise InvalidOption(
            f"from {start} to {end} there are more than {most} slots; backfill a part at a time"
        )
    return found


def note(value: str | None) -> str | None:
    """A note of up to 8192 characters. Raises InvalidOption."""
    return None if value is None else requests.text("note", value, MAX_NOTE)


def overlap(value: Overlap | None) -> Overlap | None:
    """Raises InvalidOption."""
    return None if value is None else checked_overlap(value)


def on_existing(options: ScheduleOptions) -> OnExisting:
    """Raises InvalidOption."""
    found: OnExisting = requests.one_of(
        "on_existing", options.get("on_existing", "update"), OnExisting
    )
    return found


def _refuse_unknown(options: Mapping[str, Any], known: Iterable[str]) -> None:
    if unknown := sorted(set(options) - set(known)):
        raise InvalidOption(
            f"a schedule has no option {unknown[0]!r}; there are {', '.join(sorted(known))}"
        )


def _times(options: Mapping[str, Any]) -> Times:
    return checked_times(
        **{name: options[name] for name in _TIMES if options.get(name) is not None}
    )


def _refuse_past(times: Times, now_us: int) -> None:
    if not next_times(times, now_us, 1):
        raise InvalidOption("this schedule is never due any more: its last time has passed")


def _policy(base: Policy, options: Mapping[str, Any]) -> Policy:
    return checked_policy(
        base, options.get("overlap"), options.get("catch_up"), options.get("pause_on_failure")
    )


def _stored(times: Times, policy: Policy) -> dict[str, Any]:
    return {"spec": json.dumps(times.to_body()), "policy": json.dumps(policy.to_body())}


def _action(
    kind: str, target: Target, args: tuple[Any, ...], options: Mapping[str, Any]
) -> tuple[dict[str, Any], str]:
    """What a slot starts, and its arguments as JSON text: what the client itself would send for it, kept."""
    queue, priority = options.get("queue"), options.get("priority")
    actor, headers = options.get("actor"), options.get("headers")
    arguments = options.get("arguments") or {}
    if kind == "job":
        for name in ("attributes", "memo"):
            if options.get(name) is not None:
                raise InvalidOption(f"a job has no {name}; only workflows have")
        asked_for = JobOptions(queue, priority, actor=actor, headers=headers)
        _, sent = enqueueing.one(target, None, args, arguments, asked_for, None)
        action = {"options": json.loads(sent["options"])}
        return {**_head(kind, target, sent), **action}, sent["input"]
    asked = requests.StartOptions(
        queue=queue,
        priority=priority,
        attributes=options.get("attributes"),
        actor=actor,
        memo=options.get("memo"),
        headers=headers,
    )
    _, start = requests.start(target, args, arguments, asked)
    sent = dict(start.parameters)
    action = {
        name: json.loads(sent[name])
        for name in ("body", "actor", "attributes", "memo")
        if sent[name] is not None
    }
    del action["body"]["workflow_id"]  # each slot has its own
    return {**_head(kind, target, sent), "version": target.version, **action}, sent["payload"]


def _head(kind: str, target: Target, sent: Mapping[str, Any]) -> dict[str, Any]:
    return {"kind": kind, "name": target.name, "queue": sent["queue"], "priority": sent["priority"]}


# -- what code declares -----------------------------------------------------------------------------------------------


def declaration(it: Workflow[..., Any] | Activity[..., Any]) -> tuple[dict[str, str], str]:
    """What the database is told of a schedule in code, and a digest of it. Raises PayloadError when its arguments do not fit."""
    assert it.schedule is not None
    found = local_target(it)
    assert found is not None
    action, given = _action(*found, (), {"arguments": it.schedule.arguments})
    said = {
        **_stored(it.schedule.times, it.schedule.policy),
        "action": json.dumps(action),
        "input": given,
    }
    return said, digest(json.dumps(said, sort_keys=True))


def _moved(action: dict[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The same action on another queue or with another priority."""
    queue, priority = options.get("queue"), options.get("priority")
    moved = {
        **({} if queue is None else {"queue": checked_name("queue", queue)}),
        **({} if priority is None else {"priority": checked_priority("priority", priority)}),
    }
    body = {"body": {**action["body"], **moved}} if action["kind"] == "workflow" else {}
    return {**action, **moved, **body}
