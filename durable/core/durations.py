"""Durations, from what authors write to whole microseconds, and to what people read."""

from __future__ import annotations

import math
from datetime import timedelta

from durable.errors import InvalidOption

LONGEST_US = 100 * 366 * 24 * 3600 * 1_000_000
"""About a century; more is a mistake, and would leave the range of datetime."""


def duration_us(option: str, value: timedelta | float) -> int:
    """`value` (a timedelta, or seconds) in microseconds; seconds are rounded to a millisecond.

    Raises InvalidOption, naming `option`, if it is no finite duration of at most a century.
    """
    if isinstance(value, timedelta):
        microseconds = value // timedelta(microseconds=1)
    elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        microseconds = round(value * 1000) * 1000
    else:
        raise InvalidOption(
            f"{option} is {value!r}; give a timedelta, or a finite number of seconds"
        )
    if microseconds > LONGEST_US:
        raise InvalidOption(f"{option} is {value!r}; give at most a hundred years")
    return microseconds


def span(seconds: float) -> str:
    """A length of time in its two largest units."""
    whole = timedelta(seconds=abs(seconds))
    if whole < timedelta(seconds=10):
        return f"{whole.total_seconds():.2g}s" if whole >= timedelta(milliseconds=1) else "0s"
    minutes, second = divmod(int(whole.total_seconds()), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    units = [
        f"{n}{unit}" for n, unit in ((days, "d"), (hour, "h"), (minute, "m"), (second, "s")) if n
    ]
    return " ".join(units[:2])
