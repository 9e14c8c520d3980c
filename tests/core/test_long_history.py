"""Loops that never end: a warning once, and `durable.checkpoint` at safe points."""

from __future__ import annotations

import asyncio
from typing import Any

import durable
from durable import Signal, activity
from durable.core import events as e
from durable.core.history_length import LONG_HISTORY
from durable.definitions import Workflow
from tests.core.simulation import Simulation, as_stored

more = Signal("long_history_more", int)


@activity(name="long_history.step")
def step(n: int) -> int:
    return n


def as_workflow(fn: Any) -> Workflow[..., Any]:
    return Workflow(fn, "long", 1, None, None, None)


async def adds(total: int = 0) -> int:
    async for n in more:
        total += n
        durable.checkpoint(total)
    return total


async def counts() -> None:
    seen = 0
    async for _ in more:
        seen += 1


def signalled(sim: Simulation, times: int) -> Simulation:
    """That many signals, one a turn; without the simulation's look at the whole history each time."""
    for _ in range(times):
        if sim.decision.closed:
            break
        sim.decision = sim.execution.activate([sim.signalled(more, 1)], sim.now_us)
        sim.history += sim.decision.events
        sim.warnings += sim.decision.warnings
    return sim


def test_a_long_history_warns_once_before_any_limit() -> None:
    sim = Simulation(as_workflow(counts))
    signalled(sim, LONG_HISTORY - 2)
    assert sim.warnings == []
    signalled(sim, 100)
    assert len(sim.history) > LONG_HISTORY
    (warning,) = sim.warnings
    assert "continue as new" in warning


def test_a_replay_does_not_warn_again() -> None:
    sim = signalled(Simulation(as_workflow(counts)), LONG_HISTORY)
    sim.execution = sim.fresh()
    sim.execution.replay(as_stored(sim.history))
    sim.warnings.clear()
    signalled(sim, 5)
    assert sim.warnings == []


def test_a_checkpoint_continues_as_new_when_the_history_is_long() -> None:
    sim = signalled(Simulation(as_workflow(adds), 5), LONG_HISTORY + 10)
    assert sim.outcome == e.WORKFLOW_CONTINUED
    assert len(sim.history) >= LONG_HISTORY
    total = int(sim.history[-1].payload.split(":")[1].rstrip("}"))  # type: ignore[union-attr]
    assert total == 5 + sim.types.count(e.SIGNAL_RECEIVED)
    again = sim.fresh()
    again.replay(as_stored(sim.history))
    assert again.closed


def test_a_checkpoint_of_a_short_history_does_nothing() -> None:
    sim = signalled(Simulation(as_workflow(adds)), 100)
    assert not sim.decision.closed
    assert sim.types.count(e.WORKFLOW_CONTINUED) == 0


def unsafe(begin: Any) -> Simulation:
    async def never_alone(total: int = 0) -> int:
        async for n in more:
            total += n
            pending = begin()
            durable.checkpoint(total)
            pending.cancel()
        return total

    return signalled(Simulation(as_workflow(never_alone)), LONG_HISTORY // 2 + 10)


def test_a_checkpoint_waits_for_what_is_under_way() -> None:
    """What was begun would be lost: activities, sleeps, tasks."""
    for begin in (
        lambda: step(1),
        lambda: durable.local(step)(1),
        lambda: durable.sleep(5),
        lambda: asyncio.create_task(forever()),
    ):
        sim = unsafe(begin)
        assert not sim.decision.closed
        sim.execution.evict()


async def forever() -> None:
    await durable.wait_until(lambda: False)


def test_a_signal_that_came_meanwhile_goes_along() -> None:
    sim = signalled(Simulation(as_workflow(adds)), LONG_HISTORY - 1)
    assert not sim.decision.closed
    sim.turn(*(sim.signalled(more, n, f"last-{n}") for n in range(3)))
    (closing,) = [it for it in sim.history if it.type == e.WORKFLOW_CONTINUED]
    assert len(closing.body["unread"]) == 2
