"""Durable sleeps are rows of the job queue: they outlive workers, fire once, and hold next to nothing meanwhile."""

from __future__ import annotations

import os
from datetime import timedelta
from functools import partial
from pathlib import Path
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
SLEEPERS = 10_000
START_MANY = """
select count(durable.start('sleeps', json_build_object('seconds', 86400), 'sleeper-' || n)) from generate_series(1, %s) n
"""


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


def resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


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


def test_a_run_asleep_holds_no_slot(working: Working, client: Client) -> None:
    with working(queues={"default": 1}):
        for number in range(20):
            client.start(flows.sleeps, 86400.0, id=f"s-{number}")
        assert client.start(flows.steps, 2, id="other").result(timeout=30) == ["0", "1"]


def test_ten_thousand_runs_sleep_in_a_small_worker_and_all_wake_up(
    fleet: Fleet, system_url: str, client: Client, sql: Sql
) -> None:
    """C12: a cache of 100 runs: memory and rows stay bounded while 10,000 sleep; a restart in between loses nobody."""
    options = ("--cache", "100")
    worker = fleet.hire(system_url, lease_s=60.0, options=options).ready()
    at_rest_mb = resident_mb(worker.pid)
    sql.execute(START_MANY, (SLEEPERS,))
    asleep = "select count(*) from durable.jobs where kind = 'timer' and state = 'scheduled'"
    eventually(lambda: sql.execute(asleep).fetchone() == (SLEEPERS,), 60.0, what="all are asleep")
    grown_mb = resident_mb(worker.pid) - at_rest_mb
    assert grown_mb < 60, f"the worker grew by {grown_mb:.0f} MB"
    held = "select count(*) from durable.runs where owner is not null"
    eventually(
        lambda: (sql.execute(held).fetchone() or (0,))[0] <= 100,
        what="the worker holds at most its cache",
    )
    assert sql.execute("select count(*) from durable.inbox").fetchone() == (0,)
    assert worker.stop() == 0
    worker = fleet.hire(system_url, lease_s=60.0, options=options)
    advance(sql, timedelta(days=1, minutes=5))
    open_runs = "select count(*) from durable.runs where status = 'running'"
    eventually(lambda: sql.execute(open_runs).fetchone() == (0,), 90.0, what="all have woken up")
    grown_mb = resident_mb(worker.pid) - at_rest_mb
    assert grown_mb < 80, f"the worker grew by {grown_mb:.0f} MB"
    assert sql.execute(
        "select count(*) from durable.history where type = 'TimerFired'"
    ).fetchone() == (SLEEPERS,)
    assert_sound(sql)


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
