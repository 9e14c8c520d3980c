"""Why runs and jobs have ended (S109), each cause produced for real; and the job that follows a run's end (S106): at least once, made once, whatever ends it."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import Any

import psycopg
import pytest

from durable import DurableError, InvalidOption, JobCall, PayloadError
from durable.client_sync import Client
from durable.core.terminal_causes import JOB_CAUSES, RUN_CAUSES
from durable.handles_sync import Handle
from durable.jobs_sync import JobHandle
from tests.system import ending_flows, flows
from tests.system.conftest import Working
from tests.system.gates import gate
from tests.system.processes import Fleet
from tests.system.sealed_flows import SECRET
from tests.system.test_sealed_payloads import WITH_OLD
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]
MODULES = ("tests.system.flows", "tests.system.ending_flows")
ends = ending_flows.ends


def told(sql: Sql, key: str) -> list[dict[str, Any]]:
    query = "select info from system.executions where key = %s order by id"
    return [info for (info,) in sql.execute(query, (key,)).fetchall()]


def call(text: str) -> JobCall:
    return JobCall(ending_flows.is_told, text, {"b": 1, "a": 2})


def ended(handle: Handle[Any]) -> str | None:
    """The cause, once it has one."""
    return eventually(lambda: handle.describe().cause)


def stopping(client: Client, how: str, id: str, **options: Any) -> Handle[Any]:
    """A run that has begun, and waits until something ends it."""
    handle = client.start(ends, how, id=id, **options)
    eventually(lambda: handle.describe().started_at)
    return handle


def end(client: Client, sql: Sql, how: str, **options: Any) -> Handle[Any]:
    """A run that is ended in this way, under the id `how`."""
    if how == "completed":
        return client.start(ends, "well", id=how, **options)
    if how in ("failed", "step_failed"):
        told_so = "raises" if how == "failed" else "step fails"
        return client.start(ends, told_so, id=how, **options)
    if how == "timed_out":
        handle = stopping(client, "stops", how, run_timeout=timedelta(hours=1), **options)
        sql.execute("select durable.advance_clock('2 hours')")
        return handle
    if how == "cancelled_before_start":
        handle = client.start(ends, "well", id=how, delay=timedelta(days=1), **options)
        handle.cancel()
        return handle
    asked = {
        "completed_after_cancel_request": "asked",
        "failed_after_cancel_request": "asked and fails",
    }
    handle = stopping(client, asked.get(how, "stops"), how, **options)
    if how == "terminated":
        handle.terminate("enough")
    elif how == "replaced":
        client.start(ends, "well", id=how, on_running="terminate")
        return client._handle_of(how, handle.run_id, None)
    else:
        handle.cancel("enough")
    return handle


def has_ended(job: JobHandle[Any]) -> bool:
    return job.describe().finished_at is not None


def words(sql: Sql, domain: str) -> set[str]:
    (text,) = sql.execute(
        "select pg_get_constraintdef(c.oid) from pg_constraint c where c.conname = %s", (domain,)
    ).fetchall()[0]
    return set(re.findall(r"'(\w+)'", text))


def test_the_schema_has_the_same_words(sql: Sql) -> None:
    assert words(sql, "run_cause_known") == set(RUN_CAUSES)
    assert words(sql, "job_cause_known") == set(JOB_CAUSES)


WAYS = [cause for cause in RUN_CAUSES if cause not in ("continued", "reset", "terminated_with_parent")]  # fmt: skip


def test_each_cause_of_a_run_comes_about(working: Working, client: Client, sql: Sql) -> None:
    """And the job that follows is told of each, once, with the same word; those that go on tell nobody."""
    seen = set()
    with working(*MODULES, lease_s=1e7):
        for way in WAYS:
            handle = end(client, sql, way, on_end=call(way), actor="ann", headers={"trace": way})
            assert ended(handle) == way
            (info,) = eventually(partial(told, sql, way), what=way)
            run = handle.describe()
            assert info["callback"] == {
                "version": 1, "event": "workflow.closed", "workflow_id": way, "run_id": run.run_id, "workflow": "ends", "status": run.status,
                "cause": way, "closed_at_us": info["callback"]["closed_at_us"],
            }  # fmt: skip
            assert (info["actor"], info["headers"]) == ("ann", {"trace": way})
            assert info["keys"] == ["b", "a"], "the order of keys is the author's"
            seen.add(way)
        parent = client.start(ending_flows.has_an_ending_child, "child", id="parent")
        child = client.handle("child")
        eventually(lambda: client.list(id_prefix="child") and child.describe().started_at)
        parent.terminate("with all it has")
        assert ended(child) == "terminated_with_parent"
    rows = sql.execute("select count(*) from durable.jobs where kind = 'job'").fetchone()
    assert rows == (len(WAYS),)
    assert seen | {"continued", "reset", "terminated_with_parent"} == set(RUN_CAUSES)


def test_a_run_that_goes_on_hands_the_job_on(working: Working, client: Client, sql: Sql) -> None:
    """Continue-as-new and the reset of an open run do not close (C15): the last one tells, once."""
    with working(*MODULES, lease_s=1e7):
        handle = client.start(ending_flows.ends_later, 2, "stops", id="w", on_end=call("w"))
        eventually(lambda: client.handle("w").describe().generation == 2)
        eventually(lambda: client.handle("w").pending())
        reset = client.handle("w").reset("again", to_event=1)
        causes = [run.cause for run in reversed(client.list(id_prefix="w"))]
        assert causes == ["continued", "continued", "reset", None]
        assert told(sql, "w") == []
        handle.terminate("enough")
        (info,) = eventually(lambda: told(sql, "w"))
        assert info["callback"]["run_id"] == reset.run_id
        client.handle("w").retry("once more")
        eventually(lambda: client.handle("w").pending())
        client.handle("w").terminate("enough")
        eventually(lambda: len(told(sql, "w")) == 2, what="what ends again tells again")
        fork = client.handle("w").fork("fork", "a look", to_event=1)
        fork.terminate("enough")
    assert len(told(sql, "w")) == 2, "nobody asked to be told of the fork"
    assert sql.execute("select count(*) from durable.jobs where kind = 'job'").fetchone() == (2,)


def test_closers_at_once_make_one_job(client: Client, database_url: str, sql: Sql) -> None:
    """Sixteen connections terminate or cancel each of ten runs at the same moment."""
    handles = [client.start(ends, "stops", id=f"r{n}", on_end=call("r")) for n in range(10)]
    start = threading.Barrier(16)

    def closer(number: int) -> None:
        with Client(database_url) as mine:
            for each in handles:
                handle = mine.handle(each.workflow_id)
                start.wait(30)
                try:
                    handle.terminate("enough") if number % 2 else handle.cancel("enough")
                except DurableError:
                    assert handle.describe().status != "running"

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(closer, range(16)))
    assert {handle.describe().status for handle in handles} <= {"terminated", "cancelled"}
    assert sql.execute("select count(*) from durable.jobs where kind = 'job'").fetchone() == (10,)


def test_no_worker_that_dies_loses_it(
    fleet: Fleet, system_url: str, client: Client, sql: Sql
) -> None:
    """Killed while the run is on its way to its end, and again while the job runs: it is leased, and runs again elsewhere."""
    with gate(system_url, 1) as held, gate(system_url, 2) as told_at:
        first = fleet.hire(system_url, *MODULES).ready()
        patient = JobCall(ending_flows.is_told_again, 2)
        handle = client.start(ending_flows.ends_at_the_gate, 1, id="w", on_end=patient)
        held.wait_for()
        first.kill()
        held.open()
        second = fleet.hire(system_url, *MODULES).ready()
        assert handle.result(timeout=60) == "done"
        told_at.wait_for()
        second.kill()
        fleet.hire(system_url, *MODULES).ready()
        eventually(lambda: len(told(sql, "told again")) == 2, 60)
        told_at.open()
        (job,) = client.jobs(activity="is_told_again")
        assert client.job(job.job_id).result(timeout=60) == "told"
    assert len(client.jobs(activity="is_told_again")) == 1


def test_the_job_is_made_with_the_end_or_not_at_all(
    client: Client, database_url: str, sql: Sql
) -> None:
    handle = client.start(ends, "stops", id="w", on_end=call("w"))
    with psycopg.connect(database_url) as mine:
        handle.terminate("enough", connection=mine)
        mine.rollback()
    assert client.jobs() == []
    handle.terminate("enough")
    (job,) = client.jobs()
    assert job.name == "is_told"
    query = "select durable.end_job_id(run_id, closed_at)::text from durable.runs"
    assert sql.execute(query).fetchall() == [(job.job_id,)]


def test_a_start_that_finds_a_run_leaves_it_as_it_is(client: Client, sql: Sql) -> None:
    client.start(ends, "stops", id="w")
    assert not client.start(ends, "stops", id="w", on_end=call("w")).created
    client.handle("w").terminate("enough")
    assert client.jobs() == []


def test_what_cannot_follow_is_refused_before_anything_is_written(client: Client) -> None:
    with pytest.raises(PayloadError):
        client.start(ends, "stops", id="w", on_end=JobCall(ending_flows.is_told, 5, {}))
    with pytest.raises(InvalidOption, match="JobCall"):
        client.start(ends, "stops", id="w", on_end="is_told")  # type: ignore[call-overload]
    assert client.list() == []


def test_each_cause_of_a_job_comes_about(working: Working, client: Client, sql: Sql, system_url: str) -> None:  # fmt: skip
    seen: dict[str, JobHandle[Any]] = {}
    breaks: Any = ending_flows.breaks
    with working(*MODULES, lease_s=1e7), gate(system_url, 1) as held:
        seen["completed"] = client.enqueue(flows.quick, 1)
        seen["attempts_exhausted"] = client.enqueue(breaks, "at last")
        seen["non_retryable"] = client.enqueue(breaks, "for good")
        seen["cancelled_by_itself"] = client.enqueue(breaks, "not wanted")
        seen["cancelled"] = client.enqueue(breaks, "later", delay=timedelta(days=2))
        client.job(seen["cancelled"].job_id).cancel("enough")
        seen["timed_out"] = client.enqueue(ending_flows.expires, delay=timedelta(hours=3))
        sql.execute("select durable.advance_clock('2 hours')")
        asked = client.enqueue(ending_flows.holds_still, 1)
        held.wait_for()
        asked.cancel("enough")
        held.open()
        seen["completed_after_cancel_request"] = asked
        for cause, job in seen.items():
            eventually(partial(has_ended, job), what=cause)
    lost = client.enqueue(breaks, "lost", queue="lost")
    dead = "00000000-0000-7000-8000-00000000000b"
    sql.execute(
        "insert into durable.workers (worker_id, name, state, queues, started_at, beat_at, lease_until)"
        " values (%s, 'w', 'alive', '{}', now(), now(), durable.now() + '1 h')", (dead,),
    )  # fmt: skip
    sql.execute("select * from durable.claim_jobs(%s, '{lost}', '{10}')", (dead,))
    sql.execute("update durable.workers set lease_until = durable.now() - interval '1 s' where worker_id = %s", (dead,))  # fmt: skip
    sql.execute("select * from durable.bury_dead_workers(10)")
    seen["worker_lost"] = lost
    assert {cause: job.describe().cause for cause, job in seen.items()} == {c: c for c in seen}
    assert set(seen) == set(JOB_CAUSES)


def test_a_group_s_job_is_made_once_though_workers_die(
    fleet: Fleet, system_url: str, client: Client, sql: Sql
) -> None:
    """Killed while the last member runs, and again while the callback does; the callback is told of which group, with its counts."""
    with gate(system_url, 1) as held, gate(system_url, 2) as told_at:
        first = fleet.hire(system_url, *MODULES).ready()
        done = JobCall(ending_flows.is_told_again, 2)
        group = client.enqueue_group(ending_flows.holds_still, [(1,)] * 2, name="two", on_all_done=done)  # fmt: skip
        held.wait_for(2)
        first.kill()
        held.open()
        second = fleet.hire(system_url, *MODULES).ready()
        told_at.wait_for()
        second.kill()
        fleet.hire(system_url, *MODULES).ready()
        eventually(lambda: len(told(sql, "told again")) == 2, 60)
        told_at.open()
        assert client.job(group.callbacks["all_done"]).result(timeout=60) == "told"
    assert len(client.jobs(activity="is_told_again")) == 1
    assert {info["callback"]["event"] for info in told(sql, "told again")} == {"group.all_done"}
    (info, _) = told(sql, "told again")
    assert (info["callback"]["group_id"], info["callback"]["name"]) == (group.group_id, "two")
    assert (info["callback"]["completed"], info["callback"]["total"]) == (2, 2)


def test_what_the_job_is_given_is_sealed(working: Working, system_url: str, sql: Sql) -> None:
    """Where payloads are sealed its arguments lie sealed in the run's row, and are opened for the job alone."""
    modules = ("tests.system.flows", "tests.system.ending_flows")
    with (
        working(*modules, payloads=WITH_OLD),
        Client(system_url, payloads=WITH_OLD) as client,
    ):
        client.start(ends, "well", id="w", on_end=JobCall(ending_flows.is_told, SECRET, {}))
        (job,) = eventually(lambda: client.jobs(activity="is_told"))
        assert client.job(job.job_id).result(timeout=30) == SECRET
    for table in ("runs", "jobs", "history"):
        rows = sql.execute(f"select t::text from durable.{table} t".encode()).fetchall()
        assert not [row for (row,) in rows if SECRET in row], table


def test_a_job_in_another_process_is_told_too(working: Working, client: Client, sql: Sql) -> None:
    with working(*MODULES):
        call = JobCall(ending_flows.is_told_elsewhere)
        client.start(ends, "well", id="w", on_end=call)
        (job,) = eventually(lambda: client.jobs(activity="is_told_elsewhere"))
        assert client.job(job.job_id).result(timeout=60) == ["workflow.closed", "completed"]
