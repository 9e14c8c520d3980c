"""Attempts have run out: the run waits, an operator mends the activity by hand, and the same run goes on."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from durable.client_sync import Client
from durable.descriptions import PendingJob
from durable.errors import OperationRefused, PayloadError, WorkflowClosed
from durable.handles_sync import Handle
from tests.system import mending_flows as flows
from tests.system.conftest import Working
from tests.system.gates import gate
from tests.system.invariants import assert_sound
from tests.system.processes import Fleet
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]
MODULE = flows.__name__


@pytest.fixture(autouse=True)
def unbroken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows, "broken", {"charge": True, "code": True})


def waits_for_a_hand(handle: Handle[Any]) -> PendingJob:
    """The activity whose attempts have run out."""

    def exhausted() -> PendingJob | None:
        found = [job for job in handle.pending() if (job.paused or {}).get("kind") == "exhausted"]
        return found[0] if found else None

    job = eventually(exhausted, what="an activity waits for an operator")
    assert job is not None
    return job


def executions(sql: Sql, name: str) -> list[tuple[int, str]]:
    return sql.execute(
        "select attempt, idempotency_key from system.executions where name = %s order by id",
        (name,),
    ).fetchall()


def test_a_run_whose_attempts_ran_out_needs_review_and_has_not_failed(
    working: Working, client: Client
) -> None:
    with working(MODULE):
        handle = client.start(flows.mended, -5, id="stuck")
        job = waits_for_a_hand(handle)
        run = handle.describe()
        assert (run.status, run.operator_status) == ("running", "needs_review")
        assert (job.state, job.attempt, len(job.errors)) == ("paused", 2, 2)
        assert [it.workflow_id for it in client.list(operator_status="needs_review")] == ["stuck"]
        assert [event.type for event in handle.history()] == [
            "WorkflowStarted", "ActivityScheduled",
        ]  # fmt: skip
        handle.cancel("enough")
        assert handle.outcome(timeout=20).status == "cancelled"


def test_another_input_and_a_retry_let_the_same_run_go_on(
    working: Working, client: Client, sql: Sql
) -> None:
    """Both are in its history with who, why and what was before; the arguments that the code gave stay as they were, so it replays."""
    with working(MODULE):
        handle = client.start(flows.mended, -5, id="edited")
        job = waits_for_a_hand(handle)
        activity = handle.activity(job.seq)
        activity.edit_input({"amount": 7}, "a typing error", actor="ann")
        activity.retry("with the right amount", actor="ann")
        assert handle.result(timeout=20) == 7
    edited = next(event for event in handle.history() if event.type == "ActivityEdited")
    assert edited.body["operator"] == {"actor": "ann", "reason": "a typing error"}
    assert edited.body["before"]["input"] == {"amount": -5}
    assert edited.payload == {"amount": 7}
    retried = next(event for event in handle.history() if event.type == "ActivityRetried")
    assert retried.body["before"] == {
        "state": "paused", "attempt": 2, "paused": retried.body["before"]["paused"],
        "failure": "a negative amount",
    }  # fmt: skip
    assert handle.run_id == handle.describe().run_id
    attempts = executions(sql, "needs_a_hand")
    assert [attempt for attempt, _ in attempts] == [1, 2, 3]
    assert len({key for _, key in attempts}) == 1
    assert_sound(sql)


def test_a_result_by_hand(working: Working, client: Client, sql: Sql) -> None:
    with working(MODULE):
        handle = client.start(flows.mended, -5, id="by-hand")
        activity = handle.activity(waits_for_a_hand(handle).seq)
        activity.set_result(42, "looked it up", actor={"name": "ann"})
        assert handle.result(timeout=20) == 42
    completed = next(event for event in handle.history() if event.type == "ActivityCompleted")
    assert completed.body["operator"] == {"actor": {"name": "ann"}, "reason": "looked it up"}
    assert (completed.body["before"]["state"], completed.payload) == ("paused", 42)
    assert_sound(sql)


def test_a_failure_by_hand_is_what_the_workflow_catches(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(MODULE):
        one = client.start(flows.catches, -5, id="failed-1")
        one.activity(waits_for_a_hand(one).seq).set_failure("we never charge this", "policy")
        two = client.start(flows.catches, -5, id="failed-2")
        two.activity(waits_for_a_hand(two).seq).set_failure(
            "no money", "policy", type="builtins:PermissionError"
        )
        assert one.result(timeout=20) == "NonRetryable: we never charge this"
        assert two.result(timeout=20) == "PermissionError: no money"
    assert_sound(sql)


def test_retries_are_as_many_again_and_then_it_waits_again(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(MODULE):
        handle = client.start(flows.mended, -5, id="again")
        for round_ in (1, 2, 3):
            job = waits_for_a_hand(handle)
            assert job.attempt == 2 * round_
            handle.activity(job.seq).retry("once more")
            eventually(lambda before=round_: len(executions(sql, "needs_a_hand")) > 2 * before)  # type: ignore[misc]
        waits_for_a_hand(handle)
        handle.terminate("enough")
    assert_sound(sql)


def test_the_workflow_can_say_so_for_all_its_activities(working: Working, client: Client) -> None:
    with working(MODULE):
        handle = client.start(flows.mended_by_the_workflow, 3, id="by-default")
        job = waits_for_a_hand(handle)
        flows.broken["charge"] = False
        handle.activity(job.seq).retry("the bank is open")
        assert handle.result(timeout=20) == 3
        named = client.start("mended_by_the_workflow", {"amount": 3}, id="by-name")
        assert named.result(timeout=20) == 3
        assert named.history()[0].body["on_exhausted"] == "pause"


def test_the_other_branches_of_the_run_go_on_meanwhile(working: Working, client: Client) -> None:
    with working(MODULE):
        handle = client.start(flows.mended_while_busy, -5, id="busy")
        job = waits_for_a_hand(handle)
        handle.signal(flows.word, "hello")
        eventually(lambda: "SignalReceived" in [it.type for it in handle.history()])
        assert handle.describe().operator_status == "needs_review"
        handle.activity(job.seq).set_result(1, "by hand")
        assert handle.result(timeout=20) == [1, "hello"]


def test_what_does_not_fit_is_refused_before_anything_is_written(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(MODULE):
        handle = client.start(flows.mended, -5, id="picky")
        activity = handle.activity(waits_for_a_hand(handle).seq)
        with pytest.raises(PayloadError, match="amount"):
            activity.edit_input({"amount": "many"}, "no")
        with pytest.raises(PayloadError):
            activity.set_result("many", "no")
        assert handle.commands() == []
        handle.terminate("enough")


def test_an_activity_that_is_still_retrying_can_be_mended_too(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(MODULE):
        edited = client.start(flows.waits_long, -1, id="retrying-1")
        given = client.start(flows.waits_long, -1, id="retrying-2")
        hurried = client.start(flows.waits_long, -1, id="retrying-3")
        for handle in (edited, given, hurried):
            eventually(lambda it=handle: [job.state for job in it.pending()] == ["retryable"])  # type: ignore[misc]
        edited.activity(2).edit_input({"amount": 5}, "wrong sign")
        edited.activity(2).retry("now, not in an hour")
        given.activity(2).set_result(9, "by hand")
        hurried.activity(2).retry("now")
        assert edited.result(timeout=20) == 5
        assert given.result(timeout=20) == 9
        eventually(lambda: [job.attempt for job in hurried.pending()] == [2])
        hurried.terminate("enough")
    assert_sound(sql)


def test_a_result_by_hand_beats_an_attempt_that_hangs(
    working: Working, system_url: str, client: Client, sql: Sql
) -> None:
    """The attempt runs in the very process that has the run: its late answer is refused and kept, and nothing of the owner is hurt (C2, C5)."""
    with working(MODULE), gate(system_url, 1) as held:
        handle = client.start(flows.waits_at_a_gate, 1, id="hangs")
        held.wait_for(1)
        with pytest.raises(OperationRefused) as refused:
            handle.activity(2).retry("hurry")
        assert refused.value.code == "activity_running"
        assert "durable activity set-result hangs 2 JSON" in refused.value.next_steps
        handle.activity(2).set_result("by hand", "it hangs")
        assert handle.result(timeout=20) == "by hand"
        held.open()
        others = [client.start(flows.ticks, 5, id=f"tick-{n}") for n in range(5)]
        assert [other.result(timeout=20) for other in others] == [5] * 5
    assert_sound(sql)


def test_commands_to_what_is_not_there_are_refused_and_recorded(
    working: Working, client: Client
) -> None:
    with working(MODULE):
        handle = client.start(flows.mended, 5, id="fine")
        assert handle.result(timeout=20) == 5
        with pytest.raises(WorkflowClosed, match="durable reset fine --to-event N"):
            handle.activity(2).set_result(1, "too late")
        stuck = client.start(flows.mended, -5, id="stuck")
        waits_for_a_hand(stuck)
        with pytest.raises(OperationRefused, match="durable history stuck"):
            stuck.activity(77).set_result(1, "a wrong number")
        with pytest.raises(OperationRefused, match="durable activity retry stuck 2"):
            stuck.activity(2).resume("it is not paused by hand")
        stuck.terminate("enough")
    assert [(it.action, it.code, it.accepted) for it in stuck.commands()] == [
        ("terminate", "accepted", True),
        ("activity_resume", "activity_exhausted", False),
        ("activity_retry", "no_such_activity", False),
    ]
    assert [it.code for it in handle.commands()] == ["workflow_closed"]


def test_it_waits_too_when_the_last_attempt_died_with_its_worker(
    fleet: Fleet, system_url: str, client: Client, sql: Sql
) -> None:
    """And what waits survives the death of every worker."""
    with gate(system_url, 1) as held:
        handle = client.start(flows.waits_for_a_hand_at_a_gate, 1, id="dies")
        for attempt in (1, 2):
            worker = fleet.hire(system_url, MODULE).ready()
            held.wait_for(attempt)
            worker.kill()
        heir = fleet.hire(system_url, MODULE).ready()
        job = waits_for_a_hand(handle)
        assert job.attempt == 2
        heir.kill()
        fleet.hire(system_url, MODULE).ready()
        handle.activity(job.seq).set_result("by hand", "its workers die")
        assert handle.result(timeout=30) == "by hand"
    assert_sound(sql)
