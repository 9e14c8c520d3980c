"""A run that starts too much at once is told at the call, with the limit and what to do (issue 3, item 11)."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

import durable
from durable import LimitExceeded, activity, workflow
from durable.core import run as core_run
from tests.core.simulation import Simulation, simulate


@activity(name="pending.step")
def step(n: int) -> int:
    return n


@workflow(name="pending.leaf")
async def leaf(n: int) -> int:
    return n


async def _many(kind: str, count: int) -> Any:
    started: list[Any] = []
    try:
        for n in range(count):
            if kind == "activity":
                started.append(step(n))
            elif kind == "child":
                started.append(leaf(n))
            else:
                started.append(durable.sleep(timedelta(days=1)))
    except LimitExceeded as error:
        for future in started:
            future.cancel()
        await asyncio.sleep(0)
        return [len(started), error.limit, error.maximum, str(error)]
    return await asyncio.gather(*started)


many = workflow(name="pending.many")(_many)


@pytest.mark.parametrize("kind", ["activity", "child", "timer"])
def test_one_more_than_the_limit_is_refused_at_the_call(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core_run, "MAX_PENDING", 20)
    count, limit, maximum, text = simulate(many, kind, 21).result
    assert (count, maximum) == (20, 20)
    assert kind in limit
    assert "20 at most" in text
    assert "Await some before starting more" in text


def test_as_many_as_the_limit_are_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_run, "MAX_PENDING", 20)
    assert simulate(many, "activity", 20).result == list(range(20))


def test_what_has_ended_no_longer_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_run, "MAX_PENDING", 3)

    async def one_by_one() -> int:
        return sum([await step(n) for n in range(10)])

    assert simulate(workflow(name="pending.one_by_one")(one_by_one)).result == 45


def test_the_limit_is_ten_thousand() -> None:
    assert core_run.MAX_PENDING == 10_000
    sim = Simulation(many, "activity", 10_000)
    sim.turn()
    assert len(sim.activities) == 10_000
    sim.execution.evict()
