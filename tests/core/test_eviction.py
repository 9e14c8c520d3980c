"""Dropping a cached run has no durable effect, whatever its code does about it (C12)."""

# ruff: noqa: SIM105, RUF006

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import textwrap
from collections.abc import AsyncGenerator, Generator
from typing import Any

import pytest

import durable
from durable import Signal, activity, workflow
from durable.core.execution import Execution
from durable.errors import Evicted, InternalError
from tests.core.simulation import RUN_ID, Simulation

go = Signal("eviction_go", int)
log: list[str] = []


@activity
def act() -> None: ...


@activity
def compensate() -> None: ...


@workflow
async def saga_finally() -> None:
    try:
        await act()
    finally:
        log.append("finally")
        await compensate()
        log.append("compensated")


@workflow
async def saga_object() -> None:
    async with durable.saga() as saga:
        saga.compensate(compensate)
        await act()


@workflow
def blocking_finally() -> None:
    try:
        act().result()
    finally:
        log.append("finally")
        compensate().result()
        log.append("compensated")


@workflow
def blocking_saga() -> None:
    with durable.saga() as saga:
        saga.compensate(compensate)
        act().result()


@workflow
def yielding_finally() -> Generator[Any, Any, None]:
    saga = durable.saga()
    saga.compensate(compensate)
    try:
        yield act()
    except BaseException:
        log.append("finally")
        yield from saga.unwind()
        log.append("compensated")
        raise


@workflow
async def swallowing_loop() -> None:
    while True:
        try:
            await act()
        except BaseException:
            pass


@workflow
def swallowing_loop_blocking() -> None:
    while True:
        try:
            act().result()
        except BaseException:
            pass


@workflow
def swallowing_loop_yielding() -> Generator[Any, Any, None]:
    while True:
        try:
            yield act()
        except BaseException:
            pass


@workflow
async def swallowing_sleep() -> None:
    while True:
        try:
            await asyncio.sleep(10)
        except BaseException:
            pass


@workflow
async def swallowing_event() -> None:
    event = asyncio.Event()
    sleeping = durable.sleep(10)
    while True:
        try:
            await event.wait()
        except BaseException:
            sleeping.cancel()


@workflow
async def group_of_tasks() -> None:
    async def child() -> None:
        try:
            await act()
        finally:
            await compensate()

    async with asyncio.TaskGroup() as group:
        group.create_task(child())
        group.create_task(child())


@workflow
async def under_timeout() -> None:
    try:
        async with asyncio.timeout(100):
            await asyncio.gather(act(), act())
    finally:
        async with asyncio.timeout(10):
            await compensate()


@workflow
async def async_generators() -> None:
    async def numbers() -> AsyncGenerator[int, None]:
        try:
            yield 1
            yield 2
        finally:
            await compensate()

    async for _ in numbers():
        await act()


@workflow
async def unfinished_async_generator() -> None:
    async def numbers() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            log.append("generator")
            await compensate()

    generator = numbers()
    await generator.__anext__()
    await act()


@workflow
async def conditions() -> None:
    asyncio.create_task(saga_finally.fn())
    try:
        await durable.wait_until(lambda: False, timeout=10)
    finally:
        await go.receive()


WORKFLOWS: list[Any] = [
    saga_finally, saga_object, blocking_finally, blocking_saga, yielding_finally, swallowing_loop, swallowing_loop_blocking,
    swallowing_loop_yielding, swallowing_sleep, swallowing_event, group_of_tasks, under_timeout, async_generators,
    unfinished_async_generator, conditions,
]  # fmt: skip


@pytest.mark.parametrize("subject", WORKFLOWS, ids=lambda it: it.name)
def test_eviction_is_inert(subject: Any) -> None:
    sim = Simulation(subject)
    sim.turn()
    assert not sim.decision.closed
    log.clear()
    execution = sim.execution
    execution.evict()
    execution.evict()
    assert "compensated" not in log
    assert execution._commands == []
    assert bool(execution.survivors) == subject.name.startswith("swallowing")
    with pytest.raises(InternalError, match="evicted"):
        execution.activate([], sim.now_us)
    # and the run goes on elsewhere as if nothing had been
    sim.execution = sim.fresh()
    sim.execution.replay(sim.history)
    sim.check()


@pytest.mark.usefixtures("own_garbage")
@pytest.mark.parametrize("subject", WORKFLOWS, ids=lambda it: it.name)
def test_eviction_leaves_nothing_for_the_garbage_collector(subject: Any) -> None:
    """What is dropped never runs again: not in a collection, not inside another run that is active just then."""
    sim = Simulation(subject)
    sim.turn()
    log.clear()
    sim.execution.evict()
    before = list(log)
    del sim
    gc.collect()
    assert log == before


@pytest.mark.usefixtures("own_garbage")
def test_dropping_without_evicting_runs_nothing() -> None:
    def drop() -> None:
        execution = Execution(saga_finally, RUN_ID, "wf")
        execution.replay(Simulation(saga_finally).history)
        execution.activate([], 10**16)

    log.clear()
    drop()
    gc.collect()
    assert log == []


def test_survivors_do_not_spin_at_the_end_of_the_process() -> None:
    """A coroutine that swallows everything in a loop is neither closed by the collector nor at exit."""
    code = textwrap.dedent(
        """
        import gc
        from tests.core.simulation import Simulation
        from tests.core import test_eviction as subject
        for it in (subject.swallowing_loop, subject.swallowing_loop_blocking, subject.swallowing_event):
            sim = Simulation(it)
            sim.turn()
            sim.execution.evict()
            del sim
        gc.collect()
        print("alive")
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "alive\n", "")


def test_evicted_passes_except_exception() -> None:
    assert not issubclass(Evicted, Exception)


def test_closed_run_leaves_background_tasks_inert() -> None:
    @workflow
    async def leaving_tasks() -> str:
        async def child() -> None:
            try:
                await act()
            finally:
                log.append("child")
                await compensate()
                log.append("compensated")

        asyncio.create_task(child())
        await durable.sleep(1)
        return "left"

    log.clear()
    sim = Simulation(leaving_tasks)
    sim.turn()
    sim.fire()
    assert sim.result == "left"
    assert log == ["child"]
    assert "still running" in sim.warnings[0]
    sim.check()
    assert "compensated" not in log


def test_failed_turn_evicts() -> None:
    @workflow
    async def one_step() -> None:
        try:
            await act()
        finally:
            log.append("finally")
            await compensate()
            log.append("compensated")

    log.clear()
    sim = Simulation(one_step)
    sim.turn()
    with pytest.raises(InternalError):
        sim.turn(sim.message("Nonsense"))
    with pytest.raises(InternalError, match="evicted"):
        sim.turn()
