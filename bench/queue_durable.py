"""Our queue under test: `client.enqueue`, and a worker as `durable-worker` runs it. A job counts when the database has answered for its outcome."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

from bench.queue_cell import Tally, serve
from durable import AsyncClient, activity
from durable_worker.main import run
from durable_worker.worker import Worker

_tally: Tally


@activity
async def no_op(number: int) -> None:  # noqa: ARG001 - as everywhere, a job has an argument
    _tally.arrived()


class Durable:
    """See Queue."""

    def __init__(self, url: str, client: AsyncClient) -> None:
        self._url = url
        self._client = client
        self._worker: Worker | None = None

    async def enqueue_one(self) -> None:
        await self._client.enqueue(no_op, 1)

    async def enqueue(self, count: int) -> None:
        await self._client.enqueue_many(no_op, ((number,) for number in range(count)))

    @contextlib.asynccontextmanager
    async def worker(self, width: int) -> AsyncIterator[None]:
        worker = Worker(self._url, activities=[no_op], name="bench", queues={"default": width})
        async with worker:
            self._worker = worker
            yield
            self._worker = None

    async def recorded(self, count: int) -> None:
        assert self._worker is not None
        while self._worker.committer.settled < count:  # noqa: ASYNC110 - an event of the committer would be for this alone
            await asyncio.sleep(0.0005)


@contextlib.asynccontextmanager
async def _open(url: str, tally: Tally, _options: dict[str, Any]) -> AsyncIterator[Durable]:
    global _tally
    _tally = tally
    async with AsyncClient(url) as client:
        yield Durable(url, client)


if __name__ == "__main__":
    logging.basicConfig(level="WARNING")
    run(serve(_open))
