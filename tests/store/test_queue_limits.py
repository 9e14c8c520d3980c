"""What a claim may take from a queue with limits, asked of the database alone: no worker runs here, and the clock moves by hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.types.json import Jsonb

PER_MINUTE = {"limit": 10, "period_s": 60, "kind": "window"}


class Desk:
    """A worker's claims, and the ends of what it claimed, as plain SQL."""

    def __init__(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        self.sql = connection
        self.worker = str(uuid4())
        self.sql.execute(
            "insert into durable.workers (worker_id, name, state, queues, started_at, beat_at, lease_until)"
            " values (%s, 'desk', 'alive', '{}', durable.now(), durable.now(), durable.now() + interval '1 year')",
            (self.worker,),
        )

    def queue(self, name: str, **columns: Any) -> None:
        values = [Jsonb(it) if isinstance(it, dict) else it for it in columns.values()]
        names = "".join(f", {column}" for column in columns)
        self.sql.execute(
            f"insert into durable.queues (name, created_at, updated_at{names})"
            f" values (%s, durable.now(), durable.now(){', %s' * len(values)})".encode(),
            (name, *values),
        )

    def put(self, queue: str, count: int, priority: int = 0, **options: Any) -> None:
        given = {"priority": priority, "options": Jsonb({"weight": 1, **options})}
        self.sql.execute(
            "insert into durable.jobs (shard, run_id, seq, kind, name, queue, priority, state, scheduled_at, input, options, created_at)"
            " select durable.shard_of(g.id::text), g.id, 0, 'job', 'x', %(queue)s, %(priority)s, 'available', durable.now(), '{}', %(options)s,"
            "        durable.now() from (select durable.uuid7() as id from generate_series(1, %(count)s)) g",
            {**given, "queue": queue, "count": count},
        )

    def claim(self, queue: str, count: int, *, aged: bool = False) -> list[tuple[str | None, int]]:
        """The key and the priority of each job taken."""
        return self.sql.execute(
            "select j.limit_key, j.priority from durable.claim_jobs(%s, %s, %s, %s) c join durable.jobs j using (shard, run_id, seq)",
            (self.worker, [queue], [count], aged),
        ).fetchall()

    def taken(self, queue: str, count: int) -> int:
        return len(self.claim(queue, count))

    def end(self, state: str = "completed") -> None:
        """Everything that executes ends."""
        finished = "durable.now()" if state == "completed" else "null"
        self.sql.execute(
            f"update durable.jobs set state = '{state}', owner = null, finished_at = {finished} where state = 'executing'".encode()
        )

    def pass_time(self, by: str) -> None:
        self.sql.execute("select durable.advance_clock(%s)", (by,))


@pytest.fixture
def desk(database_url: str) -> Iterator[Desk]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield Desk(connection)


def test_the_global_limit_counts_what_executes_and_nothing_else(desk: Desk) -> None:
    desk.queue("narrow", global_limit=5)
    desk.put("narrow", 20)
    assert [desk.taken("narrow", n) for n in (3, 10, 10)] == [3, 2, 0]
    desk.end()
    assert desk.taken("narrow", 10) == 5


def test_a_slot_is_free_however_an_attempt_ended(desk: Desk) -> None:
    desk.queue("narrow", global_limit=5)
    desk.put("narrow", 20)
    for state in ("retryable", "available", "scheduled", "paused"):
        assert desk.taken("narrow", 10) == 5
        desk.end(state)
    assert desk.taken("narrow", 10) == 5


def test_a_dead_workers_slots_come_back_with_its_lease(desk: Desk) -> None:
    desk.queue("narrow", global_limit=5)
    desk.put("narrow", 20)
    assert desk.taken("narrow", 10) == 5
    desk.sql.execute(
        "update durable.workers set lease_until = durable.now() where worker_id = %s",
        (desk.worker,),
    )
    desk.sql.execute("select * from durable.bury_dead_workers(100)")
    assert Desk(desk.sql).taken("narrow", 10) == 5


def test_a_window_never_lets_more_start_within_its_period(desk: Desk) -> None:
    desk.queue("slow", rate_limit=PER_MINUTE)
    desk.put("slow", 40)
    assert [desk.taken("slow", 7) for _ in range(3)] == [7, 3, 0]
    desk.pass_time("59 seconds")
    assert desk.taken("slow", 7) == 0
    desk.pass_time("3 seconds")
    assert desk.taken("slow", 20) == 10


def test_a_window_slides(desk: Desk) -> None:
    """Not a fixed window, which would let twice the number start around its border."""
    desk.queue("slow", rate_limit=PER_MINUTE)
    desk.put("slow", 40)
    assert desk.taken("slow", 4) == 4
    desk.pass_time("40 seconds")
    assert desk.taken("slow", 20) == 6
    desk.pass_time("22 seconds")
    assert desk.taken("slow", 20) == 4, (
        "those of the first instant have left it, the others have not"
    )


def test_a_bucket_fills_with_time_up_to_its_burst(desk: Desk) -> None:
    desk.queue("bursty", rate_limit={"limit": 10, "period_s": 10, "kind": "bucket", "burst": 4})
    desk.put("bursty", 40)
    assert [desk.taken("bursty", 7) for _ in range(2)] == [4, 0]
    desk.pass_time("2 seconds")
    assert [desk.taken("bursty", 7) for _ in range(2)] == [2, 0]
    desk.pass_time("1 hour")
    assert desk.taken("bursty", 7) == 4


def test_weights_count_and_one_too_heavy_for_the_rate_takes_all_of_it(desk: Desk) -> None:
    desk.queue("heavy", rate_limit=PER_MINUTE)
    desk.put("heavy", 5, weight=4)
    assert [desk.taken("heavy", 9), desk.taken("heavy", 9)] == [2, 0]
    desk.queue("heaviest", rate_limit=PER_MINUTE)
    desk.put("heaviest", 2, weight=400)
    assert desk.taken("heaviest", 9) == 1


def test_keys_have_limits_of_their_own(desk: Desk) -> None:
    desk.queue("keyed", key_limit=2, keyed=True)
    for key in ("a", "b"):
        desk.put("keyed", 10, limit_key=key)
    desk.put("keyed", 3)
    assert sorted(key or "-" for key, _ in desk.claim("keyed", 20)) == [*"---aabb"]
    desk.queue("paced", key_rate_limit={"limit": 2, "period_s": 60, "kind": "window"}, keyed=True)
    for key in ("a", "b"):
        desk.put("paced", 10, limit_key=key)
    assert [desk.taken("paced", 20) for _ in range(2)] == [4, 0]


def test_keys_take_turns_so_a_flood_of_one_starves_no_other(desk: Desk) -> None:
    desk.queue("fair", keyed=True)
    desk.put("fair", 500, limit_key="flood")
    for key in ("a", "b", "c"):
        desk.put("fair", 2, limit_key=key)
    first = [desk.claim("fair", 1)[0][0] for _ in range(8)]
    assert {key: first.count(key) for key in first} == {"flood": 2, "a": 2, "b": 2, "c": 2}


def test_jobs_of_a_serial_key_run_one_after_the_other_in_order(desk: Desk) -> None:
    desk.queue("lines", keyed=True)
    for n in range(3):
        desk.put("lines", 1, limit_key="a", serial=True, priority=9 - n)
        desk.put("lines", 1, limit_key="b", serial=True)
    assert sorted(desk.claim("lines", 20)) == [("a", 9), ("b", 0)], (
        "the first of each, not the most urgent"
    )
    assert desk.taken("lines", 20) == 0
    desk.end("retryable")
    assert desk.taken("lines", 20) == 0, "whoever is to be retried is still the first of its line"
    desk.sql.execute("update durable.jobs set state = 'available' where state = 'retryable'")
    assert desk.taken("lines", 20) == 2
    desk.end()
    assert sorted(desk.claim("lines", 20)) == [("a", 8), ("b", 0)]


def test_nothing_of_a_paused_queue_starts(desk: Desk) -> None:
    desk.queue("held", paused_at="2020-01-01")
    desk.put("held", 5)
    assert desk.taken("held", 9) == 0
    desk.sql.execute("update durable.queues set paused_at = null")
    assert desk.taken("held", 9) == 5


@pytest.mark.parametrize("limits", [{}, {"global_limit": 1_000}])
def test_urgent_jobs_go_first_and_yet_nothing_waits_for_ever(
    desk: Desk, limits: dict[str, Any]
) -> None:
    if limits:
        desk.queue("mixed", **limits)
    desk.put("mixed", 5, priority=9)
    desk.pass_time("2 minutes")
    desk.put("mixed", 50)
    assert {priority for _, priority in desk.claim("mixed", 8)} == {0}
    assert sorted(priority for _, priority in desk.claim("mixed", 8, aged=True)) == [0] * 7 + [9]


def test_one_queues_flood_takes_no_slot_of_another(desk: Desk) -> None:
    desk.put("flooded", 1_000)
    desk.put("calm", 2)
    rows = desk.sql.execute(
        "select queue, count(*) from durable.claim_jobs(%s, %s, %s) group by queue",
        (desk.worker, ["flooded", "calm"], [50, 50]),
    ).fetchall()
    assert dict(rows) == {"flooded": 50, "calm": 2}
