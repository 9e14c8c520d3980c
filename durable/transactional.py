"""What a transactional activity's function must look like: its first parameter takes the connection."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    ParamSpec,
    Protocol,
    TypeVar,
    get_origin,
    overload,
)

from durable.errors import InvalidOption

if TYPE_CHECKING:
    from durable.definitions import Activity
    from durable.store.transactions_async import AsyncConnection
    from durable.store.transactions_sync import Connection

P = ParamSpec("P")
R = TypeVar("R")

_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class TransactionalDecorator(Protocol):
    """Takes the connection away from the parameters that callers see."""

    @overload
    def __call__(
        self, fn: Callable[Concatenate[AsyncConnection, P], Coroutine[Any, Any, R]], /
    ) -> Activity[P, R]: ...
    @overload
    def __call__(self, fn: Callable[Concatenate[Connection, P], R], /) -> Activity[P, R]: ...
    def __call__(self, fn: Any, /) -> Any: ...


def connection_parameter(fn: Callable[..., Any], name: str) -> str:
    """The name of the parameter that takes the connection: the first one.

    Raises InvalidOption if there is none, or if its annotation says that it takes something else than psycopg's connection of the function's kind.
    """
    wanted = "AsyncConnection" if inspect.iscoroutinefunction(fn) else "Connection"
    first = next(iter(inspect.signature(fn).parameters.values()), None)
    if first is None or first.kind not in _BY_POSITION:
        raise InvalidOption(
            f"activity {name!r} is transactional, but has no parameter for the connection; write"
            f" def {fn.__name__}(connection: psycopg.{wanted}, ...)"
        )
    said = _class_name(first, fn)
    if said is not None and said != wanted:
        raise InvalidOption(
            f"activity {name!r} is transactional: its first parameter gets a psycopg.{wanted}, but {first.name!r} is annotated as"
            f" {said}; put the connection first and annotate it with that"
        )
    return first.name


def _class_name(parameter: inspect.Parameter, fn: Callable[..., Any]) -> str | None:
    """The annotation's class by name; None where nothing is said, or it cannot be known yet."""
    annotation = parameter.annotation
    if isinstance(annotation, str):
        try:
            annotation = eval(annotation, getattr(fn, "__globals__", {}))  # noqa: S307 - the author's own annotation, as typing.get_type_hints does
        except Exception:  # names only known to type checkers
            return None
    if annotation in (inspect.Parameter.empty, Any):
        return None
    found = get_origin(annotation) or annotation
    return getattr(found, "__name__", str(found))
