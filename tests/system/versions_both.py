"""The second version beside the first, whose runs go on."""

from __future__ import annotations

from durable import workflow
from tests.system.flows import go, step
from tests.system.versions_old import versioned as versioned_1

__all__ = ["versioned", "versioned_1"]


@workflow(name="versioned", version=2)
async def versioned(key: str) -> str:
    await go.receive()
    await step(f"{key} only")
    return "version 2"
