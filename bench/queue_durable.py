"""Our queue under test: `client.enqueue`, and a worker as `durable-worker` runs it. A job counts when the database has answered for its outcome."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

from bench.queue_cell import Tally, serve
from durable import AsyncClient, RateLimit, Unique, activity
from durable_worker.main import run
from durable_worker.worker import Worker

_tally: Tally


@activity
async def no_op(number: int) -> None:  # noqa: ARG001 - as everywhere, a job has an argument
    _tally.arrived()


class Durable:
    """See Queue. `feature` is what is switched on; it has a queue of its own. `apart`: jobs come from another client than the worker's own."""

    def __init__(self, url: str, client: AsyncClient, feature: str | None, *, apart: bool) -> None:
        self._url = url
        self._client = client
        self._apart = apart
        self._unique = Unique() if feature == "unique" else None
        self._queue = feature or "default"
        self._worker: Worker | None = None
        self._number = 0

    async def enqueue_one(self) -> None:
        client = self._worker.client if self._worker and not self._apart else self._client
        await client.enqueue(no_op, 1, queue=self._queue)

    async def enqueue(self, count: int) -> None:
        begin = self._number
        self._number += count
        items = ((begin + n,) for n in range(count))
        await self._client.enqueue_many(no_op, items, queue=self._queue, unique=self._unique)

    @contextlib.asynccontextmanager
    async def worker(self, width: int) -> AsyncIterator[None]:
        worker = Worker(self._url, activities=[no_op], name="bench", queues={self._queue: width})
        async with worker:
            self._worker = worker
            yield
            self._worker = None

    async def recorded(self, count: int) -> None:
        assert self._worker is not None
        while self._worker.committer.settled < count:  # noqa: ASYNC110 - an event of the committer would be for this alone
            await asyncio.sleep(0.0005)


async def _switch_on(client: AsyncClient, feature: str | None) -> None:
    """Limits that are never reached: what is measured is what it costs to look."""
    if feature == "global limit":
        await client.queue(feature).set(global_limit=100_000)
    elif feature == "rate limit":
        await client.queue(feature).set(rate_limit=RateLimit(1e9, 60))
    elif feature == "rate bucket":
        await client.queue(feature).set(rate_limit=RateLimit(1e9, 60, "bucket"))


@contextlib.asynccontextmanager
async def _open(url: str, tally: Tally, options: dict[str, Any]) -> AsyncIterator[Durable]:
    global _tally
    _tally = tally
    feature = options.get("feature")
    async with AsyncClient(url) as client:
        await _switch_on(client, feature)
        yield Durable(url, client, feature, apart=options.get("apart", False))


if __name__ == "__main__":
    logging.basicConfig(level="WARNING")
    run(serve(_open))
