"""Cancel and terminate, wherever the run stands (C9)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from durable.client_sync import Client
from durable.errors import WorkflowCancelled, WorkflowClosed, WorkflowTerminated
from tests.system import flows
from tests.system.conftest import Working
from tests.system.gates import Gate, gate
from tests.system.invariants import assert_sound, leftovers
from tests.system.processes import Fleet
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]
LONG_LEASE = {"lease_s": 1e7}


def types(client: Client, workflow_id: str) -> list[str]:
    return [event.type for event in client.handle(workflow_id).history()]


def done(sql: Sql) -> list[str]:
    return [
        key
        for (key,) in sql.execute(
            "select key from system.executions where name <> 'note' order by id"
        )
    ]


def advance(sql: Sql, by: timedelta) -> None:
    sql.execute("select durable.advance_clock(%s)", (by,))


AWAITS = [
    # where the saga of flows.small_saga is cancelled, what had been done, what must be undone
    ("do 1", ["do 1"], ["undo 1"]),
    ("signal", ["do 1"], ["undo 1"]),
    ("do 2", ["do 1", "do 2"], ["undo 2", "undo 1"]),
    ("sleep", ["do 1", "do 2"], ["undo 2", "undo 1"]),
    ("do 3", ["do 1", "do 2", "do 3"], ["undo 3", "undo 2", "undo 1"]),
    ("last", ["do 1", "do 2", "do 3", "last"], ["undo 3", "undo 2", "undo 1"]),
]


@pytest.mark.parametrize(("where", "did", "undone"), AWAITS, ids=[row[0] for row in AWAITS])
def test_a_cancel_at_every_await_compensates_completely(
    where: str,
    did: list[str],
    undone: list[str],
    working: Working,
    system_url: str,
    client: Client,
    sql: Sql,
) -> None:
    """C9: delivered once, at the await; compensations run undisturbed, in reverse; later requests are evidence only."""
    with ExitStack() as stack, working(**LONG_LEASE):
        gates: dict[str, Gate] = {
            name: stack.enter_context(gate(system_url, 10 + number))
            for name, number in (("do 1", 1), ("do 2", 2), ("do 3", 3), ("last", 4))
        }
        handle = client.start(flows.small_saga, 10, id="saga")
        walk_to(where, gates, client, sql)
        receipt = handle.cancel("enough")
        again = handle.cancel("I mean it")
        eventually(lambda: "CancelRequested" in types(client, "saga"))
        for held in gates.values():
            held.open()
        with pytest.raises(WorkflowCancelled):
            handle.result(timeout=30)
    assert (receipt.status, again.status) == ("requested", "already_requested")
    assert done(sql) == did + undone
    assert types(client, "saga").count("CancelRequested") == 1
    assert handle.describe().cancel_requested_at is not None
    with pytest.raises(WorkflowClosed):
        handle.cancel("too late")
    commands = sql.execute(
        "select accepted, refusal from durable.operator_commands order by at"
    ).fetchall()
    assert commands == [(True, None), (False, "already_requested"), (False, "closed")]
    assert_sound(sql)


def walk_to(where: str, gates: dict[str, Gate], client: Client, sql: Sql) -> None:
    steps: list[tuple[str, Callable[[], object], Callable[[], object]]] = [
        ("do 1", lambda: gates["do 1"].wait_for(1), gates["do 1"].open),
        (
            "signal",
            lambda: waits_for(client, "go"),
            lambda: client.handle("saga").signal(flows.go, 1),
        ),
        ("do 2", lambda: gates["do 2"].wait_for(1), gates["do 2"].open),
        (
            "sleep",
            lambda: waits_for(client, "sleep"),
            lambda: advance(sql, timedelta(days=1, seconds=1)),
        ),
        ("do 3", lambda: gates["do 3"].wait_for(1), gates["do 3"].open),
        ("last", lambda: gates["last"].wait_for(1), gates["last"].open),
    ]
    for name, arrive, leave in steps:
        arrive()
        if name == where:
            return
        leave()


def waits_for(client: Client, what: str) -> None:
    eventually(
        lambda: what in str(client.handle("saga").describe().waiting_on),
        what=f"the run waits for {what}",
    )


def test_a_cancel_reaches_a_running_async_activity_in_another_worker_by_push(
    fleet: Fleet, system_url: str, client: Client, sql: Sql
) -> None:
    """C9: the workflow's worker and the activity's are two processes; the activity is told within moments, not at a heartbeat."""
    fleet.hire(system_url, lease_s=60.0, options=("--no-activities",))
    fleet.hire(system_url, lease_s=60.0, options=("--no-workflows",))
    handle = client.start(flows.stoppable, "async", id="s")
    eventually(lambda: done(sql) == ["async"])
    handle.cancel("stop it")
    with pytest.raises(WorkflowCancelled):
        handle.result(timeout=30)
    eventually(lambda: notes(sql) == ["async was cancelled"], 4.0)
    assert_sound(sql)


def test_a_cancel_reaches_a_running_activity_without_notify_too(
    working: Working, client: Client, sql: Sql
) -> None:
    """C4, C9: no hint; the worker asks about its attempts at the pace of its lease."""
    with (
        working(notify=False, run_activities=False),
        working(notify=False, run_workflows=False, lease_s=1.0),
    ):
        handle = client.start(flows.stoppable, "async", id="s")
        eventually(lambda: done(sql) == ["async"])
        handle.cancel("stop it")
        with pytest.raises(WorkflowCancelled):
            handle.result(timeout=30)
        eventually(lambda: notes(sql) == ["async was cancelled"])
    assert_sound(sql)


def test_a_cancel_reaches_a_sync_activity_at_its_heartbeat(
    working: Working, client: Client, sql: Sql
) -> None:
    """C9: `durable.heartbeat()` raises in the thread."""
    with working():
        handle = client.start(flows.stoppable, "sync", id="s")
        eventually(lambda: done(sql) == ["sync"])
        handle.cancel("stop it")
        with pytest.raises(WorkflowCancelled):
            handle.result(timeout=30)
        eventually(lambda: notes(sql) == ["sync: ActivityCancelledError"])
    assert_sound(sql)


def notes(sql: Sql) -> list[str]:
    return [
        key
        for (key,) in sql.execute(
            "select key from system.executions where name = 'note' order by id"
        )
    ]


def test_a_run_cancelled_before_anybody_claimed_it_never_runs(
    working: Working, client: Client, sql: Sql
) -> None:
    """C9: closed on the spot; a worker that comes later finds nothing."""
    handle = client.start(flows.steps, 3, id="s")
    handle.signal(flows.go, 1)
    handle.cancel("never mind")
    with pytest.raises(WorkflowCancelled):
        handle.result(timeout=5)
    with working():
        assert client.start(flows.steps, 1, id="other").result(timeout=30)
    assert done(sql) == ["0"]
    assert [(s.status, s.reason) for s in handle.signals()] == [
        ("dropped", "the run closed before it was read")
    ]
    assert_sound(sql)


def test_terminate_while_an_activity_executes_ends_the_run_and_tells_the_activity(
    working: Working, client: Client, sql: Sql
) -> None:
    """No compensation; the owner's next commit loses (C2); the activity's end is only evidence (C5)."""
    with working():
        handle = client.start(flows.stoppable, "async", id="s")
        eventually(lambda: done(sql) == ["async"])
        handle.terminate("by force")
        with pytest.raises(WorkflowTerminated):
            handle.result(timeout=5)
        eventually(lambda: notes(sql) == ["async was cancelled"])
        eventually(lambda: not leftovers(sql))
        late = eventually(
            lambda: sql.execute("select kind, body ->> 'type' from durable.evidence").fetchall()
        )
    assert late == [("OutcomeAfterClose", "ActivityCancelled")]
    assert types(client, "s")[-1] == "WorkflowTerminated"
    assert_sound(sql)


def test_terminate_of_a_run_that_waits_leaves_nothing_behind(
    working: Working, client: Client, sql: Sql
) -> None:
    with working():
        handle = client.start(flows.small_saga, 10, id="saga")
        waits_for(client, "go")
        handle.terminate("by force")
        with pytest.raises(WorkflowClosed):
            handle.signal(flows.go, 1)
    assert done(sql) == ["do 1"]
    assert_sound(sql)


def test_an_attempt_told_to_stop_is_not_tried_again_when_its_worker_dies(
    working: Working, system_url: str, client: Client, sql: Sql
) -> None:
    """The run was terminated and then the activity's worker died: nobody may run the activity for a closed run."""
    with gate(system_url, 1) as held, working(name="first", lease_s=30.0):
        handle = client.start(flows.one_gated, 1, id="g")
        held.wait_for(1)
        handle.terminate("by force")
        with working(name="second"):
            sql.execute(
                "update durable.workers set lease_until = durable.now() - interval '1 s' where name = 'first'"
            )
            eventually(lambda: not leftovers(sql))
        held.open()
    assert done(sql) == ["first"]
    assert_sound(sql)


def test_a_cancel_in_the_middle_of_retries_ends_them(
    working: Working, client: Client, sql: Sql
) -> None:
    """C9: the activity waits for its second attempt; the cancel takes it out of the queue."""
    with working(**LONG_LEASE):
        handle = client.start(flows.calls_failing, "fails", id="f")
        eventually(
            lambda: sql.execute("select state from durable.jobs").fetchone() == ("retryable",)
        )
        handle.cancel("no more")
        with pytest.raises(WorkflowCancelled):
            handle.result(timeout=30)
        assert sql.execute("select count(*) from durable.jobs").fetchone() == (0,)
    assert done(sql) == ["fails"]
    assert_sound(sql)
