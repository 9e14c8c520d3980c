"""What operators have to mend: activities that need a hand, and runs that went wrong."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import durable
from durable import RetryPolicy, Signal, activity, activity_info, workflow
from durable.errors import ActivityError
from tests.system.flows import wait_at, wrote

QUICK = RetryPolicy(max_attempts=2, initial_interval=timedelta(milliseconds=1), jitter="none")

word = Signal("mending_word", str)
broken: dict[str, bool] = {"charge": True, "code": True}
"""What a test mends."""


@activity(retry=QUICK, on_exhausted="pause")
def needs_a_hand(amount: int) -> int:
    wrote("needs_a_hand")
    if amount < 0:
        raise ValueError("a negative amount")
    return amount


@activity(retry=QUICK)
def charges(amount: int) -> int:
    wrote("charges")
    if broken["charge"]:
        raise ValueError("the bank is closed")
    return amount


@activity
def noted(text: str) -> str:
    wrote("noted")
    return text


@activity(retry=RetryPolicy(max_attempts=50, initial_interval=timedelta(hours=1), jitter="none"))
def slow_to_retry(amount: int) -> int:
    wrote("slow_to_retry")
    if amount < 0:
        raise ValueError("later perhaps")
    return amount


@activity(retry=QUICK)
def behind_a_gate(gate: int) -> str:
    wrote("behind_a_gate")
    wait_at(gate)
    return f"{activity_info().attempt}"


@activity(retry=QUICK)
def fails_once_behind_a_gate(gate: int) -> int:
    wait_at(gate)
    if activity_info().attempt == 1:
        raise ValueError("the first one")
    return activity_info().attempt


@workflow
async def fails_behind_a_gate(gate: int) -> int:
    return await fails_once_behind_a_gate(gate)


@workflow
async def mended(amount: int) -> int:
    done = await needs_a_hand(amount)
    await noted(f"done {done}")
    return done


@workflow(on_exhausted="pause")
async def mended_by_the_workflow(amount: int) -> int:
    return await charges(amount)


@workflow
async def mended_while_busy(amount: int) -> list[Any]:
    """The failing activity does not stop the other branch."""
    both: list[Any] = [*await asyncio.gather(needs_a_hand(amount), word.receive())]
    return both


@workflow
async def catches(amount: int) -> str:
    try:
        return str(await needs_a_hand(amount))
    except ActivityError as error:
        return f"{type(error.cause).__name__}: {error.cause}"


@workflow
async def waits_long(amount: int) -> int:
    return await slow_to_retry(amount)


@workflow
async def waits_at_a_gate(gate: int) -> str:
    return await behind_a_gate(gate)


@workflow
async def waits_for_a_hand_at_a_gate(gate: int) -> str:
    return await behind_a_gate.options(on_exhausted="pause")(gate)


@workflow
async def order_flow(amount: int) -> list[Any]:
    noted_first = await noted("first")
    charged, other = await asyncio.gather(charges(amount), noted("beside"))
    return [noted_first, charged, other]


@workflow
async def has_a_bug(text: str) -> str:
    said = await noted(text)
    heard = await word.receive()
    if broken["code"]:
        raise RuntimeError("a bug in the code")
    return f"{said} {heard}"


@workflow
async def words(count: int) -> list[str]:
    heard = []
    for n in range(count):
        await noted(f"before {n}")
        heard.append(await word.receive())
    return heard


@workflow
async def sleeps_and_notes(seconds: float) -> str:
    await noted("before")
    await durable.sleep(timedelta(seconds=seconds))
    return await noted("after")


@workflow
async def ticks(times: int) -> int:
    for n in range(times):
        await noted(str(n))
    return times


@workflow
async def child_of_mended(gate: int) -> str:
    heard = await word.receive()
    return f"child heard {heard}"


@workflow
async def parent_of_mended(n: int) -> list[str]:
    child = child_of_mended(1)
    await noted("started a child")
    heard = await word.receive()
    return [heard, await child]


@workflow
async def counts_updates(until: int) -> list[int]:
    added: list[int] = []

    @durable.update
    async def add(n: int) -> int:
        await noted(f"add {n}")
        added.append(n)
        return sum(added)

    await noted("ready")
    await durable.wait_until(lambda: sum(added) >= until)
    return added
