"""What the tests of schedules start."""

from __future__ import annotations

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
