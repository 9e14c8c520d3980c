"""Workflows that a worker must stop in the middle of, or that stop the worker."""

from __future__ import annotations

import asyncio
import threading

from durable import RetryPolicy, activity, workflow
from tests.system.flows import connect, leave_note, wait_at, wrote

ONCE = RetryPolicy(max_attempts=1)

release = threading.Event()


@activity(retry=ONCE)
async def endless(key: str) -> str:
    """Its first execution ends only by being cancelled; a note is left then."""
    before = await asyncio.to_thread(wrote_before, key)
    if before:
        return "second execution"
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.to_thread(leave_note, f"{key} was cancelled")
    return "never"


def wrote_before(key: str) -> int:
    """Leave a trace; how many there were before."""
    with connect() as connection:
        row = connection.execute(
            "select count(*) from system.executions where key = %s", (key,)
        ).fetchone()
    wrote(key)
    return int(row[0]) if row else 0


@activity(retry=RetryPolicy(max_attempts=2))
def in_a_thread(gate: int) -> int:
    wrote("in_a_thread")
    wait_at(gate)
    return gate


@workflow
async def calls_endless() -> str:
    return await endless("endless")


@workflow
async def calls_thread(gate: int) -> int:
    return await in_a_thread(gate)


@workflow
async def blocks_the_loop() -> str:
    while not release.is_set():
        sum(range(100))
    return "let go"
