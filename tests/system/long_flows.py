"""A workflow that makes a long history quickly."""

from __future__ import annotations

import durable
from durable import workflow
from tests.system.flows import go


@workflow
async def fills_its_history(timers: int) -> None:
    while True:
        await go.receive()
        begun = [durable.sleep(1e6) for _ in range(timers)]
        await go.receive()
        for timer in begun:
            timer.cancel()


@workflow
async def renews_itself(timers: int, rounds: int = 0) -> int:
    """The same, and never long."""
    while rounds < 8:
        await go.receive()
        begun = [durable.sleep(1e6) for _ in range(timers)]
        await go.receive()
        for timer in begun:
            timer.cancel()
        rounds += 1
        durable.checkpoint(timers, rounds)
    return rounds
