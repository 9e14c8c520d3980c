"""The first version of a workflow, as it is deployed everywhere. versions_both.py is the deployment after it."""

from __future__ import annotations

from durable import workflow
from tests.system.flows import go, step


@workflow(name="versioned")
async def versioned(key: str) -> str:
    await step(f"{key} one")
    await go.receive()
    await step(f"{key} two")
    return "version 1"
