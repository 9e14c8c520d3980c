"""The three author styles, each as one coroutine for the deterministic loop to run."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Literal

from durable.core import fiber

Style = Literal["await", "yield", "block"]


def style_of(fn: Callable[..., Any]) -> Style:
    """How `fn` is written: decided once, when it is decorated."""
    if inspect.iscoroutinefunction(fn):
        return "await"
    if inspect.isasyncgenfunction(fn):
        raise TypeError(
            f"{fn.__qualname__} is an async generator; a workflow is an async function, a generator or a plain function"
        )
    return "yield" if inspect.isgeneratorfunction(fn) else "block"


def as_coroutine(
    style: Style, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """The coroutine that runs `fn`, whatever its style."""
    if style == "await":
        return fn(*args, **kwargs)
    if style == "yield":
        return drive(fn(*args, **kwargs))
    return fiber.drive(fn, args, kwargs)


async def drive(generator: Generator[Any, Any, Any]) -> Any:
    """Run a generator workflow: await what it yields and send the outcome in.

    `yield x` awaits x, `yield [a, b]` all of them, a bare `yield` lets other tasks run. `yield from future` needs no
    help: a future's own iterator yields the future.
    """
    try:
        given = next(generator)
        while True:
            try:
                value = await _awaitable(given)
            except (
                BaseException
            ) as error:  # CancelledError and Evicted too: the author's code is over there
                given = generator.throw(error)
            else:
                given = generator.send(value)
    except StopIteration as stop:
        return stop.value


def step(given: Any) -> Awaitable[Any]:
    """What an iterator of `__await__` or `yield from` hands up, made fit to be awaited once more."""
    if given is None:
        return asyncio.sleep(0)
    if getattr(given, "_asyncio_future_blocking", False):
        given._asyncio_future_blocking = (
            False  # raised for a task that would now take it; the next await raises it again
        )
    return given  # type: ignore[no-any-return]


def _awaitable(given: Any) -> Awaitable[Any]:
    if given is None or inspect.isawaitable(given):
        return step(given)
    if isinstance(given, list | tuple):
        return asyncio.gather(*map(_awaitable, given))
    raise TypeError(
        f"a workflow yielded {given!r}; yield an activity call, another durable future or awaitable, or a list of them"
    )
