"""Who acts, and what travels along: the actor and the headers of a run, an attempt, or the code that calls a client.

They are given once, by a client, and travel client -> workflow -> activity, child and signal. In a run they are part of its first event,
so replay sees the same ones, and nothing can change them (C13).

Both are JSON, or values of types that were allowed by `@context_type`. A stored value names its type; it is rebuilt only if this process has
allowed a type of that name, so a row of the database can never choose what is imported or constructed. Otherwise it stays plain JSON.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeVar, overload

from durable.activity_context import running_attempt
from durable.core.futures import DurableFuture, SignalFuture
from durable.core.loop import current
from durable.core.names import checked_name
from durable.errors import ActorRequired, InvalidOption
from durable.payload import ValueCodec

C = TypeVar("C", bound=type)

TAG = "durable:type"
MAX_BYTES = 64 * 1024

_allowed: dict[str, tuple[type, ValueCodec]] = {}
_names: dict[type, str] = {}
_plain = {
    "actor": ValueCodec(str | dict[str, Any], field="actor", max_bytes=MAX_BYTES),
    "headers": ValueCodec(dict[str, Any], field="headers", max_bytes=MAX_BYTES),
}


class _Given(NamedTuple):
    actor: Any
    headers: Mapping[str, Any]


_ambient: ContextVar[_Given | None] = ContextVar("durable_acting_as", default=None)


# -- what authors call ------------------------------------------------------------------------------------------------


def current_actor() -> Any:
    """Who acts: who started the calling run, the run of the calling activity, or what `acting_as` says elsewhere. None: nobody said."""
    run = current()
    if run is not None:
        return rebuilt(run.start.get("actor"))
    attempt = running_attempt()
    if attempt is not None:
        return attempt.info.actor
    given = _ambient.get()
    return None if given is None else given.actor


def headers() -> dict[str, Any]:
    """The headers that travel with the calling run or activity, or those of `acting_as`. A copy: changing it changes nothing."""
    run = current()
    if run is not None:
        return rebuilt_headers(run.start.get("headers"))
    attempt = running_attempt()
    if attempt is not None:
        return dict(attempt.info.headers)
    given = _ambient.get()
    return {} if given is None else dict(given.headers)


class Sender(NamedTuple):
    """Who sent a signal; None and empty where that is not known."""

    actor: Any
    headers: Mapping[str, Any]


def sender(received: DurableFuture[Any]) -> Sender:
    """Who sent the signal that a future of `signal.receive()` has received."""
    stored = received.sender if isinstance(received, SignalFuture) else {}
    return Sender(rebuilt(stored.get("actor")), rebuilt_headers(stored.get("headers")))


@contextlib.contextmanager
def acting_as(actor: Any = None, *, headers: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Within the block, clients of this task or thread act for `actor` and send `headers`, where a call does not say otherwise.

    For a web framework's middleware: `with durable.acting_as(user, headers={"request": id}): ...`. Blocks nest: headers are added, an inner
    actor replaces the outer one.
    """
    outer = _ambient.get() or _Given(None, {})
    merged = {**outer.headers, **(headers or {})}
    token = _ambient.set(_Given(outer.actor if actor is None else actor, merged))
    try:
        yield
    finally:
        _ambient.reset(token)


@overload
def context_type(cls: C, /) -> C: ...
@overload
def context_type(*, name: str) -> Callable[[C], C]: ...
def context_type(cls: Any = None, /, *, name: str | None = None) -> Any:
    """Allow a class (a dataclass, pydantic model, enum, ...) as actor or header value: `@durable.context_type`.

    `name` is what is stored, by default the class's own name; it must stay the same while runs carry such values. Raises InvalidOption if
    another class has the name.
    """

    def allow(cls: type) -> type:
        stored = checked_name("the context type's name", cls.__name__ if name is None else name)
        other = _allowed.get(stored)
        if other is not None and (other[0].__module__, other[0].__qualname__) != (
            cls.__module__,
            cls.__qualname__,
        ):
            raise InvalidOption(
                f"context type {stored!r} is {other[0]!r} already; give one another name="
            )
        _allowed[stored] = cls, ValueCodec(cls, field=stored, max_bytes=MAX_BYTES)
        _names[cls] = stored
        return cls

    return allow if cls is None else allow(cls)


# -- for clients and workers ------------------------------------------------------------------------------------------


def encoded_actor(given: Any, *, ambient: bool = True) -> str | None:
    """Who acts, as JSON text; what is not given comes from the caller's context. Raises PayloadError."""
    who = current_actor() if given is None and ambient else given
    return None if who is None else _plain["actor"].encode(_stored(who))


def encoded_headers(given: Mapping[str, Any] | None) -> str | None:
    """The headers as JSON text, over those of the caller's context; None when there are none. Raises PayloadError."""
    around = headers()
    if given is None and not around:
        return None
    if given is not None and not isinstance(given, Mapping):
        return _plain["headers"].encode(given)  # refused there
    return _plain["headers"].encode(
        {key: _stored(value) for key, value in {**around, **(given or {})}.items()}
    )


def rebuilt(value: Any) -> Any:
    """A stored value of the context: of its type if that is allowed here, else plain JSON."""
    if isinstance(value, dict) and TAG in value and (known := _allowed.get(value[TAG])) is not None:
        return known[1].decode(json.dumps(value.get("value")))
    return value


def rebuilt_headers(stored: Mapping[str, Any] | None) -> dict[str, Any]:
    return {key: rebuilt(value) for key, value in (stored or {}).items()}


def refuse_without_actor(what: str, name: str, actor: Any) -> None:
    """Raises ActorRequired when nobody acts."""
    if actor is None:
        raise ActorRequired(what, name)


def _stored(value: Any) -> Any:
    name = _names.get(type(value))
    if name is not None:
        return {TAG: name, "value": json.loads(_allowed[name][1].encode(value))}
    if isinstance(value, Mapping) and TAG in value and value[TAG] in _allowed:
        raise InvalidOption(f"a plain mapping may not have the key {TAG!r}; pass the value itself")
    return value
