"""Random workflows in a random world: live and replay agree from every prefix, and nothing is lost.

A program is a tree of asyncio constructs over activities, sleeps and signals. The world delivers whatever is due in any order and any
portions, with any delays, and cancels when it likes. `Simulation.check` is the invariant.
"""

# ruff: noqa: PERF401

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import durable
from durable import Signal, activity, workflow
from durable.core import events as e
from durable.errors import ActivityError
from tests.core.simulation import SECOND, Simulation

ping = Signal("random_ping", int)

Program = Any  # ["activity", n, mode] and so on: JSON, so that it can be a workflow's argument


@activity
def job(n: int) -> int:
    return n


async def interpret(program: Program) -> Any:
    kind, *rest = program
    return await _RUN[kind](*rest)


async def _activity(n: int, cancellation: Any) -> Any:
    try:
        return await job.options(cancellation=cancellation)(n)
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
    "group": _group, "timeout": _timeout, "saga": _saga, "until": _until,
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
    sent = 0
    cancelled = False
    for _ in range(30):
        if sim.decision.closed:
            break
        inbound = []
        for event in sim.activities:
            answer = data.draw(st.sampled_from(["ok", "later", "fail"]))
            if answer == "ok":
                inbound.append(sim.completed(event, event.seq))
            elif answer == "fail":
                inbound.append(sim.failed(event, ValueError("boom")))
        for event in sim.timers:
            if event.body["fire_at_us"] <= sim.now_us:
                inbound.append(sim.fired(event))
        if data.draw(st.integers(0, 3)) == 0:
            sent += 1
            inbound.append(sim.signalled(ping, sent))
        if data.draw(st.integers(0, 12)) == 0:
            cancelled = True
            inbound.append(sim.cancelling())
        inbound = data.draw(st.permutations(inbound))
        stale = data.draw(st.integers(-2, 2)) * SECOND  # workers' clocks disagree
        inbound = [it._replace(at_us=it.at_us + stale) for it in inbound]
        sim.turn(*inbound, after_us=data.draw(st.sampled_from([0, 1, SECOND // 2, 2 * SECOND])))
    sim.check()
    assert sim.types.count(e.CANCEL_REQUESTED) <= 1
    assert [it.at_us for it in sim.history] == sorted(it.at_us for it in sim.history)
    if sim.outcome == e.WORKFLOW_CANCELLED:
        assert cancelled
    sim.execution.evict()
