"""PgQueuer under test: asyncpg, `batch_size` = concurrency and `max_concurrent_tasks` twice that, which is its own minimum; else its defaults.

It buffers completions and writes them later; a job counts when its handler runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
from pgqueuer import PgQueuer
from pgqueuer.queries import Queries

from bench.queue_cell import Tally, serve
from durable_worker.main import run

_BATCH = 5_000


class OverPgQueuer:
    """See Queue."""

    def __init__(self, url: str, tally: Tally, connection: asyncpg.Connection) -> None:
        self._url = url
        self._tally = tally
        self._queries = Queries.from_asyncpg_connection(connection)

    async def enqueue_one(self) -> None:
        await self._queries.enqueue("no_op", b"1")

    async def enqueue(self, count: int) -> None:
        for begin in range(0, count, _BATCH):
            size = min(_BATCH, count - begin)
            payloads: list[bytes | None] = [b"%d" % (begin + n) for n in range(size)]
            await self._queries.enqueue(["no_op"] * size, payloads, [0] * size)

    @contextlib.asynccontextmanager
    async def worker(self, width: int) -> AsyncIterator[None]:
        connection = await asyncpg.connect(self._url)
        queuer = PgQueuer.from_asyncpg_connection(connection)

        @queuer.entrypoint("no_op")
        async def no_op(_job: Any) -> None:
            self._tally.arrived()

        running = asyncio.create_task(queuer.run(batch_size=width, max_concurrent_tasks=2 * width))
        yield
        queuer.shutdown.set()
        await running
        await connection.close()

    async def recorded(self, _count: int) -> None:
        """It does not tell."""


@contextlib.asynccontextmanager
async def _open(url: str, tally: Tally, _options: dict[str, Any]) -> AsyncIterator[OverPgQueuer]:
    connection = await asyncpg.connect(url)
    queries = Queries.from_asyncpg_connection(connection)
    if not await queries.schema_is_installed():
        await queries.install()
    yield OverPgQueuer(url, tally, connection)
    await connection.close()


if __name__ == "__main__":
    logging.basicConfig(level="WARNING")
    run(serve(_open))
