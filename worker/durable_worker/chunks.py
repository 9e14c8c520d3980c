"""Several jobs in one call: the attempts of an activity with `chunk_size` that run here at one time are handed to its function together.

Each attempt stays what it is: it has its own slot, fence, time limits and outcome. It only waits, before its function is called, until enough
others have come or `chunk_wait` has passed since the first. One call is then made with all their items; each attempt gets its slice of the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from durable.activity_modes import Chunk

Call = Callable[[list[Any]], Awaitable[Any]]


@dataclass
class _Gathering:
    """The attempts that the next call will be for."""

    members: list[tuple[list[Any], asyncio.Future[Any]]] = field(default_factory=list)
    timer: asyncio.TimerHandle | None = None


class Chunks:
    """What is being gathered here, by activity."""

    def __init__(self) -> None:
        self._gathering: dict[str, _Gathering] = {}
        self._calls: set[asyncio.Task[None]] = set()

    async def join(self, name: str, chunk: Chunk, items: list[Any], call: Call) -> list[Any]:
        """Take part in the next call, and return the results of these items. Raises what the call raised, or what it gave for one of them."""
        loop = asyncio.get_running_loop()
        gathering = self._gathering.setdefault(name, _Gathering())
        answer: asyncio.Future[list[Any]] = loop.create_future()
        waiting = [
            member for member in gathering.members if not member[1].done()
        ]  # not the cancelled
        gathering.members = [*waiting, (items, answer)]
        if sum(len(given) for given, _ in gathering.members) >= chunk.size:
            self._begin(name, call)
        elif gathering.timer is None:
            gathering.timer = loop.call_later(chunk.wait_s, self._begin, name, call)
        results = await answer
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results

    def _begin(self, name: str, call: Call) -> None:
        gathering = self._gathering.pop(name)
        if gathering.timer is not None:
            gathering.timer.cancel()
        members = [(items, answer) for items, answer in gathering.members if not answer.done()]
        if members:
            task = asyncio.get_running_loop().create_task(_run(name, members, call))
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)


async def _run(name: str, members: list[tuple[list[Any], asyncio.Future[Any]]], call: Call) -> None:
    """Call once and hand out the slices. A member that was cancelled meanwhile does not listen any more."""
    try:
        everything = [item for items, _ in members for item in items]
        results = await call(everything)
        if not isinstance(results, list) or len(results) != len(everything):
            got = f"{len(results)} results" if isinstance(results, list) else type(results).__name__
            raise TypeError(
                f"{name} was given {len(everything)} items and gave {got}; return a list with one result for each"
            )
    except BaseException as error:
        for _, answer in members:
            if not answer.done():
                answer.set_exception(error)
                answer.exception()  # seen, also if its attempt is gone by now
        return
    for items, answer in members:
        if not answer.done():
            answer.set_result(results[: len(items)])
        del results[: len(items)]
