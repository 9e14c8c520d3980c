"""A paused run takes no turn and begins nothing; whatever arrives waits for it."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from durable.client_sync import Client
from durable.errors import OperationRefused, WorkflowClosed
from durable.handles_sync import Handle
from tests.system import mending_flows as flows
from tests.system.conftest import Working
from tests.system.gates import gate
from tests.system.invariants import assert_sound
from tests.system.processes import Fleet
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]
MODULE = flows.__name__


def settled(working_client: Client, *, mark: str) -> None:
    """Until the workers have done something else in full: they had their chance to touch what is paused."""
    for n in range(2):
        assert working_client.start(flows.ticks, 2, id=f"mark-{mark}-{n}").result(timeout=20) == 2


def types(handle: Handle[Any]) -> list[str]:
    return [event.type for event in handle.history()]


def test_signals_wait_for_a_paused_run_and_none_is_lost(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(MODULE):
        handle = client.start(flows.words, 3, id="paused")
        eventually(lambda: types(handle)[-1] == "ActivityCompleted")
        handle.pause("an incident", actor="ann")
        for text in ("one", "two", "three"):
            handle.signal(flows.word, text)
        before = types(handle)
        settled(client, mark="signals")
        assert types(handle) == before
        run = handle.describe()
        assert (run.status, run.operator_status, run.owner) == ("running", "blocked", None)
        assert run.paused is not None
        assert (run.paused["actor"], run.paused["reason"]) == ("ann", "an incident")
        assert [it.workflow_id for it in client.list(operator_status="blocked")] == ["paused"]
        handle.resume(actor="bob")
        assert handle.result(timeout=20) == ["one", "two", "three"]
    assert [(it.action, it.actor) for it in handle.commands() if it.action != "signal"] == [
        ("resume", "bob"), ("pause", "ann"),
    ]  # fmt: skip
    assert_sound(sql)


def test_a_timer_does_not_fire_into_a_paused_run(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(MODULE):
        handle = client.start(flows.sleeps_and_notes, 3600, id="asleep")
        eventually(lambda: "TimerStarted" in types(handle))
        handle.pause("hold it")
        sql.execute("select durable.advance_clock('2 hours')")
        settled(client, mark="timer")
        assert types(handle)[-1] == "TimerStarted"
        assert [job.state for job in handle.pending()] == ["paused"]
        handle.resume()
        assert handle.result(timeout=20) == "after"
    assert_sound(sql)


def test_running_attempts_end_and_no_others_begin(
    working: Working, system_url: str, client: Client, sql: Sql
) -> None:
    with working(MODULE), gate(system_url, 1) as held:
        handle = client.start(flows.waits_at_a_gate, 1, id="attempt")
        held.wait_for(1)
        handle.pause("after this one")
        held.open()
        eventually(lambda: handle.pending() == [], what="the attempt's outcome is recorded")
        settled(client, mark="attempt")
        assert types(handle) == ["WorkflowStarted", "ActivityScheduled"]
        handle.resume()
        assert handle.result(timeout=20) == "1"
    assert_sound(sql)


def test_a_failed_attempt_is_not_retried_while_the_run_is_paused(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(MODULE):
        handle = client.start(flows.waits_long, -1, id="backing-off")
        eventually(lambda: [job.state for job in handle.pending()] == ["retryable"])
        handle.pause("no more calls")
        sql.execute("select durable.advance_clock('3 hours')")
        settled(client, mark="retry")
        (job,) = handle.pending()
        assert (job.state, job.attempt) == ("paused", 1)
        handle.resume()
        eventually(lambda: [job.attempt for job in handle.pending()] == [2])
        handle.terminate("enough")
    assert_sound(sql)


def test_a_pause_survives_the_death_of_every_worker(
    fleet: Fleet, system_url: str, client: Client, sql: Sql
) -> None:
    worker = fleet.hire(system_url, MODULE).ready()
    handle = client.start(flows.words, 2, id="outlives")
    eventually(lambda: types(handle)[-1] == "ActivityCompleted")
    handle.pause("an incident")
    worker.kill()
    handle.signal(flows.word, "one")
    fleet.hire(system_url, MODULE).ready()
    dead = "select 1 from durable.workers where state in ('dead', 'gone')"
    eventually(lambda: sql.execute(dead).fetchall(), what="the dead worker is buried")
    settled(client, mark="death")
    assert handle.describe().paused is not None
    handle.signal(flows.word, "two")
    handle.resume()
    assert handle.result(timeout=30) == ["one", "two"]
    assert_sound(sql)


def test_one_activity_can_be_paused(working: Working, client: Client, sql: Sql) -> None:
    with working(MODULE):
        handle = client.start(flows.waits_long, -1, id="one-activity")
        eventually(lambda: [job.state for job in handle.pending()] == ["retryable"])
        handle.activity(2).pause("the bank asked us to", actor="ann")
        sql.execute("select durable.advance_clock('3 hours')")
        settled(client, mark="activity")
        (job,) = handle.pending()
        assert (job.state, job.attempt) == ("paused", 1)
        assert job.paused is not None
        assert (job.paused["kind"], job.paused["actor"]) == ("operator", "ann")
        with pytest.raises(OperationRefused, match="paused already"):
            handle.activity(2).pause("again")
        handle.activity(2).resume("they are back")
        eventually(lambda: [job.attempt for job in handle.pending()] == [2])
        with pytest.raises(OperationRefused, match="durable pause one-activity"):
            handle.activity(2).resume()
        handle.terminate("enough")


def test_an_attempt_under_way_is_the_last_one_until_its_activity_is_resumed(
    working: Working, system_url: str, client: Client
) -> None:
    with working(MODULE), gate(system_url, 1) as held:
        handle = client.start(flows.fails_behind_a_gate, 1, id="under-way")
        held.wait_for(1)
        handle.activity(2).pause("hold it after this one")
        held.open()
        eventually(lambda: [job.state for job in handle.pending()] == ["paused"])
        handle.activity(2).resume()
        assert handle.result(timeout=20) == 2


def test_refusals_say_what_is_legal(working: Working, client: Client) -> None:
    with working(MODULE):
        handle = client.start(flows.words, 1, id="refused")
        with pytest.raises(OperationRefused, match="durable pause refused") as error:
            handle.resume()
        assert error.value.code == "not_paused"
        handle.pause("once")
        with pytest.raises(OperationRefused, match="durable resume refused"):
            handle.pause("twice")
        handle.terminate("enough")
        with pytest.raises(WorkflowClosed, match="durable retry refused"):
            handle.pause("too late")
    assert [it.code for it in handle.commands()] == [
        "workflow_closed", "accepted", "already_paused", "accepted", "not_paused",
    ]  # fmt: skip


def test_owners_under_load_are_not_hurt_by_pauses(
    working: Working, client: Client, sql: Sql
) -> None:
    """Runs are paused and resumed while they run as fast as they can: each ends as if nothing had been (C2)."""
    with working(MODULE), working(MODULE):
        handles = [client.start(flows.ticks, 30, id=f"load-{n}") for n in range(10)]
        for _ in range(4):
            for handle in handles:
                if handle.describe().status == "running":
                    try:
                        handle.pause("load")
                    except WorkflowClosed:
                        continue
            for handle in handles:
                if handle.describe().paused:
                    handle.resume()
        assert [handle.result(timeout=60) for handle in handles] == [30] * 10
    assert_sound(sql)
