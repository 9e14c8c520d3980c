"""Workflows as they were when their runs began. replayed_code_changed.py is the working tree of a careless deployment."""

from __future__ import annotations

import asyncio

import durable
from durable import Signal, activity, workflow

paid = Signal("replayed_paid", int)


@activity(name="replayed.reserve")
def reserve(order: str) -> str:
    return order


@activity(name="replayed.ship")
def ship(order: str) -> str:
    return order


@workflow(name="replayed.checkout")
async def checkout(order: str) -> str:
    held = await reserve(order)
    amount = await paid.receive()
    await ship(f"{held} for {amount}")
    return held


@workflow(name="replayed.steady")
async def steady(order: str) -> str:
    await reserve(order)
    await durable.sleep(1000)
    return order


@workflow(name="replayed.steady", version=2)
async def steady_2(order: str) -> str:
    await durable.sleep(1000)
    return order


@workflow(name="replayed.crowd")
async def crowd() -> None:
    async def one(order: str) -> None:
        await ship(order)

    first = asyncio.create_task(one("a"), name="first")
    await asyncio.gather(first, reserve("b"), paid.receive())


@workflow(name="replayed.blocking")
def blocking(order: str) -> str:
    held = reserve(order).result()
    return ship(held).result()
