"""Random workflows in a random world: live and replay agree from every prefix, and nothing is lost.

A program is a tree of asyncio constructs over activities, local activities, children, sleeps and signals. The world delivers whatever is due in any order
and any portions, with any delays, and cancels when it likes. The invariants: `Simulation.check`, and that a run whose worker died before any of its turns has the
very history of one whose worker did not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import durable
from durable import Signal, activity, workflow
from durable.core import events as e
from durable.core.events import Message
from durable.errors import ActivityError, ChildWorkflowError
from durable.failure import encode_failure
from tests.core.simulation import SECOND, Simulation, as_stored, without_traces

ping = Signal("random_ping", int)

Program = Any  # ["activity", n, mode] and so on: JSON, so that it can be a workflow's argument


@activity
def job(n: int) -> int:
    return n


@workflow
async def random_child(n: int) -> int:
    return n


async def interpret(program: Program) -> Any:
    kind, *rest = program
    return await _RUN[kind](*rest)


async def _activity(n: int, cancellation: Any) -> Any:
    try:
        return await job.options(cancellation=cancellation)(n)
    except ActivityError as error:
        return f"failed {error.cause}"


async def _child(n: int, cancellation: Any) -> Any:
    try:
        return await random_child.options(cancellation=cancellation)(n)
    except ChildWorkflowError as error:
        return f"failed {error.cause}"


async def _local(n: int) -> Any:
    try:
        return await durable.local(job)(n)
    except ActivityError as error:
        return f"failed {error.cause}"


async def _sleep(seconds: float) -> Any:
    await asyncio.sleep(seconds)
    return durable.time()


async def _signal(timeout: float | None) -> Any:
    try:
        return await ping.receive(timeout)
    except TimeoutError:
        return "no signal"


async def _sequence(programs: list[Program]) -> Any:
    return [await interpret(it) for it in programs]


async def _gather(programs: list[Program]) -> Any:
    return await asyncio.gather(*map(interpret, programs))


async def _race(programs: list[Program]) -> Any:
    tasks = {asyncio.create_task(interpret(it)) for it in programs}
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    return [repr(task.result()) for task in done]


async def _group(programs: list[Program]) -> Any:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(interpret(it)) for it in programs]
    return [task.result() for task in tasks]


async def _timeout(seconds: float, program: Program) -> Any:
    try:
        async with asyncio.timeout(seconds):
            return await interpret(program)
    except TimeoutError:
        return "too slow"


async def _saga(program: Program) -> Any:
    async with durable.saga() as saga:
        saga.compensate(job, -1)
        await interpret(program)
        saga.compensate(job, -2)
        if durable.random().random() < 0.5:
            raise ValueError("undo")
    return "kept"


async def _until(seconds: float) -> Any:
    start = durable.time()
    try:
        await durable.wait_until(
            lambda: ping.pending() > 0 or durable.time() - start > seconds, timeout=seconds + 1
        )
    except TimeoutError:
        return "never"
    return "held"


_RUN: dict[str, Any] = {
    "activity": _activity, "sleep": _sleep, "signal": _signal, "sequence": _sequence, "gather": _gather, "race": _race,
    "group": _group, "timeout": _timeout, "saga": _saga, "until": _until, "child": _child, "local": _local,
}  # fmt: skip


@workflow
async def random_await(program: Any) -> Any:
    return repr(await interpret(program))


@workflow
def random_block(program: Any) -> Any:
    return repr(durable.wait(interpret(program)))


@workflow
def random_yield(program: Any) -> Any:
    outcome = yield interpret(program)
    return repr(outcome)


durations = st.sampled_from([0, 0.5, 1, 3, 10])
leaf = st.one_of(
    st.tuples(st.just("activity"), st.integers(0, 9), st.sampled_from(["try", "wait", "abandon"])),
    st.tuples(st.just("child"), st.integers(0, 9), st.sampled_from(["try", "wait", "abandon"])),
    st.tuples(st.just("local"), st.integers(0, 9)),
    st.tuples(st.just("sleep"), durations),
    st.tuples(st.just("signal"), st.one_of(st.none(), durations)),
    st.tuples(st.just("until"), durations),
)
programs = st.recursive(
    leaf,
    lambda inner: st.one_of(
        st.tuples(
            st.sampled_from(["sequence", "gather", "race", "group"]),
            st.lists(inner, min_size=1, max_size=4),
        ),
        st.tuples(st.just("timeout"), durations, inner),
        st.tuples(st.just("saga"), inner),
    ),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    program=programs,
    data=st.data(),
    style=st.sampled_from([random_await, random_block, random_yield]),
)
def test_live_and_replay_agree(program: Program, data: st.DataObject, style: Any) -> None:
    sim = Simulation(style, program)
    unlucky = Simulation(style, program)
    world = World(sim, data)
    for _ in range(30):
        if sim.decision.closed:
            break
        inbound, after_us = world.moves()
        if data.draw(st.booleans()):
            crash(unlucky)
        sim.turn(*inbound, after_us=after_us)
        unlucky.turn(*inbound, after_us=after_us)
        assert without_traces(unlucky.decision.events) == without_traces(sim.decision.events)
    sim.check()
    assert sim.types.count(e.CANCEL_REQUESTED) <= 1
    assert [it.at_us for it in sim.history] == sorted(it.at_us for it in sim.history)
    if sim.outcome == e.WORKFLOW_CANCELLED:
        assert world.cancelled
    sim.execution.evict()
    unlucky.execution.evict()


def crash(sim: Simulation) -> None:
    """The worker dies; another one has nothing but the history."""
    sim.execution.evict()
    sim.execution = sim.fresh()
    sim.execution.replay(as_stored(sim.history))


class World:
    """Answers what is open, or not yet; sends signals; cancels."""

    def __init__(self, sim: Simulation, data: st.DataObject) -> None:
        self._sim = sim
        self._draw = data.draw
        self._sent = 0
        self.cancelled = False

    def moves(self) -> tuple[list[Message], int]:
        """The messages of the next turn, and the time until then (us)."""
        inbound = [*self._answers(), *self._child_answers(), *self._local_answers()]
        inbound += [
            self._sim.fired(it)
            for it in self._sim.timers
            if it.body["fire_at_us"] <= self._sim.now_us
        ]
        if self._draw(st.integers(0, 3)) == 0:
            self._sent += 1
            inbound.append(self._sim.signalled(ping, self._sent))
        if self._draw(st.integers(0, 12)) == 0:
            self.cancelled = True
            inbound.append(self._sim.cancelling())
        stale = self._draw(st.integers(-2, 2)) * SECOND  # workers' clocks disagree
        mixed = [it._replace(at_us=it.at_us + stale) for it in self._draw(st.permutations(inbound))]
        return mixed, self._draw(st.sampled_from([0, 1, SECOND // 2, 2 * SECOND]))

    def _answer(self) -> str:
        return self._draw(st.sampled_from(["ok", "later", "fail"]))

    def _answers(self) -> Iterator[Message]:
        for event in self._sim.activities:
            answer = self._answer()
            if answer == "ok":
                yield self._sim.completed(event, event.seq)
            elif answer == "fail":
                yield self._sim.failed(event, ValueError("boom"))

    def _child_answers(self) -> Iterator[Message]:
        for event in self._sim.open(e.CHILD_STARTED):
            answer = self._answer()
            if answer == "ok":
                yield self._sim.message(e.CHILD_COMPLETED, "1", ref=event.seq, run_id="child")
            elif answer == "fail":
                failure = encode_failure(ValueError("boom"))
                yield self._sim.message(
                    e.CHILD_FAILED, ref=event.seq, run_id="child", failure=failure
                )

    def _local_answers(self) -> Iterator[Message]:
        for call_id in list(self._sim.execution.locals):
            answer = self._answer()
            if answer == "ok":
                yield self._sim.local_ended(call_id, 1)
            elif answer == "fail":
                yield self._sim.local_ended(call_id, error=ValueError("boom"))
