"""Signals and conditions (C11): buffered, ordered, typed, never lost."""

# ruff: noqa: RUF006, PLW0108

from __future__ import annotations

import asyncio
from collections.abc import Generator
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

import durable
from durable import Signal, activity, workflow
from durable.core import events as e
from durable.errors import ActivityError, DurableError, InvalidOption, NotInWorkflow, PayloadError
from tests.core.simulation import SECOND, Simulation, simulate


class Payment(BaseModel):
    amount: int


paid = Signal("signals_paid", Payment)
number = Signal("signals_number", int)
anything = Signal("signals_anything")


@activity
def pause() -> None: ...


@workflow
async def collecting(n: int) -> list[int]:
    return [await number.receive() for _ in range(n)]


def test_signals_before_the_first_turn_are_buffered_in_order() -> None:
    sim = Simulation(collecting, 3)
    sim.turn(sim.signalled(number, 1), sim.signalled(number, 2))
    assert sim.decision.waiting_on[0] | {"line": ""} == {
        "kind": "signal",
        "name": "signals_number",
        "line": "",
        "since_us": sim.execution.now_us,
    }
    sim.turn(sim.signalled(number, 3))
    assert sim.check().result == [1, 2, 3]


def test_first_turn_without_a_trace_starts_over() -> None:
    """Code that first waits for a signal gives no row; what it saw of the clock must not survive into the next turn."""

    @workflow
    async def punctual() -> list[int]:
        seen = [durable.now().second, number.pending()]
        return [*seen, await number.receive()]

    sim = Simulation(punctual)
    assert sim.turn(after_us=5 * SECOND) == []
    assert (sim.execution.turn, sim.execution.last_seq) == (0, 1)
    assert sim.decision.waiting_on[0]["kind"] == "signal"
    assert sim.turn(after_us=5 * SECOND) == []
    sim.turn(sim.signalled(number, 7), after_us=5 * SECOND)
    assert sim.turns[-1].events[0].turn == 1
    assert sim.check().result == [(20 + 15) % 60, 1, 7]


def test_typed_payload_arrives_as_its_type() -> None:
    @workflow
    async def waiting_for_payment() -> int:
        payment = await paid.receive()
        assert isinstance(payment, Payment)
        return payment.amount

    sim = Simulation(waiting_for_payment)
    sim.turn(sim.signalled(paid, Payment(amount=10)))
    assert sim.check().result == 10


def test_untyped_payload_is_json() -> None:
    @workflow
    async def taking_anything() -> list[object]:
        return [await anything.receive(), await anything.receive()]

    sim = Simulation(taking_anything)
    sim.turn(
        sim.signalled(anything, {"b": [1, None]}),
        sim.message(e.SIGNAL_RECEIVED, name=anything.name),
    )
    assert sim.check().result == [{"b": [1, None]}, None]


def test_timeout_raises_and_later_signals_stay() -> None:
    @workflow
    async def patient() -> list[object]:
        try:
            await number.receive(timeout=timedelta(seconds=10))
        except TimeoutError:
            await pause()
            return ["timed out", number.pending(), await number.receive(timeout=5)]
        return []

    sim = Simulation(patient)
    sim.turn()
    (wait,) = sim.decision.waiting_on
    assert (wait["kind"], wait["until_us"]) == ("signal", sim.timers[0].body["fire_at_us"])
    sim.fire()
    sim.turn(sim.signalled(number, 5))
    sim.turn(sim.completed("pause-1"))
    assert sim.check().result == ["timed out", 1, 5]
    assert sim.types.count(e.TIMER_STARTED) == 1


def test_signal_cancels_the_deadline() -> None:
    @workflow
    async def relieved() -> int:
        first = await number.receive(timeout=10)
        await pause()
        return first

    sim = Simulation(relieved)
    sim.turn()
    sim.turn(sim.signalled(number, 5))
    assert sim.types[-2:] == [e.TIMER_CANCELLED, e.ACTIVITY_SCHEDULED]
    sim.run().check()


def test_polling_with_no_time_at_all() -> None:
    @workflow
    async def polling() -> list[object]:
        try:
            await number.receive(timeout=0)
        except TimeoutError:
            return ["nothing"]
        return ["something"]

    assert simulate(polling).result == ["nothing"]


def test_iteration_receives_them_all() -> None:
    @workflow
    async def summing() -> int:
        total = 0
        async for value in number:
            if value == 0:
                break
            total += value
        return total

    sim = Simulation(summing)
    sim.turn()
    for value in (1, 2, 3):
        sim.turn(sim.signalled(number, value))
    sim.turn(sim.signalled(number, 4), sim.signalled(number, 0))
    assert sim.check().result == 10


def test_two_receivers_are_served_in_turn() -> None:
    @workflow
    async def two_receivers() -> list[int]:
        return list(await asyncio.gather(number.receive(), number.receive()))

    sim = Simulation(two_receivers)
    sim.turn()
    sim.turn(sim.signalled(number, 1))
    sim.turn(sim.signalled(number, 2))
    assert sim.check().result == [1, 2]


@pytest.mark.parametrize("style", ["await", "yield from", "yield", "block"])
def test_signal_in_the_turn_of_the_cancel_is_not_lost(style: str) -> None:
    """Delivered, but the awaiting code is cancelled before it takes it: the next receive gets it, once."""

    @workflow
    async def awaiting() -> list[int]:
        await pause()
        try:
            await number.receive()
        except asyncio.CancelledError:
            return [await number.receive(), number.pending()]
        return []

    @workflow
    def yielding() -> Generator[Any, Any, list[int]]:
        yield pause()
        try:
            if style == "yield":
                yield number.receive()
            else:
                yield from number.receive()
        except asyncio.CancelledError:
            value = yield number.receive()
            return [value, number.pending()]
        return []

    @workflow
    def blocking() -> list[int]:
        pause().result()
        try:
            number.receive().result()
        except asyncio.CancelledError:
            return [number.receive().result(), number.pending()]
        return []

    sim = Simulation({"await": awaiting, "block": blocking}.get(style, yielding))
    sim.turn()
    sim.turn(sim.completed("pause-1"))
    sim.turn(sim.signalled(number, 9), sim.cancelling())
    assert sim.check().result == [9, 0]


def test_cancelled_receiver_does_not_eat_signals() -> None:
    @workflow
    async def giving_up() -> int:
        first = number.receive(timeout=100)
        await pause()
        first.cancel()
        await pause()
        return await number.receive()

    sim = Simulation(giving_up)
    sim.turn()
    sim.turn(sim.completed("pause-1"))
    assert e.TIMER_CANCELLED in sim.types
    sim.turn(sim.signalled(number, 3))
    sim.turn(sim.completed("pause-2"))
    assert sim.check().result == 3


@pytest.mark.parametrize("buffered", [True, False])
def test_unreadable_signal_parks_the_run_whatever_the_code_catches(buffered: bool) -> None:
    @workflow
    async def catching_all() -> str:
        while True:
            try:
                await pause()
                await number.receive()
            except BaseException:
                pass

    sim = Simulation(catching_all)
    sim.turn()
    poison = sim.message(e.SIGNAL_RECEIVED, '"no number"', name=number.name)
    if buffered:
        sim.turn(poison)
        with pytest.raises(PayloadError, match="valid integer"):
            sim.turn(sim.completed("pause-1"))
    else:
        sim.turn(sim.completed("pause-1"))
        with pytest.raises(PayloadError, match="valid integer"):
            sim.turn(poison)


def test_unreadable_activity_result_parks_the_run() -> None:
    @activity
    def counts() -> int:
        return 1

    @workflow
    async def counting() -> int:
        try:
            return await counts()
        except Exception:
            return -1

    sim = Simulation(counting)
    sim.turn()
    with pytest.raises(PayloadError):
        sim.turn(sim.completed("counts-1", "many"))


# -- conditions -------------------------------------------------------------------------------------------------------


def test_wait_until_is_asked_whenever_something_happened() -> None:
    @workflow
    async def counting_up() -> int:
        total = 0

        async def add() -> None:
            nonlocal total
            async for value in number:
                total += value

        asyncio.create_task(add())
        await durable.wait_until(lambda: total >= 5)
        return total

    sim = Simulation(counting_up)
    sim.turn()
    assert sim.decision.waiting_on[-1]["kind"] == "condition"
    for value in (2, 2, 2):
        sim.turn(sim.signalled(number, value))
    assert sim.check().result == 6


def test_conditions_wake_each_other() -> None:
    @workflow
    async def chain() -> list[int]:
        reached: list[int] = []

        async def link(n: int) -> None:
            await durable.wait_until(lambda: len(reached) >= n)
            reached.append(n)

        await asyncio.gather(*(link(n) for n in reversed(range(5))))
        return reached

    assert simulate(chain).result == [0, 1, 2, 3, 4]


def test_wait_until_times_out() -> None:
    @workflow
    async def hopeless() -> str:
        try:
            await durable.wait_until(lambda: False, timeout=timedelta(minutes=1))
        except TimeoutError:
            return "timed out"
        return "true"

    assert simulate(hopeless).result == "timed out"


def test_wait_until_holds_at_once() -> None:
    @workflow
    async def easy() -> None:
        await durable.wait_until(lambda: True, timeout=10)

    assert simulate(easy).types[1:] == [e.WORKFLOW_COMPLETED]


def test_failing_predicate_raises_at_the_wait() -> None:
    @workflow
    async def broken() -> None:
        await durable.wait_until(lambda: 1 / 0 > 1)

    assert isinstance(simulate(broken).failure, ZeroDivisionError)


def test_predicate_must_only_read() -> None:
    @workflow
    async def meddling() -> None:
        await durable.wait_until(lambda: pause())

    failure = simulate(meddling).failure
    assert isinstance(failure, DurableError)
    assert "must only read" in str(failure)


def test_predicate_must_not_cancel() -> None:
    @workflow
    async def cancelling() -> None:
        nap = durable.sleep(10)
        await durable.wait_until(nap.cancel)

    assert "must only read" in str(simulate(cancelling).failure)


def test_predicate_sees_the_clock_and_the_context() -> None:
    @workflow
    async def clock_watching() -> int:
        start = durable.now()
        asyncio.get_running_loop().call_later(30, lambda: None)
        await durable.wait_until(lambda: durable.now() - start >= timedelta(seconds=30))
        return (durable.now() - start).seconds

    assert simulate(clock_watching).result == 30


# -- declaring --------------------------------------------------------------------------------------------------------


def test_one_name_has_one_type() -> None:
    assert Signal("signals_number", int).name == "signals_number"
    with pytest.raises(InvalidOption, match="declared twice"):
        Signal("signals_number", str)


def test_receive_outside_a_workflow() -> None:
    with pytest.raises(NotInWorkflow, match="client.handle"):
        number.receive()


def test_failure_of_an_activity_keeps_the_chain() -> None:
    @workflow
    async def chained() -> list[str]:
        try:
            await pause()
        except ActivityError as error:
            cause = error.cause
            assert cause is not None
            return [repr(cause), repr(cause.__cause__), error.activity, str(error.attempt)]
        return []

    sim = Simulation(chained)
    sim.turn()
    error = ValueError("outer")
    error.__cause__ = KeyError("inner")
    sim.turn(sim.failed("pause-1", error))
    assert sim.check().result == ["ValueError('outer')", "KeyError('inner')", "pause", "1"]
