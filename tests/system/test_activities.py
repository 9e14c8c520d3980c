"""Activities as jobs: retries, the four timeouts, heartbeats, cancels, priorities, slots, workers without the function (C5, C6, C9)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import psycopg
import pytest

from durable.client_sync import Client
from durable.errors import ActivityError, ActivityTimeout, WorkflowCancelled, WorkflowFailed
from tests.system import activity_flows, flows
from tests.system.conftest import Working
from tests.system.gates import gate
from tests.system.invariants import assert_sound
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]
FLOWS = ("tests.system.flows", "tests.system.activity_flows")
LONG_LEASE = {
    "lease_s": 1e7
}  # these tests move the clock by hours, which must not look like a dead worker


def advance(sql: Sql, by: timedelta) -> None:
    sql.execute("select durable.advance_clock(%s)", (by,))


def completed_in_time(client: Client, workflow_id: str, sql: Sql) -> bool:
    """Let some time pass, and look."""
    advance(sql, timedelta(seconds=5))
    return client.handle(workflow_id).describe().status == "completed"


def executions(sql: Sql, key: str) -> list[tuple[int, str]]:
    return sql.execute(
        "select attempt, idempotency_key from system.executions where key = %s order by id", (key,)
    ).fetchall()


def failure_of(client: Client, workflow_id: str) -> BaseException:
    with pytest.raises(WorkflowFailed) as failed:
        client.handle(workflow_id).result(timeout=30)
    assert failed.value.cause is not None
    return failed.value.cause


def pending(client: Client, workflow_id: str, attempt: int | None = None) -> Any:
    """The one job of the run that has not ended, if its attempt (of that number) is not executing."""
    (job,) = client.handle(workflow_id).pending() or (None,)
    if job is None or job.state not in ("retryable", "scheduled", "available"):
        return None
    return job if attempt in (None, job.attempt) else None


def test_retries_come_after_the_policys_waits_and_stay_out_of_the_history(
    working: Working, client: Client, sql: Sql
) -> None:
    """C6: 1 h, 2 h, then the cap of 3 h; the row carries every error; the fourth failure is final."""
    with working(**LONG_LEASE):
        handle = client.start(flows.calls_failing, "fails", id="f")
        for attempt, wait_s in ((1, 3600.0), (2, 7200.0), (3, 10800.0)):
            job = eventually(partial(pending, client, "f", attempt))
            assert [(e["attempt"], e["delay_s"]) for e in job.errors][-1] == (attempt, wait_s)
            assert "ValueError" in job.errors[-1]["failure"]["type"]
            waits = sql.execute("select scheduled_at - durable.now() from durable.jobs").fetchall()
            left = waits[0][0]
            assert timedelta(0) < left <= timedelta(seconds=wait_s)
            advance(sql, left - timedelta(seconds=30))
            advance(sql, timedelta(seconds=31))
        cause = failure_of(client, "f")
    assert isinstance(cause, ActivityError)
    assert (cause.attempt, cause.retry_state) == (4, "max_attempts")
    assert str(cause.__cause__) == "fails: attempt 4"
    assert [e.type for e in handle.history()] == [
        "WorkflowStarted",
        "ActivityScheduled",
        "ActivityFailed",
        "WorkflowFailed",
    ]
    attempts = executions(sql, "fails")
    assert [number for number, _ in attempts] == [1, 2, 3, 4]
    assert len({key for _, key in attempts}) == 1  # C5: one idempotency key
    assert_sound(sql)


def test_a_retry_does_not_come_before_its_time(working: Working, client: Client, sql: Sql) -> None:
    """C6, C19: a minute before the hour nothing runs; the database's clock decides."""
    with working(**LONG_LEASE):
        client.start(flows.calls_failing, "fails", id="f")
        eventually(lambda: pending(client, "f"))
        advance(sql, timedelta(minutes=59))
        assert client.start(flows.steps, 3, id="meanwhile").result(timeout=30)
        assert [number for number, _ in executions(sql, "fails")] == [1]


@pytest.mark.parametrize("flow", ["non_retryable type", "call over activity"])
def test_what_must_not_be_tried_again_is_not(
    flow: str, working: Working, client: Client, sql: Sql
) -> None:
    """C6: `non_retryable` counts for subclasses; a call's own max_attempts wins over the activity's."""
    with working():
        if flow == "call over activity":
            client.start(flows.calls_failing_once, id="f")
        else:
            client.start(flows.calls_failing, "refuses", id="f")
        cause = failure_of(client, "f")
    assert isinstance(cause, ActivityError)
    assert cause.attempt == 1
    assert cause.retry_state == (
        "max_attempts" if flow == "call over activity" else "non_retryable"
    )
    assert sql.execute("select count(*) from system.executions").fetchone() == (1,)


def test_start_to_close_ends_an_async_attempt_at_its_limit(
    working: Working, client: Client
) -> None:
    """C6, C10: the worker enforces it on the spot."""
    with working():
        client.start(flows.calls, "slow", 0, id="slow")
        cause = failure_of(client, "slow")
    assert isinstance(cause, ActivityTimeout)
    assert isinstance(cause, TimeoutError)
    assert cause.kind == "start_to_close"


def test_start_to_close_ends_an_attempt_whose_worker_does_not(
    working: Working, system_url: str, client: Client, sql: Sql
) -> None:
    """C6: a thread cannot be stopped; the database ends the attempt, and the thread's answer is refused (C5)."""
    with working(**LONG_LEASE, deadline_grace_s=1.0), gate(system_url, 1) as held:
        client.start(flows.calls, "start_to_close", 1, id="c")
        held.wait_for(1)
        advance(sql, timedelta(minutes=59))
        assert client.handle("c").describe().status == "running"
        advance(sql, timedelta(minutes=2))
        cause = failure_of(client, "c")
        assert isinstance(cause, ActivityTimeout)
        assert cause.kind == "start_to_close"
        held.open()
    assert_sound(sql)


def test_schedule_to_close_covers_all_attempts_and_the_waits_between_them(
    working: Working, client: Client, sql: Sql
) -> None:
    """C6: two hours in all; the second retry would come after them, so the database ends it while it waits."""
    with working(**LONG_LEASE):
        client.start(flows.calls, "schedule_to_close", 0, id="c")
        eventually(lambda: (j := pending(client, "c")) and j.attempt == 1)
        advance(sql, timedelta(minutes=61))
        eventually(lambda: (j := pending(client, "c")) and j.attempt == 2)
        advance(sql, timedelta(minutes=60))
        cause = failure_of(client, "c")
    assert isinstance(cause, ActivityTimeout)
    assert cause.kind == "schedule_to_close"
    assert [number for number, _ in executions(sql, "s2c")] == [1, 2]
    assert_sound(sql)


def test_schedule_to_start_ends_the_wait_for_a_worker(
    working: Working, client: Client, sql: Sql
) -> None:
    """C6: nobody serves the queue."""
    with working(**LONG_LEASE):
        client.start(flows.calls, "schedule_to_start", 0, id="c")
        eventually(lambda: pending(client, "c"))
        advance(sql, timedelta(minutes=61))
        cause = failure_of(client, "c")
    assert isinstance(cause, ActivityTimeout)
    assert (cause.kind, cause.attempt or 0) == ("schedule_to_start", 0)
    assert_sound(sql)


def test_heartbeat_timeout_starts_the_next_attempt_with_the_last_details(
    working: Working, client: Client, sql: Sql
) -> None:
    """C6: silence is noticed by the worker; what the attempt had reported goes to the next one."""
    with working():
        assert (
            client.start(flows.calls, "silent", 0, id="c").result(timeout=30) == "('last words',)"
        )
    assert [number for number, _ in executions(sql, "silent")] == [1, 2]
    assert_sound(sql)


def test_heartbeat_details_survive_the_worker(
    working: Working, system_url: str, client: Client, sql: Sql
) -> None:
    """C6: the worker dies after the beat was stored; the attempt after it begins with the details."""
    with gate(system_url, 1) as held, working(name="first", lease_s=30.0):
        handle = client.start(flows.calls, "heartbeat", 1, id="c")
        held.wait_for(1)
        eventually(
            lambda: sql.execute("select heartbeat from durable.jobs").fetchone() == (["row", 7],)
        )
        with working(name="second"):
            sql.execute(
                "update durable.workers set lease_until = durable.now() - interval '1 s' where name = 'first'"
            )
            assert handle.result(timeout=30) == ["row", 7]
            held.open()
    assert_sound(sql)


def test_the_database_ends_an_attempt_that_owes_a_heartbeat(
    working: Working, system_url: str, client: Client, sql: Sql
) -> None:
    """C6, C19: an hour without a beat, by the database's clock."""
    with gate(system_url, 1) as held, working(**LONG_LEASE, deadline_grace_s=0.5):
        handle = client.start(flows.calls, "heartbeat", 1, id="c")
        held.wait_for(1)
        eventually(
            lambda: sql.execute("select heartbeat from durable.jobs").fetchone() == (["row", 7],)
        )
        advance(sql, timedelta(minutes=62))
        assert handle.result(timeout=30) == ["row", 7]
        held.open()
    assert_sound(sql)


def test_the_jitter_of_a_retry_is_recorded_and_is_the_wait(
    working: Working, client: Client, sql: Sql
) -> None:
    """C6: full jitter by default; the row tells which wait was drawn and from when."""
    with working(*FLOWS, **LONG_LEASE):
        client.start(activity_flows.waits_for_jitter, id="j")
        job = eventually(lambda: (j := pending(client, "j")) and j.errors and j)
    (error,) = job.errors
    assert 0.0 <= error["delay_s"] <= 3600.0
    scheduled_at = sql.execute("select scheduled_at from durable.jobs").fetchall()[0][0]
    drawn = (scheduled_at - datetime.fromisoformat(error["at"])).total_seconds()
    assert drawn == pytest.approx(error["delay_s"], abs=1e-4)


def test_a_thread_that_hangs_beyond_its_timeout_keeps_its_slot_and_the_next_attempt_runs_elsewhere(
    working: Working, system_url: str, client: Client, sql: Sql
) -> None:
    """C6: a thread cannot be stopped, so its slot is not free; any other worker may run what comes next."""
    one_slot = {"queues": {"default": 0, "narrow": 1}, "lease_s": 60.0}
    with working(*FLOWS, name="hung", **one_slot) as hung, gate(system_url, 1) as held:
        handle = client.start(activity_flows.outlives_a_hung_thread, 1, id="h")
        held.wait_for(1)
        eventually(
            lambda: (j := pending(client, "h")) and j.state == "available",
            what="the second attempt waits",
        )
        assert hung.call(hung.worker.attempts.wanted) == {}
        with working(*FLOWS, name="free", **one_slot):
            assert handle.result(timeout=10) == 2
        held.open()
        eventually(lambda: executions(sql, "the zombie went on"))
        eventually(lambda: hung.call(hung.worker.attempts.wanted) == {"narrow": 1})
    assert [number for number, _ in executions(sql, "hangs_at_first")] == [1, 2]
    assert_sound(sql)


@contextlib.contextmanager
def two_workers(working: Working, **settings: Any) -> Iterator[None]:
    """One that only runs workflows, one that only runs activities."""
    with working(run_activities=False, **settings), working(run_workflows=False, **settings):
        yield


CREWS: dict[str, Callable[[Working], contextlib.AbstractContextManager[Any]]] = {
    "one worker": lambda working: working(lease_s=60.0),
    "two workers": lambda working: two_workers(working, lease_s=60.0),
    "two workers without NOTIFY": lambda working: two_workers(working, lease_s=1.5, notify=False),
}


@pytest.mark.parametrize("crew", CREWS)
@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_cancel_is_pushed_to_the_running_activity(
    kind: str, crew: str, working: Working, client: Client, sql: Sql
) -> None:
    """C9: an async activity is cancelled where it waits, one in a thread at its next heartbeat; also where NOTIFY is off (C4)."""
    heard = {"async": "async was cancelled", "sync": "sync: ActivityCancelledError"}[kind]
    with CREWS[crew](working):
        handle = client.start(flows.stoppable, kind, id="c")
        eventually(lambda: executions(sql, kind))
        handle.cancel("enough")
        with pytest.raises(WorkflowCancelled, match="enough"):
            handle.result(timeout=10)
        eventually(lambda: executions(sql, heard), 10.0)
        assert_sound(sql)
    assert [number for number, _ in executions(sql, kind)] == [1]


def test_a_cancel_takes_a_waiting_job_out_of_its_queue(
    working: Working, client: Client, sql: Sql
) -> None:
    """C9: what has not begun does not begin."""
    with working(*FLOWS):
        handle = client.start(activity_flows.waits_in_a_queue, id="c")
        eventually(lambda: pending(client, "c"))
        handle.cancel("enough")
        with pytest.raises(WorkflowCancelled):
            handle.result(timeout=10)
    assert sql.execute("select count(*) from durable.jobs").fetchone() == (0,)
    assert_sound(sql)


def test_priority_0_runs_before_9(working: Working, client: Client, sql: Sql) -> None:
    """One slot; all five wait before anybody serves the queue."""
    handle = client.start(flows.ranks, id="r")
    with working():
        eventually(lambda: len(handle.pending()) == 5)
    with working(queues={"default": 5, "ranked": 1}):
        handle.result(timeout=30)
    order = sql.execute(
        "select key from system.executions where name = 'ranked' order by id"
    ).fetchall()
    assert [key for (key,) in order] == ["0", "3", "5", "7", "9"]


def test_a_queue_never_has_more_attempts_at_once_than_slots(
    working: Working, client: Client, sql: Sql
) -> None:
    """Eager attempts and claimed ones compete for two slots."""
    flows.most_narrow = 0
    with working(queues={"default": 50, "narrow": 2}):
        handles = [client.start(flows.one_after_the_other, 10, id=f"s-{n}") for n in range(6)]
        handles += [client.start(flows.fans_out, 20, id=f"w-{n}") for n in range(3)]
        for handle in handles:
            handle.result(timeout=60)
    assert flows.most_narrow == 2
    assert_sound(sql)


def test_a_worker_without_the_function_puts_the_job_back_and_another_runs_it(
    working: Working, client: Client, sql: Sql
) -> None:
    """Rolling deploy: visible on the row, no attempt is used up."""
    with working(activities=[], modules=None, workflows=[flows.steps], name="old", **LONG_LEASE):
        handle = client.start(flows.steps, 1, id="s")
        job = eventually(lambda: (j := pending(client, "s")) and j.note and j)
        assert job.note["kind"] == "unknown_activity"
        assert "'step'" in job.note["message"]
        with working(name="new", **LONG_LEASE):
            eventually(partial(completed_in_time, client, "s", sql))
        assert handle.result(timeout=30) == ["0"]
    assert [number for number, _ in executions(sql, "0")] == [1]
    assert_sound(sql)


def test_a_worker_without_the_workflow_puts_the_run_back_and_another_runs_it(
    working: Working, client: Client, sql: Sql
) -> None:
    """C8: the run is `blocked` for the eyes of an operator, and nothing is lost."""
    with working(activities=[flows.step], modules=None, workflows=[], name="old", **LONG_LEASE):
        handle = client.start(flows.steps, 1, id="s")
        eventually(lambda: handle.describe().operator_status == "blocked")
        review = handle.describe().review
        assert review is not None
        assert review["kind"] == "unknown_workflow"
        with working(name="new", **LONG_LEASE):
            eventually(partial(completed_in_time, client, "s", sql))
    assert handle.describe().review is None
    assert_sound(sql)


def test_a_standalone_job_retries_fails_and_keeps_its_errors(
    working: Working, client: Client, sql: Sql
) -> None:
    """A job of its own stays after its end."""
    with working(**LONG_LEASE):
        good = client.enqueue(flows.step, "mine")
        bad = client.enqueue(flows.refuses, "no")
        assert good.result(timeout=30) == "mine"
        with pytest.raises(ActivityError) as failed:
            bad.result(timeout=30)
    assert isinstance(failed.value.__cause__, flows.Ashamed)
    states = sql.execute("select name, state, owner from durable.jobs order by name").fetchall()
    assert states == [("refuses", "discarded", None), ("step", "completed", None)]


def test_retries_come_through_while_other_runs_never_pause(
    working: Working, client: Client, sql: Sql
) -> None:
    """The committer has a batch of turns ready at any time; what is no turn gets written all the same."""
    with working():
        busy = [client.start(flows.quick_steps, 1_000_000, id=f"busy-{n}") for n in range(30)]
        handle = client.start(flows.gets_up_again, 3, id="g")
        assert handle.result(timeout=20) == 4
        assert {it.describe().status for it in busy} == {"running"}
        for it in busy:
            it.terminate("enough")
    assert_sound(sql)
