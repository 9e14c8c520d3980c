"""What queries and validators see, and that they can only read (C14); how handlers are registered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import durable
from durable import workflow
from durable.errors import (
    InvalidOption,
    NotInWorkflow,
    PayloadError,
    ReadOnlyViolation,
    UnknownQuery,
    UnsafeWorkflow,
)
from tests.core.simulation import Simulation
from tests.core.test_updates import ends_at_once, ends_late, reserve, said, started
from tests.guard import flows_elsewhere

# -- queries --------------------------------------------------------------------------------------------------------------------


def test_a_query_reads_the_state_of_the_last_turn() -> None:
    sim = started()
    assert sim.ask("content") == []
    sim.turn(sim.updating("add", {"sku": "tea"}))
    assert sim.ask("content") == ["tea"]
    assert sim.ask("content", "x") == []
    before = sim.execution.last_seq
    sim.run().check()
    assert sim.execution.last_seq > before


def test_unknown_queries_and_wrong_arguments() -> None:
    sim = started()
    with pytest.raises(UnknownQuery, match="it has: content"):
        sim.ask("contents")
    with pytest.raises(PayloadError, match="prefix"):
        sim.ask("content", 1)
    with pytest.raises(UnknownQuery, match="it has none"):
        started(ends_late).ask("content")


def test_every_run_answers_where_it_stands_and_what_it_can_be_asked() -> None:
    sim = started()
    assert sim.ask("__handlers") == {
        "queries": ["content"],
        "updates": ["add", "break_it", "close"],
    }
    ((main,), _) = (sim.ask("__stack"), None)
    assert main["task"] == "main"
    assert main["lines"][-1].endswith("in cart")


def test_a_closed_run_answers() -> None:
    sim = started()
    sim.turn(sim.updating("add", {"sku": "tea"}), sim.updating("close", update_id="2"))
    sim.run()
    again = sim.fresh()
    again.outlives_its_end = True
    again.replay(sim.history)
    assert again.query("content", "[]") == '["tea"]'
    again.evict()


@workflow(name="updates.cleans_up")
async def cleans_up() -> None:
    state = "begun"

    @durable.query
    def status() -> str:
        return state

    async def background() -> None:
        nonlocal state
        try:
            await said.receive()
        finally:
            state = "torn down"

    task = asyncio.create_task(background())
    await durable.sleep(1)
    assert not task.done()


def test_a_closed_run_answers_as_it_ended_not_as_it_was_torn_down() -> None:
    sim = Simulation(cleans_up).run()
    again = sim.fresh()
    again.outlives_its_end = True
    again.replay(sim.history)
    assert again.query("status", "[]") == '"begun"'
    again.evict()


# -- only reading ----------------------------------------------------------------------------------------------------------------


@workflow(name="updates.tempted")
async def tempted() -> str:
    woken = asyncio.Event()
    future = reserve("x")
    child: list[Any] = []

    def temptation(which: str) -> Any:
        deeds: dict[str, Callable[[], Any]] = {
            "activity": lambda: reserve("y"),
            "sleep": lambda: durable.sleep(1),
            "zero sleep": lambda: durable.sleep(0),
            "receive": said.receive,
            "random": lambda: durable.random().random(),
            "uuid": durable.uuid4,
            "cancel": future.cancel,
            "wake": woken.set,
            "task": lambda: asyncio.ensure_future(asyncio.sleep(1)),
            "child": ends_at_once,
            "continue": durable.continue_as_new,
            "register": lambda: durable.query(temptation),
            "wait": lambda: durable.wait_until(lambda: True),
            "time": lambda: (durable.now(), durable.time(), durable.info(), said.pending()),
        }
        deeds[which]()
        return "done"

    @durable.query
    def ask(which: str) -> Any:
        return temptation(which)

    @durable.update
    async def change(which: str) -> str:
        return which

    @change.validator
    def check(which: str) -> None:
        temptation(which)

    numbers = [durable.random().random()]
    await woken.wait()
    return f"{await future} {child} {len(numbers)}"


DEEDS = [
    "activity", "sleep", "zero sleep", "receive", "random", "uuid", "cancel", "wake", "task", "child", "continue", "register", "wait",
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.parametrize("deed", DEEDS)
def test_a_query_cannot_change_the_run(deed: str) -> None:
    sim = started(tempted)
    with pytest.raises(ReadOnlyViolation, match="a query must only read"):
        sim.ask("ask", deed)
    sim.run().check()
    assert sim.types[1:] == ["ActivityScheduled", "ActivityCompleted"]


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.parametrize("deed", DEEDS)
def test_a_validator_cannot_change_the_run(deed: str) -> None:
    sim = started(tempted)
    assert sim.turn(sim.updating("change", deed)) == []
    assert isinstance(sim.refused(), ReadOnlyViolation)
    assert "validator must only read" in str(sim.refused())
    sim.run().check()
    assert sim.types[1:] == ["ActivityScheduled", "ActivityCompleted"]


def test_what_only_reads_is_allowed() -> None:
    sim = started(tempted)
    assert sim.ask("ask", "time") == "done"
    sim.turn(sim.updating("change", "time"))
    assert sim.types[-1] == "UpdateCompleted"
    assert not sim.execution.tainted


def test_waking_somebody_in_a_query_taints_the_live_state() -> None:
    """The event is set now, in no turn that a history knows: the owner drops the execution, and replay knows nothing of it."""
    sim = started(tempted)
    with pytest.raises(ReadOnlyViolation):
        sim.ask("ask", "wake")
    assert sim.execution.tainted


@workflow(name="updates.reads_a_file")
async def reads_a_file() -> str:
    @durable.query
    def peek() -> str:
        return flows_elsewhere.read_file()

    await said.receive()
    return "unharmed"


def test_the_guard_refuses_in_a_query_and_does_not_park_the_run() -> None:
    sim = started(reads_a_file)
    with pytest.raises(UnsafeWorkflow):
        sim.ask("peek")
    sim.turn(sim.signalled(said, "go"))
    assert sim.result == "unharmed"
    sim.check()


# -- registering ---------------------------------------------------------------------------------------------------------------


def test_handlers_are_registered_inside_a_workflow_only() -> None:
    for decorator in (durable.query, durable.update):
        with pytest.raises(NotInWorkflow, match="inside a workflow only"):
            decorator(lambda: None)


@workflow(name="updates.odd")
async def odd(which: str) -> str:
    async def coroutine() -> None: ...

    def __private() -> None: ...

    @durable.update
    def fine() -> None: ...

    odd_ones: dict[str, Callable[[], Any]] = {
        "async query": lambda: durable.query(coroutine),
        "async validator": lambda: fine.validator(coroutine),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        "taken name": lambda: durable.query(name="__stack")(__private),
    }
    try:
        odd_ones[which]()
    except InvalidOption as error:
        return str(error)
    return "registered"


@pytest.mark.parametrize(
    ("which", "why"),
    [
        ("async query", "it must only read, so it is a plain `def`"),
        ("async validator", "it must only read, so it is a plain `def`"),
        ("taken name", "names with two underscores are taken"),
    ],
)
def test_what_cannot_be_a_handler(which: str, why: str) -> None:
    assert why in Simulation(odd, which).run().result


def test_the_newest_registration_of_a_name_counts() -> None:
    sim = started(replaces)
    assert sim.ask("phase") == 1
    sim.turn(sim.signalled(said, "go"))
    assert sim.ask("phase") == 2


@workflow(name="updates.replaces")
async def replaces() -> None:
    @durable.query(name="phase")
    def first() -> int:
        return 1

    await said.receive()

    @durable.query(name="phase")
    def second() -> int:
        return 2

    await said.receive()
