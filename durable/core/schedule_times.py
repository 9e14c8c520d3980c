"""When a schedule is due: from its description to its slots, which are instants, in order and each once.

The problem. People describe times by the clock on their wall ("09:00 in Berlin, Monday to Friday"), and twice a year that clock jumps. A time
of day may then not exist (the *gap*: 02:30 on the last Sunday of March), or come twice (the *fold*: 02:30 on the last Sunday of October). A
library that adds seconds to a local time gets both wrong, and a slot that is left out or comes twice is a payroll that is not run or run twice.

The solution. `cronsim` reads the expression and walks over *wall times alone*, where every day has 24 hours and no rule is needed. This module maps
wall times to instants, by one of two rules, which are those of Debian's cron:

* *Fixed* times (the fields for hours and minutes do not begin with `*`; all calendars and listed times). A time in a gap is due when the gap
  ends; several times in one gap are one slot. A time in a fold is due the first time only. So a daily job runs exactly once each day.
* *Elapsed* times (either field begins with `*`: every ten minutes, every hour). The expression says how much time passes between slots, so what does
  not exist is left out and what comes twice is due twice. Between two changes of the offset walls and instants are one to one: the mapping goes
  from change to change, which are found by comparing offsets half a day apart and then halving.

The two agree everywhere else. Intervals count from the epoch (plus a phase) and know no zone. Nothing here asks for the time of day, and nothing depends
on when it is asked: `slots(times, after)` continues `slots(times, before)`.

What can still fail: two workers with different releases of the time zone database see different slots when a country changes its rules. The
slots are decided one after another under one cursor, so none comes twice; which of the two instants it is, is the older release's word.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from datetime import date, datetime, timedelta
from hashlib import blake2b
from itertools import islice, product
from typing import Any
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from durable.errors import InvalidOption

SECOND_US = 1_000_000
HORIZON_YEARS = 50
"""How far ahead a next slot is looked for."""
MOST_EXCLUDED = 200_000
"""So many slots in a row may be excluded; a schedule that excludes more has no further slot."""
LONGEST_EXPRESSION = 200
MOST_NUMBERS = 1_000
"""In one field of a calendar."""

NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_BOUNDS = {
    "year": (1970, 2999),
    "month": (1, 12),
    "day": (1, 31),
    "weekday": (0, 6),
    "hour": (0, 23),
    "minute": (0, 59),
    "second": (0, 59),
}
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - walls have no zone
_HALF_DAY_S = 12 * 3600

Numbers = int | Iterable[int] | None


@dataclass(frozen=True, slots=True)
class Calendar:
    """Dates and times of day by their fields, all of which must fit: `Calendar(month=range(1, 13, 3), day=1, hour=9)`.

    A field is a number, several, or None. `weekday` is text: "mon-fri", "sat,sun". None is any year, month, day and weekday, and 0 for
    hour, minute and second; in an exclusion None is any there too, so that `Calendar(month=12, day=24)` is the whole day.
    Raises InvalidOption when a number is out of its range.
    """

    year: Numbers = None
    month: Numbers = None
    day: Numbers = None
    weekday: str | Numbers = None
    hour: Numbers = None
    minute: Numbers = None
    second: Numbers = None

    def __post_init__(self) -> None:
        for name, (lowest, highest) in _BOUNDS.items():
            value = _numbers(name, getattr(self, name), lowest, highest)
            object.__setattr__(self, name, value)

    def field(self, name: str) -> tuple[int, ...] | None:
        """The numbers of one field in order, None for any."""
        value: tuple[int, ...] | None = getattr(self, name)
        return value

    def covers(self, wall: datetime) -> bool:
        """Whether every given field fits."""
        return self.on(wall.date()) and all(
            (given := self.field(name)) is None or getattr(wall, name) in given
            for name in ("hour", "minute", "second")
        )

    def on(self, day: date) -> bool:
        weekdays = self.field("weekday")
        return (weekdays is None or day.weekday() in weekdays) and all(
            (given := self.field(name)) is None or getattr(day, name) in given
            for name in ("year", "month", "day")
        )

    def times_of_day(self) -> list[tuple[int, int, int]]:
        hours, minutes, seconds = (
            self.field(name) or (0,) for name in ("hour", "minute", "second")
        )
        return list(product(hours, minutes, seconds))

    def to_body(self) -> dict[str, Any]:
        return {f.name: list(value) for f in fields(self) if (value := self.field(f.name))}


@dataclass(frozen=True, slots=True)
class Times:
    """All that a schedule is due at: every part's slots together, without the excluded ones, within start and end (both included).

    Times are microseconds since the epoch. Made by `durable.schedules`, which checks what people write; `check` says whether it can ever be due.
    """

    timezone: str = "UTC"
    cron: tuple[str, ...] = ()
    every_us: int | None = None
    offset_us: int = 0
    calendars: tuple[Calendar, ...] = ()
    listed_us: tuple[int, ...] = ()
    excluded: tuple[Calendar, ...] = ()
    excluded_us: tuple[int, ...] = ()
    start_us: int | None = None
    end_us: int | None = None
    jitter_us: int = 0

    def to_body(self) -> dict[str, Any]:
        body = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in ("calendars", "excluded"):
            body[name] = [each.to_body() for each in body[name]]
        plain = {name: list(it) if isinstance(it, tuple) else it for name, it in body.items()}
        return {name: value for name, value in plain.items() if value not in (None, [], 0)}

    @classmethod
    def from_body(cls, body: dict[str, Any]) -> Times:
        given = dict(body)
        for name in ("calendars", "excluded"):
            given[name] = tuple(Calendar(**each) for each in given.get(name, ()))
        for name in ("cron", "listed_us", "excluded_us"):
            given[name] = tuple(given.get(name, ()))
        return cls(**given)


# -- checks -----------------------------------------------------------------------------------------------------------


def zone(name: str) -> ZoneInfo:
    """The IANA time zone of that name. Raises InvalidOption."""
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError, TypeError) as error:
        msg = f"timezone is {name!r}; give the name of an IANA time zone, as Europe/Berlin or UTC"
        raise InvalidOption(msg) from error


def checked_cron(expression: Any) -> str:
    """A cron expression of five fields, six with seconds first, or a nickname as @daily. Raises InvalidOption."""
    if not isinstance(expression, str) or len(expression) > LONGEST_EXPRESSION:
        raise InvalidOption(
            f"cron is {str(expression)[:80]!r}; give text of at most {LONGEST_EXPRESSION} characters"
        )
    plain = NICKNAMES.get(expression.strip().lower(), expression)
    try:
        CronSim(plain, _EPOCH)
    except CronSimError as error:
        rule = "minute hour day-of-month month day-of-week, as in 0 9 * * MON-FRI; six fields begin with seconds"
        raise InvalidOption(
            f"cron is {expression!r}: {str(error).lower()}; write {rule}"
        ) from error
    return " ".join(plain.split())


def _numbers(name: str, value: Any, lowest: int, highest: int) -> tuple[int, ...] | None:
    if value is None:
        return None
    if name == "weekday" and isinstance(value, str):
        return _weekdays(value)
    try:
        given = (value,) if isinstance(value, int) else tuple(islice(value, MOST_NUMBERS + 1))
        fits = 0 < len(given) <= MOST_NUMBERS and all(
            type(n) is int and lowest <= n <= highest for n in given
        )
    except TypeError:
        fits, given = False, ()
    if not fits:
        what = (
            'text as "mon-fri" or "sat,sun"'
            if name == "weekday"
            else f"numbers from {lowest} to {highest}"
        )
        raise InvalidOption(f"the calendar's {name} is {str(value)[:80]!r}; give {what}")
    return tuple(sorted(set(given)))


def _weekdays(text: str) -> tuple[int, ...]:
    found: set[int] = set()
    for part in text.lower().replace(" ", "").split(","):
        first, dash, last = part.partition("-")
        if first not in WEEKDAYS or (dash and last not in WEEKDAYS):
            raise InvalidOption(
                f'the calendar\'s weekday is {text[:80]!r}; give text as "mon-fri" or "sat,sun"'
            )
        begin = WEEKDAYS.index(first)
        end = WEEKDAYS.index(last) if dash else begin
        found.update(n % 7 for n in range(begin, end + 1 if end >= begin else end + 8))
    return tuple(sorted(found))


# -- slots ------------------------------------------------------------------------------------------------------------


def slots(times: Times, after_us: int) -> Iterator[int]:
    """Every slot later than `after_us`, in order, for as long as there are any."""
    here = zone(times.timezone)
    if times.start_us is not None:
        after_us = max(after_us, times.start_us - 1)
    parts = [
        *(_cron(expression, here, after_us) for expression in times.cron),
        *(
            _at_walls(_walls(each, _wall(here, after_us // SECOND_US)), here, after_us)
            for each in times.calendars
        ),
        iter(sorted(us for us in times.listed_us if us > after_us)),
    ]
    if times.every_us:
        parts.append(_interval(times.every_us, times.offset_us, after_us))
    refused, last = 0, after_us
    for slot in heapq.merge(*parts):
        if times.end_us is not None and slot > times.end_us:
            return
        if slot == last:
            continue
        last = slot
        if not _is_excluded(times, here, slot):
            refused = 0
            yield slot
        elif (refused := refused + 1) > MOST_EXCLUDED:
            return


def chained(before: Iterable[tuple[Times, int]], times: Times, after_us: int) -> Iterator[int]:
    """As `slots`, of times that were changed: those `before` hold until their end (included), then `times`."""
    for old, until in before:
        for slot in slots(old, after_us):
            if slot > until:
                break
            yield slot
        after_us = max(after_us, until)
    yield from slots(times, after_us)


def jitter_us(times: Times, key: str, slot: int, following: int | None) -> int:
    """How much later than its slot a run starts: the same for whoever asks, and never as late as the following slot."""
    room = times.jitter_us if following is None else min(times.jitter_us, following - slot)
    return int.from_bytes(blake2b(f"{key}/{slot}".encode(), digest_size=8).digest()) * room >> 64


def _is_excluded(times: Times, here: ZoneInfo, slot: int) -> bool:
    if slot in times.excluded_us:
        return True
    if not times.excluded:
        return False
    wall = _wall(here, slot // SECOND_US)
    return any(each.covers(wall) for each in times.excluded)


def _interval(every_us: int, offset_us: int, after_us: int) -> Iterator[int]:
    slot = after_us - (after_us - offset_us) % every_us + every_us
    while True:
        yield slot
        slot += every_us


def _cron(expression: str, here: ZoneInfo, after_us: int) -> Iterator[int]:
    minute, hour = expression.split()[-5:-3]
    if minute.startswith("*") or hour.startswith("*"):
        return _elapsed(expression, here, after_us)
    return _at_walls(CronSim(expression, _wall(here, after_us // SECOND_US)), here, after_us)


def _walls(calendar: Calendar, after: datetime) -> Iterator[datetime]:
    """The wall times of a calendar later than `after`."""
    times = calendar.times_of_day()
    years = calendar.field("year")
    last_year = min(max(years) if years else 9998, after.year + HORIZON_YEARS)
    day = after.date()
    while day.year <= last_year:
        if calendar.on(day):
            found = (datetime(day.year, day.month, day.day, *time) for time in times)  # noqa: DTZ001
            yield from (wall for wall in found if wall > after)
            last_year = min(max(years) if years else 9998, day.year + HORIZON_YEARS)
        day += timedelta(days=1)


def _at_walls(walls: Iterable[datetime], here: ZoneInfo, after_us: int) -> Iterator[int]:
    """The fixed rule: the mapping never goes backwards, so a slot that is not later than the one before is the same one."""
    last = after_us
    for wall in walls:
        if (slot := instant_of(wall, here) * SECOND_US) > last:
            last = slot
            yield slot


def instant_of(wall: datetime, here: ZoneInfo) -> int:
    """When the clock on the wall shows `wall` first, in seconds since the epoch; the end of the gap if it never does."""
    instant = int(wall.replace(tzinfo=here, fold=0).timestamp())
    if _wall(here, instant) == wall:
        return instant
    before = int(
        wall.replace(tzinfo=here, fold=1).timestamp()
    )  # the offset after the gap gives an instant before it
    return _change(here, before, instant)


def _elapsed(expression: str, here: ZoneInfo, after_us: int) -> Iterator[int]:
    last = steady = after_us // SECOND_US
    while True:
        offset = _offset(here, steady)
        for wall in CronSim(expression, _EPOCH + timedelta(seconds=last + offset)):
            slot = _seconds(wall) - offset
            if slot > steady and (steady := _steady(here, steady, slot)) < slot:
                break
            yield slot * SECOND_US
        else:
            return
        last, steady = steady, steady + 1


def _steady(here: ZoneInfo, since: int, until: int) -> int:
    """To which second the offset stays what it is at `since`; not looked for further than half a day behind `until`."""
    offset = _offset(here, since)
    while since < until:
        probe = since + _HALF_DAY_S
        if _offset(here, probe) != offset:
            return _change(here, since, probe) - 1
        since = probe
    return since


def _change(here: ZoneInfo, before: int, after: int) -> int:
    """The first second with another offset than `before` has, by halving; `after` has another."""
    offset = _offset(here, before)
    while after - before > 1:
        middle = (before + after) // 2
        if _offset(here, middle) == offset:
            before = middle
        else:
            after = middle
    return after


def _offset(here: ZoneInfo, instant: int) -> int:
    return _seconds(_wall(here, instant)) - instant


def _wall(here: ZoneInfo, instant: int) -> datetime:
    return datetime.fromtimestamp(instant, here).replace(tzinfo=None, fold=0)


def _seconds(wall: datetime) -> int:
    return (wall - _EPOCH) // timedelta(seconds=1)
