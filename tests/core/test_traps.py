"""Traps of other engines that have no better place among the tests; docs/traps.md lists them all."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest

import durable
from durable import activity, workflow
from durable.core import events as e
from tests.core.simulation import Simulation, simulate


@activity
def trapped(n: int) -> int:
    return n


@pytest.mark.usefixtures("own_garbage")
def test_tasks_are_held_strongly() -> None:
    """asyncio's own loop holds its tasks weakly: one that nobody else holds vanishes with the next garbage collection."""
    ended: list[int] = []

    @workflow
    async def forgets_its_task() -> int:
        async def in_the_background() -> None:
            ended.append(await trapped(1))

        asyncio.create_task(in_the_background())  # noqa: RUF006 - nobody holds it, on purpose
        return await trapped(2)

    sim = Simulation(forgets_its_task)
    sim.turn()
    gc.collect()
    background, awaited = sim.activities[1], sim.activities[0]
    sim.turn(sim.completed(background, 1))
    gc.collect()
    sim.turn(sim.completed(awaited, 2))
    assert ended == [1]
    assert sim.outcome == e.WORKFLOW_COMPLETED


def test_who_cancels_again_and_again_does_not_hang_the_run() -> None:
    """A level-triggered canceller (anyio's scopes are one) repeats its cancel until the task ends. Elsewhere that livelocks: each
    cancel is swallowed while the activity's own end is awaited. Here the first one is delivered, and the task ends."""

    @workflow
    async def insists() -> list[str]:
        seen: list[str] = []

        async def works() -> None:
            try:
                await trapped(1)
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise

        task = asyncio.create_task(works())
        await durable.sleep(10)
        while not task.done():
            task.cancel()
            await asyncio.sleep(0)
        return seen

    sim = Simulation(insists)
    sim.turn()
    sim.fire()
    sim.run().check()
    assert sim.result == ["cancelled"]


def test_the_first_local_activity_to_end_is_seen_at_once() -> None:
    """Elsewhere a wait for the first of several local activities ends with the last of them."""

    @workflow
    async def takes_the_first() -> int:
        calls = [asyncio.ensure_future(durable.local(trapped)(n)) for n in (1, 2, 3)]
        done, open_ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        for call in open_:
            call.cancel()
        return sum(call.result() for call in done)

    sim = Simulation(takes_the_first)
    sim.turn()
    second = list(sim.execution.locals)[1]
    sim.turn(sim.local_ended(second, 2))
    assert sim.result == 2
    sim.check()


def test_modules_are_imported_once_and_objects_are_not_proxied() -> None:
    """No re-import per run, no stand-ins: what a module holds is what the workflow sees, third-party objects included."""
    seen: list[Any] = []
    outside = object()

    @workflow
    async def looks_at_the_world() -> bool:
        seen.append(outside)
        seen.append(weakref)
        return True

    simulate(looks_at_the_world)
    assert seen[0] is outside
    assert seen[1] is weakref


def test_a_validator_cannot_change_what_the_handler_gets() -> None:
    """A validator is not asked in replay: what it did to the arguments would be missing there."""

    @workflow
    async def takes_lists() -> list[str]:
        taken: list[str] = []

        @durable.update
        async def take(words: list[str]) -> list[str]:
            taken.extend(words)
            return words

        @take.validator
        def spoil(words: list[str]) -> None:
            words.append("spoilt")

        await durable.wait_until(lambda: bool(taken))
        return taken

    sim = Simulation(takes_lists)
    sim.turn()
    sim.turn(sim.updating("take", ["clean"]))
    assert sim.run().check().result == ["clean"]
