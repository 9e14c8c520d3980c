"""What a queue's process does for `bench.queue`, the same for every contender: fill the queue, run a worker until N jobs are done, time pick-ups.

A process runs one contender. The worker is started in it, so its CPU time is the process's. Timing begins with the first call of the handler, so
starting a worker is not in it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from bench.cpu import Usage, usage
from bench.processes import say

_IDLE_S = 0.03


class Tally:
    """Counts handler calls. The contender's handler calls `arrived`, on the event loop."""

    def __init__(self, postmaster: int | None) -> None:
        self._postmaster = postmaster
        self._goal = 0
        self.count = 0
        self.reached = asyncio.Event()
        self.last_ns = 0
        self.first: Usage | None = None

    def expect(self, goal: int) -> None:
        """Begin a new measurement."""
        self._goal, self.count, self.first = goal, 0, None
        self.reached.clear()

    def arrived(self) -> None:
        """One call of the handler."""
        self.last_ns = time.monotonic_ns()  # before what follows, which takes a millisecond
        if self.count == 0:
            self.first = self.now()
        self.count += 1
        if self.count >= self._goal:
            self.reached.set()

    def now(self) -> Usage:
        """The clocks of this process, of PostgreSQL and of the machine."""
        return usage([os.getpid()], None, self._postmaster)


class Queue(Protocol):
    """A contender. `enqueue` fills the queue in bulk as its library does it best; `worker` runs inside the block."""

    def worker(self, width: int) -> AbstractAsyncContextManager[None]:
        """Run a worker with this concurrency."""
        ...

    async def enqueue_one(self) -> None:
        """Enqueue one job by the library's ordinary call."""

    async def enqueue(self, count: int) -> None:
        """Enqueue many by its bulk call."""

    async def recorded(self, count: int) -> None:
        """Return when the outcomes of `count` jobs are durable, counted since `worker` began. Libraries that do not tell return at once."""


Opener = Callable[[str, Tally, dict[str, Any]], AbstractAsyncContextManager[Queue]]


async def _one_by_one(queue: Queue, count: int) -> None:
    begin = time.monotonic()
    for _ in range(count):
        await queue.enqueue_one()
    say(seconds=time.monotonic() - begin)


async def _in_bulk(queue: Queue, count: int) -> None:
    begin = time.monotonic()
    await queue.enqueue(count)
    say(seconds=time.monotonic() - begin)


async def _run(queue: Queue, tally: Tally, width: int, count: int) -> None:
    tally.expect(count)
    async with queue.worker(width):
        await tally.reached.wait()
        await queue.recorded(count)
        end, begin = tally.now(), tally.first
    assert begin is not None
    spent = dict(zip(Usage._fields, (b - a for a, b in zip(begin, end, strict=True)), strict=True))
    say(**spent)


async def _pick_up(queue: Queue, tally: Tally, count: int) -> None:
    """One idle job after the other: from before the enqueueing call until the handler runs (us)."""
    taken = []
    async with queue.worker(10):
        await asyncio.sleep(0.5)
        for _ in range(count + 5):
            await asyncio.sleep(_IDLE_S)
            tally.expect(1)
            begin_ns = time.monotonic_ns()
            await queue.enqueue_one()
            await tally.reached.wait()
            taken.append((tally.last_ns - begin_ns) / 1e3)
    say(us=taken[5:])


async def _lines() -> AsyncIterator[dict[str, Any]]:
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        yield json.loads(line)


async def serve(opener: Opener) -> None:
    """Take commands from stdin until it closes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--postmaster", type=int, default=None)
    parser.add_argument("--options", type=json.loads, default={})
    given = parser.parse_args()
    tally = Tally(given.postmaster)
    async with opener(given.url, tally, given.options) as queue:
        async for command in _lines():
            kind: str = command.pop("do")
            match kind:
                case "one by one":
                    await _one_by_one(queue, **command)
                case "bulk":
                    await _in_bulk(queue, **command)
                case "run":
                    await _run(queue, tally, **command)
                case "pick up":
                    await _pick_up(queue, tally, **command)
                case _:
                    raise ValueError(kind)
