"""Queries and updates in the pure core (C14): their place in a turn, what they may do, and that replay agrees."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

import durable
from durable import Signal, activity, workflow
from durable.core import events as e
from durable.definitions import Workflow
from durable.errors import (
    DurableError,
    NondeterminismError,
    PayloadError,
    UnknownUpdate,
)
from durable.failure import decode_failure
from tests.core.simulation import SECOND, Simulation

said: Signal[str] = Signal("updates_said", str)


class Item(BaseModel):
    sku: str
    amount: int = 1


@activity(name="updates.reserve")
def reserve(sku: str) -> str:
    return f"reserved {sku}"


@workflow(name="updates.cart")
async def cart(capacity: int = 100) -> list[str]:
    """Takes items until it is told to close; each is reserved first."""
    items: list[str] = []
    done = False

    @durable.query
    def content(prefix: str = "") -> list[str]:
        return [it for it in items if it.startswith(prefix)]

    @durable.update
    async def add(item: Item) -> int:
        items.append(item.sku)
        await reserve(item.sku)
        return len(items)

    @add.validator
    def room(item: Item) -> None:
        if len(items) >= capacity:
            raise ValueError(f"no room for {item.sku}")

    @durable.update
    async def close() -> str:
        nonlocal done
        done = True
        return "closed"

    @durable.update
    async def break_it() -> None:
        raise KeyError("broken")

    await durable.wait_until(lambda: done)
    await durable.wait_until(durable.handlers_finished)
    return items


def started(it: Workflow[..., Any] = cart, *args: Any) -> Simulation:
    sim = Simulation(it, *args)
    sim.turn()
    return sim


def bodies(sim: Simulation, type: str) -> list[dict[str, Any]]:
    return [it.body for it in sim.history if it.type == type]


# -- the life of an update ------------------------------------------------------------------------------------------------


def test_an_update_is_accepted_works_and_answers() -> None:
    sim = started()
    sim.turn(sim.updating("add", {"sku": "tea"}))
    assert sim.types[1:] == ["UpdateAccepted", "ActivityScheduled"]
    assert sim.history[1].body == {"update_id": "u", "name": "add", "after": 1}
    assert sim.history[1].payload == '{"item": {"sku": "tea"}}'
    sim.turn(sim.completed("updates.reserve-1", "ok"))
    assert (sim.history[-1].type, sim.history[-1].payload) == ("UpdateCompleted", "1")
    sim.turn(sim.updating("close", update_id="u2"))
    assert sim.types[-3:] == ["UpdateAccepted", "UpdateCompleted", "WorkflowCompleted"]
    assert sim.result == ["tea"]
    sim.check()


def test_arguments_by_name() -> None:
    sim = started()
    sim.turn(sim.updating("add", item={"sku": "tea", "amount": 2}))
    assert sim.types[-1] == "ActivityScheduled"
    sim.check()


def test_a_rejected_update_leaves_no_trace() -> None:
    sim = started(cart, 0)
    for _ in range(3):
        assert sim.turn(sim.updating("add", {"sku": "tea"}), after_us=SECOND) == []
        assert str(sim.refused()) == "no room for tea"
    assert sim.types == ["WorkflowStarted"]
    sim.turn(sim.updating("close"))
    assert sim.result == []
    sim.check()


@workflow(name="updates.local_work")
async def local_work() -> str:
    @durable.update
    async def never() -> None: ...

    @never.validator
    def no() -> None:
        raise ValueError("no")

    await reserve("x")
    return await durable.local(reserve)("y")


def test_a_rejected_update_leaves_no_trace_while_a_local_activity_runs() -> None:
    sim = started(local_work)
    sim.turn(sim.completed("updates.reserve-1", "ok"))
    assert sim.turn(sim.updating("never")) == []
    sim.turn(sim.local_ended("updates.reserve-2", "done"))
    assert sim.result == "done"
    sim.check()


def test_a_rejected_update_among_others_leaves_no_trace() -> None:
    sim = started(cart, 1)
    sim.turn(
        sim.updating("add", {"sku": "a"}, update_id="1"),
        sim.updating("add", {"sku": "b"}, update_id="2"),
        sim.signalled(said, "x"),
        sim.updating("add", {"sku": "c"}, update_id="3"),
    )
    assert sim.types[1:] == ["SignalReceived", "UpdateAccepted", "ActivityScheduled"]
    assert [str(sim.refused(it)) for it in "23"] == ["no room for b", "no room for c"]
    sim.run().check()


def test_the_second_of_a_turn_is_judged_by_what_the_first_has_done() -> None:
    sim = started(cart, 2)
    sim.turn(*(sim.updating("add", {"sku": it}, update_id=it) for it in "abc"))
    assert [it["update_id"] for it in bodies(sim, e.UPDATE_ACCEPTED)] == ["a", "b"]
    assert str(sim.refused("c")) == "no room for c"
    sim.check()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([{"sku": 1}], "item.sku"),
        ([], "item"),
        ([{"sku": "a"}, 2], "2 were given by position, and add takes 1"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments: list[Any], why: str) -> None:
    sim = started()
    assert sim.turn(sim.updating("add", *arguments)) == []
    assert isinstance(sim.refused(), PayloadError)
    assert why in str(sim.refused())


def test_an_unknown_update_is_refused_and_names_those_that_exist() -> None:
    sim = started()
    assert sim.turn(sim.updating("ad")) == []
    assert isinstance(sim.refused(), UnknownUpdate)
    assert "it has: add, break_it, close" in str(sim.refused())


def test_a_failure_of_the_handler_is_the_update_s_and_not_the_run_s() -> None:
    sim = started()
    sim.turn(sim.updating("break_it"))
    failure = decode_failure(sim.history[-1].body["failure"])
    assert (sim.types[-1], repr(failure)) == ("UpdateFailed", "KeyError('broken')")
    sim.turn(sim.updating("close"))
    assert sim.result == []
    sim.check()


def test_several_handlers_run_at_once() -> None:
    sim = started()
    sim.turn(*(sim.updating("add", {"sku": it}, update_id=it) for it in "abc"))
    assert len(sim.activities) == 3
    sim.turn(sim.completed("updates.reserve-2", "ok"))
    assert bodies(sim, e.UPDATE_COMPLETED) == [{"update_id": "b", "name": "add"}]
    sim.run()
    assert len(bodies(sim, e.UPDATE_COMPLETED)) == 3
    sim.check()


# -- with the start ---------------------------------------------------------------------------------------------------------


def test_an_update_of_the_first_turn_finds_the_handler_that_it_registers() -> None:
    sim = Simulation(cart)
    sim.turn(sim.updating("add", {"sku": "tea"}))
    assert sim.types == ["WorkflowStarted", "UpdateAccepted", "ActivityScheduled"]
    sim.check()


@workflow(name="updates.registers_late")
async def registers_late() -> str:
    await asyncio.sleep(0)
    await said.receive()
    heard = []

    @durable.update
    def hear(text: str) -> str:
        heard.append(text)
        return text

    await durable.wait_until(lambda: heard)
    return str(heard[0])


def test_a_handler_that_is_registered_in_the_same_turn_is_found_wherever_the_update_came() -> None:
    for first in (True, False):
        sim = started(registers_late)
        messages = [sim.updating("hear", "hello"), sim.signalled(said, "go")]
        sim.turn(*(messages if first else messages[::-1]))
        assert sim.result == "hello"
        sim.check()


def test_an_update_before_the_handler_s_turn_is_refused() -> None:
    sim = started(registers_late)
    sim.turn(sim.updating("hear", "hello"))
    assert isinstance(sim.refused(), UnknownUpdate)


def test_an_update_after_the_end_is_left_to_the_database() -> None:
    sim = started()
    sim.turn(sim.updating("close", update_id="1"), sim.updating("close", update_id="2"))
    assert [it["update_id"] for it in bodies(sim, e.UPDATE_COMPLETED)] == ["1", "2"]
    sim = Simulation(ends_at_once)
    sim.turn(sim.updating("anything"))
    assert sim.execution.verdicts is not None
    assert (sim.execution.verdicts.left, sim.execution.verdicts.refused) == ({"u"}, {})


@workflow(name="updates.ends_at_once")
async def ends_at_once() -> None:
    return


@workflow(name="updates.ends_late")
async def ends_late() -> None:
    await said.receive()


# -- one total order (C1) -----------------------------------------------------------------------------------------------------


@workflow(name="updates.logbook")
async def logbook() -> list[str]:
    log: list[str] = []

    async def hear() -> None:
        async for text in said:
            log.append(f"signal {text}")  # noqa: PERF401

    @durable.update
    async def write(text: str) -> None:
        log.append(f"update {text}")
        await reserve(text)
        log.append(f"wrote {text}")

    @write.validator
    def not_bad(text: str) -> None:
        if text.startswith("bad"):
            raise ValueError(text)

    listening = asyncio.create_task(hear())
    await durable.sleep(60)
    log.append("timer")
    await durable.sleep(60)
    await durable.wait_until(durable.handlers_finished)
    listening.cancel()
    return log


@pytest.mark.parametrize("order", list(itertools.permutations(("signal", "update", "timer"))))
def test_signals_updates_and_timers_of_a_turn_take_effect_in_their_order(
    order: tuple[str, ...],
) -> None:
    sim = started(logbook)
    timer = sim.timers[0]
    sim.now_us = timer.body["fire_at_us"]
    messages = {
        "signal": sim.signalled(said, "s"),
        "update": sim.updating("write", "u"),
        "timer": sim.fired(timer),
    }
    sim.turn(*(messages[it] for it in order))
    sim.run().check()
    shown = [it.split()[0] for it in sim.result if not it.startswith("wrote")]
    assert shown == list(order)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_mixture_replays(data: st.DataObject) -> None:
    """Whatever comes in, in whatever order and portions, every prefix of the history replays, and no refusal is in it."""
    sim = started(logbook)
    expected: list[str] = []
    for number in range(data.draw(st.integers(1, 8))):
        inbound = []
        for part in range(data.draw(st.integers(1, 4))):
            kind = data.draw(st.sampled_from(["signal", "good", "bad", "unknown", "done"]))
            mark = f"{number}.{part}"
            if kind == "signal":
                inbound.append(sim.signalled(said, mark))
                expected.append(f"signal {mark}")
            elif kind == "done" and sim.activities:
                if part == 0:
                    inbound.append(sim.completed(sim.activities[0], "ok"))
            elif kind == "unknown":
                inbound.append(sim.updating("nothing", mark, update_id=mark))
            elif kind in ("good", "bad"):
                inbound.append(sim.updating("write", f"{kind} {mark}", update_id=mark))
                expected += [f"update good {mark}"] if kind == "good" else []
        sim.turn(*inbound, after_us=data.draw(st.sampled_from([0, 1_000])))
    sim.run().check()
    for kind in ("signal", "update"):  # each kind in its order; a buffered signal may be read early
        assert [it for it in sim.result if it.startswith(kind)] == [
            it for it in expected if it.startswith(kind)
        ]
    assert all(it["update_id"] not in str(it.get("failure")) for it in bodies(sim, e.UPDATE_FAILED))


# -- the three styles --------------------------------------------------------------------------------------------------------


@workflow(name="updates.blocking")
def blocking() -> list[str]:
    got: list[str] = []

    @durable.query
    def seen() -> int:
        return len(got)

    @durable.update
    def put(sku: str) -> str:
        got.append(reserve(sku).result())
        durable.sleep(1)
        return sku

    durable.wait_until(lambda: len(got) >= 2)
    durable.wait_until(durable.handlers_finished)
    return got


@workflow(name="updates.yielding")
def yielding() -> Generator[Any, Any, list[str]]:
    got: list[str] = []

    @durable.query
    def seen() -> int:
        return len(got)

    @durable.update
    def put(sku: str) -> Generator[Any, Any, str]:
        answer = yield reserve(sku)
        got.append(answer)
        yield durable.sleep(1)
        return sku

    yield durable.wait_until(lambda: len(got) >= 2)
    yield durable.wait_until(durable.handlers_finished)
    return got


@workflow(name="updates.awaiting")
async def awaiting() -> list[str]:
    got: list[str] = []

    @durable.query
    def seen() -> int:
        return len(got)

    @durable.update
    async def put(sku: str) -> str:
        got.append(await reserve(sku))
        await durable.sleep(1)
        return sku

    await durable.wait_until(lambda: len(got) >= 2)
    await durable.wait_until(durable.handlers_finished)
    return got


@pytest.mark.parametrize("it", [awaiting, blocking, yielding])
def test_all_three_styles(it: Workflow[..., Any]) -> None:
    sim = started(it)
    sim.turn(*(sim.updating("put", text, update_id=text) for text in "ab"))
    assert sim.ask("seen") == 0
    sim.run().check()
    assert sim.result == ["reserved a", "reserved b"]
    assert [it.payload for it in sim.history if it.type == e.UPDATE_COMPLETED] == [
        '"a"', '"b"',
    ]  # fmt: skip


def test_the_three_styles_write_one_and_the_same_history() -> None:
    histories = []
    for it in (awaiting, blocking, yielding):
        sim = started(it)
        sim.turn(sim.updating("put", "a", update_id="a"), sim.updating("put", "b", update_id="b"))
        histories.append(sim.run().types)
    assert histories[0] == histories[1] == histories[2]


# -- the end, and beyond -------------------------------------------------------------------------------------------------------


@workflow(name="updates.leaves_early")
async def leaves_early() -> None:
    @durable.update
    async def slow() -> None:
        await durable.sleep(3600)

    await said.receive()


def test_a_handler_that_is_still_running_at_the_end_is_reported() -> None:
    sim = started(leaves_early)
    sim.turn(sim.updating("slow", update_id="u-1"))
    sim.turn(sim.signalled(said, "go"))
    assert sim.outcome == e.WORKFLOW_COMPLETED
    assert (
        "update 'slow' (u-1) was still running when the workflow returned; its caller is told"
        in sim.warnings
    )
    sim.check()


def test_an_answer_of_the_last_turn_comes_before_the_end() -> None:
    sim = started()
    sim.turn(sim.updating("close", update_id="1"))
    assert sim.types[-2:] == ["UpdateCompleted", "WorkflowCompleted"]


@workflow(name="updates.restarts")
async def restarts() -> None:
    @durable.update
    async def again() -> None:
        durable.continue_as_new()

    @durable.update
    def who() -> list[Any]:
        info = durable.current_update()
        return list(info) if info else []

    assert durable.current_update() is None
    await said.receive()


def test_a_handler_cannot_continue_as_new_and_says_so() -> None:
    sim = started(restarts)
    sim.turn(sim.updating("again"))
    failure = decode_failure(sim.history[-1].body["failure"])
    assert isinstance(failure, DurableError)
    assert "have it set a flag" in str(failure)


def test_a_handler_knows_which_update_it_is() -> None:
    sim = started(restarts)
    sim.turn(sim.updating("who", update_id="u-7"))
    assert sim.history[-1].payload == '["u-7","who",null]'
    request = sim.updating("who", update_id="u-8")
    sim.turn(request._replace(body={**request.body, "actor": "ann"}))
    assert sim.history[-2].body["actor"] == "ann"
    assert sim.history[-1].payload == '["u-8","who","ann"]'
    sim.check()


def test_cancelling_the_run_leaves_handlers_alone() -> None:
    sim = started(leaves_early)
    sim.turn(sim.updating("slow"))
    sim.turn(sim.cancelling("enough"))
    assert sim.outcome == e.WORKFLOW_CANCELLED
    assert bodies(sim, e.UPDATE_FAILED) == []
    sim.check()


def test_replay_notices_that_a_handler_is_gone() -> None:
    sim = started()
    sim.turn(sim.updating("add", {"sku": "tea"}))
    sim.workflow = ends_late
    with pytest.raises(NondeterminismError, match="UpdateAccepted"):
        sim.fresh().replay(sim.history)


def test_replay_notices_that_a_handler_does_something_else() -> None:
    sim = started(awaiting)
    sim.turn(sim.updating("put", "a"))
    sim.workflow = does_otherwise
    with pytest.raises(NondeterminismError, match="ActivityScheduled"):
        sim.fresh().replay(sim.history)


@workflow(name="updates.does_otherwise")
async def does_otherwise() -> None:
    @durable.update
    async def put(sku: str) -> None:
        await durable.sleep(1)

    await said.receive()


def test_arguments_that_fit_no_more_park_the_run() -> None:
    sim = started(awaiting)
    sim.turn(sim.updating("put", "a"))
    sim.workflow = takes_a_number
    with pytest.raises(PayloadError):
        sim.fresh().replay(sim.history)


@workflow(name="updates.takes_a_number")
async def takes_a_number() -> None:
    @durable.update
    async def put(sku: int) -> None: ...

    await said.receive()


def test_an_evicted_handler_does_nothing() -> None:
    sim = started()
    sim.turn(sim.updating("add", {"sku": "tea"}))
    sim.execution.evict()
    assert sim.execution.survivors == []
    with pytest.raises(durable.InternalError):
        sim.ask("content")
