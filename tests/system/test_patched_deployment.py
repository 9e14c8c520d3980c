"""A patched change is deployed over running workflows, with worker processes of both codes."""

from __future__ import annotations

from functools import partial
from typing import Any

import psycopg

from durable.client_sync import Client
from durable.handles_sync import Handle
from tests.system import flows
from tests.system.processes import FLOWS, Fleet
from tests.system.test_poison import completes, parked
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]
OLD = "tests.system.code_v1"
NEW = "tests.system.code_v3"


def started(sql: Sql, client: Client, name: str) -> Handle[Any]:
    """By name: this process knows other code under it."""
    sql.execute("select durable.start('evolving', id => %s)", (name,))
    handle: Handle[Any] = client.handle(name)
    eventually(lambda: "go" in str(handle.describe().waiting_on))
    return handle


def steps(handle: Handle[Any]) -> list[Any]:
    return [e.payload for e in handle.history() if e.type == "ActivityScheduled"]


def has_mark(handle: Handle[Any]) -> bool:
    return "PatchRecorded" in [e.type for e in handle.history()]


def test_runs_from_before_the_change_finish_as_they_began_and_later_ones_take_it(
    fleet: Fleet, system_url: str, client: Client, sql: Sql
) -> None:
    old = fleet.hire(system_url, FLOWS, OLD).ready()
    before = started(sql, client, "before")
    old.kill()
    fleet.hire(system_url, FLOWS, NEW).ready()
    after = started(sql, client, "after")
    for handle in (before, after):
        handle.signal(flows.go, 1)
        assert handle.result(timeout=30) == "ship"
    assert [step["key"] for step in steps(before)] == ["reserve", "ship"]
    assert [step["key"] for step in steps(after)] == ["check the address", "ship"]
    assert (has_mark(before), has_mark(after)) == (False, True)


def test_a_worker_with_the_old_code_parks_what_has_the_change_and_the_new_one_goes_on(
    fleet: Fleet, system_url: str, client: Client, sql: Sql
) -> None:
    """The one hand-over that cannot work: it harms nothing, and says what it is."""
    new = fleet.hire(system_url, FLOWS, NEW).ready()
    handle = started(sql, client, "ahead")
    new.stop()
    old = fleet.hire(system_url, FLOWS, OLD).ready()
    handle.signal(flows.go, 1)
    review = parked(handle)
    assert review["kind"] == "nondeterminism"
    assert "older than the change" in review["failure"]["message"]
    old.stop()
    fleet.hire(system_url, FLOWS, NEW, lease_s=1e7).ready()
    eventually(partial(completes, sql, handle))
    assert [step["key"] for step in steps(handle)] == ["check the address", "ship"]
