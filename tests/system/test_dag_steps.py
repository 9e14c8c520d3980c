"""What others do to the steps of a DAG that is under way: complete, cancel, retry; and what a held run waits for."""

from __future__ import annotations

from typing import Any

import pytest

from durable.client_sync import Client
from durable.dag import Dag, result
from durable.handles_sync import Handle
from tests.system import dag_flows as flows
from tests.system.conftest import Working
from tests.waiting import eventually

MODULE = "tests.system.dag_flows"


@pytest.fixture(autouse=True)
def _open_gates() -> None:
    flows.gate.clear()
    flows.seen_keys.clear()


def statuses(handle: Handle[Any]) -> dict[str, str]:
    return {name: row["status"] for name, row in handle.query("steps").items()}


def approval(**settings: Any) -> Dag:
    return (
        Dag("approval")
        .add("ask", flows.note, {"text": "please"})
        .wait("approval", deps=["ask"], **settings)
        .add("pay", flows.note, {"text": result("approval", "by")})
    )


def test_a_step_is_completed_from_outside(working: Working, client: Client) -> None:
    with working(MODULE, max_cached_runs=0):
        handle = client.start(approval(), id="a-1")
        eventually(lambda: statuses(handle)["approval"] == "running")
        first = handle.update("complete_step", "approval", "completed", {"by": "ann"})
        again = handle.update("complete_step", "approval", "completed", {"by": "ann"})
        assert first == again
        steps = handle.result(timeout=30)
    assert first == {"step": "approval", "status": "completed", "others": ["pay"]}
    assert steps["pay"]["result"] == "ann"
    assert steps["approval"]["by"]["operation"] == "complete_step"
