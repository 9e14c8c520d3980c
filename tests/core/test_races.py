"""What happens when several things arrive in one turn, as tables: (what arrives, in which order) -> what the code sees.

The rule (C1): all of it is applied to state first, in the order of the history; then the loop runs once. So nothing that arrived is overlooked, whatever came
with it, and a cancel is never lost to something that ended in the same moment. Temporal's SDKs share these cases; where its answers depend on how its
core sorts the jobs of a task, ours are those of the recorded order.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import durable
from durable import Signal, activity, workflow
from durable.core import events as e
from durable.core.events import Message
from tests.core.simulation import Simulation

word = Signal("race_word", str)


@activity
def fetch_race(n: int) -> int:
    return n


def race(sim: Simulation, *arriving: str) -> Simulation:
    """Take one turn with these arrivals, in this order."""
    timers, activities = sim.timers, sim.activities
    if any(it.startswith("timer") for it in arriving):
        sim.now_us = max([sim.now_us, *[it.body["fire_at_us"] for it in timers]])
    made: dict[str, Any] = {
        "activity": lambda: sim.completed(activities[0], 1),
        "second": lambda: sim.completed(activities[1], 2),
        "failure": lambda: sim.failed(activities[0], ValueError("broken")),
        "timer": lambda: sim.fired(timers[0]),
        "timer 2": lambda: sim.fired(timers[1]),
        "signal": lambda: sim.signalled(word, "hello"),
        "cancel": lambda: sim.cancelling("enough"),
    }
    messages: list[Message] = [made[it]() for it in arriving]
    sim.turn(*messages, after_us=0)
    return sim.run().check()


@workflow
async def sees_what_is_done() -> list[str]:
    waiting: dict[str, asyncio.Future[Any]] = {
        "activity": asyncio.ensure_future(fetch_race(1)),
        "timer": asyncio.ensure_future(durable.sleep(10)),
        "signal": asyncio.ensure_future(word.receive()),
    }
    await asyncio.wait(waiting.values(), return_when=asyncio.FIRST_COMPLETED)
    return [name for name, future in waiting.items() if future.done()]


@pytest.mark.parametrize(
    "arriving",
    [
        ["activity"],
        ["timer"],
        ["signal"],
        ["signal", "activity"],
        ["timer", "signal"],
        ["activity", "timer", "signal"],
        ["signal", "timer", "activity"],
    ],
)
def test_everything_that_arrived_is_done_when_the_code_looks(arriving: list[str]) -> None:
    sim = Simulation(sees_what_is_done)
    sim.turn()
    race(sim, *arriving)
    assert sorted(sim.result) == sorted(arriving)


@workflow
async def tells_how_it_ended() -> str:
    try:
        return f"value {await fetch_race(1)}"
    except asyncio.CancelledError:
        return "cancelled"
    except durable.ActivityError:
        return "failed"


@pytest.mark.parametrize(
    ("arriving", "ends"),
    [
        (["activity"], "value 1"),
        (["failure"], "failed"),
        (["cancel"], "cancelled"),
        # never lost, whichever was first: a cancel that is overlooked leaves a run that nobody can stop
        (["activity", "cancel"], "cancelled"),
        (["cancel", "activity"], "cancelled"),
        (["failure", "cancel"], "cancelled"),
        (["cancel", "failure"], "cancelled"),
    ],
)
def test_a_cancel_and_an_end_in_one_turn(arriving: list[str], ends: str) -> None:
    sim = Simulation(tells_how_it_ended)
    sim.turn()
    assert race(sim, *arriving).result == ends


@workflow
async def has_a_deadline() -> str:
    try:
        async with asyncio.timeout(10):
            return f"value {await fetch_race(1)}"
    except TimeoutError:
        return "too late"
    except durable.ActivityError:
        return "failed"


@workflow
async def waits_for() -> str:
    try:
        return f"value {await asyncio.wait_for(fetch_race(1), 10)}"
    except TimeoutError:
        return "too late"
    except durable.ActivityError:
        return "failed"


@workflow
async def receives_in_time() -> str:
    try:
        return f"value {await word.receive(timeout=10)}"
    except TimeoutError:
        return "too late"


@pytest.mark.parametrize(
    ("code", "arriving", "ends"),
    [
        # a result that is there counts, though the deadline came with it
        (has_a_deadline, ["activity", "timer"], "value 1"),
        (has_a_deadline, ["timer"], "too late"),
        (has_a_deadline, ["failure", "timer"], "failed"),
        (waits_for, ["activity", "timer"], "value 1"),
        (waits_for, ["timer"], "too late"),
        (receives_in_time, ["signal", "timer"], "value hello"),
        (receives_in_time, ["timer"], "too late"),
    ],
)
def test_a_deadline_and_a_result_in_one_turn(code: Any, arriving: list[str], ends: str) -> None:
    sim = Simulation(code)
    sim.turn()
    assert race(sim, *arriving).result == ends


@workflow
async def notes_the_order() -> list[str]:
    order: list[str] = []

    async def note(name: str, future: Any) -> None:
        await future
        order.append(name)

    await asyncio.gather(
        note("activity", fetch_race(1)),
        note("second", fetch_race(2)),
        note("timer", durable.sleep(10)),
        note("timer 2", durable.sleep(10)),
        note("signal", word.receive()),
    )
    return order


@pytest.mark.parametrize(
    "arriving",
    [
        ["activity", "second", "timer", "timer 2", "signal"],
        ["signal", "timer 2", "timer", "second", "activity"],
        ["timer", "signal", "second", "timer 2", "activity"],
    ],
)
def test_who_waits_is_woken_in_the_order_of_the_history(arriving: list[str]) -> None:
    """Neither in the order of starting, nor sorted by kind: what the database recorded is what the code sees."""
    sim = Simulation(notes_the_order)
    sim.turn()
    assert race(sim, *arriving).result == arriving


@workflow
async def closes_with_something_unread() -> str:
    await fetch_race(1)
    return "done"


@pytest.mark.parametrize("arriving", [["activity", "signal"], ["signal", "activity"]])
def test_a_signal_in_the_last_turn_does_not_keep_the_run_from_closing(arriving: list[str]) -> None:
    sim = Simulation(closes_with_something_unread)
    sim.turn()
    race(sim, *arriving)
    assert (sim.result, sim.outcome) == ("done", e.WORKFLOW_COMPLETED)
