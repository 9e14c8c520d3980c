"""Groups of jobs with callbacks, and chains (S163, D12): each callback once, committed with the outcome that brings it about."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from durable import ActivityError, BulkRefused, JobCall, JobNotFound
from durable.client_sync import Client
from tests.system.conftest import Working
from tests.system.job_flows import adds, member, naps, reports
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]
FLOWS = ("tests.system.flows", "tests.system.job_flows")
EVENTS = (
    "first_failure",
    "first_cancelled",
    "first_retryable",
    "all_attempted",
    "all_done",
    "all_succeeded",
)
WORKER = "00000000-0000-7000-8000-00000000000b"


def callbacks() -> dict[str, Any]:
    return {f"on_{event}": JobCall(reports, event, {"b": 1, "a": 2}) for event in EVENTS}


def reported(sql: Sql) -> list[str]:
    rows = sql.execute(
        "select input ->> 'event' from durable.jobs where name = 'reports'"
    ).fetchall()
    return sorted(event for (event,) in rows)


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([1, 2, 3], ["all_attempted", "all_done", "all_succeeded"]),
        ([1, -2, -3], ["all_attempted", "all_done", "first_failure"]),
        ([0, 0, 1], ["all_attempted", "all_done", "first_cancelled"]),
        ([0, -1, 1], ["all_attempted", "all_done", "first_cancelled", "first_failure"]),
        ([], ["all_attempted", "all_done", "all_succeeded"]),
    ],
)
def test_each_event_enqueues_its_job_once(
    working: Working, client: Client, sql: Sql, numbers: list[int], expected: list[str]
) -> None:
    with working(*FLOWS):
        group = client.enqueue_group(member, ((n,) for n in numbers), name="n", **callbacks())
        done = group.wait(timeout=30)
        for event in expected:
            assert client.job(group.callbacks[event]).result(timeout=30) == event
    assert (done.total, done.open, done.completed) == (len(numbers), 0, sum(n > 0 for n in numbers))
    assert (done.discarded, done.cancelled) == (sum(n < 0 for n in numbers), numbers.count(0))
    assert reported(sql) == expected == sorted(client.job_group(group.group_id).describe().fired)
    seen = {key for (key,) in sql.execute("select key from system.executions").fetchall()}
    assert seen == {f"{event}: ['b', 'a']" for event in expected}, (
        "the order of keys is the author's"
    )


def test_a_first_failure_that_is_tried_again_and_all_first_attempts_are_events(
    working: Working, client: Client, sql: Sql
) -> None:
    """S163: `retryable` at the first failure that is not the last; `attempted` when nobody waits for a first attempt any more, hours before `done`."""
    with working(*FLOWS):
        group = client.enqueue_group(naps, [(0,), (0,)], **callbacks())
        eventually(lambda: reported(sql) == ["all_attempted", "first_retryable"])
        found = group.describe()
        assert (found.open, found.attempted, found.completed) == (2, 2, 0)
        assert sql.execute(
            "select count(*) from durable.jobs where state = 'retryable'"
        ).fetchone() == (2,)
        sql.execute("select durable.advance_clock('2 h')")
        assert group.wait(timeout=30).completed == 2
        expected = ["all_attempted", "all_done", "all_succeeded", "first_retryable"]
        eventually(lambda: reported(sql) == expected)


def test_an_attempt_that_was_put_back_is_none(client: Client, sql: Sql) -> None:
    """A snooze is an attempt of its own for the group; put back, parked or claimed is not; who never ran and was cancelled is not waited for."""
    group = client.enqueue_group(member, [(1,), (2,)])
    sql.execute(
        "insert into durable.workers (worker_id, name, state, queues, started_at, beat_at, lease_until)"
        " values (%s, 'w', 'alive', '{}', now(), now(), durable.now() + '1 h')",
        (WORKER,),
    )
    one, two = (job.job_id for job in client.jobs(activity=member))
    attempt = "array[durable.shard_of(%(id)s)], array[%(id)s::uuid], '{0}', '{1}'"

    def claim_and(function: str, rest: str) -> int:
        sql.execute("select * from durable.claim_jobs(%s, '{default}', '{10}')", (WORKER,))
        statement = f"select * from durable.{function}(%(w)s, {attempt}, {rest})"
        sql.execute(statement.encode(), {"w": WORKER, "id": one})
        return group.describe().attempted

    assert claim_and("put_back_jobs", "'{0}', '{null}'") == 0
    assert claim_and("retry_jobs", "'{60}', array[null]::jsonb[]") == 1
    client.job(two).cancel()
    assert group.describe().attempted == 1, "it executes: its outcome counts"
    sql.execute("update durable.workers set lease_until = durable.now() - interval '1 s'")
    sql.execute("select * from durable.bury_dead_workers(10)")
    assert (group.describe().attempted, group.describe().open) == (2, 1)
    assert group.describe().fired == ["first_cancelled", "all_attempted"]


def test_a_group_is_all_or_nothing_with_the_callers_transaction(
    client: Client, database_url: str, sql: Sql
) -> None:
    with psycopg.connect(database_url) as mine:
        group = client.enqueue_group(member, [(1,)], connection=mine, **callbacks())
        mine.rollback()
    with pytest.raises(JobNotFound, match="group"):
        group.describe()
    with pytest.raises(BulkRefused):
        client.enqueue_group(member, [(1,), ("x",)], **callbacks())
    assert sql.execute("select count(*) from durable.jobs").fetchone() == (0,)
    assert sql.execute("select count(*) from durable.job_groups").fetchone() == (0,)


def test_whatever_ends_a_job_counts(client: Client, sql: Sql) -> None:
    """Cancelled and deleted while waiting, lost with its worker, expired, put back after a cancel; revived by hand and ended again."""
    group = client.enqueue_group(member, ((n,) for n in range(5)), **callbacks())
    jobs = client.jobs(activity=member)
    client.job(jobs[0].job_id).cancel()
    client.job(jobs[1].job_id).delete()
    assert group.describe().cancelled == 2
    client.job(jobs[0].job_id).retry()
    assert (group.describe().open, group.describe().cancelled) == (4, 1)
    sql.execute(
        "insert into durable.workers (worker_id, name, state, queues, started_at, beat_at, lease_until)"
        " values (%s, 'w', 'alive', '{}', now(), now(), durable.now() + '1 h')",
        (WORKER,),
    )
    sql.execute("select * from durable.claim_jobs(%s, '{default}', '{10}')", (WORKER,))
    client.job(jobs[2].job_id).cancel()
    sql.execute(
        "update durable.workers set lease_until = durable.now() - interval '1 s' where worker_id = %s",
        (WORKER,),
    )
    sql.execute("select * from durable.bury_dead_workers(10)")
    found = group.describe()
    assert (found.open, found.cancelled, found.discarded) == (0, 2, 3), "max_attempts is 1"
    assert found.fired == ["first_cancelled", "first_failure", "all_attempted", "all_done"]
    assert reported(sql) == ["all_attempted", "all_done", "first_cancelled", "first_failure"]
    assert found.attempted == 5


def test_the_last_outcomes_at_once_have_one_last(
    client: Client, database_url: str, sql: Sql
) -> None:
    """D12: sixteen connections end the sixteen jobs of a group at the same moment, for ten groups; each is told once."""
    groups = [
        client.enqueue_group(member, ((n,) for n in range(16)), **callbacks()) for _ in range(10)
    ]
    start = threading.Barrier(16)

    def ender(number: int) -> None:
        with psycopg.connect(database_url, autocommit=True) as mine:
            for group in groups:
                row = mine.execute(
                    "select run_id::text from durable.jobs where group_id = %s order by run_id offset %s limit 1",
                    (group.group_id, number),
                ).fetchone()
                assert row is not None
                start.wait(30)
                mine.execute(
                    "select * from durable.cancel_job(durable.shard_of(%s), %s::uuid, null)",
                    (row[0], row[0]),
                )

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ender, range(16)))
    assert {group.describe().open for group in groups} == {0}
    assert reported(sql) == ["all_attempted"] * 10 + ["all_done"] * 10 + ["first_cancelled"] * 10


def test_a_chain_runs_in_order_and_gives_the_last_result(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(*FLOWS):
        chain = client.enqueue_chain(*(JobCall(adds, "x", str(n)) for n in range(4)))
        assert chain.result(timeout=30) == "x3"
    assert [key for (key,) in sql.execute("select key from system.executions order by id")] == [
        "x0",
        "x1",
        "x2",
        "x3",
    ]


def test_a_chain_stops_where_a_job_does_not_complete_and_can_go_on(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(*FLOWS):
        chain = client.enqueue_chain(
            JobCall(adds, "a", "1"), JobCall(adds, "b", "stop"), JobCall(adds, "c", "2")
        )
        with pytest.raises(ActivityError, match="cancelled"):
            chain.result(timeout=30)
        with pytest.raises(JobNotFound):
            chain.jobs[2].describe()
        sql.execute(
            'update durable.jobs set input = \'{"text": "b", "more": "go"}\' where run_id = %s',
            (chain.jobs[1].job_id,),
        )
        chain.jobs[1].retry()
        assert chain.result(timeout=30) == "c2"


def test_jobs_without_a_group_never_reach_the_trigger(client: Client, sql: Sql) -> None:
    sql.execute(
        "create or replace function durable.count_in_group() returns trigger language plpgsql as 'begin raise ''reached''; end'"
    )
    job = client.enqueue(member, 1)
    job.cancel()
    job.retry()
    job.delete()
    client.enqueue_group(member, [(1,)])
    (found,) = client.jobs()
    with pytest.raises(Exception, match="reached"):
        client.job(found.job_id).cancel()


def test_a_large_group_in_large_batches(working: Working, client: Client, sql: Sql) -> None:
    with working(*FLOWS, queues={"default": 200}):
        group = client.enqueue_group(member, ((n,) for n in range(1, 3_001)), **callbacks())
        assert group.wait(timeout=60).completed == 3_000
        eventually(lambda: reported(sql) == ["all_attempted", "all_done", "all_succeeded"])
