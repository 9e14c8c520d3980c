"""Local activities in a worker: commits, retries, slots, cancels, and what a killed worker leaves."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from durable.client_sync import Client
from durable.errors import InvalidOption, WorkflowCancelled
from durable_worker import Worker
from tests.system import local_flows
from tests.system.conftest import Working
from tests.system.gates import gate
from tests.system.invariants import assert_sound
from tests.system.processes import Fleet
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]
FLOWS = ("tests.system.flows", "tests.system.local_flows")


def types(client: Client, workflow_id: str) -> list[str]:
    return [event.type for event in client.handle(workflow_id).history()]


def executions(sql: Sql) -> list[tuple[str, int]]:
    return sql.execute("select key, attempt from system.executions order by id").fetchall()


def test_a_sequence_costs_at_most_one_commit_each(
    working: Working, client: Client, sql: Sql
) -> None:
    """No job row, one event each, ten commits for ten activities and the end of the run."""
    with working(*FLOWS) as background:
        handle = client.start(local_flows.quick_local_steps, 10, id="ten")
        assert handle.result(timeout=30) == 10
        assert background.worker.committer.commits <= 10
    assert types(client, "ten") == [
        "WorkflowStarted", "FirstTurnTaken", *10 * ["LocalActivityCompleted"], "WorkflowCompleted",
    ]  # fmt: skip
    assert_sound(sql)


def test_many_that_end_at_once_share_commits(working: Working, client: Client, sql: Sql) -> None:
    with working(*FLOWS) as background:
        assert client.start(local_flows.many_locals, 200).result(timeout=30) == sum(range(1, 201))
        assert background.worker.committer.commits <= 20
    assert_sound(sql)


def test_local_and_queued_activities_mix(working: Working, client: Client, sql: Sql) -> None:
    with working(*FLOWS):
        assert client.start(local_flows.mixed_steps, 5).result(timeout=30) == 5
        assert client.start(local_flows.local_steps, 3).result(timeout=30) == ["0", "1", "2"]
    assert executions(sql) == [("0", 1), ("1", 1), ("2", 1)]
    assert_sound(sql)


def test_it_runs_where_workflows_run_and_no_activities(working: Working, client: Client) -> None:
    with working(*FLOWS, run_activities=False):
        assert client.start(local_flows.local_steps, 1).result(timeout=30) == ["0"]


def test_activity_info_works_and_heartbeats_are_harmless(working: Working, client: Client) -> None:
    with working(*FLOWS):
        handle = client.start(local_flows.tells_locally, id="t", actor="ada")
        told = handle.result(timeout=30)
    assert told == {
        "workflow_id": "t",
        "activity_id": "tells-1",
        "key": f"{handle.run_id}/local/tells-1",
        "attempt": 1,
        "actor": "ada",
    }


def test_short_back_off_is_waited_out_in_process(
    working: Working, client: Client, sql: Sql
) -> None:
    """C6: retries stay out of the history."""
    with working(*FLOWS):
        assert client.start(local_flows.retried_locally, False, id="r").result(timeout=30) == 3
    assert executions(sql) == [("try", 1), ("try", 2), ("try", 3)]
    assert "LocalActivityBackedOff" not in types(client, "r")


def test_long_back_off_becomes_a_durable_timer_and_survives_the_worker(
    working: Working, client: Client, sql: Sql
) -> None:
    """The attempts so far are in the event, so the next worker goes on counting."""
    handle = client.start(local_flows.retried_locally, True, id="r")
    for attempt in (1, 2):
        with working(*FLOWS, lease_s=1e7):
            eventually(lambda n=attempt: types(client, "r").count("LocalActivityBackedOff") == n)  # type: ignore[misc]
            assert [job.kind for job in handle.pending()] == ["timer"]
        sql.execute("select durable.advance_clock('1 hour')")
    with working(*FLOWS, lease_s=1e7):
        assert handle.result(timeout=30) == 3
    assert executions(sql) == [("try", 1), ("try", 2), ("try", 3)]
    backed_off = [e.body for e in handle.history() if e.type == "LocalActivityBackedOff"]
    assert [(it["attempt"], it["delay_us"]) for it in backed_off] == [
        (1, 3_600_000_000),
        (2, 3_600_000_000),
    ]
    assert_sound(sql)


@pytest.mark.parametrize(("key", "delay_s", "in_history"), [("a", 0.01, 0), ("b", 3600.0, 1)])
def test_snooze_retry_and_cancel_are_answers_here_too(
    key: str, delay_s: float, in_history: int, working: Working, client: Client, sql: Sql
) -> None:
    """A long snooze is a durable timer's; none counts as an attempt."""
    with working(*FLOWS, lease_s=1e7):
        handle = client.start(local_flows.decided_locally, key, delay_s, id=key)
        eventually(lambda: executions(sql))
        if in_history:
            eventually(lambda: [job.kind for job in handle.pending()] == ["timer"])
            sql.execute("select durable.advance_clock('1 hour')")
        said = handle.result(timeout=30)
    assert said == ["rested at attempt 1", 2, "cancelled", "no more"]
    assert executions(sql) == [(key, 1), (key, 1)]
    assert types(client, key).count("LocalActivityBackedOff") == in_history


def test_a_timeout_ends_it(working: Working, client: Client) -> None:
    with working(*FLOWS):
        result = client.start(local_flows.times_out_locally).result(timeout=30)
    assert result == "start_to_close 1"


@pytest.mark.parametrize("waits", [False, True])
def test_what_the_code_gives_up_is_told_to_stop(
    waits: bool, working: Working, client: Client, sql: Sql
) -> None:
    with working(*FLOWS):
        assert client.start(local_flows.hangs_locally, waits).result(timeout=30) == "gave up"
        eventually(lambda: ("hang was told to stop", 1) in executions(sql))
    assert_sound(sql)


def test_a_cancelled_run_stops_it(working: Working, client: Client, sql: Sql) -> None:
    """C9."""
    with working(*FLOWS):
        handle = client.start(local_flows.hangs_for_ever, id="h")
        eventually(lambda: executions(sql))
        handle.cancel("enough")
        with pytest.raises(WorkflowCancelled):
            handle.result(timeout=30)
        eventually(lambda: ("for ever was told to stop", 1) in executions(sql))
    assert_sound(sql)


def test_no_more_run_at_once_than_there_are_slots(
    working: Working, system_url: str, client: Client, sql: Sql
) -> None:
    """The loop goes on meanwhile: another run's steps are done."""
    with working(*FLOWS, local_slots=2) as background, gate(system_url, 1) as closed:
        handle = client.start(local_flows.held_locals, 5, 1)
        closed.wait_for(2)
        assert client.start(local_flows.local_steps, 0).result(timeout=30) == []
        assert len(background.worker.local_activities) == 2
        assert len(executions(sql)) == 2
        closed.open()
        assert handle.result(timeout=30) == ["0", "1", "2", "3", "4"]
    with pytest.raises(InvalidOption):
        Worker(system_url, modules=FLOWS, local_slots=0)


def test_what_takes_long_is_shown(
    working: Working, system_url: str, client: Client, sql: Sql
) -> None:
    """The first turn, which nothing else would write yet, is then written too; short ones are not worth a row's update."""
    with working(*FLOWS), gate(system_url, 1) as closed:
        handle = client.start(local_flows.held_locals, 1, 1, id="long")
        waits = eventually(lambda: handle.describe().waiting_on)
        assert [(it["kind"], it["id"]) for it in waits] == [("local activity", "held_up-1")]
        assert types(client, "long") == ["WorkflowStarted", "FirstTurnTaken"]
        closed.open()
        assert handle.result(timeout=30) == ["0"]
    assert_sound(sql)


def test_a_worker_that_stops_lets_it_end(
    working: Working, system_url: str, client: Client, sql: Sql
) -> None:
    """What runs ends within the grace and is recorded; the next one is somebody else's."""
    with gate(system_url, 1) as closed:
        with working(*FLOWS, shutdown_grace_s=30.0) as background:
            handle = client.start(local_flows.held_locals, 1, 1)
            closed.wait_for()
            background.loop.call_soon_threadsafe(background._enough.set)
            eventually(lambda: not background.worker.attempts.starting)
            closed.open()
        assert len(executions(sql)) == 1
    with working(*FLOWS):
        assert handle.result(timeout=30) == ["0"]
    assert len(executions(sql)) == 1


def test_a_worker_in_a_hurry_gives_the_run_back(
    working: Working, system_url: str, client: Client, sql: Sql
) -> None:
    with gate(system_url, 1) as closed:
        with working(*FLOWS, shutdown_grace_s=0.1):
            handle = client.start(local_flows.held_locals, 1, 1)
            closed.wait_for()
        with working(*FLOWS):
            closed.wait_for(2)
            closed.open()
            assert handle.result(timeout=30) == ["0"]
    assert_sound(sql)


@pytest.mark.parametrize(
    "point",
    [
        "local.before:1",
        "local.after:1",
        "commit.before:1",
        "commit.after:1",
        "local.before:2",
        "local.after:2",
        "commit.before:2",
        "commit.after:2",
        "commit.before:3",
        "commit.after:3",
    ],
)
def test_killed_anywhere_each_runs_at_least_once_and_is_recorded_once(
    point: str, fleet: Fleet, working: Working, system_url: str, client: Client, sql: Sql
) -> None:
    """C3, C5: another worker runs again what was not committed, and only that."""
    handle = client.start(local_flows.local_steps, 3, id="k")
    victim = fleet.hire(system_url, *FLOWS, lease_s=1.0, env={"DURABLE_CRASH_AT": point})
    eventually(victim.ended)
    recorded = types(client, "k").count("LocalActivityCompleted")
    ran = len(executions(sql))
    with working(*FLOWS):
        assert handle.result(timeout=30) == ["0", "1", "2"]
    assert types(client, "k").count("LocalActivityCompleted") == 3
    keys = [key for key, _ in executions(sql)]
    assert set(keys) == {"0", "1", "2"}
    assert len(keys) == ran + 3 - recorded
    assert_sound(sql)


def test_schedule_to_close_counts_all_attempts(working: Working, client: Client, sql: Sql) -> None:
    """The next attempt would come too late: the failure is final, and tells the cause."""
    with working(*FLOWS):
        result = client.start(local_flows.local_bounded).result(timeout=30)
    assert result == "schedule_to_close timeout 1"
    assert executions(sql) == [("bounded", 1)]


@pytest.mark.parametrize("event", [1, 2, 3, 4])
def test_a_run_can_be_reset_to_any_of_them(
    event: int, working: Working, client: Client, sql: Sql
) -> None:
    """What is kept is not run again; a first turn that is kept has its mark."""
    with working(*FLOWS):
        handle = client.start(local_flows.local_steps, 3, id="r")
        assert handle.result(timeout=30) == ["0", "1", "2"]
        handle.reset("again", to_event=event)
        assert client.handle("r").result(timeout=30) == ["0", "1", "2"]
    kept = max(0, event - 2)
    assert len(executions(sql)) in (
        6 - kept,
        7 - kept,
    )  # an outcome that is delivered again may come after the activity has begun again
    assert_sound(sql)
