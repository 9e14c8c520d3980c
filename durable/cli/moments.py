"""Times and durations as people type them."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from durable.cli.exits import BadInput

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")


def duration(option: str, text: str) -> timedelta:
    """`90`, `45s`, `30m`, `12h`, `7d`, `2w`, `1h30m`; a bare number is seconds. Raises BadInput."""
    plain = text.strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?", plain):
        return timedelta(seconds=float(plain))
    parts = _SPAN.findall(plain)
    if not parts or "".join(number + unit for number, unit in parts) != plain:
        msg = f"{option} {text!r}: write a duration as 45s, 30m, 12h, 7d, 2w or 1h30m"
        raise BadInput(msg)
    return timedelta(seconds=sum(float(number) * _UNITS[unit] for number, unit in parts))


def moment(option: str, text: str) -> datetime:
    """An ISO 8601 time; without an offset it is a time in the schedule's zone. Raises BadInput."""
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        msg = f"{option} {text!r}: write a time as 2026-12-24T09:00 or 2026-12-24T09:00+01:00"
        raise BadInput(msg) from error
