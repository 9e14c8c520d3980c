"""Workflows and activities for the tests of the whole system; imported by tests and by worker processes alike.

Activities write what they do to tables of their own, so that a test can count executions. Where a test must hold an activity up, the
activity waits for an advisory lock that the test holds: nobody sleeps, and it works across processes.
"""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

import durable
from durable import RetryPolicy, Signal, activity, activity_info, workflow

SCHEMA = """
create schema system;
create table system.executions (id bigint generated always as identity primary key, workflow_id text, name text, key text, attempt integer,
    idempotency_key text, info jsonb, at timestamptz default clock_timestamp());
"""
FAST = RetryPolicy(
    max_attempts=20,
    initial_interval=timedelta(milliseconds=20),
    max_interval=timedelta(milliseconds=200),
)

go = Signal("go", int)
word = Signal("word", str)


def create_tables(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(SCHEMA)


def connect() -> psycopg.Connection[tuple[Any, ...]]:
    return psycopg.connect(os.environ["SYSTEM_DATABASE_URL"], autocommit=True)


def wrote(key: str, **info: Any) -> None:
    """Leave a trace of this execution."""
    attempt = activity_info()
    with connect() as connection:
        connection.execute(
            "insert into system.executions (workflow_id, name, key, attempt, idempotency_key, info) values (%s, %s, %s, %s, %s, %s)",
            (
                attempt.workflow_id,
                attempt.name,
                key,
                attempt.attempt,
                attempt.idempotency_key,
                Jsonb(info),
            ),
        )


def wait_at(gate: int) -> None:
    """Wait until nobody holds the gate, an advisory lock."""
    with connect() as connection:
        connection.execute("select pg_advisory_lock_shared(%s)", (gate,))


@activity(retry=FAST)
def step(key: str) -> str:
    wrote(key)
    return key


@activity(retry=FAST)
async def quick(number: int) -> int:
    """Touches nothing."""
    return number


@activity(retry=FAST)
def gated(key: str, gate: int) -> str:
    """Leaves a trace, and does not end before the gate opens."""
    wrote(key)
    wait_at(gate)
    return key


@workflow
async def steps(count: int) -> list[str]:
    return [await step(f"{number}") for number in range(count)]


@workflow
async def quick_steps(count: int) -> int:
    total = 0
    for number in range(count):
        total += await quick(number)
    return total


@workflow
async def one_gated(gate: int) -> str:
    first = await gated("first", gate)
    await step("second")
    return first


@workflow
async def interleaving(seed: int) -> int:
    """A bit of everything, in an order that depends on the seed: steps, a timer, two signals, parallel steps, a deadline."""
    total = 0
    total += await quick(seed)
    if seed % 2:
        total += await go.receive()
    await durable.sleep(timedelta(milliseconds=seed % 50))
    total += sum(await asyncio.gather(*(quick(n) for n in range(seed % 5))))
    if not seed % 2:
        total += await go.receive()
    try:
        async with asyncio.timeout(0.01):
            await go.receive()
    except TimeoutError:
        total += 1
    await step(f"{seed}")
    return total


@workflow
async def listens(count: int) -> list[str]:
    """Receive `count` words."""
    return [await word.receive() for _ in range(count)]


@workflow
async def sleeps(seconds: float) -> float:
    began = durable.now()
    await durable.sleep(seconds)
    return (durable.now() - began).total_seconds()


# -- retries and timeouts ---------------------------------------------------------------------------------------------


class Refused(Exception):
    """A failure that the policy of `refuses` does not try again."""


class Ashamed(Refused):
    pass


EVERY_HOUR = RetryPolicy(
    max_attempts=4,
    initial_interval=timedelta(hours=1),
    backoff_coefficient=2.0,
    max_interval=timedelta(hours=3),
    jitter="none",
)


@activity(retry=EVERY_HOUR)
def fails(key: str) -> None:
    wrote(key)
    raise ValueError(f"{key}: attempt {activity_info().attempt}")


@activity(retry=RetryPolicy(non_retryable=(Refused,)))
def refuses(key: str) -> None:
    wrote(key)
    raise Ashamed(key)


@activity(retry=RetryPolicy(max_attempts=1))
def waits_at(gate: int) -> str:
    """Waits in its thread; deaf to cancellation."""
    wrote("waits_at")
    wait_at(gate)
    return "went through"


@activity(retry=RetryPolicy(max_attempts=3, initial_interval=timedelta(hours=1), jitter="none"))
async def never_ends(key: str) -> None:
    await asyncio.to_thread(wrote, key)
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        await asyncio.to_thread(leave_note, f"{key} was cancelled")
        raise


@activity(retry=RetryPolicy(max_attempts=1))
def heartbeats_until_stopped(key: str) -> None:
    wrote(key)
    try:
        while True:
            durable.heartbeat("alive")
            wait_a_moment()
    except BaseException as error:
        leave_note(f"{key}: {type(error).__name__}")
        raise


@activity(retry=FAST, heartbeat_timeout=timedelta(hours=1))
def counts_up(gate: int) -> list[Any]:
    """Tells how far it has come; the first attempt is held up there."""
    info = activity_info()
    wrote("counts_up", details=list(info.heartbeat_details))
    if info.attempt == 1:
        durable.heartbeat("row", 7)
        wait_at(gate)
    return list(info.heartbeat_details)


@activity(
    retry=RetryPolicy(max_attempts=2, initial_interval=timedelta(milliseconds=10)),
    heartbeat_timeout=timedelta(seconds=0.3),
)
async def falls_silent(key: str) -> str:
    await asyncio.to_thread(wrote, key)
    if activity_info().attempt == 1:
        durable.heartbeat("last words")
        await asyncio.Event().wait()
    return f"{activity_info().heartbeat_details}"


@activity(retry=RetryPolicy(max_attempts=1), timeout=timedelta(seconds=0.2))
async def too_slow() -> None:
    await asyncio.Event().wait()


@activity(queue="narrow", retry=FAST)
async def in_narrow_queue(number: int) -> int:
    """Leaves a trace of how many run at once."""
    global _now_narrow, most_narrow
    _now_narrow += 1
    most_narrow = max(most_narrow, _now_narrow)
    await asyncio.to_thread(wait_a_moment)
    _now_narrow -= 1
    return number


_now_narrow = 0
most_narrow = 0


@activity(queue="ranked", retry=FAST)
def ranked(key: str) -> None:
    wrote(key)


def wait_a_moment() -> None:
    """A round trip: time passes without a sleep."""
    with connect() as connection:
        connection.execute("select 1")


def leave_note(text: str) -> None:
    with connect() as connection:
        connection.execute("insert into system.executions (name, key) values ('note', %s)", (text,))


@workflow
async def calls_failing(name: str) -> None:
    await {"fails": fails, "refuses": refuses}[name](name)


@workflow
async def calls_failing_once() -> None:
    await fails.options(retry=RetryPolicy(max_attempts=1))("once")


@workflow
async def calls(name: str, gate: int) -> Any:
    """Run one activity with one timeout, as the test names it."""
    hour = timedelta(hours=1)
    match name:
        case "start_to_close":
            return await waits_at.options(timeout=hour)(gate)
        case "schedule_to_close":
            return await fails.options(schedule_to_close=timedelta(hours=2))("s2c")
        case "schedule_to_start":
            return await step.options(queue="nobody", schedule_to_start=hour)("s2s")
        case "heartbeat":
            return await counts_up(gate)
        case "silent":
            return await falls_silent("silent")
        case "slow":
            return await too_slow()
        case _:
            raise LookupError(name)


@workflow
async def fans_out(count: int) -> int:
    return sum(await asyncio.gather(*(in_narrow_queue(n) for n in range(count))))


@workflow
async def one_after_the_other(count: int) -> int:
    return sum([await in_narrow_queue(n) for n in range(count)])


@workflow
async def ranks() -> None:
    await asyncio.gather(*(ranked.options(priority=p)(f"{p}") for p in (9, 5, 0, 7, 3)))


# -- cancellation -----------------------------------------------------------------------------------------------------


@workflow
async def stoppable(kind: str) -> None:
    if kind == "async":
        await never_ends("async")
    else:
        await heartbeats_until_stopped("sync")


@workflow
async def small_saga(gate: int) -> str:
    """Three steps, each with a compensation; a wait for a signal and a sleep in between."""
    async with durable.saga() as saga:
        for number in (1, 2, 3):
            saga.compensate(step, f"undo {number}")
            await gated(f"do {number}", gate + number)
            if number == 1:
                await go.receive()
            if number == 2:
                await durable.sleep(timedelta(days=1))
        await gated("last", gate + 4)
    return "done"


# -- signals ----------------------------------------------------------------------------------------------------------


@workflow
async def waits_an_hour_for_a_word() -> str:
    try:
        return await word.receive(timeout=timedelta(hours=1))
    except TimeoutError:
        return "nobody spoke"


@workflow
async def listens_after_a_step(count: int, gate: int) -> list[str]:
    await gated("before listening", gate)
    return [await word.receive() for _ in range(count)]


@workflow
async def naps(seconds: float) -> str:
    """Sleep, but wake when spoken to."""
    try:
        return await word.receive(timeout=seconds)
    except TimeoutError:
        return "slept"


@activity(retry=FAST)
def gated_by_attempt(gate: int) -> int:
    """Each attempt waits at a gate of its own, and answers with its number."""
    attempt = activity_info().attempt
    wrote("gated_by_attempt")
    wait_at(gate + attempt)
    return attempt


@workflow
async def which_attempt_counts(gate: int) -> int:
    return await gated_by_attempt(gate)


@activity(retry=FAST)
async def stumbles(times: int) -> int:
    attempt = activity_info().attempt
    if attempt <= times:
        raise ValueError(f"attempt {attempt}")
    return attempt


@workflow
async def gets_up_again(times: int) -> int:
    return await stumbles(times)
