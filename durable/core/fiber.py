"""Plain `def` workflows: the only place that imports greenlet.

The problem. In `reservation = reserve(order).result()` a plain function must stop in the middle and go on hours later, and
no `await` marks the place. A thread per run would cost megabytes and could not be dropped. So the function runs on a *fiber*
(a greenlet: a second C stack in the same thread). `block()` switches from there to the coroutine `drive`, which is an
ordinary task of the deterministic loop, awaits for the fiber, and switches back with the outcome. Everything else
(cancellation, timeouts, eviction) then works as it does for coroutines, because there is a coroutine.

What can still fail. A greenlet cannot leave its thread: all activations of one run must happen in one thread.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from greenlet import getcurrent, greenlet

from durable.errors import NotInWorkflow


class Fiber(greenlet):
    """The marker: code runs on a fiber exactly if the current greenlet is one of these."""


def on_fiber() -> bool:
    """Whether the caller may `block()`."""
    return isinstance(getcurrent(), Fiber)


def block(awaitable: Awaitable[Any]) -> Any:
    """Suspend the fiber until `awaitable` is done; its result, or its exception raised here."""
    fiber = getcurrent()
    if not isinstance(fiber, Fiber) or fiber.parent is None:
        raise NotInWorkflow(
            "only the body of a plain `def` workflow can block; use `await` in an async workflow or task,"
            " `yield` in a generator workflow"
        )
    return fiber.parent.switch(awaitable)


async def drive(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run `fn` on a fiber and await what it blocks on, until it returns."""
    fiber = Fiber(fn)
    given = _start(fiber, args, kwargs)
    del args, kwargs
    while not fiber.dead:
        try:
            value = await given
        except (
            BaseException
        ) as error:  # CancelledError and Evicted too: the author's code is over there
            given = _resume(fiber, None, error)
        else:
            given = _resume(fiber, value)
    return given


# Not in `drive` itself: greenlet has Python make an object of the frame that switches, and a coroutine's frame would keep it while the run is parked.


def _start(fiber: Fiber, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    # One set of context variables for the fiber and its task.
    fiber.gr_context = getcurrent().gr_context
    return fiber.switch(*args, **kwargs) if kwargs else fiber.switch(*args)


def _resume(fiber: Fiber, value: Any, error: BaseException | None = None) -> Any:
    here = getcurrent()
    if fiber.parent is not here:  # the worker may activate us from another greenlet than last time
        fiber.parent = here
    return fiber.switch(value) if error is None else fiber.throw(error)
