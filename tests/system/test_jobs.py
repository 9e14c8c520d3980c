"""Standalone jobs from end to end: what an activity may answer, what is kept of each attempt, cancel, retry, takeover (C5, S127, S133-S147)."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

import psycopg
import pytest

from durable.client_sync import Client
from durable.descriptions import JobDescription
from durable.errors import ActivityError, WorkflowFailed
from durable.job_errors import JobCancelled, JobNotFound, JobRefused
from durable.jobs_sync import JobHandle
from tests.system import flows, job_flows
from tests.system.conftest import Working
from tests.system.gates import gate
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]
FLOWS = ("tests.system.flows", "tests.system.job_flows")
LONG_LEASE = {"lease_s": 1e7}  # the clock is moved by hours, which must not look like a dead worker


def advance(sql: Sql, by: timedelta) -> None:
    sql.execute("select durable.advance_clock(%s)", (by,))


def standing(job: JobHandle[Any], *states: str) -> JobDescription | None:
    found = job.describe()
    return found if found.state in states else None


def passes(job: JobHandle[Any], sql: Sql) -> bool:
    """Let an hour pass, and look whether the job has ended."""
    advance(sql, timedelta(hours=1))
    return job.describe().state in ("completed", "discarded", "cancelled")


# -- what an activity may answer --------------------------------------------------------------------------------------


def test_a_snoozed_attempt_does_not_count_and_is_no_error(
    working: Working, client: Client, sql: Sql
) -> None:
    """Three naps, then a failure and a success within the two attempts that the policy allows."""
    with working(*FLOWS, **LONG_LEASE):
        job = client.enqueue(job_flows.naps, 3)
        eventually(partial(standing, job, "scheduled"))
        eventually(partial(passes, job, sql))
        assert job.result() == "woke up at attempt 2"
    found = job.describe()
    assert (found.state, found.attempt, found.snoozes) == ("completed", 2, 3)
    assert [(it.attempt, str(it.error)) for it in job.attempts()] == [(4, "not at once")]
    seen = sql.execute("select attempt, info from system.executions order by id").fetchall()
    assert [attempt for attempt, _ in seen] == [1, 1, 1, 1, 2]
    assert {info["max_attempts"] for _, info in seen} == {2}


def test_a_snooze_is_waited_for_in_a_workflow(working: Working, client: Client, sql: Sql) -> None:
    with working(*FLOWS, **LONG_LEASE):
        handle = client.start(job_flows.takes_naps, 2, id="n")

        def ended() -> bool:
            advance(sql, timedelta(hours=1))
            return handle.describe().status != "running"

        eventually(ended)
        assert handle.result() == "woke up at attempt 2"
    types = [event.type for event in handle.history()]
    assert types == [
        "WorkflowStarted",
        "ActivityScheduled",
        "ActivityCompleted",
        "WorkflowCompleted",
    ]


@pytest.mark.parametrize("raised", [True, False])
def test_cancel_ends_a_job_without_another_attempt(
    working: Working, client: Client, raised: bool
) -> None:
    with working(*FLOWS):
        job = client.enqueue(job_flows.changes_its_mind, raised)
        with pytest.raises(ActivityError) as ended:
            job.result(timeout=30)
    assert ended.value.retry_state == "cancelled"
    assert isinstance(ended.value.cause, JobCancelled)
    assert str(ended.value.cause) == "no longer wanted"
    assert (job.describe().state, job.describe().attempt) == ("cancelled", 1)


def test_cancel_of_an_activity_is_an_error_that_the_workflow_can_catch(
    working: Working, client: Client
) -> None:
    with working(*FLOWS):
        handle = client.start(job_flows.learns_of_a_change_of_mind, id="c")
        assert handle.result(timeout=30) == ["cancelled", "JobCancelled", "no longer wanted"]
    assert handle.history()[2].type == "ActivityFailed"


def test_retry_waits_as_it_says_counts_and_keeps_its_reason(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(*FLOWS, **LONG_LEASE):
        said = client.enqueue(job_flows.wants_more, 7200.0)
        unsaid = client.enqueue(job_flows.wants_more, None)
        for job, wait_s in ((said, 7200.0), (unsaid, 3600.0)):
            eventually(partial(standing, job, "retryable"))
            assert job.attempts()[0].delay_s == wait_s
        eventually(partial(passes, said, sql))
        eventually(partial(passes, unsaid, sql))
        with pytest.raises(ActivityError) as ended:
            said.result()
    assert (ended.value.retry_state, ended.value.attempt) == ("max_attempts", 2)
    assert "out of paper" in str(ended.value.cause)
    assert said.describe().state == "discarded"


def test_retry_in_a_workflow_ends_as_its_error(working: Working, client: Client, sql: Sql) -> None:
    with working(*FLOWS, **LONG_LEASE):
        handle = client.start(job_flows.asks_for_more, id="r")
        eventually(lambda: handle.pending() and handle.pending()[0].state == "retryable")
        advance(sql, timedelta(hours=3))
        with pytest.raises(WorkflowFailed) as failed:
            handle.result(timeout=30)
    assert isinstance(failed.value.cause, ActivityError)
    assert failed.value.cause.retry_state == "max_attempts"


# -- what is kept -----------------------------------------------------------------------------------------------------


def test_each_failed_attempt_is_kept_with_worker_time_and_traceback(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(*FLOWS, **LONG_LEASE) as background:
        job = client.enqueue(job_flows.naps, 0)
        eventually(partial(passes, job, sql))
        bad = client.enqueue(flows.refuses, "no")
        eventually(partial(standing, bad, "discarded"))
        worker_id = background.worker.worker_id
    (first,) = job.attempts()
    assert (first.attempt, first.worker, str(first.error)) == (1, worker_id, "not at once")
    assert first.traceback is not None
    assert "job_flows.py" in first.traceback
    assert job.describe().created_at <= first.at
    (only,) = bad.attempts()
    assert (only.worker, only.delay_s) == (worker_id, None)
    assert "flows.py" in str(only.traceback)


# -- commands ---------------------------------------------------------------------------------------------------------


def test_a_waiting_job_is_cancelled_at_once(client: Client, sql: Sql) -> None:
    job = client.enqueue(job_flows.naps, 0)
    assert job.cancel("not today").status == "cancelled"
    assert job.cancel("again").status == "ended"
    with pytest.raises(ActivityError) as ended:
        job.result()
    assert (ended.value.retry_state, str(ended.value.cause)) == ("cancelled", "not today")
    commands = sql.execute("select action, accepted from durable.operator_commands order by at")
    assert commands.fetchall() == [("cancel_job", True), ("cancel_job", False)]


def test_an_executing_job_is_told_to_stop(working: Working, client: Client, sql: Sql) -> None:
    with working(*FLOWS):
        job = client.enqueue(job_flows.stays, 3600.0)
        eventually(lambda: sql.execute("select 1 from system.executions").fetchone())
        assert job.cancel("enough").status == "requested"
        assert job.cancel().status in ("already_requested", "ended")
        with pytest.raises(ActivityError) as ended:
            job.result(timeout=30)
    assert ended.value.retry_state == "cancelled"
    assert str(ended.value.cause) == "enough"


def test_a_job_that_completes_first_stays_completed(
    working: Working, system_url: str, client: Client
) -> None:
    with working(*FLOWS), gate(system_url, 1) as held:
        job = client.enqueue(job_flows.stands_at, 1)
        held.wait_for(1)
        assert job.cancel().status == "requested"
        held.open()
        assert job.result(timeout=30) == 1


def test_an_ended_job_can_be_retried_by_hand(working: Working, client: Client, sql: Sql) -> None:
    job = client.enqueue(job_flows.naps, 0)
    job.cancel()
    job.retry()
    with working(*FLOWS, **LONG_LEASE):
        eventually(partial(standing, job, "retryable"))
        job.retry()  # without waiting for its hour
        assert job.result(timeout=30) == "woke up at attempt 2"
        job.retry()
        eventually(lambda: job.describe().attempt == 3)
        assert job.result(timeout=30) == "woke up at attempt 3"


def test_an_executing_job_is_neither_retried_nor_deleted(
    working: Working, system_url: str, client: Client
) -> None:
    with working(*FLOWS), gate(system_url, 1) as held:
        job = client.enqueue(job_flows.stands_at, 1)
        held.wait_for(1)
        for command in (job.retry, job.delete):
            with pytest.raises(JobRefused, match="executing"):
                command()
        held.open()
        job.result(timeout=30)
        job.delete()
    with pytest.raises(JobNotFound):
        job.describe()


# -- liveness ---------------------------------------------------------------------------------------------------------


def test_a_dead_workers_job_comes_back_and_its_late_answer_is_refused(
    working: Working, system_url: str, client: Client, sql: Sql
) -> None:
    """D18: by the lease, not by age; the answer of the zombie changes nothing and is kept as evidence."""
    with working(*FLOWS, name="zombie", lease_s=60.0), gate(system_url, 1) as held:
        job = client.enqueue(job_flows.stands_at, 1)
        held.wait_for(1)
        sql.execute(
            "update durable.workers set lease_until = durable.now() - interval '1 s' where name = 'zombie'"
        )
        with working(*FLOWS, name="heir"):
            held.wait_for(2)
            held.open()
            assert job.result(timeout=30) == 2
    (lost,) = job.attempts()
    assert "died" in str(lost.error)
    assert job.describe().attempt == 2


def test_a_live_long_job_is_never_taken_away(
    working: Working, system_url: str, client: Client, sql: Sql
) -> None:
    """A day by the clock, and everybody's housekeeping: whoever lives keeps its job."""
    with working(*FLOWS, name="holder"), working(*FLOWS, name="other"), gate(system_url, 1) as held:
        job = client.enqueue(job_flows.stands_at, 1)
        held.wait_for(1)
        for _ in range(24):
            advance(sql, timedelta(hours=1))
        beats = "select min(beat_at) > durable.now() - interval '10 s' from durable.workers"
        eventually(lambda: sql.execute(beats).fetchone() == (True,))
        held.open()
        assert job.result(timeout=30) == 1
    assert job.attempts() == []
