"""Attributes: typed facts beside a run that people and programs find it by; and its details, a line of text for people.

Both are set at the start or by the workflow's code, which makes them events of the run: replay sees them again, and continue-as-new carries them
along. They are stored readable, whatever payload codec is in use: put no secrets there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Generic, TypeAlias, TypeVar, cast

from durable.core.events import ATTRIBUTES_SET, DETAILS_SET
from durable.core.loop import current
from durable.core.names import checked_name
from durable.core.run import Run
from durable.errors import InvalidOption, NotInWorkflow, PayloadError
from durable.payload import ValueCodec

T = TypeVar("T")

MAX_BYTES = 64 * 1024
MAX_DETAILS = 8192
TYPES: tuple[Any, ...] = (str, int, float, bool, datetime, list[str])

_declared: dict[str, Attribute[Any]] = {}
_STORED = ValueCodec(dict[str, Any], field="attributes", max_bytes=MAX_BYTES)
_DETAILS = ValueCodec(str, field="details", max_bytes=4 * MAX_DETAILS)


class Attribute(Generic[T]):
    """An attribute of one name and type, declared at module level: `customer = Attribute("customer", str)`.

    `type` is str, int, float, bool, datetime (with a time zone; stored in UTC) or list[str]. Use it as a key, in `start(attributes={customer:
    "x"})` and `set_attributes({customer: "x"})`, or with checked types, `customer.set("x")` and `customer.get()`. A plain name works too; if it is
    declared here, the value must fit. Declaring a name twice with different types raises InvalidOption.
    """

    def __init__(self, name: str, type: type[T]) -> None:
        self.name = checked_name("the attribute's name", name)
        if type not in TYPES:
            shown = ", ".join(getattr(it, "__name__", str(it)) for it in TYPES[:-1])
            raise InvalidOption(
                f"attribute {name!r} has the type {type!r}; give {shown} or list[str]"
            )
        self.type = type
        self._codec = ValueCodec(type, field=f"attributes.{name}", max_bytes=MAX_BYTES)
        other = _declared.setdefault(name, self)
        if other.type != type:
            raise InvalidOption(
                f"attribute {name!r} is declared twice, as {other.type!r} and {type!r}; give one another name"
            )

    def set(self, value: T | None) -> None:
        """Set it on the calling run; None removes it. See `set_attributes`."""
        set_attributes({self: value})

    def get(self) -> T | None:
        """Its value on the calling run. Raises NotInWorkflow elsewhere."""
        stored = _current("Attribute.get()").get(self.name)
        return None if stored is None else cast("T", self._codec.decode(json.dumps(stored)))

    def stored(self, value: T) -> Any:
        """The value as JSON that compares in the right order. Raises PayloadError when it does not fit exactly; nothing is converted."""
        if not _is_of(self.type, value):
            shown = getattr(self.type, "__name__", str(self.type))
            raise PayloadError(
                f"attributes.{self.name}", f"it is {value!r:.80}, not {shown}", f"Give {shown}."
            )
        if isinstance(value, datetime):
            return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return json.loads(self._codec.encode(value))

    def __repr__(self) -> str:
        return f"<attribute {self.name!r}>"


def _is_of(type_: Any, value: Any) -> bool:
    if type_ == list[str]:
        return isinstance(value, list) and all(isinstance(it, str) for it in value)
    if type_ is datetime:
        return isinstance(value, datetime) and value.tzinfo is not None
    if type_ in (int, float):
        return isinstance(value, type_ if type_ is int else int | float) and not isinstance(
            value, bool
        )
    return isinstance(value, type_)


Attributes: TypeAlias = Mapping[Any, Any]
"""Values by name or Attribute, also mixed: Mapping is invariant in its keys, so a narrower type would refuse such literals."""


# -- what workflow code calls -----------------------------------------------------------------------------------------


def set_attributes(given: Attributes) -> None:
    """Set attributes of the calling run; None removes one; those not named stay. Recorded as an event; setting what is set records nothing.

    Raises NotInWorkflow outside a workflow, PayloadError or InvalidOption when a value does not fit.
    """
    run = _run("set_attributes()")
    values = json.loads(_text(given))
    have = _current("set_attributes()")
    news = {key: value for key, value in values.items() if have.get(key) != value}
    if not news:
        return
    run.note(ATTRIBUTES_SET, {"attributes": news})
    merged = {key: value for key, value in {**have, **news}.items() if value is not None}
    _STORED.encode(merged)
    run.author_state["attributes"] = merged


def attributes() -> dict[str, Any]:
    """The attributes of the calling run as JSON values: those of the start, with what its code has set. A copy."""
    return dict(_current("attributes()"))


def set_details(text: str | None) -> None:
    """Say in a line what the run is about just now: `durable.set_details("waiting for the bank")`; None removes it.

    `describe`, `durable show` and `durable list` show it. At most 8192 characters; recorded as an event, unless it is set already.
    Raises NotInWorkflow outside a workflow, PayloadError or InvalidOption for what is no such text.
    """
    run = _run("set_details()")
    if text is not None:
        _DETAILS.encode(text)
        if len(text) > MAX_DETAILS:
            raise InvalidOption(f"details has {len(text):,} characters; give at most {MAX_DETAILS}")
    if run.author_state.get("details") != text:
        run.note(DETAILS_SET, {"details": text})
        run.author_state["details"] = text


def _run(call: str) -> Run:
    run = current()
    if run is None:
        raise NotInWorkflow(f"{call} works inside a workflow only; a client gives them to start()")
    return run


def _current(call: str) -> dict[str, Any]:
    run = _run(call)
    state: dict[str, Any] = run.author_state.setdefault(
        "attributes", dict(run.start.get("attributes") or {})
    )
    return state


# -- for clients ------------------------------------------------------------------------------------------------------


def encoded_attributes(given: Attributes | None) -> str | None:
    """The attributes of a start as JSON text, without those that are None. Raises PayloadError, InvalidOption."""
    if not given:
        return None if given is None or isinstance(given, Mapping) else _STORED.encode(given)
    text = _text(given)
    return json.dumps({key: value for key, value in json.loads(text).items() if value is not None})


def _text(given: Any) -> str:
    if not isinstance(given, Mapping):
        return _STORED.encode(given)  # refused there
    return _STORED.encode({_name(key): _value(key, value) for key, value in given.items()})


def _name(key: Any) -> Any:
    return key.name if isinstance(key, Attribute) else key


def _value(key: Any, value: Any) -> Any:
    declared = key if isinstance(key, Attribute) else _declared.get(key)
    return value if declared is None or value is None else declared.stored(value)
