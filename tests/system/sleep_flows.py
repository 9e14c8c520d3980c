"""Workflows that sleep."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import durable
from durable import workflow
from tests.system.flows import go


@workflow
async def sleeps_a_day() -> float:
    began = durable.now()
    await durable.sleep(timedelta(days=1))
    return (durable.now() - began).total_seconds()


@workflow
async def sleeps_unless_told() -> str:
    """A day's sleep that a signal ends."""
    try:
        async with asyncio.timeout(timedelta(days=1).total_seconds()):
            await go.receive()
    except TimeoutError:
        return "slept"
    return "told"


@workflow
async def sleeps_again_and_again(times: int) -> int:
    for _ in range(times):
        await asyncio.sleep(3600)
    return times
