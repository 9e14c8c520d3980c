"""Runs that somebody closed without their code: their histories replay, and nothing of the code runs."""

from __future__ import annotations

from typing import Any

import pytest

import durable
from durable import activity
from durable.core import events as e
from durable.core.events import Event
from durable.core.execution import Execution
from durable.definitions import Workflow
from durable.errors import InternalError
from tests.core.simulation import RUN_ID, Simulation, as_stored


@activity(name="outside.undo")
def undo() -> None:
    return None


async def compensates() -> None:
    began.append("began")
    try:
        await durable.sleep(100)
    finally:
        await undo()


began: list[str] = []
WORKFLOW: Workflow[..., Any] = Workflow(compensates, "compensates", 1, None, None, None)


def cancelled_before_start() -> list[Event]:
    """What durable.request_cancel writes for a run that nobody has claimed."""
    start = Simulation(WORKFLOW).history[0]
    reason = {"reason": "not wanted any more"}
    return [
        start,
        Event(2, 1, e.CANCEL_REQUESTED, start.at_us, reason),
        Event(3, 1, e.WORKFLOW_CANCELLED, start.at_us, {**reason, "before_start": True}),
    ]


def replayed(history: list[Event]) -> Execution:
    execution = Execution(WORKFLOW, RUN_ID, "wf")
    execution.replay(as_stored(history))
    return execution


def test_a_run_cancelled_before_its_first_turn_did_not_compensate() -> None:
    began.clear()
    execution = replayed(cancelled_before_start())
    assert (execution.closed, execution.last_seq, execution.turn, began) == (True, 3, 1, [])


def test_a_run_ended_by_force_stands_where_it_was_ended() -> None:
    sim = Simulation(WORKFLOW)
    sim.turn()
    end = Event(3, 2, e.WORKFLOW_TERMINATED, sim.now_us, {"reason": "by force"})
    execution = replayed([*sim.history, end])
    assert (execution.closed, execution.last_seq, execution.turn) == (True, 3, 2)
    assert execution.activate([sim.cancelling()], sim.now_us).events == []


def test_nothing_follows_such_an_end() -> None:
    history = cancelled_before_start()
    after = history[1]._replace(seq=4, turn=2)
    with pytest.raises(InternalError, match="closed the run"):
        replayed([*history, after])
