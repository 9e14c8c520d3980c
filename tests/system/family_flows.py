"""Parents and children for the tests of the whole system."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import durable
from durable import ChildWorkflowError, RetryPolicy, Signal, activity, workflow
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


@activity
def fails_before(attempt: int, key: str) -> int:
    """Counts its calls by key; fails until there have been so many."""
    calls[key] = calls.get(key, 0) + 1
    if calls[key] < attempt:
        raise durable.NonRetryable(f"call {calls[key]}")
    return calls[key]


calls: dict[str, int] = {}


@workflow
async def shaky_leaf(attempt: int, key: str) -> int:
    return await fails_before(attempt, key)


@workflow
async def insists_on_leaf(attempt: int, key: str) -> int:
    again = RetryPolicy(max_attempts=4, initial_interval=timedelta(milliseconds=10))
    return await shaky_leaf.options(id=f"{key}-leaf", retry=again)(attempt, key)


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


@workflow
async def collecting_on(
    generation: int, seen: list[int], until: int, generations: int
) -> list[int]:
    """Reads two signals at most in each run, then continues as new, whatever waits in its buffer."""
    while len(seen) < until:
        seen.append(await proceed.receive())
        if generation < generations and len(seen) % 2 == 0:
            collecting_on.continue_as_new(generation + 1, seen, until, generations)
    return seen


@workflow
async def counting_down(n: int) -> str:
    if n:
        await step(f"{n}")
        durable.continue_as_new(n - 1)
    return "landed"


@workflow
async def continuing_child() -> str:
    return await counting_down.options(id="rocket")(3)


@workflow
async def continues_with_child(n: int, gate: int) -> str:
    child = gated_leaf(n, gate)
    if n:
        await proceed.receive()
        durable.continue_as_new(n - 1, gate)
    return await child


@workflow
async def gated_leaf(n: int, gate: int) -> str:
    return await gated(f"child {n}", gate)
