"""`Signal`: a typed message that anybody may send to a run, and that its code receives (C11)."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, Generic, Self, TypeVar, overload

from durable.core.durations import duration_us
from durable.core.futures import DurableFuture
from durable.core.loop import current
from durable.core.names import checked_name
from durable.definitions import DEFAULTS_KEY
from durable.errors import InvalidOption, NotInWorkflow
from durable.payload import value_codec

T = TypeVar("T")

_signals: dict[tuple[str, str], Signal[Any]] = {}


class Signal(Generic[T]):
    """A message of one name and payload type, declared at module level: `paid = Signal("paid", Payment)`.

    Signals are never lost: those that arrive before the run starts, or before anybody receives, wait in order. Without a
    type the payload is any JSON value. With `require_actor` nobody can send it anonymously. Declaring a name twice in a module with different types raises InvalidOption.
    """

    @overload
    def __init__(self: Signal[Any], name: str, *, require_actor: bool = ...) -> None: ...
    @overload
    def __init__(self, name: str, type: type[T], *, require_actor: bool = ...) -> None: ...
    @overload
    def __init__(self: Signal[Any], name: str, type: Any, *, require_actor: bool = ...) -> None: ...
    def __init__(self, name: str, type: Any = Any, *, require_actor: bool = False) -> None:
        self.name = checked_name("the signal's name", name)
        self.type = type
        self.codec = value_codec(type)
        self.require_actor = require_actor
        self.module: str = sys._getframe(1).f_globals.get("__name__", "")
        _register(self)

    def receive(self, timeout: timedelta | float | None = None) -> DurableFuture[T]:
        """The next signal of this name: `payment = await paid.receive(timeout=timedelta(days=3))`.

        Gives the oldest one that waits, else the next that arrives; each is received once. Raises TimeoutError when none came
        within `timeout` (a timedelta, or seconds), NotInWorkflow outside a workflow. `durable.sender(future)` says who sent it.
        """
        run = current()
        if run is None:
            raise NotInWorkflow(
                f"signal {self.name!r} is received inside a workflow; to send it: client.handle(id).signal({self.name}, ...)"
            )
        timeout_us = None if timeout is None else duration_us("timeout", timeout)
        return run.receive(self.name, self.codec, timeout_us)

    def described(self) -> dict[str, Any]:
        """What is registered for those without the code: the schema of the value, and whether it takes an actor."""
        schema = self.codec.json_schema()
        return {**schema, DEFAULTS_KEY: {"require_actor": True}} if self.require_actor else schema

    def pending(self) -> int:
        """How many have arrived and wait to be received."""
        run = current()
        return 0 if run is None else run.signals_buffered(self.name)

    def __aiter__(self) -> AsyncIterator[T]:
        """All of them, as they come: `async for payment in paid: ...`; never ends by itself."""
        return _Stream(self)

    def __repr__(self) -> str:
        return f"<signal {self.name!r}>"


class _Stream(Generic[T]):
    def __init__(self, signal: Signal[T]) -> None:
        self._signal = signal

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        return await self._signal.receive()


def registered_signals() -> list[Signal[Any]]:
    """All signals that were declared."""
    return list(_signals.values())


def _register(signal: Signal[Any]) -> None:
    other = _signals.get((signal.module, signal.name))
    if other is not None and str(other.type) != str(signal.type):
        raise InvalidOption(
            f"signal {signal.name!r} is declared twice, with the types {other.type!r} and {signal.type!r};"
            " declare it once and import it, or give one another name"
        )
    _signals[signal.module, signal.name] = signal
