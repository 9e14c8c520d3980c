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
                psycopg.types.json.Jsonb(info),
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
