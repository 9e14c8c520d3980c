"""The group `dag`: the steps of a declared workflow on the command line."""

from __future__ import annotations

import json

from durable.client_sync import Client
from durable.dag import Dag, edge, result
from tests.cli.conftest import Run
from tests.system import background
from tests.system import dag_flows as flows
from tests.system import saga_dag_flows as sagas
from tests.waiting import eventually

MODULE = "tests.system.dag_flows"


def test_an_operator_sees_and_changes_steps(run: Run, database_url: str) -> None:
    flows.gate.clear()
    flows.gate["pay"] = "no money"
    dag = (
        Dag("cli", on_failure="wait")
        .wait("approval")
        .wait("idle")
        .add("pay", flows.gated, {"key": "pay"}, deps=["approval"])
        .add("thank", flows.note, {"text": result("pay")})
        .add("tidy", flows.note, {"text": "x"}, deps=[edge("idle", cancelled="continue")])
    )
    with background.working(database_url, MODULE), Client(database_url) as client:
        handle = client.start(dag, id="d-1")
        eventually(lambda: handle.describe().waiting_on)
        done = run("dag", "complete-step", "d-1", "approval", '{"by": "ann"}', "--actor", "ann")
        assert (done.code, done.out) == (
            0,
            "approval is completed\nchanged with it: pay\n",
        )
        eventually(lambda: handle.query("steps")["pay"]["status"] == "failed")
        late = run("dag", "complete-step", "d-1", "pay", "1")
        assert late.code == 1
        assert (
            "step 'pay' is failed already; you can: durable dag retry-step d-1 pay --reason WHY"
            in late.err
        )
        bad = run("dag", "complete-step", "d-1", "idle", "--status", "great")
        assert bad.code == 1
        assert "completed, failed, skipped" in bad.err
        assert run("dag", "cancel-step", "d-1", "idle").code == 2
        gone = run("dag", "cancel-step", "d-1", "idle", "--reason", "nobody comes", "--json")
        assert json.loads(gone.out) == {"step": "idle", "status": "cancelled", "others": ["tidy"]}
        table = run("dag", "steps", "d-1")
        assert "cancel_step" in table.out
        assert "NonRetryable: no money" in table.out
        flows.gate.clear()
        again = run("dag", "retry-step", "d-1", "pay", "--reason", "money came")
        assert again.out == "pay is running\nchanged with it: thank\n"
        handle.result(timeout=30)
        over = run("dag", "give-up", "d-1", "--reason", "never mind")
        assert over.code == 1


def test_an_operator_resumes_and_undoes(run: Run, database_url: str) -> None:
    dag = (
        Dag("cli_saga")
        .add("book", sagas.do, {"key": "hotel"}, undo=sagas.undo)
        .add("ask", sagas.approve, {"key": "7"}, deps=["book"])
    )
    module = "tests.system.saga_dag_flows"
    with background.working(database_url, module), Client(database_url) as client:
        handle = client.start(dag, id="s-1")
        eventually(lambda: handle.describe().details is not None)
        assert "7 wants a look" in run("dag", "steps", "s-1").out
        assert "halted: 7 wants a look" in run("graph", "s-1").out
        early = run("dag", "undo", "s-1", "--reason", "no")
        assert early.code != 0
        assert "is still running" in early.err
        assert run("dag", "resume", "s-1").out == "s-1 goes on after ask\n"
        handle.result(timeout=30)
        done = run("dag", "undo", "s-1", "--reason", "wrong hotel")
        assert done.out == "s-1 is being undone; durable dag steps s-1 shows how far\n"
        eventually(lambda: client.handle("s-1").describe().status == "cancelled")
        assert "completed, undone" in run("dag", "steps", "s-1").out
        assert "undone" in run("graph", "s-1").out
        again = run("dag", "undo", "s-1", "--reason", "wrong hotel", "--json")
        assert json.loads(again.out)["run_id"] == client.handle("s-1").describe().run_id
        assert run("dag", "resume", "s-1").code != 0
