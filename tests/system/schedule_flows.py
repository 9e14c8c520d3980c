"""What the tests of schedules start."""

from __future__ import annotations

import asyncio
from typing import Any

import durable
from durable import activity, workflow
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


@activity
async def scheduled_long_job() -> None:
    """With no deadline and more than one attempt: tests move the clock by an hour under it, which passes every deadline and lease."""
    while True:
        durable.heartbeat()
        await asyncio.sleep(0.05)
