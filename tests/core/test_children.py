"""Child workflows as a parent's code sees them (C15), with a replay of every prefix."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

import durable
from durable import (
    ChildWorkflowError,
    InvalidOption,
    NotInWorkflow,
    RetryPolicy,
    Signal,
    workflow,
)
from durable.core import events as e
from durable.core.events import Event
from durable.errors import DurableError, NondeterminismError, PayloadError
from durable.failure import encode_failure
from durable.payload import digest
from tests.core.simulation import SECOND, Simulation

hello: Signal[str] = Signal("children_hello", str)


@workflow
async def doubling(n: int) -> int:
    return 2 * n


@workflow
def parent_blocking(n: int) -> int:
    return doubling(n).result() + 1


@workflow
async def parent_of(n: int) -> list[int]:
    return await asyncio.gather(*(doubling(i) for i in range(n)))


@workflow
async def careful(n: int) -> str:
    try:
        return str(await doubling(n))
    except ChildWorkflowError as error:
        return f"{error.outcome} {error.workflow_id} {error.cause!r} {error.reason}"


def started(sim: Simulation) -> list[Event]:
    return [it for it in sim.history if it.type == e.CHILD_STARTED]


def test_a_call_starts_a_child_and_its_result_is_typed() -> None:
    sim = Simulation(parent_blocking, 20)
    sim.turn()
    (event,) = started(sim)
    assert event.body | {"digest": "", "line": ""} == {
        "workflow": "doubling", "version": 1, "queue": "default", "priority": 5, "close_policy": "terminate",
        "workflow_id": "wf/doubling-1", "digest": "", "line": "",
    }  # fmt: skip
    assert sim.decision.waiting_on[0]["kind"] == "child"
    sim.turn(sim.child_ended(0, e.CHILD_COMPLETED, "40"))
    assert sim.check().result == 41


def test_children_end_in_any_order() -> None:
    sim = Simulation(parent_of, 3)
    sim.turn()
    sim.turn(sim.child_ended(2, e.CHILD_COMPLETED, "4"), sim.child_ended(0, e.CHILD_COMPLETED, "0"))
    sim.turn(sim.child_ended(1, e.CHILD_COMPLETED, "2"))
    assert sim.check().result == [0, 2, 4]


ENDS = [
    (e.CHILD_FAILED, {"failure": encode_failure(ValueError("no"))}, "failed wf/doubling-1 ValueError('no') None"),
    (e.CHILD_CANCELLED, {"reason": "enough"}, "cancelled wf/doubling-1 None enough"),
    (e.CHILD_TERMINATED, {"reason": "force"}, "terminated wf/doubling-1 None force"),
    (e.CHILD_REJECTED, {"reason": "taken"}, "rejected wf/doubling-1 None taken"),
]  # fmt: skip


@pytest.mark.parametrize(("type", "body", "seen"), ENDS, ids=[row[0] for row in ENDS])
def test_a_child_that_does_not_complete_is_an_error(
    type: str, body: dict[str, Any], seen: str
) -> None:
    sim = Simulation(careful, 1)
    sim.turn()
    sim.turn(sim.child_ended(0, type, **body))
    assert sim.check().result == seen


def test_an_uncaught_child_failure_keeps_its_chain() -> None:
    sim = Simulation(parent_of, 1)
    sim.turn()
    cause = ValueError("inner")
    error = RuntimeError("outer")
    error.__cause__ = cause
    sim.turn(sim.child_ended(0, e.CHILD_FAILED, failure=encode_failure(error)))
    failure = sim.check().failure
    assert isinstance(failure, ChildWorkflowError)
    assert repr(failure.__cause__) == "RuntimeError('outer')"
    assert failure.__cause__ is not None
    assert repr(failure.__cause__.__cause__) == "ValueError('inner')"


@workflow
async def cancels_child(cancellation: Any) -> str:
    child = doubling.options(cancellation=cancellation)(1)
    await durable.sleep(1)
    child.cancel()
    try:
        await child
    except asyncio.CancelledError:
        return "cancelled"
    return "completed"


@pytest.mark.parametrize(
    ("cancellation", "asks", "waits"), [("wait", 1, True), ("try", 1, False), ("abandon", 0, False)]
)
def test_cancelling_a_child(cancellation: str, asks: int, waits: bool) -> None:
    """C9: asked once; "wait" sees the end of its compensation, and by then it is cancelled either way."""
    sim = Simulation(cancels_child, cancellation)
    sim.turn()
    sim.fire()
    assert sim.types.count(e.CHILD_CANCEL_REQUESTED) == asks
    assert sim.decision.closed is not waits
    if waits:
        sim.turn(sim.child_ended(0, e.CHILD_COMPLETED, "2"))
    assert sim.check().result == "cancelled"


@workflow
async def changes_its_mind() -> str:
    doubling(1).cancel()
    await durable.sleep(1)
    return "done"


def test_a_child_cancelled_in_its_own_turn_never_starts() -> None:
    sim = Simulation(changes_its_mind).run().check()
    assert started(sim) == []


@workflow
async def talks() -> str:
    child = doubling(1)
    child.signal(hello, "one")
    child.signal(hello, "two")
    await child
    try:
        child.signal(hello, "three")
    except DurableError as error:
        return str(error)
    return "sent"


def test_signals_to_a_child_are_in_order_and_refused_after_its_end() -> None:
    sim = Simulation(talks)
    sim.turn()
    sent = [
        (it.body["name"], it.body["workflow_id"], it.payload)
        for it in sim.history
        if it.type == e.CHILD_SIGNALLED
    ]
    assert sent == [
        ("children_hello", "wf/doubling-1", '"one"'),
        ("children_hello", "wf/doubling-1", '"two"'),
    ]
    sim.turn(sim.child_ended(0, e.CHILD_COMPLETED, "2"))
    assert "has ended" in sim.check().result


def test_the_parent_s_cancel_reaches_the_child() -> None:
    sim = Simulation(parent_of, 1)
    sim.turn()
    sim.turn(sim.cancelling("stop"))
    assert sim.types[-1] == e.CHILD_CANCEL_REQUESTED
    sim.turn(sim.child_ended(0, e.CHILD_CANCELLED))
    assert sim.check().outcome == e.WORKFLOW_CANCELLED


@pytest.mark.parametrize(
    "change", [{"close_policy": "cancel"}, {"queue": "q"}, {"workflow_id": "other"}]
)
def test_other_options_are_nondeterminism(change: dict[str, Any]) -> None:
    sim = Simulation(parent_of, 1)
    sim.turn()
    stored = [
        it._replace(body={**it.body, **change}) if it.type == e.CHILD_STARTED else it
        for it in sim.history
    ]
    with pytest.raises(NondeterminismError):
        sim.fresh().replay(stored)


@pytest.mark.parametrize("change", [{"version": 2}, {"pinned": True}])
def test_another_version_of_the_child_breaks_no_open_parent(change: dict[str, Any]) -> None:
    """The child has started as what it was then; the parent's code names what starts now."""
    sim = Simulation(parent_of, 1)
    sim.turn()
    stored = [
        it._replace(body={**it.body, **change}) if it.type == e.CHILD_STARTED else it
        for it in sim.history
    ]
    execution = sim.fresh()
    execution.replay(stored)
    decision = execution.activate([sim.child_ended(0, e.CHILD_COMPLETED, "2")], sim.now_us + 1)
    assert decision.closed


def test_other_arguments_are_nondeterminism() -> None:
    sim = Simulation(parent_of, 1)
    sim.turn()
    other = '{"n":7}'
    stored = [
        it._replace(payload=other, body={**it.body, "digest": digest(other)})
        if it.type == e.CHILD_STARTED
        else it
        for it in sim.history
    ]
    with pytest.raises(NondeterminismError):
        sim.fresh().replay(stored)


@workflow
async def continued_parent() -> int:
    return await doubling(1)


def test_a_successor_s_children_have_other_ids_than_those_of_the_run_before() -> None:
    sim = Simulation(continued_parent, start={"continued": 3})
    sim.turn()
    assert started(sim)[0].body["workflow_id"] == "wf/3/doubling-1"


@pytest.mark.parametrize(
    "options",
    [
        {"close_policy": "kill"},
        {"priority": 10},
        {"queue": ""},
        {"id": "a\0b"},
        {"cancellation": "maybe"},
    ],
)
def test_bad_options_are_refused_at_the_call(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption):
        doubling.options(**options)


@workflow
async def bad_argument() -> str:
    try:
        doubling("x")  # type: ignore[arg-type]
    except PayloadError:
        return "refused"
    return "accepted"


def test_bad_arguments_are_refused_at_the_call() -> None:
    assert Simulation(bad_argument).run().check().result == "refused"


def test_outside_a_workflow_there_is_no_child() -> None:
    with pytest.raises(NotInWorkflow, match="client.start"):
        doubling(1)
    with pytest.raises(NotInWorkflow):
        doubling.options(queue="q")(1)


# -- started again ------------------------------------------------------------------------------------------------------

patient = RetryPolicy(
    max_attempts=3, initial_interval=timedelta(seconds=10), jitter=0.0, non_retryable=(KeyError,)
)


@workflow
async def stubborn(n: int) -> str:
    try:
        return str(await doubling.options(id="d", retry=patient)(n))
    except ChildWorkflowError as error:
        return f"{error.outcome} {error.cause!r}"


def failing(sim: Simulation, index: int, error: BaseException) -> None:
    sim.turn(sim.child_ended(index, e.CHILD_FAILED, failure=encode_failure(error)))


def test_a_failed_child_is_started_again_under_its_id() -> None:
    sim = Simulation(stubborn, 20)
    sim.turn()
    for index, wait_s in enumerate((10, 20)):
        before_us = sim.now_us
        failing(sim, index, ValueError("once more"))
        assert len(started(sim)) == index + 1
        assert sim.timers[0].body["fire_at_us"] == before_us + 1_000 + wait_s * SECOND
        sim.fire()
    assert [it.body["workflow_id"] for it in started(sim)] == ["d"] * 3
    assert len({it.body["digest"] for it in started(sim)}) == 1
    sim.turn(sim.child_ended(2, e.CHILD_COMPLETED, "40"))
    assert sim.check().result == "40"


def test_its_last_failure_is_the_parents() -> None:
    sim = Simulation(stubborn, 20)
    sim.turn()
    for index in range(3):
        failing(sim, index, ValueError(index))
        if index < 2:
            sim.fire()
    assert sim.check().result == "failed ValueError(2)"


@pytest.mark.parametrize("outcome", [e.CHILD_CANCELLED, e.CHILD_TERMINATED, e.CHILD_REJECTED])
def test_only_a_failure_is_tried_again(outcome: str) -> None:
    sim = Simulation(stubborn, 20)
    sim.turn()
    sim.turn(sim.child_ended(0, outcome))
    assert len(started(sim)) == 1
    assert sim.decision.closed
    sim.check()


def test_what_must_not_be_tried_again_is_not() -> None:
    sim = Simulation(stubborn, 20)
    sim.turn()
    failing(sim, 0, KeyError("gone"))
    assert sim.check().result == "failed KeyError('gone')"


def test_a_cancel_ends_the_wait_for_the_next_attempt() -> None:
    sim = Simulation(stubborn, 20)
    sim.turn()
    failing(sim, 0, ValueError("once"))
    sim.turn(sim.cancelling())
    assert sim.outcome == e.WORKFLOW_CANCELLED
    assert e.TIMER_CANCELLED in sim.types
    sim.check()


def test_another_policy_is_nondeterminism() -> None:
    @workflow(name="stubborn_twin")
    async def stubborn_before(n: int) -> int:
        return await doubling.options(id="d", retry=patient)(n)

    @workflow(name="stubborn_twin", version=2)
    async def stubborn_after(n: int) -> int:
        return await doubling.options(id="d")(n)

    sim = Simulation(stubborn_before, 1)
    sim.turn()
    sim.workflow = stubborn_after
    with pytest.raises(NondeterminismError, match="child_retry"):
        sim.fresh().replay(sim.history)
