"""The three author styles give the same history, and each replays."""

# ruff: noqa: PT017

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Generator
from datetime import timedelta
from typing import Any

import pytest

import durable
from durable import Signal, activity, workflow
from durable.core import events as e
from durable.errors import ActivityError, NotInWorkflow
from tests.core.simulation import Simulation, simulate

go: Signal[int] = Signal("style_go", int)
flavour = contextvars.ContextVar("flavour", default="plain")


@activity
def double(n: int) -> int:
    if n < 0:
        raise ValueError(f"{n} is negative")
    return 2 * n


@workflow
async def awaiting(n: int) -> list[int]:
    first = await double(n)
    await durable.sleep(timedelta(seconds=5))
    a, b = await asyncio.gather(double(1), double(2))
    try:
        await double(-1)
    except ActivityError as error:
        assert isinstance(error.cause, ValueError)
    return [first, a, b, await go.receive()]


@workflow
def blocking(n: int) -> list[int]:
    first = double(n).result()
    durable.sleep(timedelta(seconds=5))
    a, b = durable.wait(asyncio.gather(double(1), double(2)))
    try:
        double(-1).result()
    except ActivityError as error:
        assert isinstance(error.cause, ValueError)
    return [first, a, b, go.receive().result()]


@workflow
def yielding(n: int) -> Generator[Any, Any, list[int]]:
    first = yield from double(n)
    yield durable.sleep(timedelta(seconds=5))
    a, b = yield [double(1), double(2)]
    try:
        yield double(-1)
    except ActivityError as error:
        assert isinstance(error.cause, ValueError)
    last = yield go.receive()
    return [first, a, b, last]


STYLES = [awaiting, blocking, yielding]


@pytest.mark.parametrize("style", STYLES, ids=lambda it: it.name)
def test_style_runs_and_replays(style: Any) -> None:
    sim = Simulation(style, 21).run()
    assert sim.decision.waiting_on[0]["kind"] == "signal"
    sim.turn(sim.signalled(go, 7))
    assert sim.check().result == [42, 2, 4, 7]
    assert sim.warnings == []


def test_styles_give_the_same_events() -> None:
    def shape(style: Any) -> list[str]:
        sim = Simulation(style, 21).run()
        sim.turn(sim.signalled(go, 7))
        return sim.types

    assert shape(awaiting) == shape(blocking) == shape(yielding)


@pytest.mark.parametrize("style", STYLES, ids=lambda it: it.name)
def test_cancel_reaches_every_style(style: Any) -> None:
    sim = Simulation(style, 21).run()
    sim.turn(sim.cancelling("enough"))
    assert sim.check().history[-1].type == e.WORKFLOW_CANCELLED
    assert sim.history[-1].body == {"reason": "enough"}


@pytest.mark.parametrize("style", STYLES, ids=lambda it: it.name)
def test_stacks_name_the_authors_line(style: Any) -> None:
    sim = Simulation(style, 21).run()
    (stack,) = sim.execution.stacks()
    assert stack["task"] == "main"
    line = stack["lines"][-1]
    assert line.startswith("test_styles.py:")
    assert line.endswith(f"in {style.name}")
    assert sim.decision.waiting_on[0]["line"] == line.partition(" ")[0]


def test_yield_of_nonsense_is_raised_where_it_was_yielded() -> None:
    @workflow
    def nonsense() -> Generator[Any, Any, str]:
        try:
            yield 42
        except TypeError as error:
            return str(error)
        return "no error"

    assert "yielded 42" in simulate(nonsense).result


def test_bare_yield_lets_others_run() -> None:
    @workflow
    def polite() -> Generator[Any, Any, list[str]]:
        seen: list[str] = []

        async def other() -> None:
            seen.append("other")

        task = asyncio.ensure_future(other())
        yield
        seen.append("main")
        yield task
        return seen

    assert simulate(polite).result == ["other", "main"]


def test_context_variables_are_shared_between_fiber_and_task() -> None:
    @activity
    def noop() -> None: ...

    @workflow
    def carrying() -> list[str]:
        seen = [flavour.get()]
        flavour.set("mint")
        noop().result()
        seen.append(flavour.get())

        async def look() -> str:
            return flavour.get()

        seen.append(durable.wait(look()))
        return seen

    flavour.set("the worker's")
    assert simulate(carrying).result == ["plain", "mint", "mint"]
    assert flavour.get() == "the worker's"


def test_result_of_a_pending_future_is_refused_where_nothing_can_block() -> None:
    @workflow
    async def impatient() -> int:
        return double(1).result()

    failure = simulate(impatient).failure
    assert isinstance(failure, asyncio.InvalidStateError)
    assert "use `await` here" in str(failure)


def test_wait_is_refused_outside_a_fiber() -> None:
    @workflow
    async def confused() -> int:
        return durable.wait(double(1))

    assert isinstance(simulate(confused).failure, NotInWorkflow)


def test_blocking_sleep_returns_a_done_future() -> None:
    @workflow
    def sleeping() -> bool:
        return durable.sleep(1).done() and durable.sleep(1).result() is None

    sim = simulate(sleeping)
    assert sim.result is True
    assert sim.types.count(e.TIMER_FIRED) == 2


def test_system_exit_fails_the_workflow_and_not_the_worker() -> None:
    @workflow
    async def leaving() -> None:
        raise SystemExit(3)

    assert simulate(leaving).history[-1].type == e.WORKFLOW_FAILED


def test_keyboard_interrupt_is_the_operators() -> None:
    @workflow
    async def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Simulation(interrupted).run()
