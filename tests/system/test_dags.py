"""Declared workflows, run by a worker that knows nothing but the activities."""

from __future__ import annotations

from typing import Any

import pytest

import durable
from durable.client_sync import Client
from durable.dag import Dag, context, edge, guard, item, result
from tests.system import dag_flows as flows
from tests.system.conftest import Working
from tests.waiting import eventually

MODULE = "tests.system.dag_flows"


def customer() -> Dag:
    fetched = result("fetch")
    return (
        Dag("customer", context={"id": 7})
        .add("fetch", flows.fetch, {"id": context("id")})
        .map("double", flows.double, fetched.at("orders"), {"amount": item()}, max_concurrency=2)
        .add("total", flows.total, {"amounts": result("double")})
        .branch("size", result("fetch", "orders", transform="length"), {"3": ["few"]}, default=["many"])
        .add("few", flows.note, {"text": "few"})
        .add("many", flows.note, {"text": "many"})
        .add("joined", flows.note, {"text": "joined"}, deps=["few", "many", "total"])
        .add("never", flows.note, {"text": "x"}, when=fetched.at("id").gt(7))
        .add("told", flows.note, {"text": "x"}, guard=guard(fetched.at("id").gt(7), otherwise="no"))
    )  # fmt: skip


def test_steps_get_results_and_branches_join(working: Working, client: Client) -> None:
    """Without a cache, so that every turn is a replay."""
    with working(MODULE, max_cached_runs=0):
        handle = client.start(customer(), id="c-7")
        steps = handle.result(timeout=30)
        assert handle.query("steps") == steps
    assert {name: row["status"] for name, row in steps.items()} == {
        **dict.fromkeys(("fetch", "double", "total", "size", "few", "joined", "told"), "completed"),
        "many": "skipped",
        "never": "skipped",
    }
    assert steps["double"]["result"] == [20, 40, 60]
    assert steps["total"]["result"] == 120
    assert steps["told"]["result"] == "no"


def failing(**settings: Any) -> Dag:
    return (
        Dag("failing", **settings)
        .add("charge", flows.decline, {"amount": 9})
        .add("ship", flows.note, {"text": "x"}, deps=["charge"])
        .add("thank", flows.note, {"text": "x"}, deps=["ship"])
        .add("tell", flows.note, {"text": "sorry"}, deps=[edge("charge", policy="continue")])
    )


def test_a_failure_cancels_what_depends_on_it_unless_the_edge_says_continue(
    working: Working, client: Client
) -> None:
    with working(MODULE):
        steps = client.start(failing(on_failure="complete"), id="f-1").result(timeout=30)
        with pytest.raises(durable.WorkflowFailed) as caught:
            client.start(failing(), id="f-2").result(timeout=30)
    assert {name: row["status"] for name, row in steps.items()} == {
        "charge": "failed", "ship": "cancelled", "thank": "cancelled", "tell": "completed",
    }  # fmt: skip
    assert "9 is too much" in steps["charge"]["failure"]["message"]
    assert steps["thank"]["cause"] == "ship"
    assert isinstance(caught.value.__cause__, durable.DagFailed)
    assert caught.value.__cause__.failed == ["charge"]


def test_an_invalid_dag_is_refused_before_anything_is_written(client: Client) -> None:
    with pytest.raises(durable.InvalidDag):
        client.start(Dag("bad").add("a", flows.note, {"text": 1}), id="bad")
    assert client.list() == []


def test_a_dag_runs_as_a_child_of_a_workflow(working: Working, client: Client) -> None:
    with working(MODULE):
        done = client.start(flows.parent, id="p").result(timeout=30)
    assert done == {"status": "completed", "result": "x"}


def test_a_cancelled_run_cancels_its_steps(working: Working, client: Client) -> None:
    dag = (
        Dag("stuck")
        .add("hangs", flows.hangs)
        .add("after", flows.note, {"text": "x"}, deps=["hangs"])
    )
    with working(MODULE):
        handle = client.start(dag, id="stuck")
        eventually(lambda: "ActivityScheduled" in [event.type for event in handle.history()])
        assert handle.query("steps") == {
            "hangs": {"status": "running"},
            "after": {"status": "pending"},
        }
        handle.cancel()
        with pytest.raises(durable.WorkflowCancelled):
            handle.result(timeout=30)
    assert "ActivityCancelRequested" in [event.type for event in handle.history()]


def test_options_of_a_step_are_those_of_its_activity_call(working: Working, client: Client) -> None:
    """Two hundred steps at the same time meet in one join."""
    dag = Dag("wide")
    for number in range(200):
        dag.add(f"s{number}", flows.note, {"text": "x"}, priority=3)
    dag.add("join", flows.note, {"text": "y"}, deps=[f"s{number}" for number in range(200)])
    with working(MODULE):
        handle = client.start(dag, id="wide")
        steps = handle.result(timeout=40)
    assert {row["status"] for row in steps.values()} == {"completed"}
    scheduled = [e.body for e in handle.history() if e.type == "ActivityScheduled"]
    assert len(scheduled) == 201
    assert [body["id"] for body in scheduled].count("join") == 1
    assert {body["priority"] for body in scheduled if body["id"] != "join"} == {3}
