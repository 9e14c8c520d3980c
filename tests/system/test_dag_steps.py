"""What others do to the steps of a DAG that is under way, or over: complete, cancel, retry; and what a held run waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest

import durable
from durable.client_sync import Client
from durable.dag import Dag, edge, item, result
from durable.descriptions import StepReceipt
from durable.handles_sync import Handle
from tests.system import dag_flows as flows
from tests.system.conftest import Working
from tests.waiting import eventually, eventually_async

MODULE = "tests.system.dag_flows"


@pytest.fixture(autouse=True)
def _open_gates() -> None:
    flows.gate.clear()
    flows.seen_keys.clear()


def statuses(handle: Handle[Any]) -> dict[str, str]:
    """Of no step before the run has begun."""
    try:
        table = handle.query("steps")
    except durable.QueryFailed:
        return {}
    return {name: row["status"] for name, row in table.items()}


def reaches(handle: Handle[Any], step: str, status: str) -> None:
    eventually(lambda: statuses(handle).get(step) == status, what=f"{step} {status}")


def approval(**settings: Any) -> Dag:
    return (
        Dag("approval")
        .add("ask", flows.note, {"text": "please"})
        .wait("approval", deps=["ask"], **settings)
        .add("pay", flows.note, {"text": result("approval", "by")})
    )


# -- complete -------------------------------------------------------------------------------------------------------------


def test_a_waiting_step_is_completed_from_outside_once(working: Working, client: Client) -> None:
    """Without a cache, so that every turn is a replay."""
    with working(MODULE, max_cached_runs=0):
        handle = client.start(approval(), id="a-1")
        reaches(handle, "approval", "running")
        first = client.complete_step("a-1", "approval", payload={"by": "ann"}, actor="bank")
        steps = handle.result(timeout=30)
        again = client.complete_step("a-1", "approval", payload={"by": "ann"})
        with pytest.raises(durable.WorkflowClosed):
            client.complete_step("a-1", "approval", payload={"by": "bob"})
    assert first == StepReceipt("approval", "completed", ("pay",))
    assert again == first
    assert steps["pay"]["result"] == "ann"
    assert steps["approval"]["by"] == {"operation": "complete_step", "actor": "bank"}
    (logged,) = client.commands(name="a-1")
    assert (logged.action, logged.accepted, logged.actor) == ("complete_step", True, "bank")


def test_a_step_that_has_ended_otherwise_is_refused_with_what_is_legal(
    working: Working, client: Client
) -> None:
    with working(MODULE):
        handle = client.start(approval(), id="a-2")
        reaches(handle, "approval", "running")
        with pytest.raises(durable.StepRefused) as ended:
            client.complete_step("a-2", "ask", payload="else")
        with pytest.raises(durable.StepRefused) as unknown:
            client.complete_step("a-2", "aks")
        with pytest.raises(durable.StepRefused) as running:
            client.retry_step("a-2", "approval", "why not")
        recorded = [event.type for event in handle.history()]
    assert (ended.value.code, ended.value.status, ended.value.next_steps) == (
        "step_ended",
        "completed",
        [],
    )
    assert unknown.value.code == "unknown_step"
    assert "'aks'; it has: approval, ask, pay" in str(unknown.value)
    assert running.value.code == "step_not_ended"
    assert "durable dag complete-step a-2 approval JSON" in running.value.next_steps
    assert "UpdateAccepted" not in recorded
    logged = client.commands(name="a-2")
    assert [(it.action, it.accepted, it.code) for it in reversed(logged)] == [
        ("complete_step", False, "step_refused"),
        ("complete_step", False, "step_refused"),
        ("retry_step", False, "step_refused"),
    ]
    assert "step 'approval' is running" in str(logged[0].reason)
    assert logged[0].next_steps == ("durable dag steps a-2", "durable explain a-2")


def test_a_completion_that_comes_early_is_kept_for_the_step(
    working: Working, client: Client
) -> None:
    dag = (
        Dag("early")
        .wait("first")
        .wait("second", deps=["first"])
        .add("gone", flows.gated, {"key": "e"}, deps=["second"])
    )  # fmt: skip
    with working(MODULE, max_cached_runs=0):
        handle = client.start(dag, id="early")
        reaches(handle, "first", "running")
        assert client.complete_step("early", "second", payload=2).status == "pending"
        client.complete_step("early", "gone", payload="by hand")
        with pytest.raises(durable.StepRefused):
            client.complete_step("early", "second", payload=3)
        client.complete_step("early", "first")
        steps = handle.result(timeout=30)
    assert steps["second"]["result"] == 2
    assert steps["gone"]["result"] == "by hand"
    assert flows.seen_keys == {}


def test_a_running_activity_loses_its_say_when_its_step_is_completed(
    working: Working, client: Client
) -> None:
    dag = (
        Dag("hung")
        .add("hangs", flows.hangs)
        .add("after", flows.note, {"text": "x"}, deps=["hangs"])
    )
    with working(MODULE):
        handle = client.start(dag, id="hung")
        eventually(lambda: "ActivityScheduled" in [event.type for event in handle.history()])
        client.complete_step("hung", "hangs", payload="by hand")
        steps = handle.result(timeout=30)
    assert steps["hangs"]["result"] == "by hand"
    assert steps["after"]["status"] == "completed"
    assert "ActivityCancelRequested" in [event.type for event in handle.history()]


def test_failed_and_skipped_from_outside_follow_the_edges(working: Working, client: Client) -> None:
    dag = (
        Dag("by hand", on_failure="complete")
        .wait("fails")
        .wait("skips")
        .add("below", flows.note, {"text": "x"}, deps=["fails"])
        .add("tell", flows.note, {"text": "x"}, deps=[edge("fails", failed="continue")])
        .add("joined", flows.note, {"text": "x"}, deps=["skips"])
    )
    with working(MODULE):
        handle = client.start(dag, id="hands")
        reaches(handle, "skips", "running")
        client.complete_step("hands", "fails", status="failed", payload="the bank said no")
        client.complete_step("hands", "skips", status="skipped")
        steps = handle.result(timeout=30)
    assert steps["fails"]["failure"] == {"type": "StepFailed", "message": "the bank said no"}
    assert {name: row["status"] for name, row in steps.items()} == {
        "fails": "failed", "skips": "skipped", "below": "cancelled", "tell": "completed", "joined": "skipped",
    }  # fmt: skip


def test_a_waiting_step_fails_when_its_time_is_up(
    working: Working, client: Client, sql: psycopg.Connection[Any]
) -> None:
    with working(MODULE):
        handle = client.start(approval(timeout=timedelta(days=3)), id="late")
        reaches(handle, "approval", "running")
        sql.execute("select durable.advance_clock('4 days')")
        with pytest.raises(durable.WorkflowFailed) as caught:
            handle.result(timeout=30)
    failed = caught.value.__cause__
    assert isinstance(failed, durable.DagFailed)
    assert failed.steps["approval"]["failure"]["type"] == "TimeoutError"
    assert "within 3 days" in failed.steps["approval"]["failure"]["message"]
    assert failed.steps["pay"]["status"] == "cancelled"


def test_a_step_waits_for_a_signal(working: Working, client: Client) -> None:
    with working(MODULE):
        handle = client.start(approval(signal=flows.approved), id="signalled")
        handle.signal(flows.approved, {"by": "bob"})
        assert handle.result(timeout=30)["pay"]["result"] == "bob"


def test_a_run_names_what_it_hangs_on(working: Working, client: Client) -> None:
    dag = Dag("hanging").wait("approval").wait("money", signal="paid").add("activity", flows.hangs)
    with working(MODULE):
        handle = client.start(dag, id="hanging")
        waits = eventually(lambda: handle.describe().waiting_on)
    named = {(wait["kind"], wait.get("id") or wait["name"]) for wait in waits}
    assert named == {("step", "approval"), ("signal", "paid"), ("activity", "activity")}


def test_a_run_that_hangs_on_one_activity_names_its_step(working: Working, client: Client) -> None:
    with working(MODULE):
        handle = client.start(Dag("one").add("lonely", flows.hangs), id="one")
        waits = eventually(lambda: handle.describe().waiting_on)
    assert [(it["kind"], it["name"], it["id"]) for it in waits] == [
        ("activity", "dag.hangs", "lonely")
    ]


# -- cancel ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["pending", "waiting", "activity", "map"])
def test_a_cancelled_step_cancels_what_depends_on_it_by_the_edges(
    working: Working, client: Client, which: str
) -> None:
    dag = (
        Dag("cancelling")
        .wait("waiting")
        .wait("pending", deps=["waiting"])
        .add("activity", flows.hangs)
        .map("map", flows.hangs_on, [1, 2, 3], {"number": item()}, max_concurrency=2)
        .add("below", flows.note, {"text": "x"}, deps=[which])
        .add("beneath", flows.note, {"text": "x"}, deps=["below"])
        .add("cleanup", flows.note, {"text": "x"}, deps=[edge(which, cancelled="continue")])
    )
    with working(MODULE):
        handle = client.start(dag, id="c")
        reaches(handle, "map", "running")
        receipt = client.cancel_step("c", which, "not needed", actor="ann")
        again = client.cancel_step("c", which, "not needed")
        reaches(handle, "cleanup", "completed")
        table = handle.query("steps")
        with pytest.raises(durable.StepRefused) as late:
            client.complete_step("c", which)
        handle.terminate("seen enough")
    assert receipt.status == again.status == "cancelled"
    assert {"below", "beneath"} <= set(receipt.others)
    assert table["below"] == {"status": "cancelled", "cause": which}
    assert table["beneath"] == {"status": "cancelled", "cause": "below"}
    assert table[which]["by"] == {
        "operation": "cancel_step",
        "reason": "not needed",
        "actor": "ann",
    }
    assert late.value.next_steps == [f"durable dag retry-step c {which} --reason WHY"]


def test_a_step_whose_activity_is_waited_for_is_cancelled_when_that_ends(
    working: Working, client: Client
) -> None:
    dag = Dag("patient").add("slow", flows.hangs.options(cancellation="wait"))
    with working(MODULE):
        handle = client.start(dag, id="patient")
        eventually(lambda: "ActivityScheduled" in [event.type for event in handle.history()])
        client.cancel_step("patient", "slow", "enough")
        assert handle.result(timeout=30)["slow"]["status"] == "cancelled"


# -- retry ----------------------------------------------------------------------------------------------------------------


def shipping(**settings: Any) -> Dag:
    return (
        Dag("shipping", **settings)
        .add("reserve", flows.gated, {"key": "reserve"})
        .add("charge", flows.gated, {"key": "charge"}, deps=["reserve"])
        .add("ship", flows.gated, {"key": "ship"}, deps=["charge"])
        .add("thank", flows.gated, {"key": "thank"}, deps=["ship"])
        .add("sorry", flows.gated, {"key": "sorry"}, deps=[edge("charge", failed="continue")])
        .add("log", flows.gated, {"key": "log"})
    )


def test_a_held_run_waits_for_a_retry_which_revives_what_was_cancelled(
    working: Working, client: Client
) -> None:
    flows.gate["charge"] = "no money"
    with working(MODULE, max_cached_runs=0):
        handle = client.start(shipping(on_failure="wait"), id="held")
        eventually(lambda: handle.describe().operator_status == "needs_review")
        waits = handle.describe().waiting_on
        assert statuses(handle)["thank"] == "cancelled"
        with pytest.raises(durable.StepRefused) as refused:
            client.retry_step("held", "thank", "please")
        del flows.gate["charge"]
        receipt = client.retry_step("held", "charge", "money came", actor="ann", request_id="r-1")
        assert client.retry_step("held", "charge", "money came", request_id="r-1") == receipt
        steps = handle.result(timeout=30)
    assert [(it["kind"], it["name"]) for it in waits] == [("operator", "retry of charge")]
    assert refused.value.code == "step_cancelled"
    assert refused.value.next_steps == ["durable dag retry-step held charge --reason WHY"]
    assert (receipt.status, receipt.others) == ("running", ("ship", "thank"))
    assert {row["status"] for row in steps.values()} == {"completed"}
    assert {key: len(keys) for key, keys in flows.seen_keys.items()} == {
        "reserve": 1, "charge": 2, "ship": 1, "thank": 1, "sorry": 1, "log": 1,
    }  # fmt: skip
    assert len(set(flows.seen_keys["charge"])) == 1


def test_a_held_run_that_is_given_up_fails(working: Working, client: Client) -> None:
    flows.gate["charge"] = "no money"
    with working(MODULE):
        handle = client.start(shipping(on_failure="wait"), id="given-up")
        eventually(lambda: handle.describe().operator_status == "needs_review")
        client.give_up_dag("given-up", "no money will come")
        with pytest.raises(durable.WorkflowFailed):
            handle.result(timeout=30)
        other = client.start(approval(), id="not-held")
        with pytest.raises(durable.StepRefused) as refused:
            client.give_up_dag("not-held", "why not")
        other.terminate("done")
    assert refused.value.code == "not_waiting"


def by_step(client: Client, workflow_id: str) -> None:
    """Twice, as somebody does who has not heard of the first."""
    first = client.retry_step(workflow_id, "charge", "money came", request_id="r-7")
    again = client.retry_step(workflow_id, "charge", "money came", request_id="r-7")
    assert first == again


def as_a_whole(client: Client, workflow_id: str) -> None:
    client.handle(workflow_id).retry("money came")


def in_a_batch(client: Client, workflow_id: str) -> None:
    client.batch("retry", f"id_prefix={workflow_id}", reason="money came")


@pytest.mark.parametrize("retried", [by_step, as_a_whole, in_a_batch])
def test_a_failed_run_is_taken_up_and_only_what_failed_or_was_cancelled_runs(
    working: Working, client: Client, retried: Callable[[Client, str], None]
) -> None:
    """Though steps had been scheduled and had completed after the failure."""
    flows.gate["charge"] = "no money"
    late = shipping().wait("later").add("last", flows.gated, {"key": "last"}, deps=["later"])
    with working(MODULE, max_cached_runs=0):
        handle = client.start(late, id="f-1")
        reaches(handle, "sorry", "completed")
        client.complete_step("f-1", "later")
        with pytest.raises(durable.WorkflowFailed):
            handle.result(timeout=30)
        del flows.gate["charge"]
        retried(client, "f-1")
        steps = client.handle("f-1").result(timeout=30)
    assert {row["status"] for row in steps.values()} == {"completed"}
    assert {key: len(keys) for key, keys in flows.seen_keys.items()} == {
        "reserve": 1, "charge": 2, "ship": 1, "thank": 1, "sorry": 1, "log": 1, "last": 1,
    }  # fmt: skip
    assert len(set(flows.seen_keys["charge"])) == 1


def test_all_steps_that_failed_are_retried_with_the_run(working: Working, client: Client) -> None:
    dag = Dag("two")
    for name in "abc":
        dag.add(name, flows.gated, {"key": name})
    flows.gate.update(a="no", c="no")
    with working(MODULE):
        handle = client.start(dag, id="two")
        with pytest.raises(durable.WorkflowFailed):
            handle.result(timeout=30)
        flows.gate.clear()
        handle.retry("fixed")
        steps = client.handle("two").result(timeout=30)
    assert {row["status"] for row in steps.values()} == {"completed"}
    assert {key: len(keys) for key, keys in flows.seen_keys.items()} == {"a": 2, "b": 1, "c": 2}


def test_a_step_of_a_run_that_completed_without_it_is_retried(
    working: Working, client: Client
) -> None:
    flows.gate["charge"] = "no money"
    with working(MODULE):
        handle = client.start(shipping(on_failure="complete"), id="completed")
        assert handle.result(timeout=30)["ship"]["status"] == "cancelled"
        with pytest.raises(durable.StepRefused):
            client.retry_step("completed", "reserve", "why not")
        assert len(client.handle("completed").commands()) == 0
        del flows.gate["charge"]
        client.retry_step("completed", "charge", "money came")
        steps = client.handle("completed").result(timeout=30)
    assert {row["status"] for row in steps.values()} == {"completed"}
    assert len(flows.seen_keys["reserve"]) == 1


def test_a_retried_map_calls_only_what_did_not_complete(working: Working, client: Client) -> None:
    dag = Dag("map", on_failure="wait").map(
        "each", flows.gated, ["a", "b", "c"], {"key": item()}, max_concurrency=3
    )
    flows.gate["b"] = "no"
    with working(MODULE, max_cached_runs=0):
        handle = client.start(dag, id="map")
        reaches(handle, "each", "failed")
        flows.gate.clear()
        client.retry_step("map", "each", "fixed")
        steps = handle.result(timeout=30)
    assert steps["each"]["result"] == ["done a", "done b", "done c"]
    assert {key: len(keys) for key, keys in flows.seen_keys.items()} == {"a": 1, "b": 2, "c": 1}
    assert len(set(flows.seen_keys["b"])) == 1


def test_a_run_that_has_undone_its_steps_is_not_retried(working: Working, client: Client) -> None:
    flows.gate["charge"] = "no money"
    dag = (
        Dag("undone")
        .add("reserve", flows.gated, {"key": "reserve"}, undo=flows.take_back)
        .add("charge", flows.gated, {"key": "charge"}, deps=["reserve"])
    )
    with working(MODULE):
        handle = client.start(dag, id="undone")
        with pytest.raises(durable.WorkflowFailed):
            handle.result(timeout=30)
        with pytest.raises(durable.OperationRefused) as whole:
            handle.retry("money came")
        with pytest.raises(durable.StepRefused) as step:
            client.retry_step("undone", "charge", "money came")
    assert whole.value.code == "rolled_back"
    assert step.value.code == "undoing"
    assert [command.code for command in handle.commands()] == ["rolled_back"]


def test_the_asynchronous_client_does_the_same(working: Working, database_url: str) -> None:
    flows.gate["pay"] = "no money"
    dag = Dag("async", on_failure="wait").wait("a").wait("b")
    dag.add("pay", flows.gated, {"key": "pay"})

    async def operate() -> dict[str, Any]:
        async with durable.AsyncClient(database_url) as client:
            handle = await client.start(dag, id="async")
            assert (await client.complete_step("async", "a", payload=1)).status == "completed"
            assert (await client.cancel_step("async", "b", "why")).status == "cancelled"

            async def is_held() -> bool:
                return (await handle.describe()).operator_status == "needs_review"

            await eventually_async(is_held)
            flows.gate.clear()
            assert (await client.retry_step("async", "pay", "now")).status == "running"
            return dict(await handle.result(timeout=30))

    with working(MODULE):
        steps = asyncio.run(operate())
    assert {name: row["status"] for name, row in steps.items()} == {
        "a": "completed", "b": "cancelled", "pay": "completed",
    }  # fmt: skip
