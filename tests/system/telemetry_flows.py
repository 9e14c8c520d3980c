"""Flows to be observed."""

from __future__ import annotations

import os
from datetime import timedelta

from durable import RetryPolicy, Signal, activity, logger, workflow
from durable.client_sync import Client

go = Signal("telemetry_go", str)


@activity
def add_one(n: int) -> int:
    logger.info("adding", extra={"extra_of_mine": 7})
    return n + 1


@activity
def starts_another() -> None:
    with Client(os.environ["SYSTEM_DATABASE_URL"]) as client:
        client.start(observed_leaf, id="o/started")


@activity(retry=RetryPolicy(max_attempts=2, initial_interval=timedelta(milliseconds=1)))
def breaks() -> None:
    raise ValueError("broken")


@workflow
async def observed_leaf() -> int:
    return await add_one(0)


@workflow
async def observed(steps: int) -> int:
    await go.receive()
    n = 0
    for step in range(steps):
        logger.info("step %s", step)
        n = await add_one(n)
    await starts_another()
    await observed_leaf()
    return n


@workflow
async def observed_failure() -> None:
    await breaks()
