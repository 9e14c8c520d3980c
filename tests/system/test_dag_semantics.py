"""The semantics of steps end to end: retries, cascades of any depth, joins of many workers, SIGKILL at commit boundaries, retention."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

import psycopg
import pytest

from durable.client_sync import Client
from durable.dag import Dag, edge, result
from durable.handles_sync import Handle
from tests.system import dag_flows as flows
from tests.system import dag_storm_flows as storm
from tests.system.conftest import Working
from tests.system.invariants import assert_sound
from tests.system.processes import Fleet, WorkerProcess
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]

MODULE = "tests.system.dag_flows"
STORM = "tests.system.dag_storm_flows"
DECLARE_DEAD = (
    "update durable.workers set lease_until = durable.now() - interval '1 s' where state = 'alive'"
)
POINTS = {
    "commit.before": 4, "commit.after": 4, "claim_runs.after": 2, "attempt.before": 12, "attempt.after": 12,
}  # fmt: skip
"""Boundaries, and how often they may have been passed before the one at which a worker dies."""


def test_a_retryable_failure_keeps_what_depends_on_it_pending(
    working: Working, client: Client, sql: Sql
) -> None:
    flows.gate.clear()
    flows.gate["bank"] = "not now"
    dag = (
        Dag("unsteady")
        .add("charge", flows.unsteady, {"key": "bank"})
        .add("ship", flows.note, {"text": result("charge")})
        .add("tell", flows.note, {"text": "x"}, deps=[edge("charge", policy="continue")])
    )
    with working(MODULE):
        handle = client.start(dag, id="unsteady")
        eventually(lambda: [job.state for job in handle.pending()] == ["retryable"])
        standing = {name: row["status"] for name, row in handle.query("steps").items()}
        flows.gate.clear()
        sql.execute("select durable.advance_clock('2 hours')")
        steps = handle.result(timeout=30)
    assert standing == {"charge": "running", "ship": "pending", "tell": "pending"}
    assert steps["ship"]["result"] == "done bank"


@pytest.mark.timeout(120)
def test_a_failure_cancels_ten_thousand_steps_and_a_retry_revives_them(
    working: Working, client: Client
) -> None:
    flows.gate.clear()
    flows.gate["top"] = "no"
    dag = Dag("deep", on_failure="wait").add("0", flows.gated, {"key": "top"})
    for number in range(1, 10_000):
        dag.add(str(number), flows.note, {"text": "x"}, deps=[str(number - 1)])
    dag.add("told", flows.note, {"text": "x"}, deps=[edge("9999", policy="continue")])
    with working(MODULE):
        handle = client.start(dag, id="deep")
        eventually(lambda: handle.describe().operator_status == "needs_review", 60.0)
        counts = Counter(row["status"] for row in handle.query("steps", timeout=30).values())
        flows.gate.clear()
        receipt = client.retry_step("deep", "0", "fixed", timeout=30)
        revived = Counter(row["status"] for row in handle.query("steps", timeout=30).values())
        handle.terminate("seen enough")
    assert counts == {"failed": 1, "cancelled": 9_999, "completed": 1}
    assert len(receipt.others) == 100
    assert revived["cancelled"] == 0
    assert revived["completed"] >= 1


@pytest.mark.timeout(120)
def test_many_workers_never_lose_a_join(
    fleet: Fleet, client: Client, database_url: str, sql: Sql
) -> None:
    """Layers of siblings that end in other processes at the same time; each layer is behind a join of the one before."""
    dag, join = Dag("layers"), None
    for layer in range(6):
        names = [f"{layer}.{number}" for number in range(25)]
        for name in names:
            dag.add(name, flows.note, {"text": "x"}, deps=[join] if join else [])
        join = f"join {layer}"
        dag.add(join, flows.note, {"text": "x"}, deps=names)
    handles = [client.start(dag, id=f"layers-{number}") for number in range(4)]
    for _ in range(3):
        fleet.hire(database_url, MODULE)
    for handle in handles:
        steps = handle.result(timeout=60)
        assert {row["status"] for row in steps.values()} == {"completed"}
        scheduled = Counter(e.body["id"] for e in handle.history() if e.type == "ActivityScheduled")
        assert scheduled == dict.fromkeys(steps, 1)
    assert_sound(sql)


def start_drawn(client: Client, name: str, seed: int) -> Handle[Any]:
    """A random DAG; those of its steps that wait are completed before any worker is there."""
    dag = storm.drawn("drawn", seed)
    handle = client.start(dag, id=f"{name}-{seed}")
    for step in storm.waits(dag):
        handle.start_update("complete_step", step, "completed", 5, id=f"complete {step}")
    return handle


def ends(handle: Handle[Any]) -> dict[str, Any]:
    """The table without what may depend on who was first: of several causes or failures, and how many attempts it took."""
    steps = handle.result(timeout=60)
    return {
        name: (row["status"], row.get("result"), "failure" in row) for name, row in steps.items()
    }


def is_any_open(handles: Mapping[int, Handle[Any]]) -> bool:
    return any(it.describe().status == "running" for it in handles.values())


def is_over(victim: WorkerProcess, handles: Mapping[int, Handle[Any]]) -> bool:
    return victim.ended() or not is_any_open(handles)


@pytest.mark.timeout(180)
def test_killed_at_commit_boundaries_workers_leave_the_table_of_a_calm_run(
    fleet: Fleet, working: Working, client: Client, system_url: str, sql: Sql
) -> None:
    """C3: random DAGs, first in peace; then while one worker after the other dies at a boundary that is drawn."""
    chance, seeds = random.Random(7), range(12)
    with working(STORM):
        calm = {seed: ends(start_drawn(client, "calm", seed)) for seed in seeds}
    handles = {seed: start_drawn(client, "storm", seed) for seed in seeds}
    died = 0
    while died < 6 and is_any_open(handles):
        point = chance.choice(list(POINTS))
        at = f"{point}:{chance.randint(1, POINTS[point])}"
        env = {"DURABLE_CRASH_AT": at}
        victim = fleet.hire(system_url, STORM, lease_s=10.0, options=("--cache", "3"), env=env)
        eventually(partial(is_over, victim, handles), what=f"{at} is reached")
        died += victim.ended()
        victim.close()
        sql.execute(DECLARE_DEAD)
    with working(STORM):
        stormy = {seed: ends(handle) for seed, handle in handles.items()}
    assert died >= 4
    assert {status for table in calm.values() for status, _, _ in table.values()} == {
        "completed", "failed", "cancelled", "skipped",
    }  # fmt: skip
    assert stormy == calm
    assert_sound(sql)


def test_retention_spares_what_an_unfinished_dag_needs(
    working: Working, client: Client, sql: Sql
) -> None:
    """The oldest result of an open run, its waiting and its retrying activity, however old they are."""
    flows.gate.clear()
    flows.gate["bank"] = "not now"
    dag = (
        Dag("old")
        .add("first", flows.note, {"text": "kept"})
        .add("charge", flows.unsteady, {"key": "bank"})
        .wait("approval", deps=["first"])
        .add("last", flows.note, {"text": result("first")}, deps=["approval", "charge"])
    )
    with working(MODULE, max_cached_runs=0):
        handle = client.start(dag, id="old")
        client.enqueue(flows.note, "by itself")
        eventually(lambda: [job.state for job in handle.pending()] == ["retryable"])
        assert handle.query("steps")["approval"]["status"] in ("pending", "running")
        eventually(lambda: client.prune(older_than=0.0, dry_run=True).jobs == 1)
        pruned = client.prune(older_than=0.0)
        assert (pruned.runs, pruned.jobs) == (0, 1)
        assert [job.state for job in handle.pending()] == ["retryable"]
        flows.gate.clear()
        client.complete_step("old", "approval")
        sql.execute("select durable.advance_clock('2 hours')")
        assert handle.result(timeout=30)["last"]["result"] == "kept"
        assert client.prune(older_than=0.0).runs == 1
