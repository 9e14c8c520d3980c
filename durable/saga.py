"""`durable.saga()`: undo what was done, in reverse, whatever stops the workflow.

    async with durable.saga() as saga:              # await style
        hotel = await book_hotel(trip)
        saga.compensate(cancel_hotel, hotel)
        flight = await book_flight(trip)            # fails: cancel_hotel(hotel) runs, then the failure goes on

    with durable.saga() as saga:                    # plain def style
        hotel = book_hotel(trip).result()
        saga.compensate(cancel_hotel, hotel)

    saga = durable.saga()                           # generator style: only a `yield` can wait
    try:
        hotel = yield from book_hotel(trip)
        saga.compensate(cancel_hotel, hotel)
    except BaseException:
        yield from saga.unwind()
        raise

A saga is `try`/`except` with a list: there is nothing durable in it, because replay rebuilds the list. So it survives a crash
between two compensations. What it adds: a failing compensation does not stop the others, all failures are reported,
and a cancellation that arrives meanwhile waits until they are through (C9).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any, ParamSpec, Self

from durable.core import fiber
from durable.core.loop import apart, current, current_task
from durable.core.styles import step
from durable.errors import ContinueAsNew, DurableError, Evicted, NotInWorkflow, SagaFailed

P = ParamSpec("P")

_DYING = (Evicted, GeneratorExit, ContinueAsNew)
"""The run is dropped from memory and will be replayed, or leaves for its successor: not a reason to undo anything (C12)."""


class Saga:
    """A list of compensations. Made by `durable.saga()`."""

    def __init__(self) -> None:
        self._compensations: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = []

    def compensate(self, fn: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> None:
        """Register `fn(*args, **kwargs)` to be run if the saga fails; the last registered runs first.

        `fn` is an activity (or one with `.options(...)`), an async function, or a plain function.
        """
        self._compensations.append((fn, args, kwargs))

    def unwind(self) -> Unwinding:
        """Run all compensations, last first; `await` it, or `yield from` it in a generator workflow.

        Raises SagaFailed with all failures at the end, if there were any, else CancelledError if a cancellation came in
        meanwhile.
        """
        return Unwinding(self)

    def _steps(self) -> Generator[Any, Any, None]:
        task = current_task()
        task.mask()
        failures: list[Exception] = []
        try:
            while self._compensations:
                fn, args, kwargs = self._compensations.pop()
                try:
                    outcome = fn(*args, **kwargs)
                    if hasattr(outcome, "__await__"):
                        yield from apart(outcome).__await__()
                except Exception as error:
                    failures.append(error)
                except (
                    asyncio.CancelledError
                ) as error:  # of the compensation itself: ours are held back
                    failures.append(_as_failure(fn, error))
        finally:
            due = task.unmask()
        if due:
            yield from self._deliver_cancellation(hidden=bool(failures))
        if failures:
            raise SagaFailed("compensations failed", failures)

    @staticmethod
    def _deliver_cancellation(*, hidden: bool) -> Generator[Any, Any, None]:
        """Let the held cancellation be raised here; a failed compensation outranks it, since somebody has to look."""
        try:
            yield from asyncio.sleep(0).__await__()
        except asyncio.CancelledError:
            if not hidden:
                raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _tb: object
    ) -> None:
        if error is None or isinstance(error, _DYING):
            return
        try:
            await self.unwind()
        except SagaFailed as failed:
            raise failed from error

    def __enter__(self) -> Self:
        if not fiber.on_fiber():
            raise NotInWorkflow(_WRONG_STYLE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _tb: object
    ) -> None:
        if error is None or isinstance(error, _DYING):
            return
        try:
            self._unwind_blocking()
        except SagaFailed as failed:
            raise failed from error

    def _unwind_blocking(self) -> None:
        """The same steps, here and not in a task, so that plain functions may call `.result()`."""
        unwinding = self._steps()
        given, failure = None, None
        while True:
            try:
                handed = unwinding.send(given) if failure is None else unwinding.throw(failure)
            except StopIteration:
                return
            given, failure = None, None
            try:
                given = fiber.block(step(handed))
            except BaseException as error:
                failure = error


class Unwinding:
    """The compensations of a saga, to be awaited."""

    def __init__(self, saga: Saga) -> None:
        self._saga = saga

    def __await__(self) -> Generator[Any, Any, None]:
        return self._saga._steps()

    __iter__ = __await__  # for `yield from`


async def undisturbed(undoing: Coroutine[Any, Any, None]) -> None:
    """Await it with cancellations of the calling task held back; one that came is raised where the task waits next (C9)."""
    task = current_task()
    task.mask()
    try:
        await undoing
    finally:
        task.unmask()


_WRONG_STYLE = (
    "`with durable.saga()` waits in __exit__, which only a plain `def` workflow can. Use `async with` in an async workflow;"
    " in a generator workflow call `yield from saga.unwind()` in an `except BaseException:` block"
)


def _as_failure(fn: Callable[..., Any], error: asyncio.CancelledError) -> Exception:
    failure = DurableError(f"compensation {getattr(fn, 'name', fn)!r} was cancelled")
    failure.__cause__ = error
    return failure


def saga() -> Saga:
    """A new saga; see the module. Raises NotInWorkflow outside a workflow."""
    if current() is None:
        raise NotInWorkflow(
            "durable.saga() works inside a workflow only, and no workflow is calling"
        )
    return Saga()
