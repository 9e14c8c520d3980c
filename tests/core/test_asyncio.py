"""asyncio's own tools inside workflows: each on success, on failure and on cancellation, and each replayed from every prefix."""

# ruff: noqa: RUF006

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator
from typing import Any

import pytest

import durable
from durable import Signal, activity, workflow
from durable.core import events as e
from durable.errors import ActivityError, BlockingCall, UnsafeWorkflow
from tests.core.simulation import SECOND, Simulation, simulate

note = Signal("asyncio_note", str)


@activity
def ok(n: int) -> int:
    return n


@activity
def bad(n: int) -> int:
    raise ValueError(n)


@activity
def slow(n: int) -> int:
    return n


async def _swallow(coro: Any) -> str:
    try:
        return repr(await coro)
    except ActivityError as error:
        return f"failed: {error.cause}"
    except TimeoutError:
        return "timed out"


# Each body runs to its end by itself; what it returns is the expectation.


async def gather_all() -> Any:
    return await asyncio.gather(ok(1), ok(2), ok(3))


async def gather_failure() -> Any:
    return await _swallow(asyncio.gather(ok(1), bad(2), ok(3)))


async def gather_return_exceptions() -> Any:
    results = await asyncio.gather(ok(1), bad(2), return_exceptions=True)
    return [results[0], type(results[1]).__name__]


async def gather_coroutines() -> Any:
    async def two(n: int) -> int:
        return await ok(n) + await ok(n)

    return await asyncio.gather(two(1), two(2))


async def wait_first() -> Any:
    done, pending = await asyncio.wait([ok(1), ok(2)], return_when=asyncio.FIRST_COMPLETED)
    for future in pending:
        future.cancel()
    return [[it.result() for it in done], len(pending)]


async def wait_for_result() -> Any:
    return await asyncio.wait_for(ok(1), 10)


async def wait_for_timeout() -> Any:
    return await _swallow(asyncio.wait_for(note.receive(), 10))


async def wait_for_failure() -> Any:
    return await _swallow(asyncio.wait_for(bad(1), 10))


async def timeout_result() -> Any:
    async with asyncio.timeout(10):
        return await ok(1)


async def timeout_expires() -> Any:
    try:
        async with asyncio.timeout(10):
            await durable.sleep(100)
    except TimeoutError:
        return "timed out"


async def timeout_rescheduled() -> Any:
    async with asyncio.timeout(1) as scope:
        scope.reschedule(asyncio.get_running_loop().time() + 50)
        await durable.sleep(20)
    return "in time"


async def timeout_nested() -> Any:
    try:
        async with asyncio.timeout(10):
            try:
                async with asyncio.timeout(100):
                    await durable.sleep(1_000)
            except TimeoutError:
                return "inner"
    except TimeoutError:
        return "outer"


async def shield_result() -> Any:
    return await asyncio.shield(ok(1))


async def shield_timeout() -> Any:
    kept = durable.sleep(30)
    try:
        async with asyncio.timeout(10):
            await asyncio.shield(kept)
    except TimeoutError:
        await kept
        return "kept"


async def as_completed_futures() -> Any:
    return [await it for it in asyncio.as_completed([ok(1), ok(2), ok(3)])]


async def as_completed_coroutines() -> Any:
    async def sleeps(n: int) -> int:
        await asyncio.sleep(10 - n)
        return n

    return [await it for it in asyncio.as_completed([sleeps(1), sleeps(2), sleeps(3)])]


async def task_group_result() -> Any:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_swallow(ok(n))) for n in (1, 2)]
    return [task.result() for task in tasks]


async def task_group_failure() -> Any:
    async def fail() -> None:
        await bad(1)

    async def wait_long() -> None:
        await durable.sleep(1_000)

    causes = []
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(wait_long())
            group.create_task(fail())
    except* ActivityError as errors:
        causes = [str(it.__cause__) for it in errors.exceptions]
    return causes


async def event_set() -> Any:
    event = asyncio.Event()

    async def setter() -> None:
        await ok(1)
        event.set()

    task = asyncio.create_task(setter())
    await event.wait()
    await task
    return "set"


async def lock_order() -> Any:
    lock, order = asyncio.Lock(), []

    async def hold(n: int) -> None:
        async with lock:
            order.append(await ok(n))

    await asyncio.gather(*(hold(n) for n in range(4)))
    return order


async def semaphore_limits() -> Any:
    semaphore, running, most = asyncio.Semaphore(2), 0, 0

    async def one(n: int) -> None:
        nonlocal running, most
        async with semaphore:
            running += 1
            most = max(most, running)
            await ok(n)
            running -= 1

    await asyncio.gather(*(one(n) for n in range(5)))
    return most


async def queue_passes() -> Any:
    queue: asyncio.Queue[int] = asyncio.Queue(1)

    async def produce() -> None:
        for n in range(3):
            await queue.put(await ok(n))

    task = asyncio.create_task(produce())
    got = [await queue.get() for _ in range(3)]
    await task
    return got


async def condition_notifies() -> Any:
    condition = asyncio.Condition()

    async def notify() -> None:
        await ok(1)
        async with condition:
            condition.notify_all()

    task = asyncio.create_task(notify())
    async with condition:
        await condition.wait()
    await task
    return "notified"


async def barrier_passes() -> Any:
    barrier = asyncio.Barrier(2)

    async def reach() -> int:
        await ok(1)
        return await barrier.wait()

    return sorted(await asyncio.gather(reach(), reach()))


async def async_generator() -> Any:
    async def numbers() -> AsyncIterator[int]:
        for n in range(5):
            yield await ok(n)

    return [n async for n in numbers() if n % 2]


async def sleep_zero_and_negative() -> Any:
    await asyncio.sleep(0)
    await asyncio.sleep(-5)
    await durable.sleep(0)
    await durable.sleep(-5)
    return "through"


async def context_variables() -> Any:
    variable = contextvars.ContextVar("variable", default=0)

    async def inner() -> int:
        await ok(1)
        variable.set(variable.get() + 1)
        return variable.get()

    variable.set(10)
    return [await asyncio.create_task(inner()), await asyncio.create_task(inner()), variable.get()]


async def call_later_runs() -> Any:
    seen: list[str] = []
    loop = asyncio.get_running_loop()
    loop.call_later(20, seen.append, "late")
    handle = loop.call_later(10, seen.append, "never")
    loop.call_later(5, seen.append, "early")
    await durable.sleep(8)
    handle.cancel()
    await durable.sleep(20)
    return seen


async def current_task_and_names() -> Any:
    async def name() -> str:
        task = asyncio.current_task()
        assert task is not None
        return task.get_name()

    return [
        await name(),
        await asyncio.create_task(name()),
        await asyncio.create_task(name(), name="mine"),
    ]


EXPECTED: dict[Any, Any] = {
    gather_all: [1, 2, 3],
    gather_failure: "failed: 2",
    gather_return_exceptions: [1, "ActivityError"],
    gather_coroutines: [2, 4],
    wait_first: [[1], 1],
    wait_for_result: 1,
    wait_for_timeout: "timed out",
    wait_for_failure: "failed: 1",
    timeout_result: 1,
    timeout_expires: "timed out",
    timeout_rescheduled: "in time",
    timeout_nested: "outer",
    shield_result: 1,
    shield_timeout: "kept",
    as_completed_futures: [1, 2, 3],
    as_completed_coroutines: [3, 2, 1],
    task_group_result: ["1", "2"],
    task_group_failure: ["1"],
    event_set: "set",
    lock_order: [0, 1, 2, 3],
    semaphore_limits: 2,
    queue_passes: [0, 1, 2],
    condition_notifies: "notified",
    barrier_passes: [0, 1],
    async_generator: [1, 3],
    sleep_zero_and_negative: "through",
    context_variables: [11, 11, 10],
    call_later_runs: ["early", "late"],
    current_task_and_names: ["main", "task-5", "mine"],
}


@pytest.mark.parametrize("body", EXPECTED, ids=lambda it: it.__name__)
def test_primitive(body: Any) -> None:
    sim = simulate(workflow(body))
    if body is current_task_and_names:
        assert [it[:5] for it in sim.result] == ["main", "task-", "mine"]
    else:
        assert sim.result == EXPECTED[body]


@pytest.mark.parametrize("body", EXPECTED, ids=lambda it: it.__name__)
def test_primitive_is_cancelled_at_every_turn(body: Any) -> None:
    """A cancel at any point ends the run as cancelled, or the body finishes first; and that replays too."""
    whole = Simulation(workflow(body)).run()
    for stop in range(len(whole.turns) - 1):
        sim = Simulation(workflow(body))
        sim.turn()
        for _ in range(stop):
            step(sim)
        sim.turn(sim.cancelling("stop"))
        if not sim.decision.closed:
            sim.run()
        assert sim.outcome == e.WORKFLOW_CANCELLED, (stop, sim.types)
        sim.check()


def step(sim: Simulation) -> None:
    if sim.activities:
        sim.turn(sim.perform(sim.activities[0]))
    elif sim.timers:
        sim.fire()


def test_timeout_cancels_the_activity_it_covered() -> None:
    @workflow
    async def covered() -> str:
        try:
            async with asyncio.timeout(10):
                await slow(1)
        except TimeoutError:
            return "timed out"
        return "done"

    sim = Simulation(covered)
    sim.turn()
    sim.fire()
    assert sim.types[-3:] == [e.TIMER_FIRED, e.ACTIVITY_CANCEL_REQUESTED, e.WORKFLOW_COMPLETED]
    assert sim.check().result == "timed out"


def test_task_group_failure_fails_the_workflow() -> None:
    @workflow
    async def failing_group() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(_raise(ValueError("one")))
            group.create_task(_raise(KeyError("two")))

    failure = simulate(failing_group).failure
    assert isinstance(failure, ExceptionGroup)
    assert sorted(type(it).__name__ for it in failure.exceptions) == ["KeyError", "ValueError"]


async def _raise(error: Exception) -> None:
    raise error


def test_task_group_is_cancelled_with_the_workflow() -> None:
    @workflow
    async def group_of_sleepers() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(_swallow(slow(1)))
            group.create_task(_swallow(slow(2)))

    sim = Simulation(group_of_sleepers)
    sim.turn()
    sim.turn(sim.cancelling())
    assert sim.types[-3:] == [
        e.ACTIVITY_CANCEL_REQUESTED,
        e.ACTIVITY_CANCEL_REQUESTED,
        e.WORKFLOW_CANCELLED,
    ]
    sim.check()


def test_result_and_deadline_in_one_turn() -> None:
    """Both have happened; the order of the history decides, and the same way in replay."""

    @workflow
    async def race() -> str:
        try:
            async with asyncio.timeout(10):
                return f"result {await slow(1)}"
        except TimeoutError:
            return "timed out"

    for answer_first in (True, False):
        sim = Simulation(race)
        sim.turn()
        both = [sim.completed("slow-1", 1), sim.fired(sim.timers[0])]
        sim.turn(*(both if answer_first else reversed(both)))
        assert sim.check().result in ("result 1", "timed out")


def test_sets_of_tasks_iterate_by_creation() -> None:
    @workflow
    async def set_order() -> list[int]:
        tasks = {asyncio.create_task(_number(n)) for n in range(6)}
        done, _ = await asyncio.wait(tasks)
        return [task.result() for task in done]

    async def _number(n: int) -> int:
        return await ok(n)

    assert simulate(set_order).result == [0, 1, 2, 3, 4, 5]


def test_timer_durations_are_rounded_to_milliseconds() -> None:
    @workflow
    async def rounded() -> None:
        await asyncio.sleep(0.1 + 0.2)
        await asyncio.sleep(0.0004)

    sim = simulate(rounded)
    timers = [it for it in sim.history if it.type == e.TIMER_STARTED]
    assert [it.body["fire_at_us"] - it.at_us for it in timers] == [300_000]


def test_loop_time_is_frozen_and_moves_with_the_turns() -> None:
    @workflow
    async def clock() -> list[float]:
        loop = asyncio.get_running_loop()
        seen = [loop.time(), loop.time()]
        await durable.sleep(7)
        return [*seen, loop.time() - seen[0]]

    first, second, passed = simulate(clock).result
    assert first == second
    assert passed == 7


def test_background_failure_is_reported() -> None:
    @workflow
    async def careless() -> None:
        asyncio.create_task(_raise(ValueError("unseen")), name="background")
        await ok(1)

    sim = simulate(careless)
    assert sim.warnings == ["background failed and nobody awaited it: ValueError('unseen')"]


def test_results_nobody_awaited_are_reported() -> None:
    @workflow
    async def forgetful() -> None:
        ok(1)
        await ok(2)
        bad(3)
        ok(4)
        await ok(5)

    sim = Simulation(forgetful)
    sim.turn()
    sim.turn(sim.completed("ok-1", 1), sim.completed("ok-2", 2))
    sim.turn(sim.failed("bad-1", ValueError()), sim.completed("ok-4", 5))
    assert sim.decision.closed
    kinds = [text.partition(" ")[0] + text.rpartition(")")[2] for text in sim.warnings]
    assert kinds == [
        "ok-1 ended and nobody awaited it",
        "bad-1 failed and nobody awaited it",
        "ok-3 was still pending when the workflow returned",
    ]


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda: asyncio.to_thread(print), "activity"),
        (lambda: asyncio.open_connection("localhost", 1), "activity"),
        (lambda: asyncio.create_subprocess_exec("true"), "activity"),
        (lambda: _soon(asyncio.get_running_loop().call_soon_threadsafe, print), "signal"),
        (lambda: _soon(asyncio.get_running_loop().add_reader, 0, print), "activity"),
    ],
)
def test_the_outside_world_is_refused(call: Any, names: str) -> None:
    calls = [call]  # in a list, where the scan at decoration does not see it

    @workflow
    async def reaching_out() -> None:
        await calls[0]()

    with pytest.raises(UnsafeWorkflow, match=names):
        Simulation(reaching_out).run()


async def _soon(fn: Any, *args: Any) -> None:
    fn(*args)


def test_spinning_is_stopped_and_names_the_line() -> None:
    @workflow
    async def spinning() -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(BlockingCall, match=r"steps in one turn.* at .*\.py:\d+"):
        Simulation(spinning).run()


def test_as_completed_over_a_generator_of_coroutines_is_refused() -> None:
    @workflow
    async def unordered() -> None:
        coroutines = [_number_of(n) for n in range(2)]
        try:
            list(asyncio.as_completed(iter(coroutines)))
        finally:
            for coroutine in coroutines:
                coroutine.close()

    async def _number_of(n: int) -> int:
        return n

    assert "pass a list" in str(simulate(unordered).failure)


def test_as_completed_starts_coroutines_in_the_given_order() -> None:
    @workflow
    async def ordered() -> list[int]:
        started: list[int] = []

        async def begin(n: int) -> None:
            started.append(n)

        kept = [
            begin(n) for n in range(50)
        ]  # all alive at once, so that their addresses are in no order
        shuffled = kept[::3] + kept[1::3] + kept[2::3]
        for it in asyncio.as_completed(shuffled):
            await it
        return started

    assert simulate(ordered).result == [*range(0, 50, 3), *range(1, 50, 3), *range(2, 50, 3)]


def test_two_timers_in_one_turn_fire_in_history_order() -> None:
    @workflow
    async def two_timers() -> list[int]:
        seen: list[int] = []

        async def after(n: int) -> None:
            await durable.sleep(n)
            seen.append(n)

        await asyncio.gather(after(1), after(2))
        return seen

    sim = Simulation(two_timers)
    sim.turn()
    early, late = sim.timers
    sim.turn(sim.fired(late), sim.fired(early), after_us=5 * SECOND)
    assert sim.check().result == [2, 1]
