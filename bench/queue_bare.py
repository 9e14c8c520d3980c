"""The least that a pick-up over LISTEN/NOTIFY can be: one row inserted and told of, one woken, one row taken. Nothing else of a queue.

Two commits and no lock, no limits, no history, over the same thin layer as ours: what this machine needs for a pick-up whatever the library does.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import psycopg

from bench.queue_cell import Tally, serve
from durable.store.round_trip import RoundTrips
from durable.store.wire import Wire
from durable_worker.main import run

_TABLE = """
create table bare_job (id bigint generated always as identity primary key, state text not null default 'available');
create index on bare_job (id) where state = 'available';
"""
_ENQUEUE = "insert into bare_job default values returning id"
_TAKE = "update bare_job set state = 'taken' where id = (select id from bare_job where state = 'available' limit 1 for update skip locked) returning id"


class Bare:
    """See Queue; only `enqueue_one` and `worker`."""

    def __init__(self, url: str, tally: Tally, client: psycopg.AsyncConnection[Any]) -> None:
        self._url = url
        self._tally = tally
        self._client = client
        self._trips = RoundTrips(client)

    async def enqueue_one(self) -> None:
        await self._client.wait(self._trips.rows(_ENQUEUE, {}, "bare"))

    async def enqueue(self, count: int) -> None:
        raise NotImplementedError

    async def recorded(self, count: int) -> None:
        raise NotImplementedError

    @contextlib.asynccontextmanager
    async def worker(self, width: int) -> AsyncIterator[None]:  # noqa: ARG002 - one at a time
        async with (
            await psycopg.AsyncConnection.connect(self._url, autocommit=True) as listening,
            await psycopg.AsyncConnection.connect(self._url, autocommit=True) as taking,
        ):
            await listening.execute("listen durable")
            told, wire = asyncio.Event(), Wire(taking)
            tasks = [
                asyncio.create_task(Wire(listening).listen(lambda _: told.set())),
                asyncio.create_task(self._take(wire, told)),
            ]
            yield
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _take(self, wire: Wire, told: asyncio.Event) -> None:
        while True:
            await told.wait()
            told.clear()
            if await wire.fetch(_TAKE, ()):
                self._tally.arrived()


@contextlib.asynccontextmanager
async def _open(url: str, tally: Tally, _options: dict[str, Any]) -> AsyncIterator[Bare]:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as client:
        await client.execute("drop table if exists bare_job")
        await client.execute(_TABLE)
        yield Bare(url, tally, client)


if __name__ == "__main__":
    run(serve(_open))
