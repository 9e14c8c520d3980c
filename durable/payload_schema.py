"""Mends the schemas that pydantic builds, so that no value is lost without an error (C18).

`durable/payload.py` tells why. This file knows the shape of pydantic's core schemas; nobody else does.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any

import pydantic_core
from pydantic_core import SchemaSerializer, SchemaValidator, core_schema

DEEPEST = 190  # levels of nesting; the JSON parser gives up at 200
_LONGEST_KEY = 2**31 - 1

_CONFIG: dict[str, Any] = {"ser_json_inf_nan": "constants", "revalidate_instances": "always"}
_BYTES_CONFIG: dict[str, Any] = {"ser_json_bytes": "base64", "val_json_bytes": "base64"}
_ROOT_CONFIG: Any = {**_CONFIG, **_BYTES_CONFIG}
_SCALARS = frozenset({str, int, float, bool, type(None)})

_NOT_SCHEMAS = frozenset(
    {
        "metadata",
        "default",
        "expected",
        "members",
        "cls",
        "config",
        "function",
        "ref",
        "serialization",
    }
)
_DOUBTFUL = frozenset(
    {
        "union",
        "is-instance",
        "call",
        "lax-or-strict",
        "json-or-python",
        "chain",
        "custom-error",
        "complex",
    }
)
_MAY_BE_NONE = frozenset({"nullable", "any", "none", "union"})


def compile_schema(schema: Any) -> tuple[SchemaValidator, SchemaSerializer, bool]:
    """The validator and serializer of a core schema, mended; and whether a value of it may read back as
    another one, so that encoding has to check.

    `_use_prebuilt=False`: the models' own validators know nothing of the mending.
    """
    mender = _Mender()
    mended = mender.mend(schema)
    validator = SchemaValidator(mended, _ROOT_CONFIG, _use_prebuilt=False)
    serializer = SchemaSerializer(mended, _ROOT_CONFIG, _use_prebuilt=False)
    return validator, serializer, mender.doubtful


class _Mender:
    """Copies a core schema so that nothing is lost without an error (see the essay above).

    `doubtful` tells whether it met something that may not come back as it went in.
    """

    def __init__(self) -> None:
        self.doubtful = False

    def mend(self, node: Any) -> Any:
        if isinstance(node, list):
            return [self.mend(item) for item in node]
        if isinstance(node, tuple):
            return tuple(self.mend(item) for item in node)
        if not isinstance(node, dict):
            return node
        mended = {
            key: value if key in _NOT_SCHEMAS else self.mend(value) for key, value in node.items()
        }
        self.doubtful = self.doubtful or _is_doubtful(mended)
        if isinstance(mended.get("config"), dict):
            mended["config"] = _mended_config(mended["config"])
        mend = _MENDERS.get(str(mended.get("type")))
        return mend(mended) if mend is not None and "serialization" not in mended else mended


def _is_doubtful(node: dict[str, Any]) -> bool:
    kind = str(node.get("type"))
    if kind in _DOUBTFUL or kind.startswith("function-") or "serialization" in node:
        return True
    if kind == "json" or node.get("computed_fields"):
        return True
    if kind == "default" and "default" in node and node["default"] is None:
        return node["schema"].get("type") not in _MAY_BE_NONE  # `note: str = None`
    return bool(node.get("serialization_exclude")) or "serialization_exclude_if" in node


def _mended_config(config: dict[str, Any]) -> dict[str, Any]:
    chosen = "ser_json_bytes" in config or "val_json_bytes" in config
    return {**({} if chosen else _BYTES_CONFIG), **config, **_CONFIG}


def _mend_set(node: dict[str, Any]) -> dict[str, Any]:
    items = node.get("items_schema", _ANY)
    sort = core_schema.wrap_serializer_function_ser_schema(_sorted_members)
    return {**node, "items_schema": items, "serialization": sort}


def _sorted_members(value: Any, handler: Callable[[Any], Any]) -> Any:
    return sorted(handler(value), key=pydantic_core.to_json)


def _mend_any(node: dict[str, Any]) -> dict[str, Any]:
    return {**node, "serialization": core_schema.plain_serializer_function_ser_schema(_only_json)}


def _mend_dict(node: dict[str, Any]) -> dict[str, Any]:
    keys = node.get("keys_schema", _ANY)
    if keys["type"] == "any":
        keys = {
            **keys,
            "serialization": core_schema.plain_serializer_function_ser_schema(_only_key),
        }
    elif keys["type"] == "str":
        keys = {
            "max_length": _LONGEST_KEY,
            **keys,
        }  # any constraint makes pydantic look for lone surrogates
    return {"values_schema": _ANY, **node, "keys_schema": keys}


def _mend_call(node: dict[str, Any]) -> dict[str, Any]:
    """A NamedTuple before pydantic 2.14, which forgets its field types when it writes one."""
    make, arguments = node["function"], node["arguments_schema"].get("arguments_schema", [])
    if not (isinstance(make, type) and issubclass(make, tuple)):
        return node
    fields = core_schema.tuple_schema([argument["schema"] for argument in arguments])
    write = core_schema.plain_serializer_function_ser_schema(tuple, return_schema=fields)
    return {**node, "serialization": write}


def _mend_model(node: dict[str, Any]) -> dict[str, Any]:
    inner = node.get("schema", {})
    extra = node.get("config", {}).get("extra_fields_behavior")
    if extra != "allow" or inner.get("type") != "model-fields" or "extras_schema" in inner:
        return node
    return {**node, "schema": {**inner, "extras_schema": _ANY}}


class NotJson(ValueError):
    """A value where JSON's own types are needed; the message says which."""


def _only_json(value: Any, depth: int = 0) -> Any:
    """Let through what JSON carries as it is; a tuple passes as an array."""
    kind = type(value)
    if kind in _SCALARS:
        return value
    if depth > DEEPEST:
        raise NotJson("it is nested too deeply or contains itself")
    if kind is list or kind is tuple:
        return [_only_json(item, depth + 1) for item in value]
    if kind is dict:
        return {_only_key(key): _only_json(item, depth + 1) for key, item in value.items()}
    raise NotJson(
        f"a value of type {kind.__module__}.{kind.__qualname__} has no annotation that says how to store it"
    )


def _only_key(key: Any) -> str:
    if type(key) is not str:
        raise NotJson(f"the dict key {short(key)} is not a str, and would come back as one")
    if not key.isascii():
        key.encode()  # a lone surrogate: as a key, it would be replaced without a word
    return key


_ANY = _mend_any({"type": "any"})
_MENDERS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "any": _mend_any,
    "call": _mend_call,
    "set": _mend_set,
    "frozenset": _mend_set,
    "list": lambda node: {"items_schema": _ANY, **node},
    "dict": _mend_dict,
    "model": _mend_model,
}


def short(value: Any) -> str:
    try:
        text = repr(value)
    except Exception as broken:
        text = f"<{type(value).__name__} whose repr raised {type(broken).__name__}>"
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= 80 else text[:77] + "..."


def without_outcomes(union: Any) -> Any:
    """A union without exceptions, Snooze, Cancel and Retry, which an activity may return and which are no results."""
    members = typing.get_args(union)
    results = tuple(
        each for each in members if not (isinstance(each, type) and issubclass(each, BaseException))
    )
    return union if len(results) == len(members) else typing.Union[results or (None,)]  # noqa: UP007
