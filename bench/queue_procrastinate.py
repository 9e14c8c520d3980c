"""Procrastinate under test: its psycopg connector and its defaults, `concurrency` as asked. A job counts when its handler runs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

from procrastinate import App, PsycopgConnector

from bench.queue_cell import Tally, serve
from durable_worker.main import run

_BATCH = 1_000


class OverProcrastinate:
    """See Queue."""

    def __init__(self, app: App, task: Any) -> None:
        self._app = app
        self._task = task

    async def enqueue_one(self) -> None:
        await self._task.defer_async(number=1)

    async def enqueue(self, count: int) -> None:
        for begin in range(0, count, _BATCH):
            size = min(_BATCH, count - begin)
            await self._task.batch_defer_async(*({"number": begin + n} for n in range(size)))

    @contextlib.asynccontextmanager
    async def worker(self, width: int) -> AsyncIterator[None]:
        running = asyncio.create_task(
            self._app.run_worker_async(concurrency=width, install_signal_handlers=False)
        )
        yield
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running

    async def recorded(self, _count: int) -> None:
        """It does not tell."""


@contextlib.asynccontextmanager
async def _open(
    url: str, tally: Tally, _options: dict[str, Any]
) -> AsyncIterator[OverProcrastinate]:
    app = App(connector=PsycopgConnector(conninfo=url))

    @app.task(name="no_op")
    async def no_op(number: int) -> None:  # noqa: ARG001
        tally.arrived()

    async with app.open_async():
        if not await app.check_connection_async():
            await app.schema_manager.apply_schema_async()
        yield OverProcrastinate(app, no_op)


if __name__ == "__main__":
    logging.basicConfig(level="ERROR")  # it warns that the app is made in the main module
    run(serve(_open))
