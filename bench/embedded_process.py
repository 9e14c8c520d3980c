"""A worker and its client in one process, as an application embeds them: K callers in a closed loop, each starts a run and awaits its result.

This is the shape in which DBOS is measured: the caller lives where the work is done. A run's steps count when its result has been returned.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
import time
from typing import Any

from bench import flows
from bench.flows import STEPS, ten_steps
from bench.processes import say
from durable.client_async import AsyncClient
from durable_worker.main import run
from durable_worker.worker import Worker


class Lanes:
    """K callers; `stopped` ends them after their current run."""

    def __init__(self, client: AsyncClient, width: int) -> None:
        self._client = client
        self.finished = 0
        self.stopped = False
        self.tasks = [asyncio.create_task(self._call()) for _ in range(width)]

    async def _call(self) -> None:
        while not self.stopped:
            handle = await self._client.start(ten_steps)
            assert await handle.result() == STEPS
            self.finished += 1


async def _measure(client: AsyncClient, cell: dict[str, Any]) -> None:
    lanes = Lanes(client, cell["width"])
    await asyncio.sleep(cell["warm_s"])
    begin_s, before = time.monotonic(), lanes.finished
    say(event="begin")
    await asyncio.sleep(cell["window_s"])
    seconds = time.monotonic() - begin_s
    say(event="end", steps=(lanes.finished - before) * STEPS, seconds=seconds)
    lanes.stopped = True
    await asyncio.gather(*lanes.tasks)
    say(event="drained")


async def _serve(url: str) -> None:
    loop = asyncio.get_running_loop()
    async with Worker(
        url, modules=[flows], name="bench-embedded", queues={"default": 1024}
    ) as worker:
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            await _measure(worker.client, json.loads(line))


def main() -> None:
    """Take cells from stdin."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    options = parser.parse_args()
    logging.basicConfig(level="WARNING")
    run(_serve(options.url))


if __name__ == "__main__":
    main()
