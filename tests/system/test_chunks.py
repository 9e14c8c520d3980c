"""Several jobs in one call of their activity, with an outcome for each (S164)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg
import pytest

from durable import ActivityError, InvalidOption, JobCancelled, activity
from durable.client_sync import Client
from tests.system import chunk_flows
from tests.system.conftest import Working
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]
FLOWS = ("tests.system.flows", "tests.system.chunk_flows")


def calls(sql: Sql) -> list[str]:
    return [
        key for (key,) in sql.execute("select key from system.executions order by id").fetchall()
    ]


def test_jobs_are_joined_up_to_the_size_and_each_gets_its_slice(
    working: Working, client: Client, sql: Sql
) -> None:
    """Nobody waits for chunk_wait, which is an hour: five jobs of two items fill a call of ten."""
    jobs = [client.enqueue(chunk_flows.doubles, [n, n + 1]) for n in range(10)]
    with working(*FLOWS):
        assert [job.result(timeout=30) for job in jobs] == [[2 * n, 2 * n + 2] for n in range(10)]
    assert calls(sql) == ["10", "10"]


def test_what_does_not_fill_a_chunk_waits_for_so_long(
    working: Working, client: Client, sql: Sql
) -> None:
    client.enqueue_many(chunk_flows.few, (([n],) for n in range(7)))
    with working(*FLOWS):
        eventually(lambda: len(client.jobs(state="completed")) == 7)
    assert calls(sql) == ["7"]


def test_each_item_may_end_in_its_own_way(working: Working, client: Client) -> None:
    failed, cancelled, snoozed, done = (client.enqueue(chunk_flows.judges, [n]) for n in range(4))
    with working(*FLOWS):
        assert done.result(timeout=30) == [3]
        with pytest.raises(ActivityError) as refused:
            failed.result(timeout=30)
        assert isinstance(refused.value.cause, ValueError)
        with pytest.raises(ActivityError) as ended:
            cancelled.result(timeout=30)
        assert isinstance(ended.value.cause, JobCancelled)
        eventually(lambda: snoozed.describe().state == "scheduled")


@pytest.mark.parametrize(("first", "cause"), [(1, LookupError), (0, TypeError)])
def test_what_the_call_raises_or_leaves_out_fails_all(
    working: Working, client: Client, first: int, cause: type[Exception]
) -> None:
    jobs = [client.enqueue(chunk_flows.breaks, [n]) for n in (first, first)]
    with working(*FLOWS):
        for job in jobs:
            with pytest.raises(ActivityError) as failed:
                job.result(timeout=30)
            assert isinstance(failed.value.cause, cause)


def test_a_job_that_is_cancelled_while_others_gather_leaves_them(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(*FLOWS):
        gone = client.enqueue(chunk_flows.doubles, [99])
        eventually(lambda: gone.describe().state == "executing")
        gone.cancel()
        eventually(lambda: gone.describe().state == "cancelled")
        jobs = [client.enqueue(chunk_flows.doubles, [n]) for n in range(10)]
        assert {tuple(job.result(timeout=30)) for job in jobs} == {(2 * n,) for n in range(10)}
    assert calls(sql) == ["10"]


def test_what_cannot_be_chunked_is_refused() -> None:
    with pytest.raises(InvalidOption, match="one parameter"):
        activity(chunk_size=2)(lambda a, b: [])
    with pytest.raises(InvalidOption, match="chunk_size is"):
        activity(chunk_size=0)(lambda a: [])
    with pytest.raises(InvalidOption, match="goes with chunk_size"):
        activity(chunk_wait=timedelta(seconds=1))(lambda a: [])
