"""Children that are runs of their own, in a real database with real workers (C15)."""

from __future__ import annotations

import time
from typing import Any

import psycopg
import pytest

from durable.client_sync import Client
from durable.errors import WorkflowCancelled, WorkflowTerminated
from tests.system import family_flows as family
from tests.system.conftest import Working
from tests.system.gates import gate
from tests.system.invariants import assert_sound
from tests.system.processes import Fleet
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]
MODULES = ("tests.system.flows", "tests.system.family_flows")


def statuses(sql: Sql) -> dict[str, str]:
    return dict(
        sql.execute("select workflow_id, status from durable.runs order by generation").fetchall()
    )


def done(sql: Sql) -> list[str]:
    return [key for (key,) in sql.execute("select key from system.executions order by id")]


def test_a_thousand_children_of_one_parent(working: Working, client: Client, sql: Sql) -> None:
    with working(*MODULES):
        began = time.monotonic()
        assert client.start(family.many, 1_000, id="big").result(timeout=60) == 499_500
        assert time.monotonic() - began < 20
    assert list(statuses(sql).values()).count("completed") == 1_001
    assert_sound(sql)


def test_a_child_s_failure_is_typed_and_keeps_its_cause(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(*MODULES):
        seen = client.start(family.sees_failure, id="p").result(timeout=30)
    assert seen == ["failed", "ValueError('too small')"]
    assert statuses(sql) == {"p": "completed", "p/broken_leaf-1": "failed"}
    assert_sound(sql)


def test_a_child_inherits_who_asked_and_names_its_parent(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(*MODULES):
        client.start(family.many, 1, id="p", actor="alice", headers={"trace": "1"}).result(
            timeout=30
        )
    body = client.handle("p/leaf-1").history()[0].body
    assert (body["actor"], body["headers"], body["parent"]["workflow_id"]) == (
        "alice",
        {"trace": "1"},
        "p",
    )


def test_a_signal_to_a_child_arrives(working: Working, client: Client, sql: Sql) -> None:
    with working(*MODULES):
        assert client.start(family.talks_to_child, id="p").result(timeout=30) == 7
    assert [it.status for it in client.handle("p/waiting_leaf-1").signals()] == ["delivered"]
    assert_sound(sql)


POLICIES = [
    ("terminate", ("terminated", "terminated"), []),
    ("cancel", ("cancelled", "cancelled"), ["undone"]),
    ("abandon", ("running", "running"), []),
]


@pytest.mark.parametrize(("policy", "ends", "undone"), POLICIES, ids=[row[0] for row in POLICIES])
def test_a_closing_parent_applies_close_policies(
    policy: str,
    ends: tuple[str, str],
    undone: list[str],
    working: Working,
    system_url: str,
    client: Client,
    sql: Sql,
) -> None:
    """Also to what its children have started: by force where the child ends by force, else through the child's own code."""
    with working(*MODULES), gate(system_url, 60) as held:
        parent = client.start(family.leaves_behind, policy, 60, id="parent")
        held.wait_for(1)
        eventually(
            lambda: (
                "sleep"
                in str(
                    sql.execute(
                        "select waiting_on::text from durable.runs where workflow_id = 'grandchild'"
                    ).fetchall()
                )
            )
        )
        held.open()
        assert parent.result(timeout=30) == "closed"
        eventually(
            lambda: (statuses(sql)["child"], statuses(sql)["grandchild"]) == ends,
            what=str(statuses(sql)),
        )
    assert done(sql) == ["gate", *undone]
    assert_sound(sql, closed=policy != "abandon")


def test_terminating_a_parent_from_outside_terminates_its_family(
    working: Working, system_url: str, client: Client, sql: Sql
) -> None:
    with working(*MODULES), gate(system_url, 61) as held:
        parent = client.start(family.leaves_behind, "terminate", 61, id="parent")
        held.wait_for(1)
        eventually(lambda: "grandchild" in statuses(sql))
        parent.terminate("enough")
        with pytest.raises(WorkflowTerminated):
            parent.result(timeout=30)
        assert set(statuses(sql).values()) == {"terminated"}
    assert_sound(sql)


def test_a_child_terminated_from_outside_is_an_error_of_the_parent(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(*MODULES):
        parent = client.start(family.talks_late, id="p")
        eventually(lambda: "p/waiting_leaf-1" in statuses(sql))
        client.handle("p/waiting_leaf-1").terminate("by hand")
        assert parent.result(timeout=30) == "terminated by hand"
    assert_sound(sql)


def test_an_id_that_is_taken_is_the_parent_s_error(
    working: Working, client: Client, sql: Sql
) -> None:
    """Never the batch's; and an id whose run has closed is free."""
    with working(*MODULES):
        other = client.start(family.waiting_leaf, id="taken")
        assert client.start(family.conflicting, "taken", id="p").result(timeout=30) == "rejected"
        assert statuses(sql)["taken"] == "running"
        other.signal(family.proceed, 1)
        other.result(timeout=30)
        assert client.start(family.conflicting, "taken", id="q").result(timeout=30) == "started"
    assert_sound(sql)


def test_a_child_on_a_queue_without_a_worker_can_be_cancelled(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(*MODULES):
        parent = client.start(family.gives_up, id="p")
        assert parent.result(timeout=30) == "gave up"
    assert statuses(sql)["stranded"] == "cancelled"
    assert_sound(sql)


def test_the_parent_s_cancel_waits_for_the_child_s_compensation(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(*MODULES):
        parent = client.start(family.undoing_parent, id="p")
        eventually(
            lambda: (
                "sleep"
                in str(
                    sql.execute(
                        "select waiting_on::text from durable.runs where workflow_id = 'grandchild'"
                    ).fetchall()
                )
            )
        )
        parent.cancel("stop")
        with pytest.raises(WorkflowCancelled):
            parent.result(timeout=30)
    assert statuses(sql) == {"p": "cancelled", "grandchild": "cancelled"}
    assert done(sql) == ["undone"]
    assert_sound(sql)


def test_a_killed_worker_loses_no_child(
    fleet: Fleet, system_url: str, client: Client, sql: Sql
) -> None:
    """C3: children exist exactly when the event that started them does, and their ends reach whoever holds the parent next."""
    first = fleet.hire(system_url, *MODULES).ready()
    parents = [client.start(family.many, 30, id=f"p{n}") for n in range(10)]
    eventually(lambda: sum(it == "completed" for it in statuses(sql).values()) > 20)
    first.kill()
    fleet.hire(system_url, *MODULES).ready()
    assert [it.result(timeout=60) for it in parents] == [435] * 10
    assert len(statuses(sql)) == 310
    assert_sound(sql)


def test_a_failed_child_is_started_again_as_a_run_of_its_own(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(*MODULES):
        assert client.start(family.insists_on_leaf, 3, "k").result(timeout=30) == 3
    runs = sql.execute(
        "select status from durable.runs where workflow_id = 'k-leaf' order by generation"
    )
    assert runs.fetchall() == [("failed",), ("failed",), ("completed",)]
    assert_sound(sql)
