"""Latencies of one idle worker, each beside a bare INSERT and commit of the same moment.

All stamps come from activities (the machine's monotonic clock), so each figure contains what a user's code would see: from one activity's code to the next
one's, through whatever commits lie between.
"""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise
from typing import Any
from uuid import uuid4

import psycopg

from bench import flows
from bench.machine import percentiles
from durable.client_async import AsyncClient

BATCH = 20  # inserts in a row

_INSERT = "insert into bench_bare (shard, run_id, seq, body) values (%s, %s, %s, %s::jsonb)"
_IDLE_S = 0.45  # longer than a worker keeps polling at short gaps after work
_SLEEP_S = 0.3


class BareInsert:
    """One row, one commit, prepared, on one synchronous psycopg connection."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True)
        self._connection.execute(
            "create table if not exists bench_bare (shard smallint, run_id uuid, seq int, body jsonb, primary key (shard, run_id, seq))"
        )
        self.taken_us: list[float] = []

    def measure(self, times: int) -> None:
        """Insert so many rows, one commit each."""
        for seq in range(times):
            row = (1, uuid4(), seq, '{"name": "add_one"}')
            begin = time.perf_counter_ns()
            self._connection.execute(_INSERT, row, prepare=True)
            self.taken_us.append((time.perf_counter_ns() - begin) / 1e3)

    def warm(self) -> None:
        """Insert without noting the time: the first ones prepare the statement and fill caches."""
        self.measure(BATCH)
        del self.taken_us[-BATCH:]

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


async def measure(url: str, rounds: int) -> dict[str, Any]:
    """Measure a worker that serves `url` and is otherwise idle. Values in us."""
    bare = BareInsert(url)
    bare.warm()
    async with AsyncClient(url) as client:
        await (await client.start(flows.stamped_steps, 2)).result(timeout=30)
        starts, steps = await _steps(client, bare, rounds)
        signals = await _signals(client, rounds)
        sleeps = await _sleeps(client, max(5, rounds // 3))
    bare.close()
    return {
        "bare_insert_us": percentiles(bare.taken_us),
        "step_us": percentiles(steps),
        "start_us": percentiles(starts),
        "signal_us": percentiles(signals),
        "sleep_overshoot_us": percentiles(sleeps),
    }


async def _steps(
    client: AsyncClient, bare: BareInsert, rounds: int
) -> tuple[list[float], list[float]]:
    """`start` until the first activity runs, and from one activity to the next."""
    starts: list[float] = []
    steps: list[float] = []
    for _ in range(rounds):
        await asyncio.sleep(_IDLE_S)
        bare.measure(flows.STEPS)
        begin = time.monotonic_ns()
        handle = await client.start(flows.stamped_steps, flows.STEPS)
        await asyncio.sleep(0.1)  # asking for the result meanwhile would be load
        stamps = await handle.result(timeout=30)
        starts.append((stamps[0] - begin) / 1e3)
        steps += _gaps_us(stamps)
    return starts, steps


async def _signals(client: AsyncClient, count: int) -> list[float]:
    """From before `signal` until the activity behind it runs."""
    handle = await client.start(flows.stamped_signals, count)
    sent = []
    for number in range(count):
        await asyncio.sleep(_IDLE_S)
        sent.append(time.monotonic_ns())
        await handle.signal(flows.go_on, number)
    stamps = await handle.result(timeout=30)
    return [(after - before) / 1e3 for before, after in zip(sent, stamps[1:], strict=True)]


async def _sleeps(client: AsyncClient, count: int) -> list[float]:
    """From activity to activity with a sleep between them, less the sleep."""
    handle = await client.start(flows.stamped_sleeps, count, _SLEEP_S)
    await asyncio.sleep(count * (_SLEEP_S + 0.01))
    stamps = await handle.result(timeout=60)
    return [gap_us - _SLEEP_S * 1e6 for gap_us in _gaps_us(stamps)]


def _gaps_us(stamps: list[int]) -> list[float]:
    return [(after - before) / 1e3 for before, after in pairwise(stamps)]
