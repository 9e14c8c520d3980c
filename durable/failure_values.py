"""What exceptions carry besides text: values of common types, to JSON and back.

An exception's args and attributes are any objects. Those that JSON has not got are stored under a tag that names their type, and rebuilt from the
types below, or from an enum, dataclass or pydantic model that this process has imported already; what is stored never has anything imported.
Whatever is neither stays out, and is named (see failure.py).
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import json
import sys
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import pydantic

from durable.payload import ValueCodec

TAG: Final = "durable:value"
_DEEPEST = 20

_TYPES: dict[str, tuple[type, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "datetime": (datetime, datetime.isoformat, datetime.fromisoformat),
    "date": (date, date.isoformat, date.fromisoformat),
    "time": (time, time.isoformat, time.fromisoformat),
    "timedelta": (
        timedelta,
        lambda it: [it.days, it.seconds, it.microseconds],
        lambda it: timedelta(*it),
    ),
    "decimal": (Decimal, str, Decimal),
    "uuid": (UUID, str, UUID),
    "bytes": (bytes, lambda it: base64.b64encode(it).decode(), base64.b64decode),
}
_NAMES = {cls: name for name, (cls, _, _) in _TYPES.items()}


def tagged(value: Any, depth: int = 0) -> Any:
    """The value as JSON, with tags where JSON has no such type. Raises TypeError for what cannot be rebuilt."""
    kind = type(value)
    if depth > _DEEPEST:
        raise TypeError("nested too deeply")
    if value is None or kind in (bool, int, str, float):
        return value
    if kind in (list, tuple):
        return [tagged(member, depth + 1) for member in value]
    if kind is dict and all(type(key) is str for key in value):
        return {key: tagged(member, depth + 1) for key, member in value.items()}
    if kind in (set, frozenset):
        members = [tagged(member, depth + 1) for member in value]
        return {TAG: kind.__name__, "of": sorted(members, key=json.dumps)}
    if (name := _NAMES.get(kind)) is not None:
        return {TAG: name, "of": _TYPES[name][1](value)}
    if isinstance(value, enum.Enum):
        return {TAG: _class_name(kind), "of": tagged(value.value, depth + 1)}
    if dataclasses.is_dataclass(kind) or isinstance(value, pydantic.BaseModel):
        return {TAG: _class_name(kind), "of": json.loads(ValueCodec(kind).encode(value))}
    raise TypeError(f"{kind.__qualname__} cannot be stored in a failure")


def untagged(value: Any) -> Any:
    """The value that `tagged` stored. A tag whose type is unknown here, or that does not fit it, stays plain JSON."""
    if isinstance(value, list):
        return [untagged(member) for member in value]
    if not isinstance(value, dict):
        return value
    if TAG in value and "of" in value:
        try:
            return _rebuilt(str(value[TAG]), value["of"])
        except Exception:  # the type has changed since: what is known is still worth showing
            return value
    return {key: untagged(member) for key, member in value.items()}


def _rebuilt(name: str, of: Any) -> Any:
    if name in _TYPES:
        return _TYPES[name][2](of)
    if name in ("set", "frozenset"):
        members = [untagged(member) for member in of]
        return set(members) if name == "set" else frozenset(members)
    cls = _imported(name)
    if issubclass(cls, enum.Enum):
        return cls(untagged(of))
    if dataclasses.is_dataclass(cls) or issubclass(cls, pydantic.BaseModel):
        return ValueCodec(cls).decode(json.dumps(of))
    raise TypeError(f"{name} is no type of values")


def _class_name(cls: type) -> str:
    if "<locals>" in cls.__qualname__:
        raise TypeError("a local class cannot be found again")
    return f"{cls.__module__}:{cls.__qualname__}"


def _imported(name: str) -> type:
    module, _, qualname = name.partition(":")
    found: Any = sys.modules[module]
    for part in qualname.split("."):
        found = vars(found)[part]
    if not isinstance(found, type):
        raise TypeError(f"{name} is no class")
    return found
