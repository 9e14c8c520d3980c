"""A program: a process with a worker in it, which starts one thing through the worker's client and works on until it is killed."""

from __future__ import annotations

import asyncio
import sys

from durable_worker import Worker
from tests.system.eager_flows import HEADERS, ORDER

FLOWS = ["tests.system.flows", "tests.system.eager_flows"]


async def begin(url: str, what: str) -> None:
    async with Worker(url, modules=FLOWS, name="victim", lease_s=60.0) as worker:
        if what == "enqueue":
            await worker.client.enqueue("pays", {"key": "the job"})
        else:
            await worker.client.start(
                "compares", {"order": ORDER}, id="r", actor="ada", headers=HEADERS
            )
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(begin(*sys.argv[1:]))
