"""Why runs stand still: each cause of the list, produced by real workers on a real database."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from durable.client_async import AsyncClient
from durable.client_sync import Client
from durable.core.causes import Cause, Explanation, NextStep
from durable.errors import WorkflowNotFound
from tests.system import explain_flows as flows
from tests.system.conftest import Working
from tests.system.explaining import Witness, produces, witness
from tests.system.gates import gate
from tests.system.processes import ROOT, Fleet, import_path
from tests.waiting import eventually

__all__ = ["witness"]
Sql = psycopg.Connection[tuple[Any, ...]]
MODULE = flows.__name__


@produces("ended")
def test_what_has_ended_says_how(working: Working, client: Client, witness: Witness) -> None:
    with working(MODULE, "tests.system.flows"):
        done = client.start("quick_steps", {"count": 1}, id="done")
        done.result(timeout=20)
        stopped = client.start(flows.approval, 1, id="stopped")
        stopped.terminate("a duplicate")
    ended = witness.sees("ended", done.explain)
    assert (ended.facts["status"], ended.facts["cause"]) == ("completed", "completed")
    assert ended.since == done.describe().closed_at
    assert witness.status() == "done"
    assert (
        ": somebody ended it by force: a duplicate"
        in witness.sees("ended", stopped.explain).sentence
    )
    assert witness.explanation.next_steps[0].command.startswith("durable retry stopped ")


@produces("signal", "timer", "condition", "child")
def test_waits_are_told_with_their_times_and_lines(
    working: Working, client: Client, witness: Witness
) -> None:
    with working(MODULE):
        asked = client.start(flows.approval, 72, id="o-1")
        found = witness.sees("signal", asked.explain)
        assert (witness.status(), found.who) == ("waiting", "sender")
        assert (found.line or "").startswith("explain_flows.py:")
        assert found.since is not None
        assert found.until is not None
        assert found.until - found.since == timedelta(hours=72)
        assert [it.command for it in found.next_steps] == [
            "durable signal o-1 explain_approved JSON"
        ]
        asleep = client.start(flows.reminder, 3, id="o-2")
        timer = witness.sees("timer", asleep.explain)
        assert timer.until is not None
        (dependency,) = witness.explanation.dependencies
        assert dependency.since is not None
        assert (dependency.kind, dependency.seq) == ("timer", 2)
        assert abs(timer.until - dependency.since - timedelta(hours=3)) < timedelta(minutes=1)
        witness.sees("condition", client.start(flows.threshold, 2, id="o-3").explain)
        parent = client.start(flows.family, 72, id="o-4")
        child = eventually(lambda: grown(witness, parent.explain))
        assert child.facts["child_id"] == "the-child"
        assert [it.code for it in child.causes] == ["signal"]
        assert any("the-child" in step.command for step in witness.explanation.next_steps)


def test_a_parent_is_blocked_by_its_child_and_says_what_to_do_there(
    working: Working, client: Client, witness: Witness
) -> None:
    with working(MODULE):
        parent = client.start(flows.refunds_through_a_child, 9, id="o-1")
        child = eventually(lambda: found_blocked(witness, parent.explain))
        assert [it.code for it in child.causes] == ["exhausted"]
        assert "which needs review" in child.sentence
        assert any(" retry o-1/" in step.command for step in witness.explanation.next_steps)


def found_blocked(witness: Witness, explain: Any) -> Any:
    child = witness.sees("child", explain)
    return child if witness.status() == "blocked" else None


def grown(witness: Witness, explain: Any) -> Any:
    """The child, once it stands at its signal."""
    child = witness.sees("child", explain)
    return child if [it.code for it in child.causes] == ["signal"] else None


@produces("nondeterminism")
def test_changed_code_shows_its_difference(
    working: Working, client: Client, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    with working(MODULE, max_cached_runs=0):
        handle = client.start(flows.evolves_further, id="o-1")
        witness.sees("signal", handle.explain)
        monkeypatch.setitem(flows.changed, "code", True)
        handle.signal(flows.approved, 1)
        found = eventually(lambda: put_back(witness.sees("nondeterminism", handle.explain)))
        assert found is not None
        assert witness.status() == "needs_review" == handle.describe().operator_status
    assert "explain.ships" in found.sentence
    assert "explain.bills" in found.sentence
    assert "tried again at" in found.sentence
    assert found.who == "developer"


def put_back(cause: Cause) -> Cause | None:
    """The cause, when no worker is just trying again."""
    return cause if cause.until is not None else None


@produces("turn_fails")
def test_code_that_spins_is_told_as_such(
    working: Working, client: Client, witness: Witness
) -> None:
    with working(MODULE):
        handle = client.start(flows.spins, id="o-1")
        found = witness.sees("turn_fails", handle.explain)
    assert "steps in one turn" in found.sentence
    assert witness.status() == "needs_review"


@produces("kills_workers")
def test_a_run_that_kills_its_workers_is_named(
    fleet: Fleet, system_url: str, client: Client, witness: Witness
) -> None:
    handle = client.start(flows.kills, id="o-1")
    for _ in range(3):
        fleet.hire(system_url, MODULE).wait()
    fleet.hire(system_url, MODULE)
    found = witness.sees("kills_workers", handle.explain)
    assert (witness.status(), found.facts["times"]) == ("needs_review", 3)


@produces("run_paused", "message_waiting")
def test_a_paused_run_says_who_paused_it_and_what_waits(
    working: Working, client: Client, witness: Witness
) -> None:
    with working(MODULE):
        handle = client.start(flows.approval, 1, id="o-1")
        witness.sees("signal", handle.explain)
        handle.pause("the bank is down", actor="ann")
        handle.signal(flows.approved, 1)
        message = witness.sees("message_waiting", handle.explain)
        paused = witness.sees("run_paused", handle.explain)
    assert "by ann: the bank is down" in paused.sentence
    assert paused.next_steps == (NextStep("durable resume o-1", "let it go on"),)
    assert (message.facts["count"], message.facts["type"]) == (1, "SignalReceived")
    assert witness.status() == "blocked"
    assert witness.explanation.causes[0].code == "run_paused", "the most urgent one comes first"


@produces("cancel_requested")
def test_a_run_that_was_asked_to_stop_cleans_up(
    working: Working, client: Client, witness: Witness
) -> None:
    with working(MODULE):
        handle = client.start(flows.tidies_up, id="o-1")
        witness.sees("timer", handle.explain)
        handle.cancel("not wanted any more", actor="bob")
        witness.sees("signal", handle.explain)
        found = witness.sees("cancel_requested", handle.explain)
    assert "by bob: not wanted any more; its code cleans up" in found.sentence


@produces("delayed", "no_worker")
def test_a_run_before_its_time_and_without_a_worker(client: Client, witness: Witness) -> None:
    handle = client.start(flows.report, id="o-1", delay=3600)
    found = witness.sees("delayed", handle.explain)
    assert found.until is not None
    assert witness.sees("no_worker", handle.explain).facts == {"queue": "default"}
    assert witness.status() == "blocked"


@produces("ready", "worker_silent")
def test_a_frozen_worker_is_noticed_before_its_lease_lapses(
    fleet: Fleet, system_url: str, client: Client, witness: Witness
) -> None:
    worker = fleet.hire(system_url, MODULE, lease_s=3.0).ready()
    with gate(system_url, 7) as closed:
        held = client.start(flows.approval, 1, id="o-1")
        busy = client.start(flows.order, 7, id="o-2")
        closed.wait_for(1)
        witness.sees("signal", held.explain)
        worker.freeze()
        fresh = client.start(flows.report, id="o-3")
        assert witness.sees("ready", fresh.explain).facts["queue"] == "default"
        for handle in (held, busy):
            found = witness.sees("worker_silent", handle.explain)
            assert found.until is not None
            assert found.since is not None
            assert found.until - found.since == timedelta(seconds=3)
            assert "when its lease lapses at" in found.sentence
        attempt = next(it for it in witness.explanation.causes if it.about)
        assert (attempt.code, attempt.about) == ("worker_silent", "activity explain.stands_at #2")


@produces("in_turn")
def test_a_run_in_its_turn_says_which_worker_has_it(
    working: Working, client: Client, sql: Sql, witness: Witness
) -> None:
    """The turn's commit is kept from the history by a lock."""
    handle = client.start(flows.report, id="o-1")
    with working(MODULE, name="w-1"):
        with sql.transaction():
            sql.execute("lock table durable.history in share mode")
            found = witness.sees("in_turn", handle.explain)
        witness.sees("signal", handle.explain)
    assert found.facts == {"worker": "w-1"}


@produces("no_worker_for_workflow")
def test_workers_without_the_workflow(working: Working, client: Client, witness: Witness) -> None:
    with working("tests.system.flows"):
        handle = client.start(flows.report, id="o-1")
        found = witness.sees("no_worker_for_workflow", handle.explain)
        assert found.facts == {"queue": "default", "workflow": "explain.report", "version": 1}
        eventually(lambda: handle.describe().review)  # a worker has looked, and put it back
        witness.sees("no_worker_for_workflow", handle.explain)
        assert witness.status() == "blocked" == handle.describe().operator_status


@produces("no_worker_for_build")
def test_a_pinned_run_without_a_worker_of_its_build(
    working: Working, client: Client, witness: Witness
) -> None:
    handle = client.start(flows.stays_with_its_build, id="o-1")
    with working(MODULE, build="green"):
        witness.sees("signal", handle.explain)
    with working(MODULE, build="blue"):
        found = witness.sees("no_worker_for_build", handle.explain)
        assert handle.describe().operator_status == "blocked" == witness.status()
    assert found.facts["build"] == "green"
    assert found.next_steps[0].command.startswith("durable-worker --build green ")


@produces("update_waiting")
def test_an_update_whose_handler_has_not_ended(
    working: Working, client: Client, witness: Witness
) -> None:
    with working(MODULE):
        handle = client.start(flows.threshold, 1, id="o-1")
        handle.start_update("add", 5, id="u-1")
        found = witness.sees("update_waiting", handle.explain)
        while "accepted" not in found.sentence:
            found = witness.sees("update_waiting", handle.explain)
        witness.sees("signal", handle.explain)
    assert (found.facts["update_id"], found.facts["name"]) == ("u-1", "add")


@produces("local_activity")
def test_a_local_activity_is_named(
    working: Working, client: Client, system_url: str, witness: Witness
) -> None:
    with working(MODULE), gate(system_url, 3) as closed:
        handle = client.start(flows.works_locally, 3, id="o-1")
        closed.wait_for(1)
        assert witness.sees("local_activity", handle.explain).facts["name"] == "explain.stands_at"
        assert witness.status() == "runnable"


# -- where the code stands -----------------------------------------------------------------------------------------------


def stands(found: Explanation) -> list[str]:
    return [line.rpartition(" in ")[2] for task in found.tasks for line in task.lines]


def test_the_worker_that_holds_a_run_says_where_its_code_stands(
    working: Working, client: Client, witness: Witness
) -> None:
    with working(MODULE):
        handle = client.start(flows.approval, 1, id="o-1")
        witness.sees("signal", handle.explain)
        found = handle.explain()
    assert (found.tasks_from, stands(found)) == ("worker", ["approval"])


def test_without_a_worker_the_history_is_replayed_by_whoever_has_the_code(
    working: Working, client: Client, system_url: str, witness: Witness
) -> None:
    with working(MODULE):
        handle = client.start(flows.approval, 1, id="o-1")
        witness.sees("signal", handle.explain)
    found = handle.explain()
    assert (found.tasks_from, stands(found)) == ("replay", ["approval"])
    said = durable(system_url, "explain", "o-1")
    assert "code stands" not in said, "this process has no code of the author's"
    assert "signal explain_approved" in said
    assert "explain_flows.py:" in said
    assert "replayed here" in durable(system_url, "explain", "o-1", "--app", MODULE)


def durable(url: str, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "durable", *arguments, "--url", url],
        env={"PYTHONPATH": import_path(), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    ).stdout


def test_an_asynchronous_client_replays_within_its_loop(
    working: Working, client: Client, system_url: str, witness: Witness
) -> None:
    with working(MODULE):
        witness.sees("signal", client.start(flows.approval, 1, id="o-1").explain)

    async def explained() -> Explanation:
        async with AsyncClient(system_url) as other:
            found = await other.handle("o-1").explain()
            again = await other.explain("o-1")
            assert [it.code for it in again.causes] == [it.code for it in found.causes]
        assert await asyncio.wait_for(asyncio.sleep(0, "as before"), 5) == "as before"
        return found

    found = asyncio.run(explained())
    assert (found.tasks_from, stands(found)) == ("replay", ["approval"])


def test_much_that_is_pending_is_counted_and_not_listed(
    working: Working, client: Client, witness: Witness
) -> None:
    with working(MODULE):
        handle = client.start(flows.fans_out_into_a_desert, 60, id="o-1")
        witness.sees("no_worker", handle.explain)
    assert (len(witness.explanation.dependencies), witness.explanation.unlisted) == (50, 10)


# -- how it is read -------------------------------------------------------------------------------------------------------


def test_facts_are_read_by_index_and_written_nowhere(
    working: Working, client: Client, sql: Sql, witness: Witness
) -> None:
    """One statement, read-only, without a scan of a table that grows."""
    with working(MODULE):
        handle = client.start(flows.approval, 1, id="o-1")
        witness.sees("signal", handle.explain)
        parent = client.start(flows.family, 1, id="o-2")
        witness.sees("child", parent.explain)
    job = client.enqueue(flows.nobody_serves)
    before = scans(sql)
    sql.execute("set default_transaction_read_only = on")
    for workflow_id in ("o-1", "o-2"):
        sql.execute(
            "select durable.run_facts(shard, run_id, 1) from durable.runs where shard = durable.shard_of(%s) and workflow_id = %s",
            (workflow_id, workflow_id),
        ).fetchall()
    sql.execute("select durable.job_facts(durable.shard_of(%s), %s, 0)", (job.job_id, job.job_id))
    sql.execute("select durable.schedule_facts('none')")
    assert scans(sql) == before


def scans(sql: Sql) -> list[tuple[Any, ...]]:
    sql.execute("select pg_stat_force_next_flush()")
    return sql.execute(
        "select relname, seq_scan from pg_stat_user_tables where schemaname = 'durable'"
        " and relname in ('runs', 'jobs', 'history', 'inbox', 'updates', 'operator_commands', 'schedules', 'schedule_slots') order by 1"
    ).fetchall()


def test_an_id_that_nothing_has(client: Client) -> None:
    with pytest.raises(WorkflowNotFound, match="no workflow, job or schedule has the id 'nothing'"):
        client.explain("nothing")
