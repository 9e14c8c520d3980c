"""`@activity(process=True)`: results and failures as from a thread, and an end for work that does not end by itself (S133, S142)."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from durable import ActivityError, InvalidOption, PayloadError, activity
from durable.client_sync import Client
from durable.job_errors import JobCancelled, ProcessDied
from tests.system import process_flows
from tests.system.conftest import Working
from tests.system.processes import Fleet
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]
FLOWS = ("tests.system.flows", "tests.system.process_flows")


def is_gone(pid: int | None) -> bool:
    assert pid is not None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def spinning(sql: Sql) -> int | None:
    """The process that spins, once it does."""
    row = sql.execute("select key from system.executions").fetchone()
    return None if row is None else int(row[0])


def failure_of(client: Client, how: str) -> BaseException | None:
    with pytest.raises(ActivityError) as ended:
        client.enqueue(process_flows.ends_badly, how).result(timeout=30)
    return ended.value.cause


def test_results_come_from_another_process_that_is_used_again(
    working: Working, client: Client
) -> None:
    with working(*FLOWS):
        first = client.enqueue(process_flows.squares, [1, 2, 3]).result(timeout=30)
        again = client.enqueue(process_flows.squares, [4]).result(timeout=30)
        handle = client.start(process_flows.works_hard, [5], id="hard")
        assert handle.result(timeout=30) == [25]
        assert (first[1], again[1]) == ([1, 4, 9], [16])
        assert first[0] == again[0] != os.getpid()
    eventually(partial(is_gone, first[0]))


def test_failures_and_outcomes_are_those_of_any_activity(working: Working, client: Client) -> None:
    with working(*FLOWS):
        raised = failure_of(client, "raise")
        assert isinstance(raised, process_flows.Overheated)
        assert "process_flows.py" in str(getattr(raised, "remote_traceback", ""))
        assert isinstance(failure_of(client, "cancel"), JobCancelled)
        assert isinstance(failure_of(client, "heartbeat"), PayloadError)
        died = failure_of(client, "die")
        assert isinstance(died, ProcessDied)
        assert "ended by signal 9" in str(died)
        assert client.enqueue(process_flows.ends_badly, "snooze").result(timeout=30) == "rested"


def test_a_spinning_activity_is_killed_when_it_times_out(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(*FLOWS):
        handle = client.start(process_flows.gives_up_spinning, id="s")
        pid = eventually(lambda: spinning(sql))
        assert handle.result(timeout=30) == "timed out"
        assert is_gone(pid)


def test_a_spinning_activity_is_killed_when_it_is_cancelled(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(*FLOWS):
        job = client.enqueue(process_flows.spins)
        pid = eventually(lambda: spinning(sql))
        job.cancel("enough")
        with pytest.raises(ActivityError) as ended:
            job.result(timeout=30)
        assert ended.value.retry_state == "cancelled"
        eventually(partial(is_gone, pid))


def test_a_child_dies_with_its_worker(
    fleet: Fleet, system_url: str, client: Client, sql: Sql
) -> None:
    worker = fleet.hire(system_url, *FLOWS)
    client.enqueue(process_flows.spins)
    pid = eventually(lambda: spinning(sql))
    worker.kill()
    eventually(partial(is_gone, pid))


def test_heartbeats_and_facts_go_through(
    working: Working, client: Client, sql: Sql, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_fail = tmp_path / "may_fail"
    monkeypatch.setenv("MAY_FAIL", str(may_fail))
    with working(*FLOWS):
        job = client.enqueue(process_flows.tells, 3, actor="ann")
        beats = "select 1 from durable.jobs where heartbeat::text = '[2]'"
        eventually(lambda: sql.execute(beats).fetchone())
        may_fail.touch()
        assert job.result(timeout=30) == [[2], "ann", "tells", True]


def test_what_cannot_run_in_a_process_is_refused_at_once() -> None:
    async def coroutine() -> None: ...

    def local() -> None: ...

    with pytest.raises(InvalidOption, match="plain functions"):
        activity(process=True)(coroutine)
    with pytest.raises(InvalidOption, match="define it in a module"):
        activity(process=True)(local)
