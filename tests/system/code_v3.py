"""code_v1.py after the same change as in code_v2.py, made as it should be: open runs go on as they began."""

from __future__ import annotations

import durable
from durable import workflow
from tests.system.flows import go, step


@workflow
async def evolving() -> str:
    if durable.patched("check the address first"):
        await step("check the address")
    else:
        await step("reserve")
    await go.receive()
    return await step("ship")
