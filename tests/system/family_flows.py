"""Parents and children for the tests of the whole system."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import durable
from durable import ChildWorkflowError, Signal, workflow
from tests.system.flows import gated, step

proceed: Signal[int] = Signal("family_proceed", int)


@workflow
async def leaf(n: int) -> int:
    return n


@workflow
async def broken_leaf(text: str) -> None:
    raise ValueError(text)


@workflow
async def waiting_leaf() -> int:
    return await proceed.receive()


@workflow
async def undoing_leaf() -> None:
    try:
        await durable.sleep(timedelta(days=365))
    finally:
        await step("undone")


@workflow
async def many(count: int) -> int:
    return sum(await asyncio.gather(*(leaf(n) for n in range(count))))


@workflow
async def sees_failure() -> list[str]:
    try:
        await broken_leaf("too small")
    except ChildWorkflowError as error:
        return [error.outcome, repr(error.__cause__)]
    return []


@workflow
async def leaves_behind(policy: Any, gate: int) -> str:
    """Closes with a child open that has one of its own."""
    undoing_parent.options(id="child", close_policy=policy)()
    await gated("gate", gate)
    return "closed"


@workflow
async def undoing_parent() -> None:
    await undoing_leaf.options(id="grandchild")()


@workflow
async def conflicting(id: str) -> str:
    try:
        await leaf.options(id=id)(1)
    except ChildWorkflowError as error:
        return error.outcome
    return "started"


@workflow
async def gives_up() -> str:
    try:
        async with asyncio.timeout(timedelta(milliseconds=100).total_seconds()):
            await waiting_leaf.options(id="stranded", queue="nobody")()
    except TimeoutError:
        return "gave up"
    return "completed"


@workflow
async def talks_to_child() -> int:
    child = waiting_leaf()
    child.signal(proceed, 7)
    return await child


@workflow
async def talks_late() -> str:
    try:
        await waiting_leaf()
    except ChildWorkflowError as error:
        return f"{error.outcome} {error.reason}"
    return "completed"
