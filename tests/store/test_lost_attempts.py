"""What becomes of attempts whose worker has died: at once the first time, apart from each other after that."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest

Sql = psycopg.Connection[tuple[Any, ...]]
COUNT = 60


@pytest.fixture
def sql(database_url: str) -> Iterator[Sql]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "insert into durable.jobs (shard, run_id, seq, kind, name, queue, state, scheduled_at, input, options, created_at)"
            " select durable.shard_of(g.id::text), g.id, 0, 'job', 'x', 'q', 'available', durable.now(), '{}', '{}', durable.now()"
            "   from (select durable.uuid7() as id from generate_series(1, %s)) g",
            (COUNT,),
        )
        yield connection


def lose(sql: Sql) -> None:
    """A worker takes everything and dies."""
    worker = uuid4()
    sql.execute(
        "insert into durable.workers (worker_id, name, state, queues, started_at, beat_at, lease_until)"
        " values (%s, 'w', 'alive', '{}', durable.now(), durable.now(), durable.now() + interval '1 second')",
        (worker,),
    )
    taken = sql.execute(
        "select count(*) from durable.claim_jobs(%s, '{q}', '{1000}')", (worker,)
    ).fetchall()
    assert taken == [(COUNT,)]
    sql.execute(
        "update durable.workers set lease_until = durable.now() - interval '1 s' where worker_id = %s",
        (worker,),
    )
    assert sql.execute("select jobs from durable.bury_dead_workers(1000)").fetchall() == [(COUNT,)]


def waits_s(sql: Sql) -> list[float]:
    """How long after it was lost each job may run again."""
    rows = sql.execute(
        "select extract(epoch from scheduled_at - (errors -> -1 ->> 'at')::timestamptz)::float8"
        "  from durable.jobs where state in ('available', 'retryable') order by 1"
    ).fetchall()
    return [wait_s for (wait_s,) in rows]


def test_what_is_lost_once_is_there_at_once(sql: Sql) -> None:
    lose(sql)
    assert sql.execute("select distinct state from durable.jobs").fetchall() == [("available",)]
    assert waits_s(sql) == [0.0] * COUNT


def test_what_is_lost_again_comes_back_at_random_moments(sql: Sql) -> None:
    """So one of them that kills each worker takes fewer down each time."""
    lose(sql)
    for longest_s in (4, 8, 16):
        lose(sql)
        waits = waits_s(sql)
        assert len(waits) == COUNT
        assert 0 < waits[0] < waits[-1] <= longest_s
        assert waits[-1] - waits[0] > longest_s / 2  # 60 random moments
        sql.execute("select durable.advance_clock('1 minute')")
        sql.execute("select durable.stage_due(1000)")


def test_what_is_lost_too_often_is_discarded(sql: Sql) -> None:
    for _ in range(5):
        lose(sql)
        sql.execute("select durable.advance_clock('1 minute')")
        sql.execute("select durable.stage_due(1000)")
    assert sql.execute("select distinct state from durable.jobs").fetchall() == [("discarded",)]
