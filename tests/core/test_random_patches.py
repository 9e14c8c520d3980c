"""Random changes deployed at random moments: patched code takes up what the code before it has begun, and replays what it has done.

A program is a list of places, some in a loop, that call an activity or wait. A change makes some places call another activity, behind a patch of their own.
Three deployments follow each other at any turns: before the change, with it, and with the patches deprecated (once a run has no old branch left).
"""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

import durable
from durable import Signal, activity
from durable.core import events as e
from durable.core.execution import Execution
from durable.definitions import Workflow
from durable.errors import NondeterminismError
from tests.core.simulation import RUN_ID, Simulation, as_stored

go = Signal("random_patches_go", int)


@activity(name="random_patches.old")
def old(place: int) -> str:
    return f"old {place}"


@activity(name="random_patches.new")
def new(place: int) -> str:
    return f"new {place}"


places = st.lists(
    st.tuples(st.sampled_from(["call", "sleep", "receive", "nothing"]), st.booleans()),
    min_size=1,
    max_size=6,
)
"""What each place does besides its call, and whether it changes."""

Plan = list[tuple[str, bool]]


def code(stage: str) -> Workflow[..., Any]:
    """The workflow as it is deployed at that stage."""

    async def at(place: int, changes: bool) -> str:
        if not changes or stage == "before":
            return await old(place)
        if stage == "deprecated":
            durable.deprecate_patch(f"patch-{place}")
            return await new(place)
        return await (new(place) if durable.patched(f"patch-{place}") else old(place))

    async def run(plan: Plan, rounds: int) -> list[str]:
        seen = []
        for _ in range(rounds):
            for place, (kind, changes) in enumerate(plan):
                if kind == "sleep":
                    await durable.sleep(5)
                elif kind == "receive":
                    await go.receive()
                if kind != "nothing":
                    seen.append(await at(place, changes))
        return seen

    return Workflow(run, "random_patches", 1, None, None, None)


before, patched, deprecated = code("before"), code("patched"), code("deprecated")


def step(sim: Simulation) -> None:
    """Something that the run waits for happens."""
    if sim.activities:
        sim.turn(sim.perform(sim.activities[0]))
    elif sim.timers:
        sim.fire()
    else:
        sim.turn(sim.signalled(go, 1))


def deploy(sim: Simulation, workflow: Workflow[..., Any]) -> None:
    """Another worker takes the run up, with this code."""
    sim.execution.evict()
    sim.workflow = workflow
    sim.execution = sim.fresh()
    sim.execution.replay(as_stored(sim.history))


@settings(max_examples=150, deadline=None)
@given(plan=places, rounds=st.integers(1, 3), turns=st.integers(0, 12), more=st.integers(0, 12))
def test_a_change_may_be_deployed_at_any_moment(
    plan: Plan, rounds: int, turns: int, more: int
) -> None:
    sim = Simulation(before, plan, rounds)
    sim.turn()
    for _ in range(turns):
        if not sim.decision.closed:
            step(sim)
    done = sim.types.count(e.ACTIVITY_SCHEDULED)
    deploy(sim, patched)
    for _ in range(more):
        if not sim.decision.closed:
            step(sim)
            deploy(sim, patched)  # evicted after each turn: replay decides as it was decided live
    if not sim.decision.closed and is_past(sim):
        deploy(sim, deprecated)
    while not sim.decision.closed:
        step(sim)
    assert consistent(plan, sim.result, done)
    for stage in (patched, *([deprecated] if is_past(sim) else [])):
        again = Execution(stage, RUN_ID, "wf")
        again.replay(as_stored(sim.history))
        assert again.closed


def is_past(sim: Simulation) -> bool:
    """What `durable verify` says of the last stage."""
    try:
        Execution(deprecated, RUN_ID, "wf").replay(as_stored(sim.history))
    except NondeterminismError:
        return False
    return True


def consistent(plan: Plan, result: list[str], done: int) -> bool:
    """A place keeps to one branch in a run: old if it was begun before the change, new otherwise; what does not change is old."""
    taken: dict[int, set[str]] = {}
    for said in result:
        branch, number = said.split()
        taken.setdefault(int(number), set()).add(branch)
    begun = {int(said.split()[1]) for said in result[:done]}
    return all(
        branches == {"new" if plan[place][1] and place not in begun else "old"}
        for place, branches in taken.items()
    )
