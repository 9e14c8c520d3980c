"""Cancelling activities, timers and workflows; sagas under cancel (C9)."""

# ruff: noqa: PT017

from __future__ import annotations

import asyncio
from collections.abc import Generator
from datetime import timedelta
from typing import Any

import pytest

import durable
from durable import activity, workflow
from durable.core import events as e
from durable.errors import ActivityError, ActivityTimeout, SagaFailed
from tests.core.simulation import SECOND, Simulation, simulate


@activity
def work(n: int) -> int:
    return n


@activity(cancellation="wait")
def careful(n: int) -> int:
    return n


@activity(cancellation="abandon")
def reckless(n: int) -> int:
    return n


@activity
def book(what: str) -> str:
    return f"{what} booked"


@activity
def undo(what: str) -> str:
    return f"{what} undone"


@activity
def explode(what: str) -> None:
    raise RuntimeError(what)


def activity_names(sim: Simulation) -> list[str]:
    return [it.body["id"] for it in sim.history if it.type == e.ACTIVITY_SCHEDULED]


# -- one operation ----------------------------------------------------------------------------------------------------


def test_started_and_cancelled_in_one_turn_leaves_no_trace() -> None:
    @workflow
    async def undecided() -> int:
        work(1).cancel()
        careful(1).cancel()
        reckless(1).cancel()
        durable.sleep(10).cancel()
        async with asyncio.timeout(10):
            pass
        return await work(2)

    sim = simulate(undecided)
    assert sim.types[1:] == [e.ACTIVITY_SCHEDULED, e.ACTIVITY_COMPLETED, e.WORKFLOW_COMPLETED]
    assert activity_names(sim) == ["work-2"]


def _giving_up(call: Any) -> Any:
    @workflow
    async def giving_up() -> str:
        future = call(1)
        await durable.sleep(10)
        asked = future.cancel()
        again = future.cancel()
        try:
            await future
        except asyncio.CancelledError:
            return f"cancelled {asked} {again}"
        return "completed"

    return giving_up


def test_try_asks_and_raises_at_once() -> None:
    sim = Simulation(_giving_up(work))
    sim.turn()
    sim.fire()
    assert sim.types[-2:] == [e.ACTIVITY_CANCEL_REQUESTED, e.WORKFLOW_COMPLETED]
    assert sim.check().result == "cancelled True False"


def test_wait_asks_once_and_raises_when_it_has_ended() -> None:
    sim = Simulation(_giving_up(careful))
    sim.turn()
    sim.fire()
    assert sim.types[-1] == e.ACTIVITY_CANCEL_REQUESTED
    assert sim.decision.waiting_on[0]["name"] == "careful"
    sim.turn(sim.completed("careful-1", 1))
    assert sim.types.count(e.ACTIVITY_CANCEL_REQUESTED) == 1
    assert sim.check().result == "cancelled True True"


def test_abandon_asks_nobody() -> None:
    sim = Simulation(_giving_up(reckless))
    sim.turn()
    sim.fire()
    assert e.ACTIVITY_CANCEL_REQUESTED not in sim.types
    assert sim.check().result == "cancelled True False"


def test_answer_to_a_cancelled_activity_is_evidence() -> None:
    @workflow
    async def moving_on() -> int:
        future = work(1)
        await durable.sleep(10)
        future.cancel()
        return await work(2)

    sim = Simulation(moving_on)
    sim.turn()
    sim.fire()
    sim.turn(sim.completed("work-1", 1))
    assert sim.types[-1] == e.ACTIVITY_COMPLETED
    sim.turn(sim.completed("work-2", 2))
    sim.turn(sim.completed("work-2", 3))
    assert sim.check().result == 2


def test_cancelled_from_outside_is_an_activity_error() -> None:
    @workflow
    async def surprised() -> str | None:
        try:
            await work(1)
        except ActivityError as error:
            return error.retry_state
        return None

    sim = Simulation(surprised)
    sim.turn()
    sim.turn(sim.message(e.ACTIVITY_CANCELLED, ref=2))
    assert sim.check().result == "cancelled"


def test_timed_out_activity_is_a_timeout_error() -> None:
    @workflow
    async def patient() -> list[Any]:
        try:
            await work(1)
        except TimeoutError as error:
            assert isinstance(error, ActivityTimeout)
            return [error.kind, error.attempt, str(error.cause)]
        return []

    sim = Simulation(patient)
    sim.turn()
    failure = sim.failed("work-1", ValueError("the attempt before")).body["failure"]
    sim.turn(
        sim.message(e.ACTIVITY_TIMED_OUT, ref=2, attempt=3, timeout="heartbeat", failure=failure)
    )
    assert sim.check().result == ["heartbeat", 3, "the attempt before"]


def test_timer_fired_after_its_cancel_is_evidence() -> None:
    @workflow
    async def cancels_timer() -> int:
        nap = durable.sleep(100)
        await work(1)
        nap.cancel()
        return await work(2)

    sim = Simulation(cancels_timer)
    sim.turn()
    timer = sim.timers[0]
    sim.turn(sim.completed("work-1", 1))
    assert sim.types[-2:] == [e.TIMER_CANCELLED, e.ACTIVITY_SCHEDULED]
    assert [it["kind"] for it in sim.decision.waiting_on] == ["activity"]
    sim.turn(sim.fired(timer))
    sim.turn(sim.completed("work-2", 2))
    assert sim.check().result == 2


# -- the workflow -----------------------------------------------------------------------------------------------------


def test_second_cancel_is_consumed_without_a_trace() -> None:
    @workflow
    async def cleaning_up() -> None:
        try:
            await work(1)
        finally:
            await undo("work")

    sim = Simulation(cleaning_up)
    sim.turn()
    sim.turn(sim.cancelling("one"), sim.cancelling("two"))
    assert sim.types.count(e.CANCEL_REQUESTED) == 1
    assert sim.turn(sim.cancelling("three")) == []
    sim.turn(sim.completed("undo-1", "undone"), sim.cancelling("four"))
    assert sim.check().history[-1].body == {"reason": "one"}


def test_cancel_before_the_first_turn() -> None:
    @workflow
    async def never_begins() -> None:
        await work(1)

    sim = Simulation(never_begins)
    sim.turn(sim.cancelling("too late"))
    assert sim.check().types[1:] == [e.CANCEL_REQUESTED, e.WORKFLOW_CANCELLED]


def test_swallowed_cancel_completes() -> None:
    @workflow
    async def stubborn() -> str:
        try:
            await work(1)
        except asyncio.CancelledError:
            return "so what"
        return "done"

    sim = Simulation(stubborn)
    sim.turn()
    sim.turn(sim.cancelling())
    assert sim.check().result == "so what"


def test_cancelled_error_without_a_request_is_a_failure() -> None:
    @workflow
    async def gives_up_alone() -> None:
        raise asyncio.CancelledError("my own idea")

    assert isinstance(simulate(gives_up_alone).failure, asyncio.CancelledError)


def test_group_of_cancellations_is_a_cancellation() -> None:
    @workflow
    async def regrouping() -> None:
        try:
            await work(1)
        except asyncio.CancelledError as error:
            raise BaseExceptionGroup(
                "all of us", [error, BaseExceptionGroup("too", [asyncio.CancelledError()])]
            ) from None

    sim = Simulation(regrouping)
    sim.turn()
    sim.turn(sim.cancelling())
    assert sim.check().outcome == e.WORKFLOW_CANCELLED


def test_failure_during_cancel_is_a_failure() -> None:
    @workflow
    async def failing_cleanup() -> None:
        try:
            await work(1)
        except asyncio.CancelledError:
            raise ValueError("cleanup") from None

    sim = Simulation(failing_cleanup)
    sim.turn()
    sim.turn(sim.cancelling())
    assert isinstance(sim.check().failure, ValueError)


# -- sagas ------------------------------------------------------------------------------------------------------------


@workflow
async def trip_awaiting(fail: bool) -> str:
    async with durable.saga() as saga:
        saga.compensate(undo, await book("hotel"))
        await durable.sleep(5)
        saga.compensate(undo, await book("flight"))
        saga.compensate(undo.options(queue="slow"), await book("car"))
        if fail:
            await explode("museum")
    return "booked"


@workflow
def trip_blocking(fail: bool) -> str:
    with durable.saga() as saga:
        saga.compensate(undo, book("hotel").result())
        durable.sleep(5)
        saga.compensate(undo, book("flight").result())
        saga.compensate(undo.options(queue="slow"), book("car").result())
        if fail:
            explode("museum").result()
    return "booked"


@workflow
def trip_yielding(fail: bool) -> Generator[Any, Any, str]:
    saga = durable.saga()
    try:
        saga.compensate(undo, (yield from book("hotel")))
        yield durable.sleep(5)
        saga.compensate(undo, (yield from book("flight")))
        saga.compensate(undo.options(queue="slow"), (yield from book("car")))
        if fail:
            yield explode("museum")
    except BaseException:
        yield from saga.unwind()
        raise
    return "booked"


TRIPS = [trip_awaiting, trip_blocking, trip_yielding]


def undone(sim: Simulation) -> list[str]:
    """What was undone, in order; and that nothing was undone that was not booked."""
    scheduled = [
        it for it in sim.history if it.type == e.ACTIVITY_SCHEDULED and it.body["name"] == "undo"
    ]
    return [undo.arguments.decode(it.payload or "")[0][0].split()[0] for it in scheduled]


@pytest.mark.parametrize("trip", TRIPS, ids=lambda it: it.name)
def test_saga_without_a_failure_undoes_nothing(trip: Any) -> None:
    sim = simulate(trip, False)
    assert (sim.result, undone(sim)) == ("booked", [])


@pytest.mark.parametrize("trip", TRIPS, ids=lambda it: it.name)
def test_saga_undoes_in_reverse_and_fails_with_the_cause(trip: Any) -> None:
    sim = simulate(trip, True)
    assert undone(sim) == ["car", "flight", "hotel"]
    assert isinstance(sim.failure, ActivityError)
    assert str(sim.failure.__cause__) == "museum"


@pytest.mark.parametrize("trip", TRIPS, ids=lambda it: it.name)
@pytest.mark.parametrize("stop", range(10))
def test_saga_cancelled_at_every_await(trip: Any, stop: int) -> None:
    """Whatever had been booked when the cancel came is undone, and nothing else; also if it comes during undoing."""
    sim = Simulation(trip, True)
    sim.turn()
    for _ in range(stop):
        _step(sim)
    if sim.decision.closed:
        return
    undoing = bool(undone(sim))
    booked = [sim.find(it.body["ref"]) for it in sim.history if it.type == e.ACTIVITY_COMPLETED]
    expected = [
        book.arguments.decode(it.payload or "")[0][0] for it in booked if it.body["name"] == "book"
    ][::-1]
    sim.turn(sim.cancelling("stop"))
    sim.run().check()
    assert undone(sim) == expected
    assert sim.outcome == (e.WORKFLOW_CANCELLED)
    assert undoing == (stop >= 5)


def _step(sim: Simulation) -> None:
    if sim.activities:
        sim.turn(sim.perform(sim.activities[0]))
    elif sim.timers:
        sim.fire()


@pytest.mark.parametrize("style", ["await", "block"])
def test_saga_goes_on_past_failing_compensations_and_reports_all(style: str) -> None:
    @workflow
    async def unlucky() -> None:
        async with durable.saga() as saga:
            for what in ("one", "two", "three"):
                saga.compensate(explode if what != "two" else undo, what)
            raise ValueError("the reason")

    @workflow
    def unlucky_blocking() -> None:
        with durable.saga() as saga:
            for what in ("one", "two", "three"):
                saga.compensate(explode if what != "two" else undo, what)
            raise ValueError("the reason")

    sim = simulate(unlucky if style == "await" else unlucky_blocking)
    failure = sim.failure
    assert activity_names(sim) == ["explode-1", "undo-1", "explode-2"]
    assert isinstance(failure, SagaFailed)
    assert [str(it.__cause__) for it in failure.exceptions] == ["three", "one"]
    assert isinstance(failure.__cause__, ValueError)


def test_saga_takes_plain_and_async_functions() -> None:
    @workflow
    async def homely() -> list[str]:
        seen: list[str] = []

        async def undo_async(what: str) -> None:
            await undo(what)
            seen.append(what)

        try:
            async with durable.saga() as saga:
                saga.compensate(seen.append, "plain")
                saga.compensate(undo_async, "async")
                raise ValueError
        except ValueError:
            return seen

    assert simulate(homely).result == ["async", "plain"]


def test_blocking_compensation_may_block() -> None:
    @workflow
    def blocking_homely() -> list[str]:
        seen: list[str] = []

        def undo_blocking(what: str) -> None:
            seen.append(undo(what).result())

        try:
            with durable.saga() as saga:
                saga.compensate(undo_blocking, "it")
                raise ValueError
        except ValueError:
            return seen

    assert simulate(blocking_homely).result == ["it undone"]


def test_timeout_during_compensation_waits_for_it() -> None:
    """The deadline passes while the saga undoes; the undoing ends first, then the deadline counts."""

    @workflow
    async def tight() -> str:
        try:
            async with asyncio.timeout(10):
                async with durable.saga() as saga:
                    saga.compensate(undo, "one")
                    saga.compensate(undo, "two")
                    raise ValueError("start undoing")
        except TimeoutError as error:
            assert isinstance(error.__cause__, asyncio.CancelledError)
        await durable.sleep(1)
        return "went on"

    sim = Simulation(tight)
    sim.turn()
    sim.fire()
    assert sim.types[-1] == e.TIMER_FIRED
    sim.run().check()
    assert undone(sim) == ["two", "one"]
    assert sim.result == "went on"


@pytest.mark.parametrize("style", ["await", "block"])
def test_deadline_inside_a_compensation_counts(style: str) -> None:
    """Cancellations of the saga are held back meanwhile; those that a compensation starts itself are not."""

    async def undo_quickly() -> None:
        try:
            async with asyncio.timeout(10):
                await durable.sleep(100)
        except TimeoutError:
            await undo("in time")

    def undo_quickly_blocking() -> None:
        try:
            durable.wait(asyncio.wait_for(asyncio.sleep(100), 10))
        except TimeoutError:
            undo("in time").result()

    @workflow
    async def compensating() -> None:
        async with durable.saga() as saga:
            saga.compensate(undo_quickly)
            await work(1)

    @workflow
    def compensating_blocking() -> None:
        with durable.saga() as saga:
            saga.compensate(undo_quickly_blocking)
            work(1).result()

    sim = Simulation(compensating if style == "await" else compensating_blocking)
    sim.turn()
    sim.turn(sim.cancelling())
    sim.fire()
    assert activity_names(sim) == ["work-1", "undo-1"]
    sim.turn(sim.completed("undo-1", ""))
    assert sim.check().outcome == e.WORKFLOW_CANCELLED


def test_saga_in_the_wrong_style_says_so() -> None:
    @workflow
    async def mixed_up() -> None:
        with durable.saga():
            pass

    assert "async with" in str(simulate(mixed_up).failure)


def test_workflow_timeout_kills_no_compensation_after_a_crash() -> None:
    """A fresh process replays into the middle of the undoing and goes on with the rest."""
    sim = Simulation(trip_awaiting, True)
    sim.turn()
    while len(undone(sim)) < 2:
        _step(sim)
    sim.execution.evict()
    sim.execution = sim.fresh()
    sim.execution.replay(sim.history)
    sim.run().check()
    assert undone(sim) == ["car", "flight", "hotel"]


def test_cancel_reason_reaches_the_code() -> None:
    @workflow
    async def curious() -> str:
        try:
            await durable.sleep(timedelta(days=1))
        except asyncio.CancelledError as error:
            return str(error.args[0])
        return ""

    sim = Simulation(curious)
    sim.turn()
    sim.turn(sim.cancelling("closing time"), after_us=SECOND)
    assert sim.check().result == "closing time"
