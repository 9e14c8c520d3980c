"""Transactional activities are exactly once (C5): what they wrote is there if, and only if, their outcome is recorded."""

from __future__ import annotations

import logging
from typing import Any
from uuid import UUID

import psycopg
import pytest

from durable.client_sync import Client
from durable.completion_errors import TransactionMisused
from durable.errors import (
    ActivityError,
    WorkflowCancelled,
    WorkflowFailed,
    WorkflowNotFound,
)
from samples import sqlalchemy_in_activity as bank
from tests.system import transactional_flows as flows
from tests.system.conftest import Working
from tests.system.gates import gate
from tests.system.invariants import assert_sound
from tests.system.processes import Fleet
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]
FLOWS = ("tests.system.flows", "tests.system.transactional_flows")
DECLARE_DEAD = (
    "update durable.workers set lease_until = durable.now() - interval '1 s' where name = %s"
)


@pytest.fixture(autouse=True)
def with_ledger(system_url: str, sql: Sql) -> None:
    sql.execute(flows.LEDGER.encode())


def ledger(sql: Sql) -> list[str]:
    return [key for (key,) in sql.execute("select key from system.ledger order by key, attempt")]


def cause_of(client: Client, workflow_id: str) -> ActivityError:
    with pytest.raises(WorkflowFailed) as failed:
        client.handle(workflow_id).result(timeout=30)
    assert isinstance(failed.value.cause, ActivityError)
    return failed.value.cause


def test_what_it_wrote_and_its_outcome_are_one_commit(
    working: Working, client: Client, sql: Sql
) -> None:
    """The outcome goes to the run as any other; xmin tells that row and message were written by one transaction."""
    sql.execute(
        """create function system.same_transaction() returns trigger language plpgsql as $$ begin
               insert into system.ledger select 'in one commit', 0, count(*) from system.ledger where xmin = pg_current_xact_id()::xid;
               return new; end $$;
           create trigger t before insert on durable.inbox for each row execute function system.same_transaction()"""
    )
    with working(*FLOWS):
        assert client.start(flows.enters_one, False, id="one").result(timeout=30) == "one"
    assert ledger(sql) == ["in one commit", "one"]
    assert sql.execute("select pid from system.ledger where key <> 'one'").fetchall() == [(1,)]
    assert [e.type for e in client.handle("one").history()][1:3] == [
        "ActivityScheduled",
        "ActivityCompleted",
    ]
    assert_sound(sql)


def test_sync_and_async_ones_mix_with_others(working: Working, client: Client, sql: Sql) -> None:
    with working(*FLOWS):
        handles = [client.start(flows.enters_many, 5) for _ in range(4)]
        assert [it.result(timeout=30) for it in handles] == [5, 5, 5, 5]
    assert len(ledger(sql)) == 40
    assert_sound(sql)


def test_standalone_jobs_too(working: Working, client: Client, sql: Sql) -> None:
    with working(*FLOWS):
        jobs = [client.enqueue(flows.enter, "a"), client.enqueue(flows.enter_async, "b")]
        assert [job.result(timeout=30) for job in jobs] == ["a", "b"]
        failing = client.enqueue(flows.always_fails, "c")
        with pytest.raises(ActivityError) as failed:
            failing.result(timeout=30)
    assert failed.value.attempt == 2
    assert ledger(sql) == ["a", "b"]


def test_a_failure_takes_its_writes_along_and_is_recorded(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(*FLOWS):
        retried = client.start(flows.enters_by, "fails_at_first", "x")
        assert retried.result(timeout=30) == 3
        client.start(flows.enters_by, "always_fails", "y", id="f")
        cause = cause_of(client, "f")
    assert (cause.attempt, cause.retry_state, str(cause.cause)) == (2, "max_attempts", "no")
    assert sql.execute("select key, attempt from system.ledger").fetchall() == [("x", 3)]
    assert_sound(sql)


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(
    "point",
    ["attempt.before", "transaction.before", "transaction.settled", "transaction.committed"],
)
def test_killed_anywhere_it_leaves_neither_or_both(
    point: str, is_async: bool, fleet: Fleet, working: Working, system_url: str, client: Client, sql: Sql
) -> None:  # fmt: skip
    handle = client.start(flows.enters_one, is_async, id="k")
    victim = fleet.hire(system_url, *FLOWS, lease_s=1.0, env={"DURABLE_CRASH_AT": f"{point}:1"})
    eventually(victim.ended)
    both = point == "transaction.committed"
    eventually(lambda: ledger(sql) == ["one"] * both)
    told = sql.execute("select count(*) from durable.inbox where type = 'ActivityCompleted'")
    assert told.fetchall() == [(int(both),)]
    with working(*FLOWS):
        assert handle.result(timeout=30) == "one"
    assert ledger(sql) == ["one"]
    assert_sound(sql)


def test_the_writes_of_a_zombie_roll_back(
    working: Working, system_url: str, client: Client, sql: Sql
) -> None:
    """It comes to its end first, while the attempt of its heir still runs, and is kept as evidence."""
    with (
        gate(system_url, 1) as closed,
        working(*FLOWS, name="zombie", lease_s=60.0),
    ):
        handle = client.start(flows.enters_at_gate, 1, id="z")
        closed.wait_for(1)
        with working(*FLOWS, name="heir"):
            sql.execute(DECLARE_DEAD, ("zombie",))
            closed.wait_for(2)
            closed.open()
            assert handle.result(timeout=30) == 2
        eventually(
            lambda: (
                sql.execute(
                    "select body ->> 'attempt' from durable.evidence where kind = 'TransactionRefused'"
                ).fetchall()
                == [("1",)]
            )
        )
    assert sql.execute("select key, attempt from system.ledger").fetchall() == [("gated", 2)]
    assert_sound(sql)


def test_a_frozen_process_leaves_nothing_when_it_thaws(
    fleet: Fleet, system_url: str, client: Client, sql: Sql
) -> None:
    with gate(system_url, 1) as closed:
        zombie = fleet.hire(system_url, *FLOWS, options=("--name", "zombie")).ready()
        handle = client.start(flows.enters_at_gate, 1, id="z")
        closed.wait_for(1)
        zombie.freeze()
        fleet.hire(system_url, *FLOWS, options=("--name", "heir"))
        closed.wait_for(2)
        closed.open()
        assert handle.result(timeout=30) == 2
        zombie.thaw()
        eventually(lambda: "lease had lapsed" in zombie.log())
        assert client.start(flows.enters_one, False).result(timeout=30) == "one"
    assert sql.execute("select key, attempt from system.ledger order by key").fetchall() == [
        ("gated", 2),
        ("one", 1),
    ]


@pytest.mark.parametrize("sqlstate", ["40001", "40P01"])
def test_a_lost_conflict_is_tried_again_at_once(
    sqlstate: str, working: Working, client: Client, sql: Sql
) -> None:
    """Serialization failure, deadlock: everything was rolled back, so it is still the first attempt. The function chose its isolation level."""
    with working(*FLOWS):
        handle = client.start(flows.enters_by, "loses_a_conflict", sqlstate)
        assert handle.result(timeout=30) == [1, 3]
    assert ledger(sql) == [sqlstate]


@pytest.mark.parametrize(
    ("how", "says", "kept"),
    [
        ("commit()", "remove the call", False),
        ("rollback()", "remove the call", False),
        ("close()", "closed its connection", False),
        ("commit", "stands without a recorded outcome", True),
        ("commit and begin", "stands without a recorded outcome", True),
        ("swallow", "went on after an error", False),
    ],
)
def test_who_ends_the_transaction_is_told(
    how: str, says: str, kept: bool, working: Working, client: Client, sql: Sql
) -> None:
    """Not tried again; and the worker goes on with a sound connection."""
    with working(*FLOWS):
        client.start(flows.enters_by, "misuses", how, id="m")
        cause = cause_of(client, "m")
        assert isinstance(cause.cause, TransactionMisused)
        assert says in str(cause.cause)
        assert (cause.attempt, cause.retry_state) == (1, "non_retryable")
        assert client.start(flows.enters_one, False).result(timeout=30) == "one"
    assert ledger(sql) == ([how] if kept else []) + ["one"]


def test_a_savepoint_guards_what_may_fail(working: Working, client: Client, sql: Sql) -> None:
    with working(*FLOWS):
        client.start(flows.enters_by, "savepoints", "s").result(timeout=30)
    assert ledger(sql) == ["s", "s: went on"]


def test_what_it_starts_sends_and_enqueues_joins_the_commit(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(*FLOWS):
        listener = client.start(flows.listens_to_the_ledger, id="listener")
        client.start(flows.enters_by, "starts_others_in_vain", "v", id="v")
        assert cause_of(client, "v").attempt == 1
        with pytest.raises(WorkflowNotFound):
            client.handle("v-child").describe()
        job_id = client.start(flows.enters_by, "starts_others", "s").result(timeout=30)
        assert UUID(job_id).version == 7
        assert client.handle("s-child").result(timeout=30) == "s-child"
        assert listener.result(timeout=30) == "s"
        client.start(flows.enters_by, "starts_others_async", "a").result(timeout=30)
        assert client.handle("a-child").result(timeout=30) == "a-child"
        eventually(lambda: ledger(sql) == ["a-child", "s", "s-child", "s-job"])
    assert_sound(sql)


def test_an_attempt_that_was_told_to_stop_leaves_nothing(
    working: Working, system_url: str, client: Client, sql: Sql
) -> None:
    """C9: once the run has given it up, it cannot write behind its back."""
    with gate(system_url, 1) as closed, working(*FLOWS):
        handle = client.start(flows.enters_at_gate, 1, id="c")
        closed.wait_for(1)
        handle.cancel("enough")
        with pytest.raises(WorkflowCancelled):
            handle.result(timeout=30)
        closed.open()
        eventually(lambda: sql.execute("select count(*) from durable.jobs").fetchone() == (0,))
    assert ledger(sql) == []
    assert_sound(sql)


def test_connections_are_bounded_and_long_transactions_are_named(
    working: Working, system_url: str, client: Client, sql: Sql, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        gate(system_url, 1) as closed,
        caplog.at_level(logging.WARNING, "durable.worker"),
        working(*FLOWS, transaction_connections=2, transaction_warning_s=0.05),
    ):
        handles = [client.start(flows.enters_at_gate, 1, id=f"p-{n}") for n in range(5)]
        closed.wait_for(2)
        eventually(lambda: "enter_at_gate of p-" in caplog.text)
        count = "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'durable-transaction'"
        assert sql.execute(count).fetchone() == (2,)
        closed.open()
        assert [it.result(timeout=30) for it in handles] == [1] * 5
    assert "kept its transaction open" in caplog.text
    assert ledger(sql) == ["gated"] * 5


def test_a_connection_that_broke_while_idle_costs_no_attempt(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(*FLOWS):
        for is_async in (False, True, False, True):
            assert client.start(flows.enters_one, is_async).result(timeout=30) == "one"
            sql.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'durable-transaction'"
            )
    assert sql.execute("select attempt from system.ledger").fetchall() == [(1,)] * 4


def test_sqlalchemy_works_on_the_same_connection(
    working: Working, client: Client, sql: Sql
) -> None:
    """The sample; a failure rolls back what the session had flushed, and no attempt moves money twice."""
    sql.execute(
        """create schema bank;
           create table bank.accounts (name text primary key, cents integer not null);
           create table bank.entries (id integer generated always as identity primary key, account text references bank.accounts, cents integer);
           insert into bank.accounts values ('ada', 100), ('bob', 0)"""
    )
    with working("samples.sqlalchemy_in_activity"):
        assert client.start(bank.pay_back, "ada", "bob", 30, 3).result(timeout=30) == 10
        client.start(bank.pay_back, "ada", "bob", 30, 1, id="too-much")
        assert isinstance(cause_of(client, "too-much").cause, bank.NotEnough)
    assert sql.execute("select name, cents from bank.accounts order by name").fetchall() == [
        ("ada", 10),
        ("bob", 90),
    ]
    assert sql.execute("select count(*), sum(cents) from bank.entries").fetchone() == (6, 0)


def test_the_plain_function_is_tested_with_any_connection(sql: Sql) -> None:
    """No durable machinery: the test owns connection and transaction."""
    with pytest.raises(bank.NotEnough), sql.transaction():
        sql.execute("create schema bank; create table bank.accounts (name text, cents integer)")
        sql.execute("insert into bank.accounts values ('ada', 1), ('bob', 0)")
        bank.move_money.fn(sql, "ada", "bob", 30)
