"""Changed code is found out on replay (C13), and damaged histories are refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

import durable
from durable import RetryPolicy, Signal, activity
from durable.core import events as e
from durable.core.events import Event
from durable.core.execution import Execution
from durable.definitions import Workflow
from durable.errors import InternalError, NondeterminismError, PayloadError
from tests.core.simulation import RUN_ID, Simulation, as_stored

go = Signal("nondeterminism_go", int)


@activity
def pay(amount: int) -> int:
    return amount


@activity
def ship(amount: int) -> int:
    return amount


async def original() -> int:
    total = await pay(1)
    await durable.sleep(10)
    return total + await ship(2)


# Each is the code as somebody changed it, and what the error must say.


async def other_activity() -> int:
    return await ship(1)


async def other_argument() -> int:
    return await pay(2)


async def other_queue() -> int:
    return await pay.options(queue="slow")(1)


async def other_priority() -> int:
    return await pay.options(priority=1)(1)


async def other_timeout() -> int:
    return await pay.options(timeout=timedelta(seconds=3))(1)


async def other_retry() -> int:
    return await pay.options(retry=RetryPolicy(max_attempts=9))(1)


async def other_id() -> int:
    return await pay.options(id="mine")(1)


async def timer_instead() -> int:
    await durable.sleep(10)
    return 0


async def nothing_instead() -> int:
    return await go.receive()


async def returns_instead() -> int:
    return 5


async def raises_instead() -> int:
    raise ValueError


async def one_more_at_the_start() -> int:
    return sum(await asyncio.gather(pay(1), ship(1)))


async def other_duration() -> int:
    await pay(1)
    await durable.sleep(11)
    return 0


async def other_reason() -> int:
    await pay(1)
    await asyncio.sleep(10)
    return 0


async def step_removed() -> int:
    return await pay(1) + await ship(2)


async def step_added() -> int:
    await pay(1)
    await durable.sleep(10)
    await pay(7)
    return await ship(2)


async def other_result() -> int:
    await original()
    return 77


async def fails_at_the_end() -> int:
    await original()
    raise ValueError


async def goes_on_after_the_end() -> int:
    await original()
    return await pay(9)


CHANGES: dict[Any, tuple[int, str]] = {
    other_activity: (2, "name: 'pay' -> 'ship'"),
    other_argument: (2, "differs in digest"),
    other_queue: (2, "queue: 'default' -> 'slow'"),
    other_priority: (2, "priority: 5 -> 1"),
    other_timeout: (2, "differs in timeouts: (absent) -> {'start_to_close_s': 3.0}"),
    other_retry: (2, "differs in retry"),
    other_id: (2, "id: 'pay-1' -> 'mine'"),
    timer_instead: (2, "type: 'ActivityScheduled' -> 'TimerStarted'"),
    nothing_instead: (2, "nothing more here"),
    returns_instead: (2, "type: 'ActivityScheduled' -> 'WorkflowCompleted'"),
    raises_instead: (2, "type: 'ActivityScheduled' -> 'WorkflowFailed'"),
    one_more_at_the_start: (3, "history says: nothing more here"),
    other_duration: (4, "differs in fire_at_us"),
    other_reason: (4, "reason: 'sleep' -> 'call_later'"),
    step_removed: (4, "type: 'TimerStarted' -> 'ActivityScheduled'"),
    step_added: (6, "name: 'ship' -> 'pay'"),
    other_result: (8, "payload: '3' -> '77'"),
    fails_at_the_end: (8, "type: 'WorkflowCompleted' -> 'WorkflowFailed'"),
    goes_on_after_the_end: (8, "type: 'WorkflowCompleted' -> 'ActivityScheduled'"),
}


def recorded(fn: Callable[[], Any] = original) -> list[Event]:
    return as_stored(Simulation(_as_workflow(fn)).run().history)


def replay(fn: Any, history: list[Event]) -> Execution:
    execution = Execution(_as_workflow(fn), RUN_ID, "wf")
    execution.replay(history)
    return execution


def _as_workflow(fn: Any) -> Workflow[..., Any]:
    """Under one name, and not registered: the versions of the code that a run meets."""
    return Workflow(fn, "changing", 1, None, None, None)


@pytest.mark.parametrize("changed", CHANGES, ids=lambda it: it.__name__)
def test_change_is_found_out(changed: Any) -> None:
    seq, text = CHANGES[changed]
    with pytest.raises(NondeterminismError) as caught:
        replay(changed, recorded())
    assert caught.value.event_seq == seq
    assert text in str(caught.value)
    assert "parked" in str(caught.value)


def test_error_names_the_line_of_the_await() -> None:
    with pytest.raises(NondeterminismError) as caught:
        replay(other_argument, recorded())
    line = other_argument.__code__.co_firstlineno + 1
    assert caught.value.line == f"test_nondeterminism.py:{line}"
    assert caught.value.expected is not None
    assert caught.value.got is not None
    assert "line" not in caught.value.expected
    assert caught.value.expected["digest"] != caught.value.got["digest"]


def test_missing_command_names_the_line_where_the_code_waits_instead() -> None:
    with pytest.raises(NondeterminismError) as caught:
        replay(nothing_instead, recorded())
    assert (
        caught.value.line == f"test_nondeterminism.py:{nothing_instead.__code__.co_firstlineno + 1}"
    )


def test_author_code_cannot_swallow_it() -> None:
    async def swallowing() -> int:
        while True:
            try:
                return await ship(1)
            except BaseException:
                pass

    with pytest.raises(NondeterminismError):
        replay(swallowing, recorded())


def test_moved_lines_are_no_change() -> None:
    history = recorded()
    moved = [
        it._replace(body={**it.body, **({"line": "x.py:1"} if "line" in it.body else {})})
        for it in history
    ]
    assert replay(original, moved).closed
    assert replay(original, [it._replace(body=_without_line(it.body)) for it in history]).closed


def _without_line(body: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key != "line"}


def test_other_message_of_the_same_failure_is_no_change() -> None:
    async def fails(text: str = "one") -> int:
        raise ValueError(text)

    async def fails_otherwise() -> int:
        raise ValueError("two")

    async def fails_with_another_class() -> int:
        raise KeyError("one")

    assert replay(fails_otherwise, recorded(fails)).closed
    with pytest.raises(NondeterminismError, match="KeyError"):
        replay(fails_with_another_class, recorded(fails))


def test_sequence_changed_into_gather_is_found_out() -> None:
    async def sequence() -> int:
        return await pay(1) + await ship(2)

    async def together() -> int:
        return sum(await asyncio.gather(pay(1), ship(2)))

    with pytest.raises(NondeterminismError):
        replay(together, recorded(sequence))
    with pytest.raises(NondeterminismError):
        replay(sequence, recorded(together))


def test_undecodable_start_parks_the_run() -> None:
    history = recorded()
    history[0] = history[0]._replace(payload='{"unknown": 1}')
    with pytest.raises(PayloadError, match="unknown"):
        replay(original, history)


DAMAGE: dict[str, tuple[Callable[[list[Event]], list[Event]], str]] = {
    "gap in seq": (lambda h: [*h[:2], h[2]._replace(seq=9), *h[3:]], "event 9"),
    "gap inside a turn": (lambda h: [*h[:3], h[3]._replace(seq=9), *h[4:]], "event 9"),
    "gap in turns": (lambda h: [*h[:2], *h[4:]], "turn 1 with event 2 was the last one"),
    "no start": (lambda h: h[1:], "begins with WorkflowStarted"),
    "two starts": (lambda h: [h[0], h[0], *h[1:]], "turn 0"),
    "unknown type": (lambda h: [*h[:2], h[2]._replace(type="Surprise"), *h[3:]], "Surprise"),
    "outbound first": (
        lambda h: [*h[:2], h[3]._replace(seq=3), h[2]._replace(seq=4), *h[4:]],
        "what can follow",
    ),
    "more after the end": (
        lambda h: [*h, h[-1]._replace(seq=h[-1].seq + 1, turn=h[-1].turn + 1)],
        "closed the run",
    ),
    "reference to the future": (
        lambda h: [*h[:2], h[2]._replace(body={**h[2].body, "ref": 50}), *h[3:]],
        "event 50",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_history_is_refused(damage: str) -> None:
    harm, text = DAMAGE[damage]
    with pytest.raises(InternalError, match=text):
        replay(original, harm(recorded()))


def test_message_of_an_unknown_type_is_refused() -> None:
    sim = Simulation(_as_workflow(original))
    with pytest.raises(InternalError, match="no inbound event"):
        sim.turn(sim.message("Surprise"))


def test_replay_may_be_fed_in_portions() -> None:
    history = recorded()
    execution = Execution(_as_workflow(original), RUN_ID, "wf")
    for at, row in enumerate(history):
        if at + 1 == len(history) or history[at + 1].turn != row.turn:
            execution.replay([it for it in history if it.turn == row.turn])
    assert execution.closed


def test_run_started_by_its_first_activation() -> None:
    """Without a history, WorkflowStarted may be the first message."""
    sim = Simulation(_as_workflow(original))
    start = sim.history.pop()
    sim.execution = sim.fresh()
    sim.turn(sim.message(e.WORKFLOW_STARTED, start.payload, **start.body))
    assert [(it.seq, it.turn) for it in sim.history] == [(1, 0), (2, 1)]
    sim.turns[0] = sim.turns[0]._replace(inbound=[], events=sim.turns[0].events[1:])
    sim.run().check()
    assert sim.result == 3
