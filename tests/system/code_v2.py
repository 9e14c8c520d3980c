"""code_v1.py after a deployment that should not have happened: the first step is another one."""

from __future__ import annotations

from durable import workflow
from tests.system.flows import go, step


@workflow
async def evolving() -> str:
    await step("check the address")
    await go.receive()
    return await step("ship")
