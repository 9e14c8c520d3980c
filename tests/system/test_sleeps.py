"""Durable sleeps are rows of the job queue: they outlive workers, fire once, and hold next to nothing meanwhile."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

import psycopg
import pytest

from durable.client_sync import Client
from durable.errors import WorkflowCancelled
from tests.system import flows, sleep_flows
from tests.system.conftest import Working
from tests.system.invariants import assert_sound
from tests.system.processes import Fleet
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]

FLOWS = ("tests.system.flows", "tests.system.sleep_flows")
DAY = timedelta(days=1)
CACHED = 100
SLEEPERS = 10_000

START_MANY = "select count(durable.start('sleeps_a_day', '{}', 'sleeper-' || n)) from generate_series(1, %s) n"


def advance(sql: Sql, by: timedelta) -> None:
    sql.execute("select durable.advance_clock(%s)", (by,))


def timers(sql: Sql) -> list[tuple[Any, ...]]:
    return sql.execute(
        "select kind, state, owner, scheduled_at - created_at from durable.jobs"
    ).fetchall()


def count(sql: Sql, query: str, *params: Any) -> int:
    row = sql.execute(query.encode(), params).fetchone()
    assert row is not None
    return int(row[0])


def asleep_again(sql: Sql, times: int) -> bool:
    return count(sql, "select count(*) from durable.history where type = 'TimerStarted'") == times


def events(client: Client, workflow_id: str) -> list[str]:
    return [event.type for event in client.handle(workflow_id).history()]


def test_a_sleep_is_a_scheduled_row_and_fires_once(
    working: Working, client: Client, sql: Sql
) -> None:
    """C19: three workers look for due timers; the database's clock decides, a minute before the day nothing moves."""
    with working(*FLOWS), working(*FLOWS), working(*FLOWS):
        handle = client.start(sleep_flows.sleeps_a_day, id="s")
        (row,) = eventually(lambda: timers(sql))
        assert row[:3] == ("timer", "scheduled", None)
        assert DAY - timedelta(seconds=10) < row[3] <= DAY
        assert handle.describe().operator_status == "waiting"
        advance(sql, DAY - timedelta(minutes=1))
        assert client.start(flows.quick_steps, 3, id="meanwhile").result(timeout=10) == 3
        assert len(timers(sql)) == 1
        advance(sql, timedelta(minutes=1))
        assert handle.result(timeout=10) >= DAY.total_seconds()
    assert events(client, "s") == [
        "WorkflowStarted",
        "TimerStarted",
        "TimerFired",
        "WorkflowCompleted",
    ]
    assert_sound(sql)


def test_a_timer_that_is_not_needed_any_more_goes_and_never_fires(
    working: Working, client: Client, sql: Sql
) -> None:
    """C10: the deadline of a receive that got its signal; the row is deleted by the commit of that turn."""
    with working(*FLOWS):
        told = client.start(sleep_flows.sleeps_unless_told, id="told")
        slept = client.start(sleep_flows.sleeps_unless_told, id="slept")
        eventually(lambda: len(timers(sql)) == 2)
        told.signal(flows.go, 1)
        assert told.result(timeout=10) == "told"
        assert len(timers(sql)) == 1
        advance(sql, DAY)
        assert slept.result(timeout=10) == "slept"
    assert "TimerFired" not in events(client, "told")
    assert_sound(sql)


def test_cancelling_a_sleeping_run_wakes_it_at_once(
    working: Working, client: Client, sql: Sql
) -> None:
    """C9: nobody waits for the day."""
    with working(*FLOWS):
        handle = client.start(sleep_flows.sleeps_a_day, id="s")
        eventually(lambda: timers(sql))
        handle.cancel("up you get")
        with pytest.raises(WorkflowCancelled):
            handle.result(timeout=10)
        assert timers(sql) == []
    assert_sound(sql)


def test_ten_thousand_sleeping_runs_hold_a_bounded_number_of_coroutines(
    working: Working, client: Client, sql: Sql
) -> None:
    """C12: the worker keeps a hundred; the others are rows, and all wake when their day is over."""
    most = 0

    def asleep() -> bool:
        nonlocal most
        most = max(most, len(background.worker.runs))
        return count(sql, "select count(*) from durable.jobs") == SLEEPERS

    with working(*FLOWS, max_cached_runs=CACHED, lease_s=60.0) as background:
        sql.execute(START_MANY, (SLEEPERS,))
        eventually(asleep, 60.0, what="all have gone to sleep")
        eventually(lambda: len(background.worker.runs) <= CACHED, what="the surplus is released")
        assert most <= CACHED + 4 * background.worker.settings.claim_limit
        eventually(
            lambda: (
                count(sql, "select count(*) from durable.runs where owner is not null") <= CACHED
            )
        )
        advance(sql, DAY)
        eventually(
            lambda: (
                count(sql, "select count(*) from durable.runs where status = 'completed'")
                == SLEEPERS
            ),
            60.0,
            what="all have woken up",
        )
        assert len(background.worker.runs) <= CACHED
    fired = count(sql, "select count(*) from durable.history where type = 'TimerFired'")
    assert fired == SLEEPERS
    assert count(sql, "select count(*) from durable.jobs") == 0
    assert count(sql, "select count(*) from durable.inbox") == 0


def test_timers_survive_the_worker_and_each_other(
    fleet: Fleet, system_url: str, client: Client, sql: Sql
) -> None:
    """C3: killed while all sleep, and again after some have woken; nobody sleeps twice or for ever."""
    victim = fleet.hire(system_url, *FLOWS).ready()
    handles = [client.start(sleep_flows.sleeps_again_and_again, 3, id=f"s-{n}") for n in range(60)]
    eventually(lambda: len(timers(sql)) == 60)
    victim.kill()
    advance(sql, timedelta(hours=1))
    victim = fleet.hire(system_url, *FLOWS).ready()
    eventually(
        lambda: count(sql, "select count(*) from durable.history where type = 'TimerFired'") > 0
    )
    victim.kill()
    fleet.hire(system_url, *FLOWS).ready()
    for hours in (2, 3):
        eventually(partial(asleep_again, sql, 60 * hours))
        advance(sql, timedelta(hours=1))
    for handle in handles:
        assert handle.result(timeout=20) == 3
    assert_sound(sql)
