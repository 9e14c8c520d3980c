"""Stopping a worker: what runs may end, the rest goes on elsewhere at once; a supervisor of processes; the watchdog (C2, C5)."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import psycopg
import pytest

from durable.client_sync import Client
from durable.errors import SchemaOutOfDate
from durable_worker import Worker
from durable_worker.backoff import pause_s
from tests.system import flows, shutdown_flows
from tests.system.conftest import Working
from tests.system.gates import gate
from tests.system.invariants import assert_sound
from tests.system.processes import ROOT, Fleet, import_path
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]

FLOWS = ("tests.system.flows", "tests.system.shutdown_flows")
LONG_LEASE_S = 3600.0  # nobody may count on a lease that lapses


def attempts(sql: Sql, key: str) -> list[int]:
    rows = sql.execute("select attempt from system.executions where key = %s order by id", (key,))
    return [attempt for (attempt,) in rows]


def worker_states(sql: Sql) -> dict[str, str]:
    return dict(sql.execute("select name, state from durable.workers").fetchall())


def owners(sql: Sql, *workflow_ids: str) -> list[Any]:
    rows = sql.execute(
        "select owner from durable.runs where workflow_id = any(%s)", (list(workflow_ids),)
    )
    return [owner for (owner,) in rows]


def pids(sql: Sql) -> list[int]:
    return [
        pid
        for (pid,) in sql.execute(
            "select (info ->> 'pid')::int from durable.workers order by started_at"
        )
    ]


def test_sigterm_lets_running_activities_end_and_others_go_on_with_the_runs(
    fleet: Fleet, system_url: str, client: Client, sql: Sql
) -> None:
    """C2, C5: no lease is waited for, no attempt is lost or repeated, and the stopping worker's own attempt counts."""
    old = fleet.hire(system_url, *FLOWS, lease_s=LONG_LEASE_S, options=("--name", "old")).ready()
    with gate(system_url, 1) as held:
        working = client.start(flows.one_gated, 1, id="working")
        parked = client.start(flows.listens, 2, id="parked")
        parked.signal(flows.word, "before")
        held.wait_for(1)
        eventually(lambda: len(parked.history()) > 1)
        old.send(signal.SIGTERM)
        eventually(
            lambda: owners(sql, "working", "parked") == [None, None], what="both runs are released"
        )
        fleet.hire(system_url, *FLOWS, lease_s=LONG_LEASE_S, options=("--name", "new")).ready()
        parked.signal(flows.word, "after")
        assert parked.result(timeout=10) == ["before", "after"]
        assert not old.ended()
        held.open()
        assert working.result(timeout=10) == "first"
    assert old.wait(10) == 0
    assert worker_states(sql) == {"old": "gone", "new": "alive"}
    assert attempts(sql, "first") == attempts(sql, "second") == [1]
    assert_sound(sql)


def test_sigterm_under_load_loses_and_repeats_nothing(
    fleet: Fleet, system_url: str, client: Client, sql: Sql
) -> None:
    """C3, C5: two workers take turns at stopping; each step of every run is executed once."""
    hired = [fleet.hire(system_url, lease_s=LONG_LEASE_S).ready() for _ in range(2)]
    handles = [client.start(flows.steps, 5, id=f"s-{n}") for n in range(80)]
    for _ in range(2):
        hired.append(fleet.hire(system_url, lease_s=LONG_LEASE_S).ready())
        assert hired.pop(0).stop() == 0
    for handle in handles:
        assert handle.result(timeout=30) == [f"{n}" for n in range(5)]
    assert sql.execute(
        "select count(*), count(distinct idempotency_key), max(attempt) from system.executions"
    ).fetchone() == (400, 400, 1)
    assert_sound(sql)


def test_a_second_sigterm_does_not_wait_for_activities(
    fleet: Fleet, system_url: str, client: Client, sql: Sql
) -> None:
    """An async attempt is stopped and put back without being counted; one in a thread is taken over as a lost one."""
    old = fleet.hire(system_url, *FLOWS, lease_s=LONG_LEASE_S, options=("--grace", "3600")).ready()
    with gate(system_url, 1) as held:
        endless = client.start(shutdown_flows.calls_endless, id="endless")
        thread = client.start(shutdown_flows.calls_thread, 1, id="thread")
        held.wait_for(1)
        eventually(lambda: attempts(sql, "endless"))
        old.send(signal.SIGTERM)
        eventually(lambda: owners(sql, "endless", "thread") == [None, None])
        assert not old.ended()
        old.send(signal.SIGTERM)
        assert old.wait(10) == 0
        fleet.hire(system_url, *FLOWS, lease_s=LONG_LEASE_S).ready()
        assert endless.result(timeout=10) == "second execution"
        held.wait_for(1)
        held.open()
        assert thread.result(timeout=10) == 1
    assert attempts(sql, "endless") == [1, 1]
    assert attempts(sql, "endless was cancelled") == [None]
    assert attempts(sql, "in_a_thread") == [1, 2]
    assert_sound(sql)


def test_the_grace_ends_the_wait_for_activities(
    fleet: Fleet, system_url: str, client: Client, sql: Sql
) -> None:
    """One SIGTERM and a short grace: the same, without anybody hurrying it."""
    old = fleet.hire(system_url, *FLOWS, lease_s=LONG_LEASE_S, options=("--grace", "0.3")).ready()
    endless = client.start(shutdown_flows.calls_endless, id="endless")
    eventually(lambda: attempts(sql, "endless"))
    assert old.stop(10) == 0
    fleet.hire(system_url, *FLOWS, lease_s=LONG_LEASE_S).ready()
    assert endless.result(timeout=10) == "second execution"
    assert attempts(sql, "endless") == [1, 1]


def test_a_supervisor_replaces_a_killed_child_and_stops_gracefully_at_ctrl_c(
    system_url: str, client: Client, sql: Sql, tmp_path: Path
) -> None:
    """`--processes 2`: two again after one was killed; the SIGINT of a terminal reaches the whole group and still counts once."""
    with (
        (tmp_path / "log").open("wb") as log,
        supervisor_in_a_terminal(system_url, log) as supervisor,
        gate(system_url, 1) as held,
    ):
        eventually(lambda: len(pids(sql)) == 2, what="two workers have registered")
        os.kill(pids(sql)[0], signal.SIGKILL)
        eventually(lambda: len(pids(sql)) == 3, what="a third has registered")
        thread = client.start(shutdown_flows.calls_thread, 1, id="thread")
        endless = client.start(flows.one_gated, 1, id="gated")
        held.wait_for(2)
        os.killpg(supervisor.pid, signal.SIGINT)
        eventually(lambda: owners(sql, "thread", "gated") == [None, None])
        assert supervisor.poll() is None
        held.open()
        assert supervisor.wait(20) == 0
    assert [pid for pid in pids(sql) if Path(f"/proc/{pid}").exists()] == []
    assert attempts(sql, "in_a_thread") == attempts(sql, "first") == [1]
    assert thread.describe().status == endless.describe().status == "running"
    assert "ended with -9; starting another" in (tmp_path / "log").read_text()


@contextlib.contextmanager
def supervisor_in_a_terminal(url: str, log: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """A process group of its own, as a shell makes it; workers with a long lease."""
    options = (
        "--url",
        url,
        "--processes",
        "2",
        "--lease",
        f"{LONG_LEASE_S}",
        "--poll",
        "0.05",
        "--grace",
        f"{LONG_LEASE_S}",
    )
    supervisor = subprocess.Popen(
        [sys.executable, "-m", "durable_worker", *FLOWS, *options],
        stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT, process_group=0,
        env={**os.environ, "PYTHONPATH": import_path(), "SYSTEM_DATABASE_URL": url},
    )  # fmt: skip
    try:
        yield supervisor
    finally:
        if supervisor.poll() is None:
            supervisor.terminate()
            supervisor.terminate()
            supervisor.wait(20)


def test_a_supervisor_does_not_restart_what_cannot_start(fleet: Fleet, system_url: str) -> None:
    """A module that cannot be imported is bad usage: exit code 2, once for all."""
    supervisor = fleet.hire(system_url, "tests.system.no_such_module", options=("--processes", "2"))
    assert supervisor.wait(20) == 2
    assert "cannot import 'tests.system.no_such_module'" in supervisor.log()


def test_a_module_without_definitions_is_refused_and_not_restarted(
    fleet: Fleet, system_url: str
) -> None:
    """The declared workflow, which every worker has, is not what such a module is for."""
    supervisor = fleet.hire(system_url, "tests.waiting", options=("--processes", "2"))
    assert supervisor.wait(20) == 2
    assert "nothing to run" in supervisor.log()


def test_pauses_grow_to_a_bound_however_long_an_outage_lasts() -> None:
    assert 0.1 <= pause_s(1, 0.1, 5.0) <= 0.3
    assert all(2.5 <= pause_s(failures, 0.1, 5.0) <= 7.5 for failures in (10, 1_024, 1_000_000))


def test_a_worker_that_cannot_start_leaves_no_connection(empty_database_url: str) -> None:
    worker = Worker(empty_database_url, modules=FLOWS)
    with pytest.raises(SchemaOutOfDate):
        asyncio.run(worker.start())
    with psycopg.connect(empty_database_url) as sql:
        mine = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        eventually(lambda: sql.execute(mine).fetchone() == (0,))


def test_the_watchdog_names_the_workflow_and_the_line_that_block_the_worker(
    working: Working, client: Client
) -> None:
    """One report a turn, with the run's id and the line of the author's code."""
    shutdown_flows.release.clear()
    with working(*FLOWS, block_warning_s=0.1, lease_s=60.0) as background:
        try:
            handle = client.start(shutdown_flows.blocks_the_loop, id="greedy")
            (report,) = eventually(lambda: background.worker._watchdog.reports)
        finally:
            shutdown_flows.release.set()
        assert handle.result(timeout=10) == "let go"
    lines, first = inspect.getsourcelines(shutdown_flows.blocks_the_loop.fn)
    looping = range(first + 2, first + len(lines))
    assert "blocks_the_loop greedy" in report
    assert any(f"shutdown_flows.py:{line} in blocks_the_loop" in report for line in looping), report
