"""`patched` and `deprecate_patch`: every stage of a change, against the histories of every other stage (C13, C16)."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

import pytest

import durable
from durable import Signal, activity
from durable.core import events as e
from durable.core.events import Event
from durable.core.execution import Execution
from durable.definitions import Workflow
from durable.errors import (
    DurableError,
    InvalidOption,
    NondeterminismError,
    NotInWorkflow,
    ReadOnlyViolation,
)
from tests.core.simulation import RUN_ID, Simulation, as_stored

go = Signal("patching_go", int)


@activity(name="patching.old")
def old(n: int) -> str:
    return f"old {n}"


@activity(name="patching.new")
def new(n: int) -> str:
    return f"new {n}"


# The stages of one change, and what each deployment has. A run may meet the stage that wrote its history, the one before and the one after.


async def before() -> str:
    return await old(1)


async def guarded() -> str:
    if durable.patched("dearer"):
        return await new(1)
    return await old(1)


async def deprecated() -> str:
    durable.deprecate_patch("dearer")
    return await new(1)


async def after() -> str:
    return await new(1)


def as_workflow(fn: Any) -> Workflow[..., Any]:
    return Workflow(fn, "patching", 1, None, None, None)


def recorded(fn: Any) -> list[Event]:
    return as_stored(Simulation(as_workflow(fn)).run().check().history)


def replay(fn: Any, history: list[Event]) -> Execution:
    execution = Execution(as_workflow(fn), RUN_ID, "wf")
    execution.replay(history)
    return execution


def marks(history: list[Event]) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in it.body.items() if key != "line"}
        for it in history
        if it.type == e.PATCH_RECORDED
    ]


NEIGHBOURS = [
    (before, before), (before, guarded),
    (guarded, guarded), (guarded, deprecated),
    (deprecated, guarded), (deprecated, deprecated), (deprecated, after),
    (after, deprecated), (after, after),
]  # fmt: skip


@pytest.mark.parametrize(("then", "now"), NEIGHBOURS, ids=lambda it: it.__name__)
def test_each_stage_replays_the_histories_of_its_neighbours(then: Any, now: Any) -> None:
    assert replay(now, recorded(then)).closed


@pytest.mark.parametrize(("then", "now"), NEIGHBOURS, ids=lambda it: it.__name__)
def test_a_run_goes_on_under_the_neighbouring_stage(then: Any, now: Any) -> None:
    """A rolling deployment: the run was under way, and another worker takes it up where it stood."""
    sim = Simulation(as_workflow(then))
    sim.turn()
    scheduled = sim.activities[0]
    execution = replay(now, as_stored(sim.history))
    decision = execution.activate([sim.completed(scheduled, "done")], sim.now_us + 1)
    assert decision.events[-1].payload == '"done"'


def test_what_is_recorded() -> None:
    assert marks(recorded(before)) == []
    assert marks(recorded(guarded)) == [{"id": "dearer"}]
    assert marks(recorded(deprecated)) == [{"id": "dearer", "deprecated": True}]
    assert [it.type for it in recorded(guarded)][1:3] == [e.PATCH_RECORDED, e.ACTIVITY_SCHEDULED]


def test_code_from_before_the_change_says_that_it_is_older() -> None:
    with pytest.raises(NondeterminismError, match="older than the change") as caught:
        replay(before, recorded(guarded))
    assert caught.value.event_seq == 2
    assert caught.value.expected == {"type": "PatchRecorded", "id": "dearer"}


def test_a_patch_removed_too_early_says_what_to_put_in_its_place() -> None:
    with pytest.raises(NondeterminismError, match=r"put durable.deprecate_patch\('dearer'\)"):
        replay(after, recorded(guarded))


def test_the_old_branch_cannot_run_on_without_the_patch() -> None:
    """Deprecated while runs from before the change are open: found out, whatever the patch says."""
    with pytest.raises(NondeterminismError, match=r"patching\.old"):
        replay(deprecated, recorded(before))


def looping(body: Any) -> Any:
    async def loops() -> list[str]:
        seen: list[str] = []
        async for n in go:
            if n == 0:
                return seen
            seen.append(await body(n))
        return seen

    return loops


async def plainly(n: int) -> str:
    return await old(n)


async def by_patch(n: int) -> str:
    return await (new(n) if durable.patched("in a loop") else old(n))


def test_the_answer_is_recorded_once_and_stands_in_a_loop() -> None:
    sim = Simulation(as_workflow(looping(by_patch)))
    for n in (1, 2, 3):
        sim.turn(sim.signalled(go, n))
        sim.turn(sim.perform(sim.activities[0]))
    sim.turn(sim.signalled(go, 0))
    assert sim.check().result == ["new 1", "new 2", "new 3"]
    assert marks(sim.history) == [{"id": "in a loop"}]


def test_a_loop_that_began_before_the_change_stays_with_the_old_branch() -> None:
    """Live again after the replay, too: one answer for a run, or the next replay would part."""
    sim = Simulation(as_workflow(looping(plainly)))
    sim.turn(sim.signalled(go, 1))
    sim.turn(sim.perform(sim.activities[0]))
    sim.workflow = as_workflow(looping(by_patch))
    sim.execution = sim.fresh()
    sim.execution.replay(as_stored(sim.history))
    sim.turn(sim.signalled(go, 2))
    sim.turn(sim.perform(sim.activities[0]))
    sim.turn(sim.signalled(go, 0))
    assert sim.result == ["old 1", "old 2"]
    assert marks(sim.history) == []
    assert replay(looping(by_patch), as_stored(sim.history)).closed


def test_a_place_that_the_run_had_not_reached_takes_the_new_branch() -> None:
    async def then() -> str:
        await go.receive()
        await durable.sleep(1)
        return await old(1)

    async def now() -> str:
        await go.receive()
        await durable.sleep(1)
        return await (new(1) if durable.patched("later") else old(1))

    sim = Simulation(as_workflow(then))
    sim.turn()
    sim.turn(sim.signalled(go, 1))
    sim.workflow = as_workflow(now)
    sim.execution = sim.fresh()
    sim.execution.replay(as_stored(sim.history))
    sim.fire()
    sim.run()
    assert sim.result == "new 1"
    assert replay(now, as_stored(sim.history)).closed


def test_a_run_that_had_decided_nothing_takes_the_new_branch() -> None:
    """A first turn without a command leaves no trace: the code runs from the top when something arrives."""

    async def then() -> str:
        await go.receive()
        return await old(1)

    async def now() -> str:
        fresh = durable.patched("from the top")
        await go.receive()
        return await (new(1) if fresh else old(1))

    sim = Simulation(as_workflow(then))
    sim.turn()
    assert len(sim.history) == 1
    sim.workflow = as_workflow(now)
    sim.execution = sim.fresh()
    sim.execution.replay(as_stored(sim.history))
    sim.turn(sim.signalled(go, 1))
    assert sim.run().result == "new 1"
    assert replay(now, as_stored(sim.history)).closed


def blocking() -> str:
    return (new(1) if durable.patched("style") else old(1)).result()


def yielding() -> Generator[Any, Any, str]:
    result: str = yield (new(1) if durable.patched("style") else old(1))
    return result


@pytest.mark.parametrize("fn", [blocking, yielding], ids=lambda it: it.__name__)
def test_other_styles(fn: Any) -> None:
    assert marks(recorded(fn)) == [{"id": "style"}]


def test_two_tasks_of_one_turn_agree() -> None:
    async def one(n: int) -> str:
        return await (new(n) if durable.patched("shared") else old(n))

    async def both() -> list[str]:
        return list(await asyncio.gather(one(1), one(2)))

    sim = Simulation(as_workflow(both)).run().check()
    assert (sim.result, marks(sim.history)) == (["new 1", "new 2"], [{"id": "shared"}])


def test_an_id_for_two_changes_is_found_out() -> None:
    async def first() -> str:
        await old(0)
        return await (new(1) if durable.patched("twice") else old(1))

    async def second() -> str:
        await (new(0) if durable.patched("twice") else old(0))
        return await (new(1) if durable.patched("twice") else old(1))

    with pytest.raises(NondeterminismError, match="an id of its own"):
        replay(second, recorded(first))


def test_a_predicate_may_look_and_not_decide() -> None:
    async def looks() -> str:
        durable.patched("known")
        await durable.wait_until(lambda: durable.patched("known"))
        await durable.wait_until(lambda: durable.patched("unknown"))
        return "never"

    sim = Simulation(as_workflow(looks)).run()
    assert isinstance(sim.failure, DurableError)
    assert "must only read" in str(sim.failure)
    assert marks(sim.history) == [{"id": "known"}]


def test_a_query_may_look_and_not_decide() -> None:
    async def asked() -> None:
        @durable.query
        def has(patch: str) -> bool:
            return durable.patched(patch)

        durable.patched("known")
        await go.receive()

    sim = Simulation(as_workflow(asked))
    sim.turn()
    assert sim.ask("has", "known") is True
    with pytest.raises(ReadOnlyViolation):
        sim.ask("has", "unknown")
    sim.turn(sim.signalled(go, 1))
    assert sim.ask("has", "known") is True  # it has closed
    assert marks(sim.check().history) == [{"id": "known"}]


def test_an_evicted_run_decides_nothing() -> None:
    async def unwinds() -> None:
        try:
            await go.receive()
        finally:
            durable.patched("too late")

    sim = Simulation(as_workflow(unwinds))
    sim.turn()
    sim.execution.evict()
    assert sim.execution._commands == []


def test_outside_a_workflow_and_with_an_impossible_id() -> None:
    async def nameless() -> None:
        durable.patched("")

    for call in (durable.patched, durable.deprecate_patch):
        with pytest.raises(NotInWorkflow):
            call("anything")
    assert isinstance(Simulation(as_workflow(nameless)).run().failure, InvalidOption)
