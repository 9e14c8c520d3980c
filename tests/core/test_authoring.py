"""What workflow code may ask: the clock, randomness, facts about the run; decorators, options and their errors."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

import durable
from durable import RetryPolicy, activity, workflow
from durable.activity_context import (
    ActivityCancelledError,
    ActivityContext,
    ActivityInfo,
    NotInActivity,
    enter,
    leave,
)
from durable.core import events as e
from durable.definitions import registered_activities, registered_workflows
from durable.errors import InvalidOption, NotInWorkflow, PayloadError
from tests.core.simulation import RUN_ID, SECOND, START_US, Simulation, simulate


@activity
def plain() -> None: ...


@activity(
    name="author.charge",
    queue="payments",
    priority=2,
    retry=RetryPolicy(max_attempts=7, jitter="none"),
    timeout=timedelta(seconds=30),
    heartbeat_timeout=timedelta(seconds=3),
)
async def charge(amount: int, note: str = "") -> str:
    return note * amount


def scheduled(sim: Simulation) -> list[dict[str, Any]]:
    return [it.body for it in sim.history if it.type == e.ACTIVITY_SCHEDULED]


# -- time, randomness, facts --------------------------------------------------------------------------------------------


def test_time_is_the_turns() -> None:
    @workflow
    async def telling() -> list[Any]:
        before = durable.now(), durable.time()
        await durable.sleep(90)
        return [before[0].isoformat(), before[1], durable.now().isoformat()]

    first, seconds, then = simulate(telling).result
    assert datetime.fromisoformat(first) == datetime.fromtimestamp(
        START_US // SECOND, UTC
    ) + timedelta(milliseconds=1)
    assert seconds == pytest.approx(START_US / SECOND + 0.001)
    assert datetime.fromisoformat(then) - datetime.fromisoformat(first) == timedelta(seconds=90)


def test_time_never_goes_back() -> None:
    @workflow
    async def travelling() -> list[str]:
        seen = []
        for _ in range(3):
            seen.append(durable.now().isoformat())
            await plain()
        return seen

    sim = Simulation(travelling)
    sim.turn(after_us=100 * SECOND)
    sim.turn(sim.completed("plain-1"), after_us=-90 * SECOND)
    sim.turn(sim.completed("plain-2")._replace(at_us=5), after_us=-5 * SECOND)
    sim.run().check()
    assert sorted(sim.result) == sim.result
    assert sorted(it.at_us for it in sim.history) == [it.at_us for it in sim.history]


def test_future_stamps_move_the_clock() -> None:
    @workflow
    async def trusting() -> str:
        await plain()
        return durable.now().isoformat()

    sim = Simulation(trusting)
    sim.turn()
    ahead = sim.now_us + 60 * SECOND
    sim.turn(sim.completed("plain-1")._replace(at_us=ahead))
    assert sim.check().history[-1].at_us == ahead


def test_randomness_is_the_runs_own() -> None:
    @workflow
    async def gambling() -> list[Any]:
        first = [durable.random().random(), str(durable.uuid4())]
        await plain()
        return [*first, durable.random().randint(1, 10**9), str(durable.uuid4())]

    one = simulate(gambling).result
    assert simulate(gambling).result == one
    assert UUID(one[1]).version == 4
    assert simulate(gambling, run_id=UUID(int=RUN_ID.int + 1)).result != one


def test_info() -> None:
    @workflow(version=3)
    async def introspective() -> list[Any]:
        info = durable.info()
        return [info.workflow_id, str(info.run_id), info.workflow, info.version, info.queue, info.priority, info.actor,
                info.history_length, info.headers, info.started_at.isoformat()]  # fmt: skip

    result = simulate(
        introspective, start={"queue": "q", "priority": 1, "headers": {"trace": "t"}}
    ).result
    assert result[:-1] == [
        "wf",
        str(RUN_ID),
        "introspective",
        3,
        "q",
        1,
        "tester",
        1,
        {"trace": "t"},
    ]
    assert datetime.fromisoformat(result[-1]) == datetime.fromtimestamp(START_US // SECOND, UTC)


@pytest.mark.parametrize(
    "call",
    [
        durable.now,
        durable.time,
        durable.random,
        durable.uuid4,
        durable.info,
        durable.actor,
        durable.saga,
        lambda: durable.sleep(1),
        lambda: durable.wait_until(bool),
    ],
)
def test_everything_durable_needs_a_workflow(call: Any) -> None:
    assert not durable.in_workflow()
    with pytest.raises(NotInWorkflow):
        call()


@pytest.mark.parametrize(
    "duration", [float("nan"), float("inf"), timedelta(days=40_000), "soon", True, None]
)
def test_impossible_durations(duration: Any) -> None:
    @workflow
    async def oversleeping() -> None:
        await durable.sleep(duration)

    failure = simulate(oversleeping).failure
    assert isinstance(failure, InvalidOption)
    assert "duration" in str(failure)


@pytest.mark.parametrize("seconds", [1e12, float("inf"), float("nan")])
def test_asyncio_sleep_has_the_same_bound(seconds: float) -> None:
    @workflow
    async def oversleeping_asyncio() -> None:
        await asyncio.sleep(seconds)

    assert isinstance(simulate(oversleeping_asyncio).failure, ValueError)


# -- activities -----------------------------------------------------------------------------------------------------------


def test_options_of_activity_call_run_and_library() -> None:
    @workflow
    async def calling() -> None:
        await charge(1, note="x")
        fast = charge.options(
            queue="fast", priority=0, retry=RetryPolicy(max_attempts=1), id="the-one"
        )
        await fast(2)
        await plain()

    sim = simulate(
        calling,
        start={"queue": "runs", "priority": 8, "retry": {"max_attempts": 3, "max_interval_s": 9.0}},
    )
    first, second, third = scheduled(sim)
    assert first["name"] == "author.charge"
    assert (first["id"], second["id"], third["id"]) == ("author.charge-1", "the-one", "plain-1")
    assert [it["queue"] for it in (first, second, third)] == ["payments", "fast", "runs"]
    assert [it["priority"] for it in (first, second, third)] == [2, 0, 8]
    assert [it["retry"]["max_attempts"] for it in (first, second, third)] == [7, 1, 3]
    assert [it["retry"].get("jitter") for it in (first, second, third)] == ["none", "none", None]
    assert [it["retry"]["max_interval_s"] for it in (first, second, third)] == [9.0, 9.0, 9.0]
    assert (
        "initial_interval_s" not in first["retry"]
    )  # the library's defaults are not repeated in every event
    assert first["timeouts"] == second["timeouts"] == {"start_to_close_s": 30.0, "heartbeat_s": 3.0}
    assert "timeouts" not in third
    assert first["line"].startswith("test_authoring.py:")
    assert sim.history[1].payload == '{"amount":1,"note":"x"}'


def test_ids_are_unique_within_a_run() -> None:
    @workflow
    async def naming() -> list[str]:
        ids = [plain.options(id="plain-2")().id, plain().id, plain().id]
        for taken in ("plain-2", "plain-3", "plain-1"):
            try:
                plain.options(id=taken)()
            except InvalidOption:
                ids.append(f"{taken} refused")
        return ids

    assert simulate(naming).result[:3] == ["plain-2", "plain-1", "plain-3"]
    assert simulate(naming).result[3:] == ["plain-2 refused", "plain-3 refused", "plain-1 refused"]


def test_bad_argument_is_the_callers_exception() -> None:
    @workflow
    async def sloppy() -> str:
        try:
            await charge("many")  # type: ignore[arg-type]
        except PayloadError as error:
            return error.field
        return ""

    sim = simulate(sloppy)
    assert sim.result == "amount"
    assert scheduled(sim) == []


def test_unstorable_result_fails_the_workflow() -> None:
    @workflow
    async def unstorable() -> int:
        return "text"  # type: ignore[return-value]

    assert isinstance(simulate(unstorable).failure, PayloadError)


def test_activity_outside_a_workflow_names_the_three_ways() -> None:
    with pytest.raises(NotInWorkflow) as caught:
        plain()
    for way in ("plain.fn(...)", "client.enqueue(plain, ...)", "inside a workflow"):
        assert way in str(caught.value)
    assert asyncio.run(charge.fn(2, "ab")) == "abab"


def test_workflow_outside_a_workflow_names_the_ways() -> None:
    @workflow
    async def inner() -> None: ...

    with pytest.raises(NotInWorkflow, match="client.start"):
        inner()


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: activity(queue="")(plain.fn), "queue"),
        (lambda: activity(name="a\x00b")(plain.fn), "name"),
        (lambda: activity(name="a\nb")(plain.fn), "name"),
        (lambda: activity(name="x" * 201)(plain.fn), "name"),
        (lambda: activity(priority=10)(plain.fn), "priority"),
        (lambda: activity(priority=True)(plain.fn), "priority"),
        (lambda: activity(timeout=timedelta(0))(plain.fn), "start_to_close"),
        (lambda: activity(timeout=5)(plain.fn), "start_to_close"),  # type: ignore[call-overload]
        (lambda: activity(cancellation="never")(plain.fn), "cancellation"),  # type: ignore[call-overload]
        (lambda: plain.options(id="\ud800"), "id"),
        (lambda: workflow(version=0)(charge.fn), "version"),
        (lambda: workflow(queue="q" * 201)(charge.fn), "queue"),
    ],
)
def test_impossible_options_are_refused_at_once(make: Any, text: str) -> None:
    with pytest.raises(InvalidOption, match=text):
        make()


def test_two_functions_cannot_share_a_name() -> None:
    def first() -> None: ...

    def second() -> None: ...

    for fn, name in ((first, "first"), (second, "second")):
        fn.__qualname__ = name  # as if at module level
    activity(name="shared")(first)
    activity(name="shared")(first)
    with pytest.raises(InvalidOption, match=r"defined twice: in .*\.first and in .*\.second"):
        activity(name="shared")(second)
    workflow(name="shared")(first)
    workflow(name="shared", version=2)(second)
    with pytest.raises(InvalidOption, match="version="):
        workflow(name="shared")(second)


def test_registers_by_module() -> None:
    assert plain in registered_activities()
    assert plain in registered_activities(__name__)
    assert plain not in registered_activities("somewhere.else")
    assert all(it.fn.__module__ == __name__ for it in registered_workflows(__name__))


def test_async_generator_is_no_workflow() -> None:
    with pytest.raises(TypeError, match="async generator"):

        @workflow  # type: ignore[arg-type, unused-ignore]
        async def stream() -> Any:
            yield 1


# -- inside an activity -----------------------------------------------------------------------------------------------------


def _context(*, cancelled: bool, is_async: bool, beats: list[Any]) -> ActivityContext:
    info = ActivityInfo(
        "wf",
        RUN_ID,
        "charge-1",
        "charge",
        "default",
        2,
        5,
        "wf/charge-1",
        "me",
        None,
        ("half",),
        datetime.now(UTC),
    )
    return ActivityContext(lambda: info, beats.append, lambda: cancelled, is_async)


def test_activity_knows_itself_and_beats() -> None:
    beats: list[Any] = []
    token = enter(_context(cancelled=False, is_async=False, beats=beats))
    try:
        assert durable.activity_info().heartbeat_details == ("half",)
        assert not durable.activity_info().cancelled
        durable.heartbeat("page", 3)
    finally:
        leave(token)
    assert beats == [("page", 3)]


@pytest.mark.parametrize(
    ("is_async", "kind"), [(True, asyncio.CancelledError), (False, ActivityCancelledError)]
)
def test_heartbeat_delivers_the_cancel(is_async: bool, kind: type[BaseException]) -> None:
    token = enter(_context(cancelled=True, is_async=is_async, beats=[]))
    try:
        assert durable.activity_info().cancelled
        with pytest.raises(kind):
            durable.heartbeat()
    finally:
        leave(token)
    assert not issubclass(kind, Exception)


def test_activity_context_elsewhere() -> None:
    for call in (durable.activity_info, durable.heartbeat):
        with pytest.raises(NotInActivity):
            call()
