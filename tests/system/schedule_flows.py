"""What the tests of schedules start."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import durable
from durable import RetryPolicy, activity, workflow
from tests.system import flows


@workflow
async def scheduled_report(label: str = "") -> list[Any]:
    info = durable.info()
    assert info.scheduled_for is not None
    return [label, info.schedule_id, info.scheduled_for.isoformat()]


@workflow
async def scheduled_wait() -> int:
    return await flows.go.receive()


@workflow
async def scheduled_failure() -> None:
    raise ValueError("the books do not balance")


@activity
def scheduled_job(label: str) -> list[Any]:
    info = durable.activity_info()
    assert info.scheduled_for is not None
    return [label, info.schedule_id, info.scheduled_for.isoformat()]


@workflow
async def scheduled_rounds(left: int = 2) -> str:
    """Goes on as new runs of its id."""
    await flows.go.receive()
    if left:
        durable.continue_as_new(left - 1)
    return "the last round"


@activity(heartbeat_timeout=timedelta(seconds=30), retry=RetryPolicy(max_attempts=1))
async def scheduled_long_job() -> None:
    while True:
        durable.heartbeat()
        await asyncio.sleep(0.05)
