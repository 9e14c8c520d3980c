"""What may be a name: of a workflow, activity, signal, queue, or an id (C18)."""

from __future__ import annotations

from typing import Any

from durable.errors import InvalidOption

LONGEST_NAME = 200


def checked_name(option: str, value: Any) -> str:
    """`value` if it can be a name; InvalidOption, naming `option`, otherwise."""
    if not isinstance(value, str):
        raise InvalidOption(f"{option} is {value!r}; give a string")
    if not 0 < len(value) <= LONGEST_NAME:
        raise InvalidOption(f"{option} has {len(value)} characters; give 1 to {LONGEST_NAME}")
    if not value.isprintable():  # control characters, NUL, lone surrogates, invisible separators
        raise InvalidOption(f"{option} is {value!r}; give printable characters only")
    return value


def checked_priority(option: str, value: Any) -> int:
    """`value` if it is a priority, 0 (first) to 9 (last); InvalidOption otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 9:
        raise InvalidOption(f"{option} is {value!r}; give a whole number from 0 to 9")
    return value
