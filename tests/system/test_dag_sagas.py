"""Declared sagas on a real database: rollback, halt and resume, also while workers are killed."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from functools import partial
from typing import Any

import psycopg
import pytest

import durable
from durable.client_sync import Client
from durable.dag import Dag, context, item, result
from tests.dag.undo_order import assert_undone_in_order, completed, failed_undos, undone
from tests.system import saga_dag_flows as flows
from tests.system.conftest import Working
from tests.system.invariants import assert_sound
from tests.system.processes import Fleet
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]

MODULE = "tests.system.saga_dag_flows"
EVENTS = "select count(*) from durable.history"
NOTES = "select key, count(*) from system.executions where name = 'note' group by key"


def trip(payment: str) -> Dag:
    return (
        Dag("trip", context={"who": "ada"})
        .add("hotel", flows.book, {"key": "hotel"}, undo=flows.undo_all)
        .add("flight", flows.book, {"key": "flight"}, undo=flows.unbook, deps=["hotel"])
        .add("pay", flows.fail, {"key": payment}, compensate=flows.mend, deps=["flight"])
    )


def notes(sql: Sql) -> list[str]:
    rows = sql.execute("select key from system.executions where name = 'note' order by id")
    return [key for (key,) in rows]


def test_a_failure_is_undone_and_tells_what_happened(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(MODULE, max_cached_runs=0):
        with pytest.raises(durable.WorkflowFailed) as caught:
            client.start(trip("card"), id="t-1").result(timeout=30)
        mended = client.start(trip("skip:cash"), id="t-2").result(timeout=30)
    assert notes(sql) == [
        "undo flight",
        "undo hotel [('key', 'hotel')] [('who', 'ada')]",
    ]
    error = caught.value.__cause__
    assert isinstance(error, durable.DagFailed)
    assert error.failed == ["pay"]
    assert error.undo_failures == []
    assert error.steps["pay"]["failure"]["message"] == "card is refused"
    assert mended["pay"] == {"status": "completed", "result": "instead of skip:cash is refused"}
    assert_sound(sql)


def test_a_cancel_waits_for_the_thread_that_works_and_undoes_its_step(
    working: Working, client: Client, sql: Sql
) -> None:
    dag = (
        Dag("cut")
        .add("first", flows.book, {"key": "first"}, undo=flows.unbook)
        .add("gated", flows.book_at_gate, {"key": "gated"}, undo=flows.unbook, deps=["first"])
        .add("hung", flows.hangs, {"key": "x"}, deps=["first"])
    )
    sql.execute("select pg_advisory_lock(%s)", (flows.GATE,))
    with working(MODULE):
        handle = client.start(dag, id="cut")
        eventually(lambda: handle.query("steps")["hung"]["status"] == "running")
        begun = "select 1 from system.executions where key = 'gated'"
        eventually(lambda: sql.execute(begun).fetchone())
        handle.cancel()
        eventually(lambda: "ActivityCancelRequested" in [it.type for it in handle.history()])
        sql.execute("select pg_advisory_unlock(%s)", (flows.GATE,))
        with pytest.raises(durable.WorkflowCancelled):
            handle.result(timeout=30)
    assert notes(sql) == ["undo gated", "undo first"]
    assert_sound(sql)


def test_a_halted_run_waits_across_workers_until_it_is_resumed(
    working: Working, client: Client, sql: Sql
) -> None:
    dag = (
        Dag("gate")
        .add("ask", flows.approve, {"key": "order 7"})
        .add("ship", flows.book, {"key": result("ask")})
    )
    with working(MODULE):
        handle = client.start(dag, id="gate")
        eventually(lambda: handle.describe().details is not None)
        assert handle.describe().details == "halted at ask: order 7 wants a look"
        assert handle.describe().status == "running"
    with working(MODULE):
        assert handle.query("steps")["ask"] == {
            "status": "halted",
            "halt": "order 7 wants a look",
        }
        assert client.resume_dag("gate", request_id="r") == ["ask"]
        assert client.resume_dag("gate", request_id="r") == ["ask"]
        assert handle.result(timeout=30)["ship"]["result"] == "approved order 7"
        again = client.start(dag, id="gate-2")
        eventually(lambda: again.describe().details is not None)
        again.update("resume")
        again.result(timeout=30)
        free = Dag("free").add("hung", flows.hangs, {"key": "x"})
        client.start(free, id="free")
        with pytest.raises(durable.NotHalted):
            client.resume_dag("free")
        client.handle("free").terminate("enough")
    assert handle.describe().details is None
    assert_sound(sql)


# -- DAGs in DAGs ---------------------------------------------------------------------------------------------------------


def stay(name: str) -> Dag:
    """Two steps that can be undone, the result is that of the second."""
    return (
        Dag(name, context={"of": ""}, output=result("room"))
        .add("hold", flows.book, {"key": context("of")}, undo=flows.unbook)
        .add("room", flows.book, {"key": "room"}, undo=flows.unbook, deps=["hold"])
    )


def test_a_nested_dag_is_undone_with_the_one_around_it(
    working: Working, client: Client, sql: Sql
) -> None:
    deeper = Dag("deeper", context={"of": ""}, output=result("stay")).add("stay", stay("stay"), {"of": context("of")})  # fmt: skip
    dag = (
        Dag("outer")
        .add("first", flows.book, {"key": "first"}, undo=flows.unbook)
        .map("stays", deeper, ["a"], {"of": item()}, deps=["first"], undo=flows.undo_all)
        .add("told", flows.book, {"key": result("stays", 0)}, undo=flows.unbook)
        .add("pay", flows.fail, {"key": "card"}, deps=["told"])
    )
    with working(MODULE):
        with pytest.raises(durable.WorkflowFailed) as caught:
            client.start(dag, id="outer").result(timeout=30)
        with pytest.raises(durable.OperationRefused):
            client.handle("outer/stays[0]").undo("on its own")
    error = caught.value.__cause__
    assert isinstance(error, durable.DagFailed)
    assert error.steps["stays"]["result"] == ["room"]
    assert error.steps["stays"]["undo"] == "undone"
    assert notes(sql) == [
        "undo room",
        "undo room [('of', 'a')] []",
        "undo room",
        "undo a",
        "undo first",
    ]
    assert_sound(sql)


def test_a_cancel_reaches_a_nested_dag_first(working: Working, client: Client, sql: Sql) -> None:
    inner = (
        Dag("inner")
        .add("a", flows.book, {"key": "a"}, undo=flows.unbook)
        .add("stuck", flows.hangs, {"key": "x"}, deps=["a"])
    )
    dag = (
        Dag("around")
        .add("before", flows.book, {"key": "before"}, undo=flows.unbook)
        .add("inner", inner, deps=["before"])
    )
    with working(MODULE):
        handle = client.start(dag, id="around")
        stuck = client.handle("around/inner")
        eventually(lambda: runs_step(stuck, "stuck"))
        handle.cancel()
        with pytest.raises(durable.WorkflowCancelled):
            handle.result(timeout=30)
        assert stuck.describe().status == "cancelled"
    assert notes(sql) == ["undo a", "undo before"]


def runs_step(handle: Any, step: str) -> bool:
    """Whether a run, which may not have begun, has the step under way."""
    try:
        return bool(handle.query("steps")[step]["status"] == "running")
    except (durable.WorkflowNotFound, durable.QueryFailed):
        return False


def test_an_output_that_cannot_be_made_is_a_failure_and_undone(
    working: Working, client: Client, sql: Sql
) -> None:
    dag = Dag("torn", output=result("a", "x")).add("a", flows.any_of, {"value": 7}, undo=flows.unbook)  # fmt: skip
    with working(MODULE), pytest.raises(durable.WorkflowFailed) as caught:
        client.start(dag, id="torn").result(timeout=30)
    assert "has no 'x'" in str(caught.value.__cause__)
    assert notes(sql) == ["undo 7"]


# -- workers that are killed ------------------------------------------------------------------------------------------------


def events(sql: Sql) -> int:
    row = sql.execute(EVENTS.encode()).fetchone()
    assert row is not None
    return int(row[0])


def storm(
    fleet: Fleet, url: str, client: Client, sql: Sql, seed: int, runs: int, kills: int
) -> None:
    """Random sagas, some of them cancelled, while workers are killed; then what must hold of each of them."""
    draw = random.Random(seed)
    dags = {f"saga-{n}": flows.random_saga(draw, f"saga-{n}") for n in range(runs)}
    workers = [fleet.hire(url, MODULE, lease_s=1.0).ready() for _ in range(2)]
    handles = {name: client.start(dag, id=name) for name, dag in dags.items()}
    for kill in range(kills):
        before = events(sql)
        for name in list(handles)[kill :: kills * 3]:
            with contextlib.suppress(durable.WorkflowClosed):  # it has ended by itself
                handles[name].cancel()
        wanted = before + draw.randint(1, 6 * runs // kills)
        eventually(partial(reached, sql, wanted), what=f"{wanted} events, or the end")
        victim = workers.pop(draw.randrange(2))
        victim.kill()
        workers.append(fleet.hire(url, MODULE, lease_s=1.0))
    outcomes = Counter(handle.outcome(timeout=60).status for handle in handles.values())
    assert set(outcomes) >= {"failed", "completed"}
    counted: dict[str, int] = dict(sql.execute(NOTES.encode()).fetchall())
    for handle in handles.values():
        check(handle, counted)
    for worker in workers:
        assert worker.ready().stop() == 0, worker.log()
    assert_sound(sql)


def reached(sql: Sql, count: int) -> bool:
    row = sql.execute("select 1 from durable.runs where status = 'running' limit 1").fetchone()
    return row is None or events(sql) >= count


def check(handle: Any, counted: dict[str, int]) -> None:
    """The history's order, and that the world has seen every undo (at least once: its worker may have died before the outcome was written)."""
    history = handle.history()
    if handle.describe().status == "completed":
        assert undone(history) == []
        return
    assert_undone_in_order(history)
    keys = {it.body["id"]: it.payload["arguments"]["key"] for it in history if it.body.get("name") == "saga.take_back"}  # fmt: skip
    assert len(keys) == len(completed(history))
    assert all(counted[f"undo {key}"] >= 1 for key in keys.values())
    stuck = [f"{unit}" for unit, key in keys.items() if key.endswith("stuck")]
    assert failed_undos(history) == stuck


@pytest.mark.timeout(120)
def test_rollbacks_are_whole_and_in_order_while_workers_die(
    fleet: Fleet, system_url: str, client: Client, sql: Sql
) -> None:
    storm(fleet, system_url, client, sql, seed=20_270_112, runs=40, kills=4)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(10))
def test_many_rollbacks_are_whole_and_in_order_while_workers_die(
    fleet: Fleet, system_url: str, client: Client, sql: Sql, seed: int
) -> None:
    storm(fleet, system_url, client, sql, seed=seed, runs=400, kills=12)


# -- after success ----------------------------------------------------------------------------------------------------------


def good_trip() -> Dag:
    return (
        Dag("good_trip")
        .add("hotel", flows.book, {"key": "hotel"}, undo=flows.unbook)
        .add("flight", flows.book, {"key": "flight"}, undo=flows.unbook, deps=["hotel"])
        .add("mail", flows.book, {"key": "mail"}, deps=["flight"])
    )


@pytest.mark.parametrize("cache", [0, 100])
def test_a_completed_dag_is_undone_once(
    working: Working, client: Client, sql: Sql, cache: int
) -> None:
    with working(MODULE, max_cached_runs=cache):
        handle = client.start(good_trip(), id="g")
        before = handle.result(timeout=30)
        receipt = client.handle("g").undo("the customer changed his mind", actor="ada")
        again = client.handle("g").undo("the same, sent twice")
        undoing = client.handle("g")
        with pytest.raises(durable.WorkflowCancelled):
            undoing.result(timeout=30)
        assert client.handle("g").undo("once more, when it is done") == again
        steps = undoing.query("steps")
    assert again.run_id == receipt.run_id
    assert notes(sql) == ["undo flight", "undo hotel"]
    assert {name: row["status"] for name, row in steps.items()} == dict.fromkeys(
        before, "completed"
    )
    assert [steps[it].get("undo") for it in ("hotel", "flight", "mail")] == [
        "undone",
        "undone",
        None,
    ]
    assert handle.result() == before  # the run that completed is not touched
    commands = [(it.action, it.code, it.reason) for it in undoing.commands()]
    assert commands == [("undo", "accepted", "the customer changed his mind")]
    assert_undone_in_order(undoing.history())
    assert_sound(sql)


def test_what_cannot_be_undone_is_refused_and_logged(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(MODULE):
        halted = client.start(Dag("open").add("ask", flows.approve, {"key": "x"}), id="open")
        eventually(lambda: halted.describe().details is not None)
        failed = client.start(trip("card"), id="failed")
        with pytest.raises(durable.WorkflowFailed):
            failed.result(timeout=30)
        for handle, code in ((halted, "workflow_running"), (failed, "not_undoable")):
            with pytest.raises(durable.OperationRefused) as caught:
                handle.undo("no")
            assert caught.value.code == code
            assert [(it.action, it.code) for it in handle.commands()] == [("undo", code)]
        with pytest.raises(durable.WorkflowNotFound):
            client.handle("nobody").undo("no")


def test_an_undone_dag_whose_undoing_was_pruned_is_not_undone_again(
    working: Working, client: Client, sql: Sql
) -> None:
    """Nor one that was retried after it had been undone."""
    with working(MODULE):
        first = client.start(good_trip(), id="pruned")
        first.result(timeout=30)
        first.undo("once")
        undoing = client.handle("pruned")
        with pytest.raises(durable.WorkflowCancelled):
            undoing.result(timeout=30)
        retried = client.start(good_trip(), id="retried")
        retried.result(timeout=30)
        retried.undo("once")
        with pytest.raises(durable.WorkflowCancelled):
            client.handle("retried").result(timeout=30)
        client.handle("retried").retry("on second thoughts")
        client.handle("retried").result(timeout=30)
        with pytest.raises(durable.OperationRefused) as twice:
            client.handle("retried").undo("again")
        sql.execute("select durable.advance_clock('1 hour')")
        client.prune(kind="run", older_than=60.0, state="cancelled")
        assert client.handle("pruned").describe().status == "completed"
        with pytest.raises(durable.OperationRefused) as pruned:
            client.handle("pruned").undo("twice")
        client.prune(kind="run", older_than=60.0)
        with pytest.raises(durable.WorkflowNotFound):
            client.handle("pruned").undo("thrice")
    assert (twice.value.code, pruned.value.code) == ("not_undoable", "superseded")
    assert notes(sql) == ["undo flight", "undo hotel"] * 2
