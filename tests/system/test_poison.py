"""Runs that cannot go on park for review, visibly and alone, and resume when the right code is there (C7, C8)."""

from __future__ import annotations

import json
from datetime import timedelta
from functools import partial
from typing import Any

import psycopg
import pytest

from durable.client_sync import Client
from durable.descriptions import RunDescription
from durable.errors import WorkflowFailed
from durable.handles_sync import Handle
from tests.system import flows, poison_flows
from tests.system.conftest import Working
from tests.system.invariants import assert_sound
from tests.system.processes import FLOWS, Fleet
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]
POISON = "tests.system.poison_flows"
NOT_JSON = "NaN"  # Python reads it, PostgreSQL does not


def advance(sql: Sql, by: timedelta) -> None:
    sql.execute("select durable.advance_clock(%s)", (by,))


def after_backoff(sql: Sql, handle: Handle[Any]) -> RunDescription:
    """Let the time pass that a parked run waits before it is tried again, and look."""
    advance(sql, timedelta(seconds=30))
    return handle.describe()


def completes(sql: Sql, handle: Handle[Any]) -> bool:
    return after_backoff(sql, handle).status == "completed"


def parked(handle: Handle[Any]) -> dict[str, Any]:
    def review() -> dict[str, Any] | None:
        description = handle.describe()
        return description.review if description.operator_status == "needs_review" else None

    return eventually(review, what=f"{handle} needs review") or {}


def test_a_turn_that_the_database_refuses_parks_alone(
    working: Working, client: Client, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C8: the group commit is bisected: 40 neighbours of the same batches commit; the run completes once its value can be stored."""
    codec = poison_flows.odd_result.arguments.result
    with working(FLOWS, POISON, lease_s=1e7):
        neighbours = [client.start(poison_flows.neighbour, n, id=f"n-{n}") for n in range(40)]
        with monkeypatch.context() as patch:
            patch.setattr(codec, "encode", lambda _: NOT_JSON)
            poisoned = [client.start(poison_flows.odd_result, id=f"p-{n}") for n in range(3)]
            for handle in neighbours:
                handle.signal(flows.go, 1)
            for odd in poisoned:
                review = parked(odd)
                assert review["kind"] == "error"
                assert "json" in review["failure"]["message"]
            assert [handle.result(timeout=30) for handle in neighbours] == list(range(40))
        for odd in poisoned:
            eventually(partial(completes, sql, odd))
    assert all(odd.describe().review is None for odd in poisoned)
    assert_sound(sql)


def test_a_result_that_the_database_refuses_becomes_the_activitys_failure(
    working: Working, client: Client, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C8: the run is told; it does not wait for ever."""
    codec = poison_flows.strange_result.arguments.result
    monkeypatch.setattr(codec, "encode", lambda _: NOT_JSON)
    monkeypatch.setattr(codec, "decode", lambda _: poison_flows.Strange())
    with working(FLOWS, POISON, lease_s=1e7):
        handle = client.start(poison_flows.gets_strange_result, id="s")
        neighbours = [client.start(flows.quick_steps, 3, id=f"n-{n}") for n in range(10)]
        eventually(lambda: after_backoff(sql, handle).status == "failed")
        for neighbour in neighbours:
            assert neighbour.result(timeout=30) == 3
    with pytest.raises(WorkflowFailed) as failed:
        handle.result(timeout=5)
    assert "refused" in str(failed.value.cause and failed.value.cause.__cause__)
    assert_sound(sql)


@pytest.mark.parametrize("kind", ["workflow", "activity", "exit", "generator exit", "group"])
def test_an_ugly_failure_fails_its_run_and_nothing_else(
    kind: str, working: Working, client: Client, sql: Sql
) -> None:
    """C7, C18: NUL, lone surrogates, SystemExit, GeneratorExit: the run fails, the worker works on."""
    with working(FLOWS, POISON):
        handle = client.start(poison_flows.ugly, kind, id="u")
        with pytest.raises(WorkflowFailed):
            handle.result(timeout=30)
        assert client.start(flows.quick_steps, 3, id="after").result(timeout=30) == 3
    assert_sound(sql)


def test_code_that_spins_parks_and_the_worker_lives(
    working: Working, client: Client, sql: Sql
) -> None:
    """C8: stopped after a bounded number of steps."""
    with working(FLOWS, POISON):
        handle = client.start(poison_flows.spins, id="s")
        assert "steps in one turn" in parked(handle)["failure"]["message"]
        assert client.start(flows.quick_steps, 3, id="after").result(timeout=30) == 3
    handle.terminate("hopeless")
    assert_sound(sql)


def test_arguments_that_the_code_cannot_read_park_the_run(
    working: Working, client: Client, sql: Sql
) -> None:
    """C8: the SQL function does not check arguments; nothing is lost, the run shows what is wrong."""
    with working(FLOWS, POISON):
        eventually(
            lambda: sql.execute(
                "select 1 from durable.definitions where name = 'wants_a_number'"
            ).fetchone()
        )
        sql.execute(
            "select durable.start('wants_a_number', %s, 'w')", (json.dumps({"number": "many"}),)
        )
        assert "number" in parked(client.handle("w"))["failure"]["message"]
    assert client.handle("w").describe().status == "running"


def test_changed_code_parks_its_open_runs_and_the_right_code_resumes_them(
    fleet: Fleet, system_url: str, client: Client, sql: Sql
) -> None:
    """C8, C13: deployed wrong, deployed right again: the run goes on where it stood, and nothing was executed in between."""
    from tests.system import code_v1  # the histories must replay with this one

    right = fleet.hire(system_url, FLOWS, "tests.system.code_v1").ready()
    handle = client.start(code_v1.evolving, id="e")
    eventually(lambda: "go" in str(handle.describe().waiting_on))
    right.stop()
    wrong = fleet.hire(system_url, FLOWS, "tests.system.code_v2").ready()
    handle.signal(flows.go, 1)
    review = parked(handle)
    assert review["kind"] == "nondeterminism"
    assert "code_v2.py" in review["failure"]["message"]
    before = [e.type for e in handle.history()]
    wrong.stop()
    fleet.hire(system_url, FLOWS, "tests.system.code_v1", lease_s=1e7).ready()
    eventually(partial(completes, sql, handle))
    assert handle.result(timeout=5) == "ship"
    assert [e.type for e in handle.history()][: len(before)] == before
    executed = [key for (key,) in sql.execute("select key from system.executions order by id")]
    assert executed == ["reserve", "ship"]
    assert_sound(sql)


def test_a_review_ends_when_the_right_code_replays_although_nothing_new_happens(
    fleet: Fleet, system_url: str, client: Client, sql: Sql
) -> None:
    """C8: the wrong code is given the run by a takeover, without any message; so is the right code."""
    from tests.system import code_v1

    right = fleet.hire(system_url, FLOWS, "tests.system.code_v1").ready()
    handle = client.start(code_v1.evolving, id="e")
    eventually(lambda: "go" in str(handle.describe().waiting_on))
    right.kill()
    wrong = fleet.hire(system_url, FLOWS, "tests.system.code_v2")
    parked(handle)
    wrong.stop()
    fleet.hire(system_url, FLOWS, "tests.system.code_v1", lease_s=1e7).ready()
    eventually(lambda: after_backoff(sql, handle).operator_status == "waiting")
    assert handle.describe().review is None
    assert "go" in str(handle.describe().waiting_on)
