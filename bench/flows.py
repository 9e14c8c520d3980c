"""The workflows that are measured. Everything trivial: what costs time is the engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from typing import Any

import durable
from durable import Signal, activity, workflow

STEPS = 10

go_on = Signal("go_on", int)


@activity
async def add_one(number: int) -> int:
    return number + 1


@activity
async def stamp() -> int:
    """The machine's monotonic clock (ns): one clock for all processes of a machine, so stamps of different ones compare."""
    return time.monotonic_ns()


@workflow
async def ten_steps() -> int:
    number = 0
    for _ in range(STEPS):
        number = await add_one(number)
    return number


@workflow
async def ten_local_steps() -> int:
    number = 0
    for _ in range(STEPS):
        number = await durable.local(add_one)(number)
    return number


@workflow
async def many_steps(count: int) -> int:
    number = 0
    for _ in range(count):
        number = await add_one(number)
    return number


@workflow
async def stamped_steps(count: int) -> list[int]:
    return [await stamp() for _ in range(count)]


@workflow
async def stamped_signals(count: int) -> list[int]:
    """One stamp at the start, then one for each signal."""
    stamps = [await stamp()]
    for _ in range(count):
        await go_on.receive()
        stamps.append(await stamp())
    return stamps


@workflow
async def stamped_sleeps(count: int, sleep_s: float) -> list[int]:
    stamps = [await stamp()]
    for _ in range(count):
        await durable.sleep(sleep_s)
        stamps.append(await stamp())
    return stamps


@workflow
async def parked() -> int:
    """Waits for a signal after one step, as a run at an approval gate does."""
    number = await add_one(0)
    return number + await go_on.receive()


@workflow
def parked_blocking() -> int:
    return add_one(0).result() + go_on.receive().result()


@workflow
def parked_yielding() -> Generator[Any, Any, int]:
    number = yield from add_one(0)
    return number + (yield from go_on.receive())


@workflow
async def asleep() -> int:
    number = await add_one(0)
    await durable.sleep(86_400)
    return number


@workflow
async def fan_out(width: int) -> int:
    return sum(await asyncio.gather(*(add_one(n) for n in range(width))))
