"""What stands still in every way that there is an explanation for."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta

import durable
from durable import RetryPolicy, Signal, activity, heartbeat, workflow
from tests.system.flows import wait_at

HOURLY = RetryPolicy(max_attempts=3, initial_interval=timedelta(hours=1), max_interval=timedelta(hours=1), jitter="none")  # fmt: skip
ONCE = RetryPolicy(max_attempts=1)

approved = Signal("explain_approved", int)
changed: dict[str, bool] = {"code": False}
"""A test deploys other code by setting it."""


@activity(name="explain.ships", retry=ONCE)
def ships(parcel: int) -> int:
    return parcel


@activity(name="explain.bills", retry=ONCE)
def bills(parcel: int) -> int:
    return parcel


@activity(name="explain.stands_at", retry=ONCE, timeout=timedelta(hours=1))
def stands_at(gate: int) -> int:
    wait_at(gate)
    return gate


@activity(name="explain.counts", retry=ONCE, heartbeat_timeout=timedelta(hours=1))
def counts(gate: int) -> int:
    heartbeat(gate, "of 100")
    wait_at(gate)
    return gate


@activity(name="explain.declines", retry=HOURLY)
def declines(amount: int) -> None:
    raise ValueError(f"{amount} is too much")


@activity(name="explain.gives_away", retry=ONCE)
def gives_away() -> int:
    assert durable.activity_info().completion_token
    raise durable.complete_elsewhere()


@activity(name="explain.nobody_serves", queue="deserted")
def nobody_serves() -> None:
    return None


@activity(name="explain.elsewhere_known")
def elsewhere_known() -> None:
    return None


@workflow(name="explain.approval")
async def approval(hours: int) -> int:
    return await approved.receive(timeout=timedelta(hours=hours))


@workflow(name="explain.reminder")
async def reminder(hours: int) -> None:
    await durable.sleep(timedelta(hours=hours))


@workflow(name="explain.threshold")
async def threshold(least: int) -> int:
    seen: list[int] = []

    @durable.update
    async def add(number: int) -> int:
        await approved.receive()
        seen.append(number)
        return number

    await durable.wait_until(lambda: len(seen) >= least)
    return sum(seen)


@workflow(name="explain.order")
async def order(gate: int) -> int:
    return await stands_at(gate)


@workflow(name="explain.family")
async def family(hours: int) -> int:
    return await approval.options(id="the-child")(hours)


@workflow(name="explain.refund")
async def refund(amount: int) -> None:
    await declines(amount)


@workflow(name="explain.careful_refund")
async def careful_refund(amount: int) -> None:
    await declines.options(retry=ONCE, on_exhausted="pause")(amount)


@workflow(name="explain.refunds_through_a_child")
async def refunds_through_a_child(amount: int) -> None:
    await careful_refund(amount)


@workflow(name="explain.tidies_up")
async def tidies_up() -> int:
    try:
        await durable.sleep(timedelta(hours=1))
    finally:
        await approved.receive()
    return 0


@workflow(name="explain.evolves")
async def evolves() -> int:
    await approved.receive()
    return await (bills(1) if changed["code"] else ships(1))


@workflow(name="explain.evolves_further")
async def evolves_further() -> int:
    done = await (bills(1) if changed["code"] else ships(1))
    return done + await approved.receive()


@workflow(name="explain.spins")
async def spins() -> None:
    while True:
        await asyncio.sleep(0)


@workflow(name="explain.kills")
async def kills() -> None:
    vars(os)["_exit"](9)


@workflow(name="explain.local")
async def works_locally(gate: int) -> int:
    return await durable.local(stands_at)(gate)


@workflow(name="explain.pinned", pinned=True)
async def stays_with_its_build() -> int:
    await ships(1)
    return await approved.receive()


@workflow(name="explain.report")
async def report() -> int:
    return await approved.receive()


@workflow(name="explain.fans_out_into_a_desert")
async def fans_out_into_a_desert(count: int) -> None:
    await asyncio.gather(*(nobody_serves() for _ in range(count)))


@workflow(name="explain.given_away")
async def given_away() -> int:
    return await gives_away()
