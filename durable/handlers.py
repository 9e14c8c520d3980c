"""`@durable.query` and `@durable.update`: closures of a workflow that others may call (C14).

    @workflow
    async def cart(owner: str) -> list[str]:
        items: list[str] = []
        paid = False

        @durable.query
        def content() -> list[str]:
            return items

        @durable.update
        async def add(item: str) -> int:
            await reserve(item)
            items.append(item)
            return len(items)

        @add.validator
        def not_paid(item: str) -> None:
            if paid:
                raise ValueError("the cart is paid")

        ...

They may be registered in workflows of every style, at any time; a name that is registered again means the new function from then on. Clients
call them: `handle.query("content")`, `handle.update("add", "tea", returns=int)`.
"""

from __future__ import annotations

import contextvars
import inspect
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar, overload

from durable.context import rebuilt
from durable.core import handlers
from durable.core.handlers import QueryHandler, UpdateHandler, UpdateInfo, codec_of
from durable.core.loop import current
from durable.core.names import checked_name
from durable.core.run import Run
from durable.core.styles import style_of
from durable.errors import InvalidOption, NotInWorkflow

P = ParamSpec("P")
T = TypeVar("T")


class Update(Generic[P, T]):
    """A registered update; calling it calls the plain function. `.validator` registers what must agree before it is accepted."""

    def __init__(self, fn: Callable[P, T], handler: UpdateHandler) -> None:
        self.fn = fn
        self._handler = handler

    @property
    def name(self) -> str:
        return self._handler.name

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.fn(*args, **kwargs)

    def validator(self, fn: Callable[P, None]) -> Callable[P, None]:
        """Register a plain function with the same parameters that raises to refuse the update: `@add.validator`.

        It is asked before anything is recorded, never in replay, and must only read. Raises InvalidOption if it is not a plain function.
        """
        _refuse_unless_plain("validator", self.name, fn)
        self._handler.validator = fn
        return fn

    def __repr__(self) -> str:
        return f"<update {self.name!r}>"


@overload
def query(fn: Callable[P, T], /) -> Callable[P, T]: ...
@overload
def query(*, name: str | None = None) -> Callable[[Callable[P, T]], Callable[P, T]]: ...
def query(fn: Any = None, /, *, name: str | None = None) -> Any:
    """Register a plain function of a workflow as a query: `@durable.query` or `@durable.query(name="status")`.

    It sees the state at the end of the run's last committed turn, must only read, and its arguments and result are stored like an activity's. Raises
    NotInWorkflow outside a workflow, InvalidOption if it is not a plain function or its name is taken by the library.
    """

    def decorate(fn: Callable[P, T]) -> Callable[P, T]:
        run = _run("query")
        chosen = _checked("query", name, fn)
        _refuse_unless_plain("query", chosen, fn)
        registered = QueryHandler(chosen, fn, codec_of(fn, chosen), contextvars.copy_context())
        run.registry().queries[chosen] = registered
        return fn

    return decorate if fn is None else decorate(fn)


@overload
def update(fn: Callable[P, T], /) -> Update[P, T]: ...
@overload
def update(*, name: str | None = None) -> Callable[[Callable[P, T]], Update[P, T]]: ...
def update(fn: Any = None, /, *, name: str | None = None) -> Any:
    """Register a function of a workflow as an update: `@durable.update` or `@durable.update(name="add")`.

    It may be `async def`, a generator or plain `def`, and wait for activities, sleeps and children; several may run at once. What it returns or raises
    goes to the caller; an exception does not fail the run. Raises NotInWorkflow outside a workflow, InvalidOption for a name that is taken by the library.
    """

    def decorate(fn: Callable[P, T]) -> Update[P, T]:
        run = _run("update")
        chosen = _checked("update", name, fn)
        handler = UpdateHandler(chosen, fn, style_of(fn), codec_of(fn, chosen))
        run.registry().updates[chosen] = handler
        return Update(fn, handler)

    return decorate if fn is None else decorate(fn)


def handlers_finished() -> bool:
    """Whether no update is under way: `await durable.wait_until(durable.handlers_finished)` before returning."""
    registered = _run("handlers_finished()").handlers
    return registered is None or not registered.running


def current_update() -> UpdateInfo | None:
    """The update whose handler is calling (`id`, `name`, `actor`), or None; tasks that the handler creates are part of it."""
    update = handlers.current_update.get()
    return update and update._replace(actor=rebuilt(update.actor))


def _run(call: str) -> Run:
    run = current()
    if run is None:
        raise NotInWorkflow(
            f"durable.{call} works inside a workflow only: decorate a function that the workflow defines in its body"
        )
    return run


def _checked(kind: str, name: str | None, fn: Any) -> str:
    chosen = checked_name(f"the {kind}'s name", fn.__name__ if name is None else name)
    if chosen.startswith("__"):
        raise InvalidOption(
            f"the {kind}'s name is {chosen!r}; names with two underscores are taken"
        )
    return chosen


def _refuse_unless_plain(kind: str, name: str, fn: Any) -> None:
    if style_of(fn) != "block":
        raise InvalidOption(
            f"{kind} {name!r} is {'async' if inspect.iscoroutinefunction(fn) else 'a generator'}; it must only read, so it is a plain `def`"
        )
