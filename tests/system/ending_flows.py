"""Workflows that end in each way there is, and the job that is told."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import durable
from durable import Cancel, NonRetryable, RetryPolicy, activity, activity_info, workflow
from tests.system.flows import wait_at, wrote

ONCE = RetryPolicy(max_attempts=1)


@activity(retry=RetryPolicy(max_attempts=3, initial_interval=timedelta(milliseconds=10)))
def is_told(text: str, about: dict[str, int]) -> str:
    """Leaves behind what it was told, for whom it acts, and the order of its arguments' keys."""
    info = activity_info()
    wrote(
        text,
        callback=dict(info.callback or {}),
        actor=info.actor,
        headers=dict(info.headers),
        keys=list(about),
    )
    return text  # fmt: skip


@activity
def is_told_again(gate: int) -> str:
    wrote("told again", callback=dict(activity_info().callback or {}))
    wait_at(gate)
    return "told"


@activity(process=True)
def is_told_elsewhere() -> list[str]:
    told = activity_info().callback or {}
    return [told["event"], told["cause"]]


@activity(retry=ONCE)
def breaks(how: str) -> None:
    if how == "for good":
        raise NonRetryable("never again")
    if how == "not wanted":
        raise Cancel("nobody wants it")
    raise ValueError("broken")


@activity(schedule_to_close=timedelta(hours=1))
def expires() -> None:
    """Nobody ever runs it: it waits for longer than it may take."""


@activity
def holds_still(gate: int) -> None:
    wrote("holds_still")
    wait_at(gate)


@workflow
async def ends(how: str) -> str:
    """Ends as it is told to; "asked ..." waits until it is asked to stop."""
    if how == "stops":
        await durable.sleep(timedelta(days=1))
    if how.startswith("asked"):
        try:
            await durable.sleep(timedelta(days=1))
        except asyncio.CancelledError:
            if how == "asked and fails":
                raise ValueError("could not clean up") from None
    if how == "raises":
        raise ValueError("as told")
    if how == "step fails":
        await breaks("at once")
    return how


@workflow
async def ends_later(left: int, how: str) -> str:
    if left:
        durable.continue_as_new(left - 1, how)
    if how == "stops":
        await durable.sleep(timedelta(days=1))
    return how


@workflow
async def goes_on_unheard(left: int, gate: int) -> None:
    if left:
        await holds_still(gate)
        durable.continue_as_new(left - 1, gate)
    await durable.sleep(timedelta(days=1))


@workflow
async def has_an_ending_child(id: str) -> None:
    await ends.options(id=id)("stops")


@workflow
async def ends_at_the_gate(gate: int) -> str:
    await holds_still(gate)
    return "done"
