"""`durable.local` as a workflow's code sees it, with a replay of every prefix: one event an outcome, compared, found again by who takes over."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Generator
from datetime import timedelta
from typing import Any

import pytest

import durable
from durable import ActivityError, ActivityTimeout, NotInWorkflow, RetryPolicy, activity, workflow
from durable.core import events as e
from durable.core.execution import Execution
from durable.definitions import Workflow
from durable.errors import InvalidOption, NondeterminismError, PayloadError
from tests.core.simulation import SECOND, Simulation, simulate


@activity(name="local.double")
def double(n: int) -> int:
    return 2 * n


@activity(name="local.half", retry=RetryPolicy(max_attempts=3), timeout=timedelta(seconds=2))
async def half(n: int) -> float:
    return n / 2


@activity(name="local.stays", cancellation="wait")
def stays(n: int) -> int:
    return n


@workflow
async def three_locals(n: int) -> list[Any]:
    return [await durable.local(double)(i) for i in range(n)]


@workflow
def locals_blocking(n: int) -> float:
    return durable.local(double)(n).result() + durable.local(half)(n).result()


@workflow
def locals_yielding(n: int) -> Generator[Any, Any, Any]:
    a = yield from durable.local(double)(n)
    b, c = yield [durable.local(double)(a), double(n)]
    return [a, b, c]


@workflow
async def locals_side_by_side(n: int) -> int:
    return sum(await asyncio.gather(*(durable.local(double)(i) for i in range(n))))


@workflow
async def local_with_options(n: int) -> float:
    call = half.options(id="mine", retry=RetryPolicy(max_attempts=9), queue="ignored")
    return await durable.local(call)(n)


@workflow
async def careful_local(n: int) -> str:
    try:
        return str(await durable.local(double)(n))
    except ActivityTimeout as error:
        return f"timed out: {error.kind} {error.attempt}"
    except ActivityError as error:
        return f"failed: {error.retry_state} {error.attempt} {error.cause!r}"


@workflow
async def impatient_local(n: int, waits: bool) -> str:
    call: Any = durable.local(stays if waits else double)
    try:
        async with asyncio.timeout(3):
            return f"done: {await call(n)}"
    except TimeoutError:
        return f"gave up: {await double(n)}"


def test_each_outcome_is_one_event_and_nothing_announces_the_call() -> None:
    sim = simulate(three_locals, 3)
    assert sim.result == [0, 2, 4]
    assert sim.types == [
        "WorkflowStarted", "FirstTurnTaken", *3 * ["LocalActivityCompleted"], "WorkflowCompleted",
    ]  # fmt: skip
    assert sim.history[2].body.keys() == {"name", "id", "digest", "line", "attempt"}


@pytest.mark.parametrize(
    ("it", "n", "result"),
    [(locals_blocking, 4, 10.0), (locals_yielding, 1, [2, 4, 2]), (locals_side_by_side, 5, 20)],
)
def test_it_works_in_every_style(it: Workflow[..., Any], n: int, result: Any) -> None:
    assert simulate(it, n).result == result


def test_many_outcomes_of_one_turn_are_applied_together() -> None:
    sim = Simulation(locals_side_by_side, 4)
    sim.turn()
    sim.turn(*(sim.local_ended(call_id, 1) for call_id in list(sim.execution.locals)))
    assert sim.decision.closed
    assert sim.check().result == 4


def test_what_has_not_ended_is_due_again_after_a_replay() -> None:
    """At least once: the worker that takes over knows what to run, as which attempt, with which arguments."""
    sim = Simulation(locals_side_by_side, 3)
    sim.turn()
    sim.turn(sim.local_ended("local.double-2", 2))
    heir = sim.fresh()
    heir.replay(sim.history)
    assert {it: (f.payload, f.attempt) for it, f in heir.locals.items()} == {
        "local.double-1": ('{"n":0}', 1),
        "local.double-3": ('{"n":2}', 1),
    }
    heir.evict()
    sim.run().check()


def test_a_first_turn_that_nobody_wrote_down_is_taken_again() -> None:
    """The mark may wait for the first outcome, so it may be lost with the worker."""
    sim = Simulation(three_locals, 1)
    heir = sim.fresh()
    heir.replay(sim.history)
    assert [it.type for it in heir.activate([], sim.now_us + SECOND).events] == [e.FIRST_TURN_TAKEN]
    assert list(heir.locals) == ["local.double-1"]
    heir.evict()


def test_the_events_carry_options_that_differ_from_the_default() -> None:
    sim = simulate(local_with_options, 8)
    assert sim.result == 4.0
    body = sim.history[2].body
    assert (body["id"], body["retry"], body["timeouts"]) == (
        "mine", {"max_attempts": 9}, {"start_to_close_s": 2.0},
    )  # fmt: skip


def test_a_failure_is_an_activity_error_with_its_cause() -> None:
    sim = Simulation(careful_local, 1)
    sim.turn()
    sim.turn(sim.local_ended("local.double-1", error=ValueError("no"), attempt=5))
    assert sim.check().result == "failed: max_attempts 5 ValueError('no')"


def test_a_timeout_is_a_timeout_error() -> None:
    sim = Simulation(careful_local, 1)
    sim.turn()
    sim.turn(
        sim.local_ended("local.double-1", error=TimeoutError(), timeout="start_to_close", attempt=2)
    )
    assert sim.check().result == "timed out: start_to_close 2"


def test_a_long_back_off_is_a_durable_timer_that_carries_the_attempts() -> None:
    sim = Simulation(careful_local, 21)
    sim.turn()
    before_us = sim.now_us
    sim.turn(
        sim.local_ended("local.double-1", error=ValueError("no"), attempt=4, delay_us=60 * SECOND)
    )
    assert not sim.execution.locals
    (timer,) = sim.timers
    assert timer.body["reason"] == "retry of local.double"
    assert timer.body["fire_at_us"] >= before_us + 60 * SECOND
    assert sim.decision.waiting_on[0]["kind"] == "timer"
    sim.fire()
    assert sim.execution.locals["local.double-1"].attempt == 5
    assert sim.run().check().result == "42"


def test_a_call_given_up_is_forgotten_and_its_late_answer_is_evidence() -> None:
    sim = Simulation(impatient_local, 1, False)
    sim.turn()
    late = sim.local_ended("local.double-1", 2)
    sim.fire()
    assert not sim.execution.locals
    sim.turn(late, sim.completed("local.double-2", 2))
    assert sim.check().result == "gave up: 2"


def test_an_answer_in_the_turn_that_gives_the_call_up_is_evidence_too() -> None:
    sim = Simulation(careful_local, 1)
    sim.turn()
    sim.turn(sim.cancelling("enough"), sim.local_ended("local.double-1", 2))
    assert sim.check().outcome == e.WORKFLOW_CANCELLED


def test_with_cancellation_wait_the_call_stays_until_it_has_ended() -> None:
    sim = Simulation(impatient_local, 1, True)
    sim.turn()
    sim.fire()
    assert sim.execution.locals["local.stays-1"].is_to_end
    heir = sim.fresh()
    heir.replay(sim.history)
    assert heir.locals["local.stays-1"].is_to_end
    heir.evict()
    sim.turn(
        sim.local_ended("local.stays-1", error=asyncio.CancelledError(), retry_state="cancelled")
    )
    assert sim.run().check().result == "gave up: 2"


def test_a_call_given_up_while_it_backs_off_takes_its_timer_along() -> None:
    sim = Simulation(impatient_local, 1, False)
    sim.turn()
    sim.turn(sim.local_ended("local.double-1", error=ValueError(), delay_us=100 * SECOND))
    sim.fire()
    assert [it.type for it in sim.decision.events] == [
        "TimerFired", "TimerCancelled", "ActivityScheduled",
    ]  # fmt: skip
    sim.run().check()


@workflow(name="changing_locals")
async def changing_before() -> list[Any]:
    return [await durable.local(double)(1), await double(2)]


async def other_argument() -> list[Any]:
    return [await durable.local(double)(5), await double(2)]


async def other_activity() -> list[Any]:
    return [await durable.local(half)(1), await double(2)]


async def other_options() -> list[Any]:
    return [await durable.local(double.options(timeout=timedelta(1)))(1), await double(2)]


async def no_local() -> list[Any]:
    await double(1)
    return []


async def one_more() -> list[Any]:
    return [await durable.local(double)(1), await durable.local(double)(9), await double(2)]


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (other_argument, "differs in digest"),
        (other_activity, "nothing more here"),
        (other_options, "differs in timeouts"),
        (no_local, "ActivityScheduled"),
        (one_more, "nothing more here"),
    ],
)
def test_replay_notices_that_the_code_calls_something_else(code: Any, says: str) -> None:
    """C13: name, options and arguments are compared, and whether there is such a call at all."""
    sim = simulate(changing_before)
    changed: Workflow[[], list[Any]] = Workflow(code, "changing_locals", 1, None, None, None)
    execution = Execution(changed, sim.run_id, "wf")
    with pytest.raises(NondeterminismError) as parted:
        execution.replay(sim.history)
    assert says in str(parted.value)


def test_an_outcome_that_nobody_called_for_leaves_no_trace() -> None:
    """A reset delivers again what its code may call otherwise by now: then the activity runs, and that outcome is no outcome of it."""
    sim = Simulation(three_locals, 1)
    sim.turn()
    right = sim.local_ended("local.double-1", 0)
    changes: list[dict[str, Any]] = [
        {"id": "local.double-7"},
        {"digest": "0" * 16},
        {"timeouts": {}},
    ]
    for wrong in changes:
        assert sim.turn(right._replace(body={**right.body, **wrong})) == []
    assert list(sim.execution.locals) == ["local.double-1"]
    sim.turn(right)
    assert sim.check().result == [0]


def test_bad_input_is_refused_where_it_is_given() -> None:
    with pytest.raises(NotInWorkflow):
        durable.local(double)(1)
    with pytest.raises(InvalidOption):
        durable.local(print)  # type: ignore[arg-type]

    @workflow(name="wrong_local_argument")
    async def wrong() -> None:
        try:
            await durable.local(double)("many")  # type: ignore[arg-type]
        except PayloadError as error:
            raise ValueError(error.field) from None

    assert str(simulate(wrong).failure) == "n"


def test_it_is_shown_while_it_runs_and_missed_when_nobody_waits() -> None:
    @workflow(name="careless_with_locals")
    async def careless() -> None:
        durable.local(double)(1)
        await double(2)

    sim = Simulation(careless)
    sim.turn()
    assert [it["kind"] for it in sim.decision.waiting_on] == ["local activity", "activity"]
    sim.turn(sim.completed("local.double-2", 4))
    assert sim.decision.closed
    assert json.dumps(sim.warnings).count("local.double-1") == 1
