"""What a stored definition may say instead of a value: references, and conditions on them. Both are data, never code.

In the stored form a reference is an object with one of the keys of `SOURCES` (`{"$result": "fetch", "path": ["id"]}`) and a condition is
`{"op": "eq", "of": <reference>, "value": ...}`. Keys that begin with `$` are therefore not allowed in authors' values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

SOURCES = ("$result", "$context", "$item")

TRANSFORMS: dict[str, Callable[[Any], Any]] = {
    "length": len,
    "keys": list,
    "values": lambda value: list(value.values()),
    "first": lambda value: value[0],
    "last": lambda value: value[-1],
    "sum": sum,
    "text": str,
    "not": lambda value: not value,
}

OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda left, right: bool(left == right),
    "ne": lambda left, right: bool(left != right),
    "lt": lambda left, right: bool(left < right),
    "le": lambda left, right: bool(left <= right),
    "gt": lambda left, right: bool(left > right),
    "ge": lambda left, right: bool(left >= right),
    "in": lambda left, right: left in right,
    "contains": lambda left, right: right in left,
    "true": lambda left, _: bool(left),
    "false": lambda left, _: not left,
}


class BadReference(Exception):
    """A reference or condition that the values at hand do not satisfy; the message names the place."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A comparison of what a reference stands for; made by the methods of `Ref`."""

    op: str
    of: Ref
    value: Any = None

    def to_json(self) -> dict[str, Any]:
        return {"op": self.op, "of": self.of.to_json(), "value": self.value}


@dataclass(frozen=True, slots=True)
class Ref:
    """Stands for a value that is known when the step starts; see `result`, `context` and `item`."""

    source: str
    name: str = ""
    path: tuple[str | int, ...] = ()
    transform: str | None = None

    def at(self, *path: str | int) -> Ref:
        """A part of it: `result("fetch").at("address", "city")`; whole numbers are places in lists."""
        return replace(self, path=(*self.path, *path))

    def eq(self, value: Any) -> Condition:
        return Condition("eq", self, value)

    def ne(self, value: Any) -> Condition:
        return Condition("ne", self, value)

    def lt(self, value: Any) -> Condition:
        return Condition("lt", self, value)

    def le(self, value: Any) -> Condition:
        return Condition("le", self, value)

    def gt(self, value: Any) -> Condition:
        return Condition("gt", self, value)

    def ge(self, value: Any) -> Condition:
        return Condition("ge", self, value)

    def is_in(self, values: list[Any]) -> Condition:
        return Condition("in", self, values)

    def contains(self, value: Any) -> Condition:
        return Condition("contains", self, value)

    def is_true(self) -> Condition:
        return Condition("true", self)

    def is_false(self) -> Condition:
        return Condition("false", self)

    def to_json(self) -> dict[str, Any]:
        more: dict[str, Any] = {"path": list(self.path)} if self.path else {}
        if self.transform is not None:
            more["transform"] = self.transform
        return {self.source: self.name, **more}


def result(step: str, *path: str | int, transform: str | None = None) -> Ref:
    """The result of a step, or the part of it at `path`. The step becomes a dependency; if it was skipped or failed, the value is None.

    `transform`: one of `TRANSFORMS`, applied to the part. What is not among them is an activity of its own.
    """
    return Ref("$result", step, path, transform)


def context(*path: str | int, transform: str | None = None) -> Ref:
    """The DAG's context, or the part of it at `path`."""
    return Ref("$context", "", path, transform)


def item(*path: str | int, transform: str | None = None) -> Ref:
    """In the arguments of a `map` step: the element, or the part of it at `path`."""
    return Ref("$item", "", path, transform)


# -- the stored form ----------------------------------------------------------------------------------------------------


def source_of(value: Any) -> str | None:
    """Which kind of reference a stored value is; None for a plain one."""
    if isinstance(value, Mapping):
        return next((key for key in SOURCES if key in value), None)
    return None


def references(value: Any) -> Iterator[Mapping[str, Any]]:
    """Every reference within a stored value. Iterative: a value may be deep."""
    pending = [value]
    while pending:
        node = pending.pop()
        if source_of(node):
            yield node
        elif isinstance(node, Mapping):
            pending.extend(reversed(list(node.values())))
        elif isinstance(node, list):
            pending.extend(reversed(node))


@dataclass(slots=True)
class Values:
    """What references are looked up in: results by step, the context and, in a `map`, the element."""

    results: Mapping[str, Any]
    context: Any
    item: Any = None

    def resolve(self, stored: Any) -> Any:
        """The stored value with every reference replaced. Raises BadReference."""
        if source_of(stored):
            return self._look_up(stored)
        if isinstance(stored, Mapping):
            return {key: self.resolve(value) for key, value in stored.items()}
        if isinstance(stored, list):
            return [self.resolve(value) for value in stored]
        return stored

    def holds(self, condition: Mapping[str, Any]) -> bool:
        """Whether a stored condition is true. Raises BadReference."""
        left, right = self.resolve(condition["of"]), self.resolve(condition.get("value"))
        try:
            return OPERATORS[condition["op"]](left, right)
        except TypeError as error:
            raise BadReference(f"{condition['op']} on {_shown(left)}: {error}") from error

    def _look_up(self, ref: Mapping[str, Any]) -> Any:
        if "$result" in ref:
            value, place = self.results.get(ref["$result"]), f"result of {ref['$result']!r}"
            if value is None:
                return None
        elif "$context" in ref:
            value, place = self.context, "context"
        else:
            value, place = self.item, "item"
        for part in ref.get("path", ()):
            try:
                value = value[part]
            except (KeyError, IndexError, TypeError) as error:
                raise BadReference(f"{place} has no {part!r}: it is {_shown(value)}") from error
            place = f"{place}.{part}"
        return _transformed(ref.get("transform"), value, place)


def _transformed(name: str | None, value: Any, place: str) -> Any:
    if name is None:
        return value
    try:
        return TRANSFORMS[name](value)
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise BadReference(f"{name} of {place}: {_shown(value)} does not allow it") from error


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
