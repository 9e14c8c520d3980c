"""What is known of the activities that steps call, as JSON Schemas, and what two schemas definitely exclude.

A schema that says nothing about a value allows it. So everything here answers "no" only where no value could be right.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from durable.definitions import Activity

Schema = Mapping[str, Any]

_DEEPEST = 6
"""Levels of a type that are compared; types may contain themselves."""

_OBJECT, _ARRAY = frozenset({"object"}), frozenset({"array"})
_ALL = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})


class Signatures:
    """The arguments and results of activities by name. Each schema is made once: making it costs more than looking at a step.

    `registered`: those of which only the registered schemas are known, as (arguments, result).
    """

    def __init__(
        self,
        activities: Mapping[str, Activity[..., Any]],
        registered: Mapping[str, tuple[Schema, Schema]] | None = None,
    ) -> None:
        self._activities = activities
        self._arguments: dict[str, Schema] = {}
        self._results: dict[str, Schema] = {}
        for name, (arguments, result) in (registered or {}).items():
            if name not in activities:
                self._arguments[name], self._results[name] = arguments, result

    def arguments(self, name: str) -> Schema | None:
        """The schema of the arguments, an object by parameter name; None if there is no such activity."""
        if name not in self._arguments and name in self._activities:
            self._arguments[name] = self._activities[name].arguments.json_schema()
        return self._arguments.get(name)

    def result(self, name: str) -> Schema:
        """The schema of the result; the one that allows everything if there is no such activity."""
        if name not in self._results and name in self._activities:
            self._results[name] = self._activities[name].arguments.result.json_schema()
        return self._results.get(name, {})


def array_of(schema: Schema) -> Schema:
    return {"type": "array", "items": schema, "$defs": schema.get("$defs", {})}


def part(schema: Schema, path: Sequence[str | int]) -> Schema | None:
    """The schema of the part at that path; None if there is definitely no such part."""
    definitions = schema.get("$defs", {})
    for key in path:
        schema = _resolved(schema, definitions)
        if not isinstance(schema.get("type"), str):
            return {}
        if schema["type"] == "object":
            properties, more = schema.get("properties", {}), schema.get("additionalProperties")
            if key not in properties and _is_closed(schema):
                return None
            schema = properties.get(key, more if isinstance(more, Mapping) else {})
        elif schema["type"] == "array" and isinstance(key, int):
            items = schema.get("items", {})
            schema = items if isinstance(items, Mapping) and "prefixItems" not in schema else {}
        else:
            return None
    return {**schema, "$defs": definitions}


def difference(given: Schema, wanted: Schema) -> str | None:
    """Why no value of the one type is one of the other, in words; None if there may be one."""
    return next(
        _differences(given, wanted, given.get("$defs", {}), wanted.get("$defs", {}), 0), None
    )


def _differences(
    given: Schema, wanted: Schema, of_given: Schema, of_wanted: Schema, depth: int
) -> Iterator[str]:
    given, wanted = _resolved(given, of_given), _resolved(wanted, of_wanted)
    has, takes = _types(given, of_given), _types(wanted, of_wanted)
    if not has & takes:
        yield f"{_listed(has)}, not {_listed(takes)}"
    elif depth == _DEEPEST or has != takes & has or len(has) != 1:
        return
    elif has == _OBJECT and "properties" in wanted:
        properties = given.get("properties", {})
        for key in wanted.get("required", []):
            if key in properties:
                inner = (properties[key], wanted["properties"].get(key, {}))
                for found in _differences(*inner, of_given, of_wanted, depth + 1):
                    yield f"{key}: {found}"
            elif _is_closed(given):
                yield f"an object without {key!r}"
    elif has == _ARRAY and "items" in given and "items" in wanted:
        for found in _differences(given["items"], wanted["items"], of_given, of_wanted, depth + 1):
            yield f"a list of {found}"


def texts(schema: Schema) -> frozenset[str] | None:
    """All that a value of the type can be, as the cases of a branch; None if that is not a closed list of them."""
    schema = _resolved(schema, schema.get("$defs", {}))
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if values is None and schema.get("type") == "boolean":
        values = [True, False]
    return None if values is None else frozenset(as_text(value) for value in values)


def is_possible(schema: Schema, value: Any) -> bool:
    """Whether a value of the type may be comparable with this one."""
    among = texts(schema)
    if among is not None and isinstance(value, str):
        return value in among
    return difference(schema, {"type": _comparable(value)}) is None


def _comparable(value: Any) -> list[str]:
    """The JSON types of what compares with a value; in Python, True is 1."""
    if isinstance(value, int | float):
        return ["boolean", "number"]
    if isinstance(value, str):
        return ["string"]
    return ["null"] if value is None else ["array" if isinstance(value, list) else "object"]


def as_text(value: Any) -> str:
    """A value as the cases of a branch have it."""
    return value if isinstance(value, str) else json.dumps(value)


def _resolved(schema: Any, definitions: Schema) -> Schema:
    for _ in range(_DEEPEST):
        if not isinstance(schema, Mapping) or "$ref" not in schema:
            break
        schema = definitions.get(str(schema["$ref"]).rpartition("/")[2], {})
    return schema if isinstance(schema, Mapping) and "$ref" not in schema else {}


def _is_closed(schema: Schema) -> bool:
    """Whether an object of the type has no keys but the named ones: models write no others, where nothing else is said."""
    properties, more = schema.get("properties", {}), schema.get("additionalProperties")
    return more is False or (bool(properties) and more is None)


def _types(schema: Schema, definitions: Schema) -> frozenset[str]:
    if "anyOf" in schema:
        either = [_types(_resolved(it, definitions), definitions) for it in schema["anyOf"]]
        return frozenset().union(*either)
    kinds = schema.get("type", sorted(_ALL))
    named = frozenset([kinds] if isinstance(kinds, str) else kinds)
    return named | {"integer"} if "number" in named else named


def _listed(types: frozenset[str]) -> str:
    shown = types - {"integer"} if "number" in types else types
    return " or ".join(sorted(shown))
