"""Durable sleeps: rows of the job queue, not slots and not memory (C19)."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from durable.client_sync import Client
from durable.errors import WorkflowCancelled
from tests.system import flows
from tests.system.conftest import Working
from tests.system.invariants import assert_sound
from tests.system.processes import Fleet
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]
LONG_LEASE = {"lease_s": 1e7}
SLEEPERS = 10_000
START_MANY = """
select count(durable.start('sleeps', json_build_object('seconds', 86400), 'sleeper-' || n)) from generate_series(1, %s) n
"""


def advance(sql: Sql, by: timedelta) -> None:
    sql.execute("select durable.advance_clock(%s)", (by,))


def timers(sql: Sql) -> list[tuple[str, str]]:
    return sql.execute("select kind, state from durable.jobs").fetchall()


def resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def test_a_sleep_is_a_scheduled_row_and_fires_once_when_it_is_due(working: Working, client: Client, sql: Sql) -> None:
    with working(**LONG_LEASE), working(**LONG_LEASE):
        handle = client.start(flows.sleeps, 86400.0, id="s")
        eventually(lambda: timers(sql) == [("timer", "scheduled")])
        advance(sql, timedelta(hours=23, minutes=59))
        assert client.start(flows.steps, 1, id="other").result(timeout=30)
        assert timers(sql) == [("timer", "scheduled")]
        advance(sql, timedelta(minutes=2))
        assert handle.result(timeout=30) >= 86400.0
    assert [e.type for e in handle.history()].count("TimerFired") == 1
    assert timers(sql) == []
    assert_sound(sql)


def test_a_sleep_can_be_cancelled_and_leaves_no_row(working: Working, client: Client, sql: Sql) -> None:
    with working(**LONG_LEASE):
        handle = client.start(flows.sleeps, 86400.0, id="s")
        eventually(lambda: timers(sql) == [("timer", "scheduled")])
        handle.cancel("wake up")
        with pytest.raises(WorkflowCancelled):
            handle.result(timeout=30)
    assert timers(sql) == []
    assert_sound(sql)


def test_a_sleep_survives_that_every_worker_is_killed(fleet: Fleet, system_url: str, client: Client, sql: Sql) -> None:
    worker = fleet.hire(system_url)
    handle = client.start(flows.sleeps, 86400.0, id="s")
    eventually(lambda: timers(sql) == [("timer", "scheduled")])
    worker.kill()
    advance(sql, timedelta(days=1, seconds=1))
    fleet.hire(system_url)
    assert handle.result(timeout=30) >= 86400.0
    assert_sound(sql)


def test_a_run_asleep_holds_no_slot(working: Working, client: Client) -> None:
    with working(queues={"default": 1}):
        for number in range(20):
            client.start(flows.sleeps, 86400.0, id=f"s-{number}")
        assert client.start(flows.steps, 2, id="other").result(timeout=30) == ["0", "1"]


def test_ten_thousand_runs_sleep_in_a_small_worker_and_all_wake_up(
    fleet: Fleet, system_url: str, client: Client, sql: Sql
) -> None:
    """A cache of 100 runs: memory and rows stay bounded while 10,000 sleep; a restart in between loses nobody."""
    options = ("--cache", "100")
    worker = fleet.hire(system_url, lease_s=1e7, options=options).ready()
    at_rest_mb = resident_mb(worker.pid)
    sql.execute(START_MANY, (SLEEPERS,))
    asleep = "select count(*) from durable.jobs where kind = 'timer' and state = 'scheduled'"
    eventually(lambda: sql.execute(asleep).fetchone() == (SLEEPERS,), 60.0, what="all are asleep")
    grown_mb = resident_mb(worker.pid) - at_rest_mb
    assert grown_mb < 60, f"the worker grew by {grown_mb:.0f} MB"
    held = "select count(*) from durable.runs where owner is not null"
    eventually(lambda: (sql.execute(held).fetchone() or (0,))[0] <= 100, what="the worker holds at most its cache")
    assert sql.execute("select count(*) from durable.inbox").fetchone() == (0,)
    assert worker.stop() == 0
    worker = fleet.hire(system_url, lease_s=1e7, options=options)
    advance(sql, timedelta(days=1, minutes=5))
    open_runs = "select count(*) from durable.runs where status = 'running'"
    eventually(lambda: sql.execute(open_runs).fetchone() == (0,), 90.0, what="all have woken up")
    grown_mb = resident_mb(worker.pid) - at_rest_mb
    assert grown_mb < 80, f"the worker grew by {grown_mb:.0f} MB"
    assert sql.execute("select count(*) from durable.history where type = 'TimerFired'").fetchone() == (SLEEPERS,)
    assert_sound(sql)
