"""Updates through real workers (C14): accepted, completed, refused, repeated, and whatever happens to the worker."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from durable import UpdateRequest
from durable.client_sync import Client
from durable.errors import (
    InvalidOption,
    PayloadError,
    ReadOnlyViolation,
    UnknownUpdate,
    UpdateFailed,
    UpdateRejected,
    UpdateUnfinished,
    WorkflowAlreadyExists,
    WorkflowClosed,
)
from tests.system import update_flows as flows
from tests.system.conftest import Working
from tests.system.gates import gate
from tests.system.invariants import assert_sound
from tests.system.processes import Fleet
from tests.system.update_flows import Full, Item
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]
MODULES = ("tests.system.flows", "tests.system.update_flows")


def types(client: Client, workflow_id: str) -> list[str]:
    return [event.type for event in client.handle(workflow_id).history()]


def test_an_update_is_accepted_and_answers(working: Working, client: Client, sql: Sql) -> None:
    with working(*MODULES):
        handle = client.start(flows.basket, "ann", id="b")
        assert handle.update("add", Item(sku="tea"), returns=int, timeout=30) == 3
        assert handle.update(flows.add, Item(sku="milk", amount=2), timeout=30) == 11
        assert handle.update("add", item={"sku": "x"}, timeout=30) == 12
        handle.signal(flows.finish, "now")
        assert handle.result(timeout=30) == 12
    assert types(client, "b").count("UpdateAccepted") == 3
    assert [it.status for it in handle.updates()] == ["completed"] * 3
    assert_sound(sql)


def test_the_stages_can_be_waited_for_one_by_one(
    working: Working, system_url: str, client: Client, sql: Sql
) -> None:
    with working(*MODULES), gate(system_url, 71) as held:
        handle = client.start(flows.basket, "ann", id="b")
        update = handle.start_update("hold_on", 71, returns=str, id="u-1")
        update.accepted(timeout=30)
        assert types(client, "b")[-2:] == ["UpdateAccepted", "ActivityScheduled"]
        with pytest.raises(
            TimeoutError, match="has not been completed within 0.05 s; its handler goes on"
        ):
            update.result(timeout=0.05)
        held.open()
        assert update.result(timeout=30) == "held"
        assert handle.update_handle("u-1", returns=str).result(timeout=30) == "held"
        handle.signal(flows.finish, "now")
        handle.result(timeout=30)
    assert_sound(sql)


def test_a_refused_update_leaves_no_trace_in_the_history(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(*MODULES):
        handle = client.start(flows.basket, "ann", 0, id="b")
        for _ in range(3):
            with pytest.raises(UpdateRejected, match="no room for tea") as caught:
                handle.update("add", Item(sku="tea"), timeout=30)
            assert isinstance(caught.value.cause, Full)
        with pytest.raises(UpdateRejected, match=r"item\.sku") as caught:
            handle.update("add", {"sku": 1}, timeout=30)
        assert isinstance(caught.value.cause, PayloadError)
        with pytest.raises(UnknownUpdate, match="has no update 'ad' now; it has: add"):
            handle.update("ad", timeout=30)
        assert types(client, "b") == ["WorkflowStarted"]
        assert sql.execute("select count(*) from durable.inbox").fetchone() == (0,)
        handle.signal(flows.finish, "now")
        assert handle.result(timeout=30) == 0
    assert {it.status for it in handle.updates()} == {"rejected"}
    assert_sound(sql)


def test_a_failing_handler_fails_the_update_and_not_the_run(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(*MODULES):
        handle = client.start(flows.basket, "ann", id="b")
        with pytest.raises(UpdateFailed, match="the handler's own fault") as caught:
            handle.update("breaks", timeout=30)
        assert isinstance(caught.value.cause, Full)
        assert handle.update("add", Item(sku="tea"), timeout=30) == 3
        handle.signal(flows.finish, "now")
        assert handle.result(timeout=30) == 3
    assert_sound(sql)


def test_an_id_is_good_for_one_update(working: Working, client: Client, sql: Sql) -> None:
    """A duplicate gets the recorded outcome, while it runs, when it has ended, and when it failed."""
    with working(*MODULES):
        handle = client.start(flows.basket, "ann", id="b")
        first = [handle.update("add", Item(sku="tea"), id="u-1", timeout=30) for _ in range(3)]
        assert first == [3, 3, 3]
        for _ in range(2):
            with pytest.raises(UpdateFailed):
                handle.update("breaks", id="u-2", timeout=30)
        with pytest.raises(InvalidOption, match="the id of another update"):
            handle.start_update("breaks", id="u-1")
        handle.signal(flows.finish, "now")
        assert handle.result(timeout=30) == 3
        assert (
            handle.update("add", Item(sku="tea"), id="u-1", timeout=30) == 3
        )  # also when it has closed
    assert types(client, "b").count("UpdateAccepted") == 2
    assert_sound(sql)


def test_a_refused_update_may_be_tried_again_under_its_id(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(*MODULES):
        handle = client.start(flows.basket, "ann", 1, id="b")
        assert handle.update("add", Item(sku="a"), id="1", timeout=30) == 1
        with pytest.raises(UpdateRejected):
            handle.update("add", Item(sku="b"), id="2", timeout=30)
        with pytest.raises(UpdateRejected):
            handle.update("add", Item(sku="c"), id="2", timeout=30)
        assert [it.update_id for it in handle.updates()] == ["1", "2"]
        handle.signal(flows.finish, "now")
        handle.result(timeout=30)
    assert_sound(sql)


def test_an_id_is_good_for_the_runs_that_follow(working: Working, client: Client, sql: Sql) -> None:
    with working(*MODULES):
        handle = client.start(flows.counter, id="c")
        assert [handle.update("increase", n, id=f"u-{n}", timeout=30) for n in (1, 2, 3)] == [
            1,
            3,
            6,
        ]
        eventually(lambda: client.handle("c").describe().generation == 1)
        assert handle.update("increase", 1, id="u-1", timeout=30) == 1
        assert handle.update("increase", 10, id="u-10", timeout=30) == 16
        assert handle.query("count", returns=int) == 16
        handle.signal(flows.finish, "now")
        assert handle.result(timeout=30) == 16
    assert_sound(sql)


def test_updates_sent_while_runs_end_and_begin_are_neither_lost_nor_doubled(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(*MODULES):
        handle = client.start(flows.counter, id="c")
        updates = [handle.start_update("increase", 1, returns=int, id=f"u-{n}") for n in range(30)]
        assert sorted(it.result(timeout=60) for it in updates) == list(range(1, 31))
        handle.signal(flows.finish, "now")
        assert handle.result(timeout=30) == 30
    assert_sound(sql)


def test_many_clients_with_one_id_have_one_update_done(
    working: Working, client: Client, sql: Sql, database_url: str
) -> None:
    def ask(_: int) -> int:
        with Client(database_url) as mine:
            total: int = mine.handle("c").update("increase", 1, id="once", timeout=30)
            return total

    with working(*MODULES), ThreadPoolExecutor(6) as pool:
        handle = client.start(flows.counter, id="c")
        assert list(pool.map(ask, range(12))) == [1] * 12
        handle.signal(flows.finish, "now")
        assert handle.result(timeout=30) == 1
    assert_sound(sql)


def test_a_request_that_commits_after_its_run_continued_reaches_the_successor(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(*MODULES), psycopg.connect(sql.info.dsn, password=sql.info.password) as late:
        handle = client.start(flows.counter, 5, id="c")
        update = handle.start_update("increase", 1, returns=int, id="late", connection=late)
        handle.update("rest", timeout=30)
        eventually(lambda: client.handle("c").describe().generation == 1)
        late.commit()
        assert update.result(timeout=30) == 6
        assert handle.update("increase", 1, id="late", timeout=30) == 6
        handle.signal(flows.finish, "now")
        assert handle.result(timeout=30) == 6
    assert_sound(sql)


def test_rejections_are_forgotten_after_a_day_and_nothing_else_is(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(*MODULES, lease_s=1.0):
        handle = client.start(flows.basket, "ann", 1, id="b")
        handle.update("add", Item(sku="a"), id="kept", timeout=30)
        with pytest.raises(UpdateRejected):
            handle.update("add", Item(sku="b"), id="refused", timeout=30)
        sql.execute("select durable.advance_clock('25 hours')")
        eventually(lambda: [it.update_id for it in handle.updates()] == ["kept"])
        handle.terminate("done")


# -- the end of a run -------------------------------------------------------------------------------------------------------------


def test_a_closed_run_refuses_at_once(working: Working, client: Client, sql: Sql) -> None:
    with working(*MODULES):
        handle = client.start(flows.hasty, id="h")
        handle.signal(flows.finish, "now")
        handle.result(timeout=30)
    with pytest.raises(WorkflowClosed, match="takes no update 'slow' any more: it is completed"):
        handle.start_update("slow")
    assert handle.updates() == []
    assert_sound(sql)


def test_a_handler_that_runs_at_the_end_is_reported_to_its_caller(
    working: Working, client: Client, sql: Sql, caplog: pytest.LogCaptureFixture
) -> None:
    with working(*MODULES):
        handle = client.start(flows.hasty, id="h")
        update = handle.start_update("slow", id="u-1")
        update.accepted(timeout=30)
        handle.signal(flows.finish, "now")
        assert handle.result(timeout=30) == "now"
        with pytest.raises(UpdateUnfinished, match="the workflow ended before its handler did"):
            update.result(timeout=30)
    assert "update 'slow' (u-1) was still running when the workflow returned" in caplog.text
    assert_sound(sql)


@pytest.mark.parametrize("how", ["terminate", "cancel", "continue"])
def test_whatever_ends_the_run_ends_its_updates(
    working: Working, client: Client, sql: Sql, how: str
) -> None:
    with working(*MODULES):
        handle = client.start(flows.counter, id="c")
        update = handle.start_update("never", id="u-1")
        update.accepted(timeout=30)
        if how == "terminate":
            handle.terminate("enough")
        elif how == "cancel":
            handle.cancel("enough")
        else:
            handle.update("rest", timeout=30)
        with pytest.raises(UpdateUnfinished):
            update.result(timeout=30)
        if how == "continue":
            handle.signal(flows.finish, "now")
            handle.result(timeout=30)
        else:
            eventually(lambda: handle.describe().status != "running")
    assert_sound(sql)


def test_an_update_that_nobody_has_read_when_the_run_ends_is_told_so(
    client: Client, sql: Sql
) -> None:
    handle = client.start(flows.basket, "ann", id="b")
    update = handle.start_update("add", Item(sku="tea"))
    handle.terminate("before anybody came")
    with pytest.raises(WorkflowClosed, match="was not accepted any more: the run is terminated"):
        update.result(timeout=5)
    assert_sound(sql)


def test_a_request_that_commits_after_the_end_is_told_so(
    working: Working, client: Client, sql: Sql
) -> None:
    """A sender's transaction may have read the run as open and commit after it closed."""
    with working(*MODULES), psycopg.connect(sql.info.dsn, password=sql.info.password) as late:
        handle = client.start(flows.basket, "ann", id="b")
        update = handle.start_update("add", Item(sku="tea"), connection=late)
        handle.signal(flows.finish, "meanwhile")
        handle.result(timeout=30)
        late.commit()
        with pytest.raises(WorkflowClosed, match="the run closed before it was read"):
            update.result(timeout=30)
    assert_sound(sql)


# -- with the start ------------------------------------------------------------------------------------------------------------------


def test_an_update_sent_with_the_start_finds_its_handler(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(*MODULES):
        for number in range(5):
            request = UpdateRequest(flows.add, Item(sku="tea"), id="first")
            handle = client.start(flows.basket, "ann", id=f"b{number}", with_update=request)
            assert handle.update_handle(request).result(timeout=30) == 3
            again = UpdateRequest("add", Item(sku="milk"), returns=int)
            handle = client.start(flows.basket, "bob", id=f"b{number}", with_update=again)
            assert (handle.created, handle.update_handle(again).result(timeout=30)) == (False, 7)
            handle.signal(flows.finish, "now")
            assert handle.result(timeout=30) == 7
    assert_sound(sql)


def test_a_start_with_signal_and_update_is_one_transaction(
    working: Working, client: Client, sql: Sql
) -> None:
    request = UpdateRequest("bump", 1, returns=int)
    together: dict[str, Any] = {"with_signal": (flows.tick, 5), "with_update": request}
    with psycopg.connect(sql.info.dsn, password=sql.info.password) as mine:
        client.start(flows.ticking, id="t", **together, connection=mine)
        mine.rollback()
        assert sql.execute("select count(*) from durable.runs").fetchone() == (0,)
        handle = client.start(flows.ticking, id="t", **together, connection=mine)
        assert sql.execute("select count(*) from durable.updates").fetchone() == (0,)
    with working(*MODULES):
        assert handle.update_handle(request).result(timeout=30) == 6
        handle.terminate("done")
    assert_sound(sql)


def test_an_update_that_comes_with_the_end_is_told_so(
    working: Working, client: Client, sql: Sql
) -> None:
    request = UpdateRequest(flows.add, Item(sku="tea"))
    with working(*MODULES):
        handle = client.start(
            flows.basket, "ann", id="b", with_signal=(flows.finish, "now"), with_update=request
        )
        assert handle.result(timeout=30) == 0
        with pytest.raises(WorkflowClosed, match="was not accepted any more: the run is completed"):
            handle.update_handle(request).result(timeout=30)
    assert_sound(sql)


def test_an_update_that_comes_with_continue_as_new_reaches_the_successor(
    working: Working, client: Client, sql: Sql
) -> None:
    request = UpdateRequest("which", returns=int)
    with working(*MODULES):
        handle = client.start(flows.relay, id="r", with_signal=(flows.tick, 1), with_update=request)
        assert handle.update_handle(request).result(timeout=30) == 1
        handle.terminate("done")
    assert_sound(sql)


def test_a_start_that_is_refused_sends_nothing(client: Client, sql: Sql) -> None:
    client.start(flows.ticking, id="t")
    with pytest.raises(WorkflowAlreadyExists):
        client.start(
            flows.ticking, id="t", on_running="fail", with_signal=(flows.tick, 5), with_update=UpdateRequest("bump", 1)
        )  # fmt: skip
    for table in ("signals", "inbox", "updates"):
        assert sql.execute(f"select count(*) from durable.{table}".encode()).fetchone() == (0,)


def test_a_start_that_finds_a_closed_run_says_so(client: Client) -> None:
    client.start(flows.ticking, id="t").terminate("enough")
    attempts: list[dict[str, Any]] = [
        {"with_signal": (flows.tick, 5)},
        {"with_update": UpdateRequest("bump", 1)},
    ]
    for what in attempts:
        with pytest.raises(WorkflowClosed):
            client.start(flows.ticking, id="t", **what)


# -- what happens to workers -----------------------------------------------------------------------------------------------------


def test_an_accepted_update_survives_its_worker(
    fleet: Fleet, system_url: str, client: Client, sql: Sql
) -> None:
    with gate(system_url, 72) as held:
        first = fleet.hire(system_url, *MODULES).ready()
        handle = client.start(flows.basket, "ann", id="b")
        update = handle.start_update("hold_on", 72, returns=str, id="u-1")
        update.accepted(timeout=30)
        held.wait_for(1)
        first.kill()
        fleet.hire(system_url, *MODULES).ready()
        held.open()
        assert update.result(timeout=60) == "held"
        assert handle.update("hold_on", 72, id="u-1", timeout=30) == "held"
        handle.signal(flows.finish, "now")
        handle.result(timeout=60)
    assert types(client, "b").count("UpdateAccepted") == 1
    assert_sound(sql)


@pytest.mark.parametrize("point", ["commit.before", "commit.after"])
def test_a_crash_around_the_acceptance_neither_loses_nor_doubles_it(
    fleet: Fleet, system_url: str, client: Client, sql: Sql, point: str
) -> None:
    handle = client.start(flows.basket, "ann", id="b")
    update = handle.start_update("add", Item(sku="tea"), returns=int)
    refused = handle.start_update("ad", id="unknown")
    first = fleet.hire(system_url, *MODULES, env={"DURABLE_CRASH_AT": f"{point}:1"})
    eventually(first.ended)
    fleet.hire(system_url, *MODULES).ready()
    assert update.result(timeout=60) == 3
    with pytest.raises(UnknownUpdate):
        refused.result(timeout=60)
    handle.signal(flows.finish, "now")
    assert handle.result(timeout=60) == 3
    assert types(client, "b").count("UpdateAccepted") == 1
    assert_sound(sql)


def test_an_update_reaches_a_run_that_was_evicted(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(*MODULES, max_cached_runs=1):
        handles = [client.start(flows.basket, "ann", id=f"b{n}") for n in range(4)]
        for _ in range(2):
            for handle in handles:
                handle.update("add", Item(sku="x"), timeout=30)
        for handle in handles:
            handle.signal(flows.finish, "now")
            assert handle.result(timeout=30) == 2
    assert_sound(sql)


def test_a_validator_that_changes_something_harms_only_its_update(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(*MODULES):
        handle = client.start(flows.tempted_validator, id="t")
        eventually(
            lambda: "ActivityCompleted" in types(client, "t")
        )  # somebody waits for the event
        with pytest.raises(UpdateRejected, match="validator must only read") as caught:
            handle.update("rouse", timeout=30)
        assert isinstance(caught.value.cause, ReadOnlyViolation)
        handle.signal(flows.finish, "now")
        assert handle.result(timeout=30) == "asleep"
    assert_sound(sql)


def test_an_update_that_nobody_serves_says_why(client: Client) -> None:
    handle = client.start(flows.elsewhere, id="e")
    update = handle.start_update("anything")
    with pytest.raises(TimeoutError, match="no live worker serves the queue 'nobody-serves-this'"):
        update.accepted(timeout=0.1)


def test_sql_can_update_too(working: Working, client: Client, sql: Sql) -> None:
    with working(*MODULES):
        handle = client.start(flows.basket, "ann", id="b")
        row = sql.execute(
            """select durable.update('b', 'add', '{"item": {"sku": "tea"}}', 'from-sql')"""
        ).fetchone()
        assert row == ("from-sql",)
        assert handle.update_handle("from-sql", returns=int).result(timeout=30) == 3
        handle.signal(flows.finish, "now")
        handle.result(timeout=30)
    assert_sound(sql)
