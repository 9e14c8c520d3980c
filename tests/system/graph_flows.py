"""Workflows and activities whose pictures are known."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import durable
from durable import NonRetryable, RetryPolicy, Signal, activity, workflow
from durable.dag import Dag
from durable.dag import result as result_of

graph_paid = Signal("graph_paid", int)


@activity(name="graph.reserve")
async def reserve(what: str) -> str:
    return what


@activity(
    name="graph.flaky",
    retry=RetryPolicy(max_attempts=3, initial_interval=timedelta(milliseconds=1)),
)
async def flaky() -> int:
    if durable.activity_info().attempt < 3:
        raise ConnectionError("no route to the bank")
    return 3


@activity(name="graph.decline")
async def decline() -> None:
    raise NonRetryable("the card has expired")


@activity(name="graph.plan")
async def plan() -> list[Any]:
    more = Dag("more").add("pack", reserve, {"what": "box"})
    return more.add("label", reserve, {"what": result_of("pack")}).expansion()


@workflow(name="graph.child")
async def child() -> str:
    return await reserve("child")


@workflow(name="graph.order")
async def order() -> int:
    await asyncio.gather(reserve("tea"), reserve("pot"))
    amount = await graph_paid.receive(timeout=timedelta(days=3))
    await flaky()
    await durable.sleep(timedelta(hours=2))
    await child()
    try:
        await decline()
    except durable.ActivityError:
        await asyncio.gather(*(reserve(f"cup {n}") for n in range(9)))
    return amount


@activity(name="graph.unreserve")
async def unreserve(result: str) -> None:
    assert result
