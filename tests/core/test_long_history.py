"""Loops that never end: a warning once, and `durable.checkpoint` at safe points."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import durable
from durable import Signal, activity, authoring
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


def signalled(sim: Simulation, times: int, value: int = 1) -> Simulation:
    """That many signals: a hundred a turn while the history is far from long, then one a turn. Without the simulation's look at the whole
    history each time."""
    while times and not sim.decision.closed:
        portion = min(times, 100 if len(sim.history) < LONG_HISTORY - 200 else 1)
        inbound = [sim.signalled(more, value) for _ in range(portion)]
        sim.decision = sim.execution.activate(inbound, sim.now_us)
        sim.history += sim.decision.events
        sim.warnings += sim.decision.warnings
        times -= portion
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


async def forever() -> None:
    await durable.wait_until(lambda: False)


BEGIN, LOOK, END = 1, 2, 3
UNDER_WAY: dict[str, Any] = {
    "activity": lambda: step(1),
    "local activity": lambda: durable.local(step)(1),
    "sleep": lambda: durable.sleep(5),
    "task": lambda: asyncio.create_task(forever()),
}


@pytest.mark.parametrize("begin", UNDER_WAY.values(), ids=UNDER_WAY)
def test_a_checkpoint_waits_for_what_is_under_way(
    begin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was begun would be lost: whether in this turn or in one before."""
    monkeypatch.setattr(authoring, "LONG_HISTORY", 50)

    async def sometimes_busy(total: int = 0) -> None:
        pending: Any = None
        async for n in more:
            if n == BEGIN:
                pending = begin()
            elif n == END:
                pending.cancel()
            if n:
                durable.checkpoint(total + n)

    sim = signalled(Simulation(as_workflow(sometimes_busy)), 60, value=0)
    for n in (BEGIN, LOOK):
        signalled(sim, 1, value=n)
        assert not sim.decision.closed
    for n in (END, LOOK):  # a task ends after the turn's code that cancels it
        signalled(sim, 1, value=n)
    assert sim.outcome == e.WORKFLOW_CONTINUED


def test_a_signal_that_came_meanwhile_goes_along() -> None:
    sim = signalled(Simulation(as_workflow(adds)), LONG_HISTORY - 1)
    assert not sim.decision.closed
    sim.turn(*(sim.signalled(more, n, f"last-{n}") for n in range(3)))
    (closing,) = [it for it in sim.history if it.type == e.WORKFLOW_CONTINUED]
    assert len(closing.body["unread"]) == 2
