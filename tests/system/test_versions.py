"""Several versions of a workflow, and builds of workers, at once: who runs what."""

from __future__ import annotations

import json
from importlib import import_module
from typing import Any

import psycopg
import pytest

from durable.client_sync import Client
from durable.core import semantics
from durable.errors import UnknownWorkflow, WorkflowClosed, WorkflowNotFound
from durable.handles_sync import Handle
from tests.system import flows, pinned_flows
from tests.system.conftest import Working
from tests.system.invariants import assert_sound
from tests.system.processes import FLOWS, Fleet
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]
OLD = "tests.system.versions_old"
BOTH = "tests.system.versions_both"
PINNED = "tests.system.pinned_flows"


def started(sql: Sql, client: Client, key: str, **options: Any) -> Handle[Any]:
    """By name, as somebody without the code does."""
    sql.execute(
        "select durable.start('versioned', %s, %s, version => %s)",
        (json.dumps({"key": key}), key, options.get("version")),
    )
    return client.handle(key)


def waits_for_go(handle: Handle[Any]) -> bool:
    return "go" in str(handle.describe().waiting_on)


def executed(sql: Sql) -> list[str]:
    return [key for (key,) in sql.execute("select key from system.executions order by id")]


# -- versions ---------------------------------------------------------------------------------------------------------


def test_a_rolling_deployment_of_a_new_version(
    fleet: Fleet, system_url: str, client: Client, sql: Sql
) -> None:
    """Runs stay on theirs, new starts take the newest; a worker that lacks a version gives the run back at once."""
    old = fleet.hire(system_url, FLOWS, OLD).ready()
    first = started(sql, client, "first")
    eventually(lambda: waits_for_go(first))
    assert first.describe().version == 1
    fleet.hire(system_url, FLOWS, BOTH).ready()
    later = [started(sql, client, f"later-{n}") for n in range(12)]
    explicit = started(sql, client, "explicit", version=1)
    assert [it.describe().version for it in (*later, explicit)] == [2] * 12 + [1]
    for handle in (first, *later, explicit):
        handle.signal(flows.go, 1)
    assert first.result(timeout=60) == "version 1"
    assert explicit.result(timeout=60) == "version 1"
    assert {it.result(timeout=60) for it in later} == {"version 2"}
    assert all(it.describe().review is None for it in later)
    old.stop()
    assert len(executed(sql)) == len(set(executed(sql))) == 2 + 2 + 12
    import_module(
        BOTH
    )  # only now: the starts above were of names that this process did not know; the histories replay with both
    assert_sound(sql)


def test_a_version_that_was_rolled_back_gets_no_new_runs(
    fleet: Fleet, system_url: str, client: Client, sql: Sql
) -> None:
    """It stays registered; but no live worker has it, and one has the version before."""
    both = fleet.hire(system_url, FLOWS, BOTH).ready()
    assert started(sql, client, "canary").describe().version == 2
    both.stop()
    assert started(sql, client, "before anybody lives").describe().version == 2
    fleet.hire(system_url, FLOWS, OLD).ready()
    assert started(sql, client, "rolled back").describe().version == 1


def test_an_unknown_version_is_refused_before_anything_is_written(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(FLOWS, PINNED):
        with pytest.raises(UnknownWorkflow, match="no version 9 here; workers have registered 1"):
            client.start("moves", {"key": "k"}, version=9)
        with pytest.raises(UnknownWorkflow, match="no version 9"):
            client.start(pinned_flows.moves, key="k", version=9)
        with pytest.raises(psycopg.errors.DatabaseError, match="moves of version 9"):
            sql.execute("select durable.start('moves', '{\"key\": \"k\"}', version => 9)")
    assert sql.execute("select count(*) from durable.runs").fetchone() == (0,)


def test_a_run_that_continues_as_new_stays_with_its_version_until_it_names_another(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(FLOWS, PINNED):
        handle = client.start("renewed", {"rounds": 1}, id="r", version=1)
        for amount in (1, 2, 3):
            handle.signal(flows.go, amount)
        result = client.handle("r").result(timeout=20)
    assert result == pinned_flows.Tally(total=6, currency="EUR")  # decoded as its version says
    rows = sql.execute("select generation, version from durable.runs order by generation")
    assert rows.fetchall() == [(0, 1), (1, 1), (2, 2)]
    assert_sound(sql)


def test_a_child_takes_the_version_of_the_function_that_is_named(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(FLOWS, PINNED):
        parent = client.start(pinned_flows.parent_of_renewed, id="p")
        eventually(lambda: parent.describe().waiting_on)
        child = client.handle("p/renewed-1")
        assert child.describe().version == 2
        child.signal(flows.go, 1)
        assert parent.result(timeout=20).total == 2
    assert_sound(sql)


# -- builds -----------------------------------------------------------------------------------------------------------


def test_a_pinned_run_stays_with_its_build_and_others_move_freely(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(FLOWS, PINNED, build="a"):
        pinned = client.start(pinned_flows.stays, "p", id="p")
        free = client.start(pinned_flows.moves, "f", id="f")
        chosen = client.start(pinned_flows.moves, "c", id="c", pinned=True)
        declined = client.start(pinned_flows.stays, "d", id="d", pinned=False)
        handles = {"p": pinned, "f": free, "c": chosen, "d": declined}
        for handle in handles.values():
            eventually(lambda handle=handle: waits_for_go(handle))  # type: ignore[misc]
    builds = {name: handle.describe().build for name, handle in handles.items()}
    assert builds == {"p": "a", "f": None, "c": "a", "d": None}
    with working(FLOWS, PINNED, build="b", lease_s=1e7):
        for handle in handles.values():
            handle.signal(flows.go, 1)
        assert (free.result(timeout=20), declined.result(timeout=20)) == ("f", "d")
        for handle in (pinned, chosen):
            stuck = handle.describe()
            assert (stuck.status, stuck.operator_status) == ("running", "blocked")
            assert "no live worker of that build" in stuck.warnings[0]
        assert {it.workflow_id for it in client.list(operator_status="blocked")} == {"p", "c"}
        with working(FLOWS, PINNED, build="a"):
            assert (pinned.result(timeout=20), chosen.result(timeout=20)) == ("p", "c")
    assert_sound(sql)


def test_a_killed_build_is_taken_over_by_its_own_kind_only(
    fleet: Fleet, system_url: str, client: Client, sql: Sql
) -> None:
    first = fleet.hire(system_url, FLOWS, PINNED, options=("--build", "a")).ready()
    other = fleet.hire(system_url, FLOWS, PINNED, options=("--build", "b", "--queue", "none=1"))
    handle = client.start(pinned_flows.stays, "k", id="k")
    eventually(lambda: waits_for_go(handle))
    other.stop()
    fleet.hire(system_url, FLOWS, PINNED, options=("--build", "b")).ready()
    first.kill()
    handle.signal(flows.go, 1)
    eventually(lambda: handle.describe().owner is None, what="the dead worker lost the run")
    assert eventually(lambda: handle.describe().operator_status == "blocked")
    fleet.hire(system_url, FLOWS, PINNED, options=("--build", "a")).ready()
    assert handle.result(timeout=30) == "k"
    assert handle.describe().build == "a"
    assert_sound(sql)


def test_an_operator_moves_a_run_and_it_is_written_down(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(FLOWS, PINNED, build="a"):
        handle = client.start(pinned_flows.stays, "m", id="m")
        eventually(lambda: waits_for_go(handle))
    with working(FLOWS, PINNED, build="b"):
        handle.signal(flows.go, 1)
        assert not handle.move("nowhere", reason="a slip", actor="ann").served
        receipt = handle.move("b", reason="a is gone", actor="ann")
        assert (receipt.status, receipt.was, receipt.served) == ("moved", "nowhere", True)
        assert handle.result(timeout=20) == "m"
        assert handle.describe().build == "b"
    with pytest.raises(WorkflowClosed):
        handle.move(None, actor="ann")
    with pytest.raises(WorkflowNotFound):
        client.handle("nobody").move("b")
    audit = sql.execute(
        "select action, accepted, code, reason, actor, before ->> 'build', after ->> 'build'"
        "  from durable.operator_commands order by at"
    ).fetchall()
    assert audit == [
        ("move", True, "accepted", "a slip", "ann", "a", "nowhere"),
        ("move", True, "accepted", "a is gone", "ann", "nowhere", "b"),
        ("move", False, "workflow_closed", None, "ann", "b", None),
        ("move", False, "unknown_workflow", None, None, None, None),
    ]
    assert_sound(sql)


def test_a_move_takes_the_run_from_a_live_worker_of_another_build(
    working: Working, client: Client, sql: Sql
) -> None:
    """C2: the old owner's next commit loses its fence, and the new one replays."""
    with working(FLOWS, PINNED, build="a"), working(FLOWS, PINNED, build="b", name="b"):
        handle = client.start(pinned_flows.stays, "t", id="t")
        eventually(lambda: waits_for_go(handle))
        was = handle.describe().build
        to = "b" if was == "a" else "a"
        assert handle.move(to).status == "moved"
        assert handle.move(to).status == "unchanged"
        eventually(lambda: handle.describe().owner is not None)
        handle.signal(flows.go, 1)
        assert handle.result(timeout=20) == "t"
        assert handle.describe().build == to
    assert executed(sql) == ["t one", "t two"]
    assert_sound(sql)


def test_a_moved_run_may_be_freed_from_any_build(working: Working, client: Client) -> None:
    with working(FLOWS, PINNED, build="a"):
        handle = client.start(pinned_flows.stays, "x", id="x")
        eventually(lambda: waits_for_go(handle))
    handle.signal(flows.go, 1)
    handle.move(None)
    with working(FLOWS, PINNED):  # of no build at all
        assert handle.result(timeout=20) == "x"
    assert not handle.describe().pinned


def test_a_worker_without_the_code_pins_nothing(working: Working, client: Client) -> None:
    """It claims the run, has not got the workflow, and gives it back as it was."""
    with working(FLOWS, build="without"):
        handle = client.start(pinned_flows.stays, "n", id="n")
        eventually(lambda: handle.describe().review)
    assert handle.describe().build is None
    with working(FLOWS, PINNED, build="with"):
        eventually(lambda: handle.describe().build == "with", 30)


def test_children_and_successors_are_pinned_as_their_workflow_says(
    working: Working, client: Client
) -> None:
    """A child by its own declaration; a run that continues as new by the build that then takes it first."""
    with working(FLOWS, PINNED, build="a"):
        parent = client.start(pinned_flows.parent_of_pinned, "c", id="pp")
        child = client.handle("pp/stays-1")
        eventually(lambda: parent.describe().waiting_on and waits_for_go(child))
        loop = client.start(pinned_flows.goes_round, 2, id="l")
        eventually(lambda: waits_for_go(loop))
    assert (parent.describe().build, child.describe().build) == (None, "a")
    with working(FLOWS, PINNED, build="a"):
        client.handle("l").signal(flows.go, 1)
        eventually(lambda: client.handle("l").describe().generation == 1)
    successor = client.handle("l").describe()
    assert (successor.pinned, successor.build) == (True, None)  # nothing of it is recorded yet
    with working(FLOWS, PINNED, build="b"):
        client.handle("l").signal(flows.go, 1)
        eventually(lambda: client.handle("l").describe().build == "b")


# -- rules of the engine ----------------------------------------------------------------------------------------------


def test_every_run_records_its_semantics_version(
    working: Working, client: Client, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C16: by the client, the SQL API, a parent (its own) and a predecessor (its own)."""
    assert sql.execute("select durable.semantics()").fetchone() == (semantics.CURRENT,)
    monkeypatch.setattr(semantics, "CURRENT", 2)
    with working(FLOWS, PINNED):
        parent = client.start(pinned_flows.parent_of_pinned, "s", id="two")
        client.start(pinned_flows.goes_round, 2, id="loop").signal(flows.go, 1)
        eventually(lambda: parent.describe().waiting_on)
        eventually(lambda: waits_for_go(client.handle("two/stays-1")))
        eventually(lambda: client.handle("loop").describe().generation == 1)
        sql.execute("select durable.start('moves', '{\"key\": \"k\"}', 'one')")
        eventually(lambda: waits_for_go(client.handle("one")))
    rows = sql.execute(
        "select r.workflow_id, r.generation, r.semantics, (h.body -> 'semantics')::int"
        "  from durable.runs r join durable.history h using (shard, run_id) where h.seq = 1"
    ).fetchall()
    assert sorted(rows) == [
        ("loop", 0, 2, 2),
        ("loop", 1, 2, 2),
        ("one", 0, 1, 1),
        ("two", 0, 2, 2),
        ("two/stays-1", 0, 2, 2),
    ]
