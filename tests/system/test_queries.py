"""Queries through real workers (C14): of runs that are busy, parked, evicted, closed or orphaned; and that they leave no trace."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from durable.client_sync import Client
from durable.errors import (
    NondeterminismError,
    QueryFailed,
    QueryTimeout,
    ReadOnlyViolation,
    UnknownQuery,
    WorkflowNotFound,
)
from tests.system import update_flows as flows
from tests.system.conftest import Working
from tests.system.invariants import assert_sound
from tests.system.processes import Fleet
from tests.system.update_flows import Basket, Full, Item
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]
MODULES = ("tests.system.flows", "tests.system.update_flows")
EMPTY = Basket(owner="ann", items=[])


def test_a_query_of_a_parked_run(working: Working, client: Client, sql: Sql) -> None:
    with working(*MODULES):
        handle = client.start(flows.basket, "ann", id="b")
        assert handle.query("content", returns=Basket) == EMPTY
        assert handle.query(flows.content) == EMPTY
        assert handle.query("content") == {"owner": "ann", "items": []}
        handle.update("add", Item(sku="tea"), timeout=30)
        assert handle.query(flows.content).items == [Item(sku="tea")]
        handle.signal(flows.finish, "now")
        handle.result(timeout=30)
    assert_sound(sql)


def test_a_query_leaves_no_trace(working: Working, client: Client, sql: Sql) -> None:
    with working(*MODULES):
        handle = client.start(flows.basket, "ann", id="b")
        handle.update("add", Item(sku="tea"), timeout=30)
        state = "select r::text, (select count(*) from durable.history) from durable.runs r"
        before = eventually(lambda: sql.execute(state).fetchone())
        for _ in range(20):
            handle.query("content")
        assert sql.execute(state).fetchone() == before
        assert sql.execute("select count(*) from durable.queries").fetchone() == (0,)
        handle.terminate("done")


def test_who_signals_and_then_asks_sees_the_signal(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(*MODULES):
        handle = client.start(flows.ticking, id="t")
        for number in range(1, 40):
            handle.signal(flows.tick, number)
            assert handle.query("latest", returns=int) == number
        handle.signal(flows.tick, -1)
        assert handle.result(timeout=30) == 39
    assert_sound(sql)


def test_a_query_does_not_see_a_turn_that_may_still_be_lost(
    fleet: Fleet, system_url: str, client: Client, sql: Sql
) -> None:
    """While the commit of a turn is under way (here: held up by a lock), its owner answers nothing, and others what is committed."""
    first = fleet.hire(system_url, *MODULES, lease_s=60.0).ready()
    handle = client.start(flows.ticking, id="t")
    handle.signal(flows.tick, 1)
    assert handle.query("latest", returns=int) == 1
    with psycopg.connect(sql.info.dsn, password=sql.info.password) as locking:
        locking.execute("select from durable.runs for no key update")
        handle.signal(flows.tick, 2)
        eventually(
            lambda: (
                sql.execute("select count(*) from pg_locks where not granted").fetchone() != (0,)
            )
        )
        with pytest.raises(QueryTimeout):
            handle.query("latest", timeout=0.3)
        fleet.hire(system_url, *MODULES, lease_s=60.0).ready()
        assert handle.query("latest", returns=int, timeout=30) == 1
    eventually(lambda: handle.query("latest", returns=int) == 2)
    first.stop()
    handle.terminate("done")
    assert_sound(sql)


def test_errors_go_to_the_asker_and_the_run_is_unharmed(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(*MODULES):
        handle = client.start(flows.basket, "ann", id="b")
        with pytest.raises(
            UnknownQuery, match="has no query 'contents' now; it has: content, fails, tempted"
        ):
            handle.query("contents")
        with pytest.raises(QueryFailed, match="as asked") as caught:
            handle.query("fails")
        assert isinstance(caught.value.cause, Full)
        with pytest.raises(QueryFailed, match="a query must only read") as caught:
            handle.query("tempted")
        assert isinstance(caught.value.cause, ReadOnlyViolation)
        with pytest.raises(QueryFailed, match="takes 0"):
            handle.query("content", 1)
        with pytest.raises(WorkflowNotFound):
            client.handle("nobody").query("content")
        handle.signal(flows.finish, "now")
        assert handle.result(timeout=30) == 0
    assert_sound(sql)


def test_what_a_query_woke_is_undone(working: Working, client: Client, sql: Sql) -> None:
    """It set an event that the workflow waits for: the live state is dropped, and replay knows nothing of it."""
    with working(*MODULES):
        handle = client.start(flows.wakes, id="w")
        with pytest.raises(QueryFailed):
            handle.query("wake")
        assert handle.query("is_awake") is False
        assert handle.describe().status == "running"
        assert handle.update("rouse", timeout=30) is True
        assert handle.result(timeout=30) == "awake"
    assert_sound(sql)


def test_a_query_of_an_evicted_run_does_not_bring_it_back(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(*MODULES, max_cached_runs=1) as background:
        handles = [client.start(flows.basket, f"owner {n}", id=f"b{n}") for n in range(5)]
        owned = "select count(*) from durable.runs where owner is not null"
        eventually(
            lambda: sql.execute("select count(started_at) from durable.runs").fetchone() == (5,)
        )
        eventually(lambda: sql.execute(owned).fetchone() == (1,))
        for n, handle in enumerate(handles):
            assert handle.query("content", returns=Basket).owner == f"owner {n}"
        assert len(background.worker.runs) == 1
        for handle in handles:
            handle.terminate("done")


@pytest.mark.parametrize("end", ["return", "cancel", "terminate"])
def test_a_query_of_a_closed_run(working: Working, client: Client, sql: Sql, end: str) -> None:
    with working(*MODULES):
        handle = client.start(flows.basket, "ann", id="b")
        handle.update("add", Item(sku="tea"), timeout=30)
        if end == "return":
            handle.signal(flows.finish, "now")
        elif end == "cancel":
            handle.cancel()
        else:
            handle.terminate("enough")
        eventually(lambda: handle.describe().status != "running")
        assert handle.query(flows.content).items == [Item(sku="tea")]
        assert client.handle("b").query(flows.content).items == [Item(sku="tea")]
    assert_sound(sql)


def test_a_closed_run_is_asked_by_its_handle_and_not_its_namesake(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(*MODULES):
        first = client.start(flows.basket, "ann", id="b")
        first.terminate("enough")
        second = client.start(flows.basket, "bob", id="b", on_closed="new")
        assert second.query(flows.content).owner == "bob"
        assert client.handle("b").query(flows.content).owner == "bob"
        second.terminate("enough")


def test_a_run_that_never_began_says_so(working: Working, client: Client) -> None:
    with working(*MODULES):
        delayed = client.start(flows.basket, "ann", id="d", delay=1000)
        with pytest.raises(QueryFailed, match="the run has not begun"):
            delayed.query("content")
        delayed.cancel()
        with pytest.raises(QueryFailed, match="the run has not begun"):
            delayed.query("content")


def test_a_run_whose_worker_died_is_answered_by_another(
    fleet: Fleet, system_url: str, client: Client, sql: Sql
) -> None:
    """Long before the dead worker's lease lapses: the history is as good as its owner."""
    first = fleet.hire(system_url, *MODULES, lease_s=300.0).ready()
    handle = client.start(flows.basket, "ann", id="b")
    handle.update("add", Item(sku="tea"), timeout=30)
    first.kill()
    fleet.hire(system_url, *MODULES, lease_s=300.0).ready()
    assert handle.query(flows.content, timeout=30).items == [Item(sku="tea")]
    handle.terminate("done")
    assert_sound(sql)


def test_a_run_that_needs_review_says_why(fleet: Fleet, system_url: str, client: Client) -> None:
    """C8: its code cannot be brought to where its history ends, so there is no state to ask."""
    from tests.system import code_v1

    right = fleet.hire(system_url, "tests.system.flows", "tests.system.code_v1").ready()
    handle = client.start(code_v1.evolving, id="e")
    eventually(lambda: "go" in str(handle.describe().waiting_on))
    right.stop()
    fleet.hire(system_url, "tests.system.flows", "tests.system.code_v2").ready()
    with pytest.raises(QueryFailed, match="the code and the history part at event 2") as caught:
        handle.query("__stack", timeout=30)
    assert isinstance(caught.value.cause, NondeterminismError)
    handle.terminate("done")


def test_a_query_that_nobody_serves_says_why(client: Client, sql: Sql) -> None:
    handle = client.start(flows.elsewhere, id="e")
    with pytest.raises(
        QueryTimeout, match="no live worker serves the queue 'nobody-serves-this'"
    ) as caught:
        handle.query("anything", timeout=0.1)
    assert isinstance(caught.value, TimeoutError)
    assert sql.execute("select count(*) from durable.queries").fetchone() == (0,)


def test_a_worker_without_the_code_passes_the_question_on(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(*MODULES):
        handle = client.start(flows.basket, "ann", id="b")
        handle.update("add", Item(sku="tea"), timeout=30)
    with working("tests.system.flows"):
        with pytest.raises(QueryTimeout, match="knows the workflow"):
            handle.query("content", timeout=0.5)
        with working(*MODULES):
            assert handle.query(flows.content, timeout=30).items == [Item(sku="tea")]
    handle.terminate("done")


def test_a_question_that_a_crash_of_the_server_lost_is_asked_again(
    working: Working, client: Client, sql: Sql
) -> None:
    """The table is unlogged: after a crash it is empty."""
    handle = client.start(flows.basket, "ann", id="b")
    handle.signal(flows.finish, "now")
    sql.execute(
        "create function durable.lose() returns trigger language plpgsql as $$ begin delete from durable.queries; return null; end $$"
    )
    with working(*MODULES):
        handle.result(timeout=30)
    sql.execute("create table lost (n int); insert into lost values (0)")
    sql.execute(
        """create or replace function durable.lose() returns trigger language plpgsql as $$ begin
           update lost set n = n + 1;
           if (select n from lost) = 1 then delete from durable.queries; end if; return null; end $$;
           create trigger lose after insert on durable.queries execute function durable.lose()"""
    )
    with working(*MODULES):
        assert handle.query("content", returns=Basket, timeout=30) == EMPTY
    assert sql.execute("select n from lost").fetchone() == (2,)


def test_a_question_that_three_workers_did_not_survive_is_not_given_to_a_fourth(
    working: Working, client: Client, sql: Sql
) -> None:
    handle = client.start(flows.basket, "ann", id="b")
    sql.execute("alter table durable.queries alter takes set default 3")
    with working(*MODULES):
        with pytest.raises(QueryTimeout):
            handle.query("content", timeout=0.5)
        sql.execute("alter table durable.queries alter takes set default 2")
        assert handle.query("content", returns=Basket, timeout=30) == EMPTY
    handle.terminate("done")


def test_without_notify_everything_is_found(working: Working, database_url: str) -> None:
    with working(*MODULES, notify=False), Client(database_url, notify=False) as quiet:
        handle = quiet.start(flows.basket, "ann", id="b")
        assert handle.update("add", Item(sku="tea"), timeout=30) == 3
        assert handle.query(flows.content, timeout=30).items == [Item(sku="tea")]
        handle.terminate("done")


def test_every_run_says_where_it_stands(working: Working, client: Client) -> None:
    with working(*MODULES):
        handle = client.start(flows.basket, "ann", id="b")
        (main,) = handle.query("__stack")
        assert main["lines"][-1].endswith("in basket")
        assert handle.query("__handlers")["updates"] == ["add", "breaks", "hold_on"]
        handle.terminate("done")
