"""Reset, retry and fork, without a database: what is kept, what is made again, and that replay holds from every point."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import durable
from durable import Signal, activity, workflow
from durable.core import events as e
from durable.core import rewind
from durable.core.events import Event, Message
from durable.core.execution import Decision, Execution
from durable.errors import ActivityError
from tests.core.simulation import RUN_ID, Simulation, as_stored
from tests.core.test_random_workflows import interpret

NEXT = UUID("0190a0b0-0000-7000-8000-000000000002")
THIRD = UUID("0190a0b0-0000-7000-8000-000000000003")

hint = Signal("rewind_hint", str)


@activity(name="rewind.step")
def step(n: int) -> int:
    return n


@activity(name="rewind.shaky")
def shaky(n: int) -> int:
    raise ValueError(f"no {n}")


def rewound(
    sim: Simulation, event: int, *, run_id: UUID = NEXT, workflow_id: str = "wf", **options: Any
) -> Simulation:
    """The run that a reset of `sim` to this event makes, up to where it goes on by itself: the database's part, in memory."""
    plan = rewind.plan(sim.history, event, str(sim.run_id), sim.execution.workflow_id, **options)
    new = Simulation.__new__(Simulation)
    new.__dict__.update(sim.__dict__)
    start, *rest = as_stored(sim.history)[: plan.cut]
    origins = {"origins": plan.origins, "workflow_id": workflow_id}
    new.history = [start._replace(body=start.body | origins), *rest]
    new.run_id, new.turns, new.warnings = run_id, [], []
    new.decision = Decision([], False, [], [])
    new.execution = Execution(sim.workflow, run_id, workflow_id)
    new.execution.replay(new.history)
    again = [_message(sim.history[seq - 1], sim.now_us) for seq in plan.redeliver]
    if again or plan.turn == 0:
        new.turn(*again)
    opened = {it.seq for kind in (e.ACTIVITY_SCHEDULED, e.TIMER_STARTED) for it in new.open(kind)}
    made_again = {*plan.activities, *plan.timers, *plan.stopping}
    assert made_again <= {*opened, *(it.body.get("ref") for it in new.history)}
    return new


def _message(event: Event, now_us: int) -> Message:
    return Message(event.type, now_us, event.body, event.payload)


def replays(sim: Simulation) -> None:
    whole = Execution(sim.workflow, sim.run_id, sim.history[0].body["workflow_id"])
    whole.replay(as_stored(sim.history))
    assert whole.last_seq == sim.history[-1].seq
    whole.evict()


# -- the point --------------------------------------------------------------------------------------------------------


@workflow(name="rewind.three")
async def three() -> list[int]:
    return [await step(n) for n in (1, 2, 3)]


def test_a_point_at_a_turn_s_end_keeps_whole_turns() -> None:
    sim = Simulation(three).run()
    assert sim.types[:4] == [
        e.WORKFLOW_STARTED, e.ACTIVITY_SCHEDULED, e.ACTIVITY_COMPLETED, e.ACTIVITY_SCHEDULED,
    ]  # fmt: skip
    plan = rewind.plan(sim.history, 4, str(RUN_ID), "wf")
    assert (plan.cut, plan.turn, plan.redeliver, plan.activities) == (4, 2, [], [4])
    assert plan.discarded == {"rewind.step": 2}


def test_a_point_within_a_turn_gives_its_outcomes_again() -> None:
    """The result of the first step is kept; what the code made of it is not."""
    sim = Simulation(three).run()
    plan = rewind.plan(sim.history, 3, str(RUN_ID), "wf")
    assert (plan.cut, plan.turn, plan.redeliver, plan.activities) == (2, 1, [3], [])


def test_the_idempotency_key_of_what_is_scheduled_again_stays() -> None:
    sim = Simulation(three).run()
    first = rewound(sim, 4).run()
    again = rewind.plan(first.history, 2, str(NEXT), "wf")
    assert again.keys == [f"{RUN_ID}/2"]
    later = rewind.plan(first.history, 6, str(NEXT), "wf")
    assert (later.activities, later.keys) == ([6], [f"{NEXT}/6"])
    assert later.origins == [[2, str(RUN_ID), "wf"], [3, str(NEXT), "wf"]]


def test_a_reset_of_a_reset_replays() -> None:
    sim = Simulation(three).run()
    first = rewound(sim, 4).run()
    second = rewound(first, 6, run_id=THIRD).run()
    for each in (sim, first, second):
        assert each.result == [1, 2, 3]
        replays(each)


@workflow(name="rewind.identity")
async def identity() -> list[Any]:
    seen: list[Any] = []
    for _ in range(3):
        info = durable.info()
        seen.append([info.workflow_id, str(info.run_id), str(durable.uuid4())])
        await step(len(seen))
    return seen


def test_copied_turns_keep_their_identity_and_new_ones_have_their_own() -> None:
    """Random numbers too: two runs must not choose the same new id for two things."""
    sim = Simulation(identity).run()
    fork = rewound(sim, 4, workflow_id="copy").run()
    replays(fork)
    before, after = sim.result, fork.result
    assert after[:2] == before[:2]
    assert after[2][:2] == ["copy", str(NEXT)]
    assert after[2][2] != before[2][2]


# -- what is pending ---------------------------------------------------------------------------------------------------


@workflow(name="rewind.both")
async def both() -> list[Any]:
    seen: list[Any] = [
        *await asyncio.gather(step(1), shaky(2), durable.sleep(60), return_exceptions=True)
    ]
    if isinstance(seen[1], Exception):
        raise seen[1]
    return seen


def _both() -> Simulation:
    sim = Simulation(both)
    sim.turn()
    sim.turn(sim.failed("rewind.shaky-1", ValueError("no")))
    sim.turn(sim.completed("rewind.step-1", 1))
    sim.fire()
    assert sim.outcome == e.WORKFLOW_FAILED
    return sim


def test_retry_begins_before_the_outcome_that_made_it_fail_and_keeps_what_succeeded() -> None:
    sim = _both()
    point = rewind.before_the_end(sim.history)
    assert point == 4
    plan = rewind.plan(sim.history, point, str(RUN_ID), "wf", keep_successes=True)
    assert [sim.history[seq - 1].body["name"] for seq in plan.activities] == ["rewind.shaky"]
    assert [sim.history[seq - 1].type for seq in plan.redeliver] == [e.ACTIVITY_COMPLETED]
    assert plan.timers == [4]
    again = rewound(sim, point, keep_successes=True)
    again.turn(again.completed("rewind.shaky-1", 2))
    again.fire()
    assert again.result == [1, 2, None]
    replays(again)


def test_a_plain_reset_runs_again_what_completed_after_the_point() -> None:
    plan = rewind.plan(_both().history, 4, str(RUN_ID), "wf")
    assert (plan.activities, plan.redeliver, plan.discarded) == ([2, 3], [], {"rewind.step": 1})


@workflow(name="rewind.stopping")
async def stopping() -> str:
    first = step.options(cancellation="wait")(1)
    await hint.receive()
    first.cancel()
    await hint.receive()
    return "end"


def test_what_was_told_to_stop_is_not_started_again() -> None:
    sim = Simulation(stopping)
    sim.turn()
    sim.turn(sim.signalled(hint, "stop"))
    plan = rewind.plan(sim.history, len(sim.history), str(RUN_ID), "wf")
    assert (plan.activities, plan.stopping) == ([], [2])


@workflow(name="rewind.told")
async def told() -> list[str]:
    return [await hint.receive(), await hint.receive()]


def test_a_cancelled_run_is_retried_from_before_the_request() -> None:
    sim = Simulation(told)
    sim.turn(sim.signalled(hint, "one"))
    sim.turn(sim.cancelling("by mistake"))
    assert sim.outcome == e.WORKFLOW_CANCELLED
    point = rewind.before_the_end(sim.history)
    assert point == 2
    again = rewound(sim, point)
    again.turn(again.signalled(hint, "two"))
    assert again.result == ["one", "two"]
    replays(again)


# -- points by name -----------------------------------------------------------------------------------------------------


@workflow(name="rewind.caught")
async def caught() -> int:
    try:
        await shaky(1)
    except ActivityError:
        await step(7)
    raise RuntimeError("a bug")


def test_points_by_name() -> None:
    sim = Simulation(caught).run()
    assert rewind.before_first_failure(sim.history) == 2
    assert rewind.before_activity(sim.history, "rewind.step") == 3
    assert rewind.before_activity(sim.history, "nobody") is None
    assert rewind.before_first_failure(Simulation(three).run().history) is None


def test_a_failure_of_the_code_itself_loses_only_the_end() -> None:
    """The bug came long after the activity that failed and was caught: nothing that was done is done again."""
    sim = Simulation(caught).run()
    point = rewind.before_the_end(sim.history)
    assert point is not None
    assert point == sim.history[-1].seq - 1
    plan = rewind.plan(sim.history, point, str(RUN_ID), "wf")
    assert ([sim.history[s - 1].type for s in plan.redeliver], plan.activities, plan.discarded) == (
        [e.ACTIVITY_COMPLETED], [], {},
    )  # fmt: skip


@pytest.mark.parametrize("last", [e.WORKFLOW_TERMINATED, e.WORKFLOW_TIMED_OUT, e.WORKFLOW_RESET])
def test_a_history_that_was_ended_by_force_replays(last: str) -> None:
    sim = Simulation(three)
    sim.turn()
    event = Event(3, 2, last, sim.now_us, {"reason": "enough"})
    execution = sim.fresh()
    execution.replay([*sim.history, event])
    assert execution.closed
    assert execution.last_seq == 3


def test_only_a_bad_end_can_be_retried() -> None:
    sim = Simulation(three)
    sim.turn()
    for last in (e.WORKFLOW_TERMINATED, e.WORKFLOW_TIMED_OUT):
        ended = Event(3, 2, last, sim.now_us, {})
        assert rewind.before_the_end([*sim.history, ended]) == 2
    assert rewind.before_the_end(sim.history) is None
    assert rewind.before_the_end(Simulation(three).run().history) is None


# -- any workflow, any point ---------------------------------------------------------------------------------------------

leaf = st.tuples(
    st.just("activity"), st.integers(0, 9), st.sampled_from(["try", "wait", "abandon"])
)
programs = st.recursive(
    leaf,
    lambda inner: st.one_of(
        st.tuples(
            st.sampled_from(["sequence", "gather", "race", "group"]),
            st.lists(inner, min_size=1, max_size=4),
        ),
        st.tuples(st.just("timeout"), st.sampled_from([1, 3]), inner),
    ),
    max_leaves=8,
)


@workflow(name="rewind.random")
async def random_program(program: Any) -> Any:
    return repr(await interpret(program))


def to_the_end(sim: Simulation) -> Simulation:
    """A world that always answers the same: the oldest activity first, odd ones fail; then timers."""
    for _ in range(200):
        if sim.decision.closed:
            return sim
        waiting = [it for it in sim.activities if '"n":' in (it.payload or "")]
        if waiting:
            oldest = waiting[0]
            n = int((oldest.payload or "").partition('"n":')[2].strip(" }"))
            sim.turn(sim.failed(oldest, ValueError("odd")) if n % 2 else sim.completed(oldest, n))
        else:
            sim.fire()
    raise AssertionError("it does not end")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(program=programs)
def test_reset_to_any_event_ends_like_a_fresh_run(program: Any) -> None:
    """When the world answers the same, the result is the same, whatever the point; and every history made replays."""
    fresh = Simulation(random_program, program)
    fresh.turn()
    to_the_end(fresh)
    for point in range(1, fresh.history[-1].seq):
        again = rewound(fresh, point)
        to_the_end(again)
        assert (again.outcome, again.history[-1].payload) == (
            fresh.outcome,
            fresh.history[-1].payload,
        )
        replays(again)
        again.execution.evict()
