"""A worker is killed between two compensations, after a failure and after a cancel: the next one undoes the rest, once."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from durable.client_sync import Client
from durable.errors import ActivityError, WorkflowCancelled, WorkflowFailed
from tests.system import saga_flows
from tests.system.gates import gate
from tests.system.invariants import assert_sound
from tests.system.processes import Fleet
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]
FLOWS = ("tests.system.flows", "tests.system.saga_flows")


@pytest.mark.parametrize("flow", [saga_flows.held_up_in_undoing, saga_flows.undoes_by_hand])
@pytest.mark.parametrize("ends_by", ["failure", "cancel"])
def test_what_is_left_is_undone_by_the_next_worker(
    flow: Any, ends_by: str, fleet: Fleet, system_url: str, client: Client, sql: Sql
) -> None:
    with gate(system_url) as held:
        victim = fleet.hire(system_url, *FLOWS, lease_s=1.0)
        handle = client.start(flow, held.number, ends_by, id="trip")
        if ends_by == "cancel":
            eventually(lambda: "go" in str(handle.describe().waiting_on))
            handle.cancel("never mind")
        held.wait_for(1)  # 3 is undone, 2 is under way, 1 is not begun
        victim.kill()
        fleet.hire(system_url, *FLOWS, lease_s=1.0)
        eventually(lambda: ("undo 2", 2) in undone(sql))
        held.open()
        with pytest.raises(WorkflowFailed if ends_by == "failure" else WorkflowCancelled) as ended:
            handle.result(timeout=30)
    if isinstance(failed := ended.value, WorkflowFailed):
        cause = failed.cause
        assert isinstance(cause, ActivityError)
        assert isinstance(cause.cause, saga_flows.OutOfLuck)
    assert undone(sql) == [("undo 3", 1), ("undo 2", 1), ("undo 2", 2), ("undo 1", 1)]
    assert_sound(sql)


def undone(sql: Sql) -> list[tuple[str, int]]:
    return sql.execute(
        "select key, attempt from system.executions where key like 'undo%' order by id"
    ).fetchall()
