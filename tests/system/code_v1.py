"""A workflow as it was first deployed. code_v2.py is the same after a change that its open runs cannot follow."""

from __future__ import annotations

from durable import workflow
from tests.system.flows import go, step


@workflow
async def evolving() -> str:
    await step("reserve")
    await go.receive()
    return await step("ship")
