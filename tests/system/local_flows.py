"""Workflows with local activities. The ledger counts what ran: at least once."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import durable
from durable import (
    ActivityError,
    ActivityTimeout,
    Cancel,
    Retry,
    RetryPolicy,
    Snooze,
    activity,
    activity_info,
    workflow,
)
from tests.system.flows import FAST, quick, wait_at, wrote


@activity(retry=FAST)
def noted(key: str) -> str:
    wrote(key)
    return key


@activity
async def unnoted(number: int) -> int:
    return number + 1


@activity
def held_up(key: str, gate: int) -> str:
    wrote(key)
    wait_at(gate)
    return key


@activity
async def hangs(key: str) -> None:
    wrote(key)
    try:
        await asyncio.Event().wait()
    finally:
        wrote(f"{key} was told to stop")


@activity(
    retry=RetryPolicy(max_attempts=3, initial_interval=timedelta(milliseconds=10), jitter="none")
)
def fails_twice(key: str) -> int:
    wrote(key)
    attempt = activity_info().attempt
    if attempt < 3:
        raise ValueError(f"attempt {attempt}")
    return attempt


@activity(
    retry=RetryPolicy(
        max_attempts=4,
        initial_interval=timedelta(hours=1),
        max_interval=timedelta(hours=1),
        jitter="none",
    )
)
def fails_for_hours(key: str) -> int:
    wrote(key)
    attempt = activity_info().attempt
    if attempt < 3:
        raise ValueError(f"attempt {attempt}")
    return attempt


@activity(timeout=timedelta(seconds=0.05), retry=RetryPolicy(max_attempts=1))
async def hangs_too_long() -> None:
    await asyncio.Event().wait()


@activity
def tells() -> dict[str, Any]:
    info = activity_info()
    durable.heartbeat("nobody needs it")
    return {
        "workflow_id": info.workflow_id,
        "activity_id": info.activity_id,
        "key": info.idempotency_key,
        "attempt": info.attempt,
        "actor": info.actor,
    }


@workflow
async def local_steps(count: int) -> list[str]:
    return [await durable.local(noted)(f"{n}") for n in range(count)]


@workflow
async def quick_local_steps(count: int) -> int:
    number = 0
    for _ in range(count):
        number = await durable.local(unnoted)(number)
    return number


@workflow
async def many_locals(width: int) -> int:
    return sum(await asyncio.gather(*(durable.local(unnoted)(n) for n in range(width))))


@workflow
async def held_locals(width: int, gate: int) -> list[str]:
    calls = [durable.local(held_up)(f"{n}", gate) for n in range(width)]
    return list(await asyncio.gather(*calls))


@workflow
async def mixed_steps(count: int) -> int:
    number = 0
    for _ in range(count):
        number = await quick(await durable.local(unnoted)(number))
    return number


@workflow
async def retried_locally(hours: bool) -> int:
    return await durable.local(fails_for_hours if hours else fails_twice)("try")


@workflow
async def times_out_locally() -> str:
    try:
        await durable.local(hangs_too_long)()
    except ActivityTimeout as error:
        return f"{error.kind} {error.attempt}"
    return "it ended"


@workflow
async def tells_locally() -> dict[str, Any]:
    return await durable.local(tells)()


@workflow
async def hangs_locally(waits: bool) -> str:
    call = durable.local(hangs.options(cancellation="wait") if waits else hangs)("hang")
    try:
        async with asyncio.timeout(0.05):
            await call
    except TimeoutError:
        return "gave up"
    except ActivityError as error:
        return f"failed {error.retry_state}"
    return "ended"


@workflow
async def hangs_for_ever() -> None:
    await durable.local(hangs)("for ever")


@workflow
async def local_bounded() -> str:
    call = fails_for_hours.options(schedule_to_close=timedelta(minutes=30))
    try:
        await durable.local(call)("bounded")
    except ActivityTimeout as error:
        return f"{error.kind} {error.retry_state} {error.attempt}"
    return "it ended"


rested: set[str] = set()


@activity(retry=RetryPolicy(max_attempts=1))
def rests(key: str, delay_s: float) -> str | Snooze:
    """Snoozes once, which does not count; a second attempt there is not."""
    wrote(key)
    if key in rested:
        return f"rested at attempt {activity_info().attempt}"
    rested.add(key)
    return Snooze(delay_s)


@activity(retry=RetryPolicy(max_attempts=2))
async def asks_again() -> int:
    if activity_info().attempt == 1:
        raise Retry(0.01, "busy")
    return activity_info().attempt


@activity
def never_mind() -> None:
    raise Cancel("no more")


@workflow
async def decided_locally(key: str, delay_s: float) -> list[Any]:
    said: list[Any] = [await durable.local(rests)(key, delay_s), await durable.local(asks_again)()]
    try:
        await durable.local(never_mind)()
    except ActivityError as error:
        said += [error.retry_state, str(error.cause)]
    return said
