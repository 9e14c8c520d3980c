"""continue_as_new as a run's own code sees it, with a replay of every prefix."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Generator
from typing import Any

import pytest

import durable
from durable import NotInWorkflow, PayloadError, Signal, activity, workflow
from durable.core import events as e
from durable.core.events import Event
from durable.errors import NondeterminismError
from tests.core.simulation import Simulation, simulate

item: Signal[str] = Signal("continue_item", str)


@activity
def undo() -> None: ...


@workflow(version=3)
async def again(n: int, tag: str = "x") -> int:
    durable.continue_as_new(n + 1, tag=tag)


@workflow
def again_blocking(n: int) -> int:
    again_blocking.continue_as_new(n + 1)


@workflow
def again_yielding(n: int) -> Generator[Any, Any, int]:
    yield durable.sleep(1)
    again_yielding.continue_as_new(n + 1)


def last(sim: Simulation) -> Event:
    assert sim.outcome == e.WORKFLOW_CONTINUED, sim.types
    return sim.history[-1]


@pytest.mark.parametrize(
    ("which", "version"),
    [(again, 3), (again_blocking, 1), (again_yielding, 1)],
    ids=str,
)
def test_it_ends_the_run_and_tells_the_successor_s_arguments(which: Any, version: int) -> None:
    event = last(simulate(which, 1))
    assert event.body == {"workflow": which.name, "version": version}
    assert which.arguments.decode(event.payload)[0][0] == 2


@workflow
async def from_deep_inside(n: int) -> int:
    async def task() -> None:
        await durable.sleep(1)
        durable.continue_as_new(n + 1)

    async with asyncio.TaskGroup() as group:
        group.create_task(task())
        group.create_task(asyncio.sleep(100))
    return n


def test_it_leaves_through_a_task_group() -> None:
    assert json.loads(last(simulate(from_deep_inside, 1)).payload or "") == {"n": 2}


@workflow
async def swallows_exceptions(n: int) -> int:
    try:
        durable.continue_as_new(n + 1)
    except Exception:
        return -1


def test_except_exception_does_not_stop_it() -> None:
    last(simulate(swallows_exceptions, 1))


@workflow
async def in_saga(n: int) -> int:
    async with durable.saga() as saga:
        saga.compensate(undo)
        durable.continue_as_new(n + 1)


def test_a_saga_that_it_leaves_undoes_nothing() -> None:
    assert "ActivityScheduled" not in simulate(in_saga, 1).types


@workflow
async def reads_one(n: int) -> int:
    await item.receive()
    durable.continue_as_new(n)


def test_signals_that_nobody_received_are_named() -> None:
    sim = Simulation(reads_one, 1)
    sim.turn()
    sim.turn(*(sim.signalled(item, it, it) for it in "abc"))
    assert last(sim.check()).body["unread"] == [3, 4]


@workflow
async def wrong_argument() -> str:
    try:
        durable.continue_as_new("too", "many")
    except PayloadError:
        return "refused"


def test_bad_arguments_are_refused_at_the_call() -> None:
    assert simulate(wrong_argument).result == "refused"


def test_another_successor_is_nondeterminism() -> None:
    sim = simulate(again, 1)
    stored = [*sim.history[:-1], last(sim)._replace(payload='{"n":9,"tag":"x"}')]
    with pytest.raises(NondeterminismError):
        sim.fresh().replay(stored)


def test_outside_a_workflow_there_is_nothing_to_continue() -> None:
    with pytest.raises(NotInWorkflow):
        durable.continue_as_new(1)
    with pytest.raises(NotInWorkflow):
        again.continue_as_new(1)


@workflow
async def long_one() -> list[bool]:
    seen = [durable.info().continue_as_new_suggested]
    while not durable.info().continue_as_new_suggested:
        await item.receive()
    return [*seen, True]


def test_a_long_history_suggests_it() -> None:
    sim = Simulation(long_one)
    sim.turn()
    for _ in range(11):
        if not sim.decision.closed:
            sim.turn(*(sim.signalled(item, "x") for _ in range(1_000)))
    assert sim.result == [False, True]
