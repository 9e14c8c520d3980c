"""What authors and callers say of a schedule, checked: `cron(...)`, `every(...)`, `calendar(...)` for decorators, and the parts of `client.schedule`.

Everything here is pure. A schedule has times (`durable.core.schedule_times`), a policy (`durable.core.schedule_policy`) and an action: the start of a
workflow, or a job of its own.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from durable.core.durations import duration_us
from durable.core.names import checked_name
from durable.core.schedule_policy import OVERLAPS, Overlap, Policy
from durable.core.schedule_times import (
    WEEKDAYS,
    Calendar,
    Times,
    checked_cron,
    instant_of,
    slots,
    zone,
)
from durable.errors import InvalidOption

MAX_PARTS = 1_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

A_YEAR = timedelta(days=365)

Moment = datetime | date | Calendar
"""What can be excluded: one slot, a whole day, or all that a calendar covers."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """When to run something and how to deal with overlap, downtime and failure; for `@workflow(schedule=...)` and `@activity(schedule=...)`.

    Make it with `durable.cron`, `durable.every` or `durable.calendar`. `arguments` are given to each run by name; `id` is the schedule's, by
    default the name of the workflow or activity.
    """

    times: Times
    policy: Policy = field(default_factory=Policy)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    id: str | None = None


def cron(
    *expressions: str,
    timezone: str = "UTC",
    exclude: Iterable[Moment] = (),
    start: datetime | None = None,
    end: datetime | None = None,
    jitter: timedelta | float = 0,
    overlap: Overlap = "skip",
    catch_up: timedelta | float = A_YEAR,
    pause_on_failure: bool = False,
    arguments: Mapping[str, Any] | None = None,
    id: str | None = None,
) -> Schedule:
    """Whenever one of the cron expressions fits, in the IANA `timezone`: `cron("0 9 * * MON-FRI", timezone="Europe/Berlin")`.

    Options: see `client.schedule`. Raises InvalidOption.
    """
    times = checked_times(
        cron=expressions, timezone=timezone, exclude=exclude, start=start, end=end, jitter=jitter
    )
    return _schedule(times, overlap, catch_up, pause_on_failure, arguments, id)


def every(
    interval: timedelta | float,
    *,
    offset: timedelta | float = 0,
    timezone: str = "UTC",
    exclude: Iterable[Moment] = (),
    start: datetime | None = None,
    end: datetime | None = None,
    jitter: timedelta | float = 0,
    overlap: Overlap = "skip",
    catch_up: timedelta | float = A_YEAR,
    pause_on_failure: bool = False,
    arguments: Mapping[str, Any] | None = None,
    id: str | None = None,
) -> Schedule:
    """At every multiple of `interval` since the epoch, plus `offset`: `every(timedelta(hours=1), offset=timedelta(minutes=7))`.

    `timezone` is only that of `exclude`. Options: see `client.schedule`. Raises InvalidOption.
    """
    times = checked_times(
        every=interval, offset=offset, timezone=timezone, exclude=exclude, start=start, end=end, jitter=jitter
    )  # fmt: skip
    return _schedule(times, overlap, catch_up, pause_on_failure, arguments, id)


def calendar(
    *moments: Calendar | datetime,
    timezone: str = "UTC",
    exclude: Iterable[Moment] = (),
    start: datetime | None = None,
    end: datetime | None = None,
    jitter: timedelta | float = 0,
    overlap: Overlap = "skip",
    catch_up: timedelta | float = A_YEAR,
    pause_on_failure: bool = False,
    arguments: Mapping[str, Any] | None = None,
    id: str | None = None,
) -> Schedule:
    """At the listed times and whenever a `Calendar` fits: `calendar(Calendar(day=1, hour=9), datetime(2030, 5, 2, 9))`.

    A datetime without a zone is a time in `timezone`. Options: see `client.schedule`. Raises InvalidOption.
    """
    times = checked_times(
        calendar=moments, timezone=timezone, exclude=exclude, start=start, end=end, jitter=jitter
    )
    return _schedule(times, overlap, catch_up, pause_on_failure, arguments, id)


def _schedule(
    times: Times,
    overlap: Overlap,
    catch_up: timedelta | float,
    pause_on_failure: bool,
    arguments: Mapping[str, Any] | None,
    id: str | None,
) -> Schedule:
    policy = checked_policy(Policy(), overlap, catch_up, pause_on_failure)
    return Schedule(times, policy, dict(arguments or {}), None if id is None else checked_id(id))


# -- checks -----------------------------------------------------------------------------------------------------------


def checked_id(value: Any) -> str:
    """A schedule's id: 1 to 200 printable characters. Raises InvalidOption."""
    return checked_name("the schedule's id", value)


def checked_times(
    *,
    cron: str | Iterable[str] = (),
    every: timedelta | float | None = None,
    offset: timedelta | float = 0,
    calendar: Calendar | datetime | Iterable[Calendar | datetime] = (),
    timezone: str = "UTC",
    exclude: Moment | Iterable[Moment] = (),
    start: datetime | None = None,
    end: datetime | None = None,
    jitter: timedelta | float = 0,
) -> Times:
    """All parts of a description together. Raises InvalidOption: something is malformed, or it is never due."""
    here = zone(timezone)
    expressions = (cron,) if isinstance(cron, str) else tuple(cron)
    moments = _several("calendar", calendar, (Calendar, datetime))
    excluded = _several("exclude", exclude, (Calendar, date))
    if max(len(expressions), len(moments), len(excluded)) > MAX_PARTS:
        raise InvalidOption(
            f"a schedule has at most {MAX_PARTS} expressions, times and exclusions of each kind"
        )
    if not expressions and not moments and every is None:
        raise InvalidOption("a schedule has no times; give cron=, every= or calendar=")
    every_us = None if every is None else _positive("every", every)
    days = (each for each in excluded if type(each) is date)
    times = Times(
        timezone,
        tuple(checked_cron(each) for each in expressions),
        every_us,
        0 if every_us is None else duration_us("offset", offset) % every_us,
        tuple(each for each in moments if isinstance(each, Calendar)),
        tuple(sorted(_us(each, here) for each in moments if isinstance(each, datetime))),
        (*(each for each in excluded if isinstance(each, Calendar)), *(Calendar(d.year, d.month, d.day) for d in days)),
        tuple(sorted(_us(each, here) for each in excluded if isinstance(each, datetime))),
        None if start is None else _us(start, here),
        None if end is None else _us(end, here),
        _not_negative("jitter", jitter),
    )  # fmt: skip
    if next(slots(times, 0), None) is None:
        raise InvalidOption(
            "this schedule is never due: no time fits all of its parts, its exclusions and its start and end"
        )
    return times


def checked_policy(
    base: Policy,
    overlap: Any = None,
    catch_up: timedelta | float | None = None,
    pause_on_failure: bool | None = None,
) -> Policy:
    """`base` with what is given. Raises InvalidOption."""
    if overlap is not None:
        checked_overlap(overlap)
    return Policy(
        overlap or base.overlap,
        base.catch_up_us if catch_up is None else _not_negative("catch_up", catch_up),
        base.pause_on_failure if pause_on_failure is None else bool(pause_on_failure),
    )


def checked_overlap(value: Any) -> Overlap:
    """Raises InvalidOption."""
    if value not in OVERLAPS:
        raise InvalidOption(f"overlap is {value!r}; give one of {', '.join(OVERLAPS)}")
    overlap: Overlap = value
    return overlap


def instant_us(value: datetime, timezone: str) -> int:
    """A point in time in microseconds; without a zone of its own it is a time in `timezone`. Raises InvalidOption."""
    return _us(value, zone(timezone))


def _several(option: str, value: Any, kinds: tuple[type, ...]) -> tuple[Any, ...]:
    found = (value,) if isinstance(value, kinds) else tuple(value)
    for each in found:
        if not isinstance(each, kinds):
            names = " or ".join(kind.__name__ for kind in kinds)
            raise InvalidOption(f"{option} has {each!r}; give {names}")
    return found


def _us(value: Any, here: ZoneInfo) -> int:
    if not isinstance(value, datetime):
        raise InvalidOption(f"{value!r} is no datetime")
    if value.tzinfo is None:
        whole = value.replace(microsecond=0, fold=0)
        return instant_of(whole, here) * 1_000_000 + value.microsecond
    return (value - _EPOCH) // timedelta(microseconds=1)


def _positive(option: str, value: timedelta | float) -> int:
    found = duration_us(option, value)
    if found < 1_000_000:
        raise InvalidOption(f"{option} is {value!r}; give at least a second")
    return found


def _not_negative(option: str, value: timedelta | float) -> int:
    found = duration_us(option, value)
    if found < 0:
        raise InvalidOption(f"{option} is {value!r}; give no negative time")
    return found


# -- what code declares -----------------------------------------------------------------------------------------------


def declared_id(it: Any) -> str:
    """The id of the schedule that code declares."""
    found: str = it.schedule.id or it.name
    return found


def checked_declaration(it: Any) -> None:
    """Raises InvalidOption unless it is a schedule whose arguments fit the function's parameters; a worker checks their types when it starts."""
    schedule = it.schedule
    if schedule is None:
        return
    if not isinstance(schedule, Schedule):
        raise InvalidOption(
            f"schedule is {schedule!r}; make it with durable.cron, durable.every or durable.calendar"
        )
    try:
        inspect.signature(it.fn).bind(**schedule.arguments)
    except TypeError as error:
        msg = f"the schedule of {it.name!r} cannot call it: {error}; give arguments={{...}}, or parameters with defaults"
        raise InvalidOption(msg) from error
    if it.require_actor:
        msg = f"{it.name!r} requires an actor, and a schedule in code has none; make it with client.schedule(..., actor=...)"
        raise InvalidOption(msg)


def next_times(times: Times, after_us: int, count: int) -> list[datetime]:
    """The next slots, in UTC."""
    found = slots(times, after_us)
    return [_EPOCH + timedelta(microseconds=us) for us, _ in zip(found, range(count), strict=False)]


def in_words(times: Times) -> str:
    """One line for people."""
    parts = [
        *(f"cron {each}" for each in times.cron),
        *([] if times.every_us is None else [f"every {timedelta(microseconds=times.every_us)}"]),
        *(f"calendar {_fields(each)}" for each in times.calendars),
        *([f"{len(times.listed_us)} listed times"] if times.listed_us else []),
    ]
    without = len(times.excluded) + len(times.excluded_us)
    tail = [f"{without} excluded"] if without else []
    return ", ".join([" and ".join(parts), times.timezone, *tail])


def _fields(each: Calendar) -> str:
    given = ((f.name, each.field(f.name)) for f in fields(each))
    return " ".join(f"{name}={','.join(_shown(name, value))}" for name, value in given if value)


def _shown(name: str, numbers: tuple[int, ...]) -> list[str]:
    return [WEEKDAYS[n] if name == "weekday" else str(n) for n in numbers]
