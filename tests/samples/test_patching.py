"""Four releases of one workflow, deployed one after the other while runs are open."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import psycopg
import pytest

from durable import Client, NondeterminismError
from durable.testing import replay_history
from samples.patching import v1_initial, v2_patched, v3_deprecated, v4_complete
from tests.samples.conftest import Working
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]
ACTIVITIES = "samples.patching.activities"


def begin(client: Client, working: Working, release: ModuleType, workflow_id: str) -> None:
    """Start a run with this release deployed, and let it come to its sleep."""
    with working(release.__name__, ACTIVITIES):
        handle = client.start(release.invoice_customer, workflow_id, id=workflow_id)
        eventually(lambda: handle.history()[-1].type == "TimerStarted")


def end(client: Client, working: Working, sql: Sql, release: ModuleType, workflow_id: str) -> str:
    """Deploy this release, and let the run end."""
    sql.execute("select durable.advance_clock('2 days')")
    with working(release.__name__, ACTIVITIES):
        return str(client.handle(workflow_id, release.invoice_customer).result(timeout=30))


@pytest.mark.parametrize(
    ("begun", "ended", "result"),
    [
        (v1_initial, v2_patched, "printed for x"),
        (v2_patched, v2_patched, "mailed to x"),
        (v2_patched, v3_deprecated, "mailed to x"),
        (v3_deprecated, v4_complete, "mailed to x"),
    ],
)
def test_each_release_takes_over_the_runs_of_the_one_before(
    client: Client, working: Working, sql: Sql, begun: ModuleType, ended: ModuleType, result: str
) -> None:
    begin(client, working, begun, "x")
    assert end(client, working, sql, ended, "x") == result


def test_a_release_too_far_is_found_out_before_it_is_deployed(
    client: Client, working: Working, sql: Sql
) -> None:
    """What a project has in its own tests: histories of the releases that are out there, replayed by the code that will be."""
    begin(client, working, v1_initial, "old")
    assert end(client, working, sql, v1_initial, "old") == "printed for old"
    history = client.handle("old").export()
    replay_history(v2_patched.invoice_customer, history)
    with pytest.raises(NondeterminismError):
        replay_history(v4_complete.invoice_customer, history)
