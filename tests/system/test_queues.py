"""Queues with real workers: limits over several processes and through their deaths, live pause and scale, order, and what keeps a job."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from durable import Client, InvalidOption, RateLimit
from durable.job_errors import JobNotFound
from tests.system import queue_flows
from tests.system.conftest import Working
from tests.system.processes import Fleet
from tests.system.queue_flows import does_nothing, many_at_once, spans_a_while, takes_its_time
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]
FLOWS = "tests.system.queue_flows"
NARROW = ("--queue", "narrow=10")
MOST_AT_ONCE = """
select max(n) from (
    select count(*) as n from spans a join spans b on b.began <= a.began and b.ended > a.began group by a.ctid) t
"""


@pytest.fixture(autouse=True)
def tables(system_url: str) -> None:
    queue_flows.create_tables(system_url)


@pytest.fixture
def seen(system_url: str) -> Iterator[list[int]]:
    """How many of queue `narrow` executed, in every look at the database that a thread could take."""
    looks: list[int] = []
    enough = threading.Event()

    def look() -> None:
        with psycopg.connect(system_url, autocommit=True) as connection:
            while not enough.is_set():
                row = connection.execute(
                    "select count(*) from durable.jobs where queue = 'narrow' and state = 'executing'"
                ).fetchone()
                looks.append(row[0] if row else 0)

    thread = threading.Thread(target=look)
    thread.start()
    yield looks
    enough.set()
    thread.join()


def finished(sql: Sql) -> int:
    row = sql.execute("select count(*) from durable.jobs where state = 'completed'").fetchone()
    return row[0] if row else 0


def value(sql: Sql, query: str) -> Any:
    row = sql.execute(query.encode()).fetchone()
    return row and row[0]


def test_never_more_than_the_global_limit_execute_in_any_process_even_when_one_is_killed(
    fleet: Fleet, system_url: str, client: Client, sql: Sql, seen: list[int]
) -> None:
    client.queue("narrow").set(global_limit=3)
    client.enqueue_many(spans_a_while, [("g", n, 0.02) for n in range(60)])
    workers = [fleet.hire(system_url, FLOWS, options=NARROW) for _ in range(3)]
    eventually(lambda: finished(sql) >= 10, what="some have run")
    workers[0].kill()
    eventually(lambda: finished(sql) == 60, 60, what="all have run")
    assert max(seen) == 3, "it was reached, and never passed"
    assert value(sql, MOST_AT_ONCE) <= 3


def test_the_rate_is_never_passed_however_many_workers_claim(
    fleet: Fleet, system_url: str, client: Client, sql: Sql
) -> None:
    client.queue("narrow").set(rate_limit=RateLimit(8, timedelta(seconds=1)))
    client.enqueue_many(spans_a_while, [("r", n, 0.0) for n in range(24)])
    for _ in range(3):
        fleet.hire(system_url, FLOWS, options=NARROW)
    eventually(lambda: finished(sql) == 24, 60, what="all have run")
    most = "select max(n) from (select count(*) as n from claims a join claims b on b.at between a.at - interval '1 s' and a.at group by a.ctid) t"
    assert value(sql, most) <= 8
    assert value(sql, "select max(at) - min(at) from claims") >= timedelta(seconds=2)


SLOWLY = """
create function take_a_while() returns trigger language plpgsql as
    $$ begin if not exists (select from claims) then perform pg_sleep(0.1); end if; return new; end $$;
create trigger take_a_while before update on durable.jobs for each row when (new.state = 'executing') execute function take_a_while();
"""


@pytest.mark.parametrize("aged", ["false", "true"])
def test_a_rate_counts_from_when_a_slow_claim_has_taken_its_jobs(
    client: Client, sql: Sql, aged: str
) -> None:
    """Not from when the claim began: a cold or busy server takes its time, and the next second's starts would come too soon after.

    Also where the claim goes through what has waited longest.
    """
    client.queue("narrow").set(rate_limit=RateLimit(8, timedelta(seconds=1)))
    client.enqueue_many(spans_a_while, [("r", n, 0.0) for n in range(8)])
    if aged == "true":
        sql.execute("update durable.jobs set scheduled_at = scheduled_at - interval '2 minutes'")
    sql.execute(SLOWLY)
    sql.execute(
        "insert into durable.workers (worker_id, name, queues, started_at, beat_at, lease_until)"
        " values (gen_random_uuid(), 'w', '{}', now(), now(), now() + interval '1 hour')"
    )
    claim = f"select count(*) from durable.claim_jobs((select worker_id from durable.workers), '{{narrow}}', '{{20}}', {aged})"
    before = value(sql, "select clock_timestamp()")
    assert value(sql, claim) == 8
    metered = "select max(at) from durable.queue_meters where queue = 'narrow'"
    assert value(sql, metered) - before >= timedelta(seconds=0.1)


def test_a_serial_key_keeps_its_order_over_several_workers(
    fleet: Fleet, system_url: str, client: Client, sql: Sql
) -> None:
    for number in range(12):
        for key in ("a", "b"):
            client.enqueue(spans_a_while, key, number, 0.01, serial_key=key)
    for _ in range(2):
        fleet.hire(system_url, FLOWS, options=NARROW)
    eventually(lambda: finished(sql) == 24, 60, what="all have run")
    for key in ("a", "b"):
        spans = sql.execute(
            "select number, began, ended from spans where key = %s order by began", (key,)
        ).fetchall()
        assert [number for number, _, _ in spans] == list(range(12))
        assert all(before[2] <= after[1] for before, after in pairwise(spans)), "one at a time"


def test_a_queue_is_paused_live_and_stays_so_over_restarts(
    working: Working, client: Client, sql: Sql
) -> None:
    queue = client.queue("quick")
    queue.set(paused=True, reason="not yet")
    client.enqueue(does_nothing, 1)
    for _ in range(2):
        with working(FLOWS, queues={"quick": 5}) as background:
            passes = background.worker.intake.passes
            eventually(lambda b=background, p=passes: b.worker.intake.passes > p + 5)  # type: ignore[misc]
            assert finished(sql) == 0
    described = queue.describe()
    assert described.paused_at is not None
    assert described.pause_reason == "not yet"
    with working(FLOWS, queues={"quick": 5}):
        queue.resume()
        eventually(lambda: finished(sql) == 1)
        queue.pause()
        handle = client.enqueue(does_nothing, 2)
        assert [reason.code for reason in queue.explain(handle)] == ["queue_paused"]
        queue.resume()
        assert handle.result(timeout=10) == 2


def test_what_runs_goes_on_while_its_queue_is_paused(working: Working, client: Client) -> None:
    with working(FLOWS, queues={"quick": 5}):
        handle = client.enqueue(takes_its_time, 0.2)
        eventually(lambda: handle.describe().state == "executing")
        client.queue("quick").pause()
        assert handle.result(timeout=10) is None


def test_slots_are_scaled_live(working: Working, client: Client, sql: Sql) -> None:
    executing = "select count(*) from durable.jobs where state = 'executing'"
    with working(FLOWS, queues={"quick": 1}):
        handles = [client.enqueue(takes_its_time, 0.6) for _ in range(6)]
        eventually(lambda: value(sql, executing) == 1)
        client.queue("quick").set(slots=4)
        eventually(lambda: value(sql, executing) == 4, what="four slots")
        client.queue("quick").set(slots=1)
        for handle in handles:
            handle.result(timeout=20)
        assert client.queue("quick").describe().slots == 1


def test_activities_of_workflows_obey_the_limits_too(
    working: Working, client: Client, sql: Sql, seen: list[int]
) -> None:
    client.queue("narrow").set(global_limit=2)
    with working(FLOWS, queues={"default": 10, "narrow": 10}):
        client.start(many_at_once, 10).result(timeout=30)
    assert max(seen) == 2
    assert value(sql, MOST_AT_ONCE) <= 2


def test_a_limit_set_later_counts_what_runs_already(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(FLOWS, queues={"quick": 10}):
        running = client.enqueue(takes_its_time, 1.0)
        eventually(lambda: running.describe().state == "executing")
        client.queue("quick").set(global_limit=1)
        waiting = client.enqueue(does_nothing, 1)
        assert [it.code for it in client.queue("quick").explain(waiting)] == ["global_limit"]
        assert waiting.result(timeout=20) == 1
        assert running.describe().state == "completed"


def test_what_was_claimed_ahead_in_vain_goes_back_soon(
    working: Working, client: Client, sql: Sql
) -> None:
    """Quick jobs teach the worker to claim ahead; the slow ones behind them must not keep others waiting in its memory."""
    client.enqueue_many(does_nothing, [(n,) for n in range(2_000)])
    client.enqueue_many(takes_its_time, [(1.5,) for _ in range(40)])
    with working(FLOWS, queues={"quick": 4}) as background:
        eventually(lambda: finished(sql) == 2_000, what="the quick ones have run")
        eventually(
            lambda: value(sql, "select count(*) from durable.jobs where state = 'executing'") == 4,
            what="none is held but those that run",
        )
        assert background.call(background.worker.attempts.slots.holds) is False
    assert value(sql, "select max(attempt) from durable.jobs where state = 'available'") == 0


# -- why a job does not run -------------------------------------------------------------------------------------------


def codes(client: Client, handle: Any) -> list[str]:
    return [reason.code for reason in client.queue("quick").explain(handle)]


def test_a_job_without_a_worker_says_so(client: Client) -> None:
    handle = client.enqueue(does_nothing, 1)
    assert codes(client, handle) == ["no_worker"]
    later = client.enqueue(does_nothing, 1, delay=60)
    reasons = client.queue("quick").explain(later)
    assert [reason.code for reason in reasons] == ["scheduled", "no_worker"]
    assert reasons[0].until == later.describe().scheduled_at


def test_every_limit_is_named_with_its_numbers(client: Client, sql: Sql) -> None:
    queue = client.queue("quick")
    sql.execute(
        "insert into durable.workers (worker_id, name, state, queues, started_at, beat_at, lease_until)"
        " values ('00000000-0000-0000-0000-000000000001', 'hand', 'alive', '{\"quick\": 9}', durable.now(), durable.now(), durable.now() + interval '1 h')"
    )

    def claim(count: int) -> None:
        sql.execute(
            "select count(*) from durable.claim_jobs('00000000-0000-0000-0000-000000000001', '{quick}', %s)",
            ([count],),
        )

    first = client.enqueue(does_nothing, 1, serial_key="a")
    claim(1)
    assert codes(client, first) == ["executing"]
    second = client.enqueue(does_nothing, 2, serial_key="a")
    assert codes(client, second) == ["serial_predecessor"]
    assert str(first.job_id) in queue.explain(second)[0].message

    queue.set(global_limit=1, rate_limit=RateLimit(1, 60))
    free = client.enqueue(does_nothing, 3)
    (reason,) = queue.explain(free)
    assert reason.code == "global_limit"
    assert reason.message == "the queue's global limit is reached: 1 of 1 run"
    queue.set(global_limit=None)
    assert codes(client, free) == ["no_free_slot"]
    claim(1)
    blocked = client.enqueue(does_nothing, 4, partition_key="p")
    assert codes(client, blocked) == ["rate_limit"]
    assert queue.explain(blocked)[0].until is not None

    queue.set(rate_limit=None, key_limit=1, key_rate_limit=RateLimit(1, 60))
    claim(1)
    assert codes(client, client.enqueue(does_nothing, 5, partition_key="p")) == [
        "key_limit",
        "key_rate_limit",
    ]


def test_a_job_that_nobody_knows_is_refused_in_words(client: Client) -> None:
    with pytest.raises(JobNotFound):
        client.queue("quick").explain(str(uuid4()))
    with pytest.raises(InvalidOption, match="job"):
        client.queue("quick").explain("no uuid")


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "limits",
    [
        {"global_limit": 0}, {"global_limit": True}, {"slots": -1}, {"key_limit": "many"}, {"rate_limit": 10},
    ],
)  # fmt: skip
def test_what_is_no_limit_is_refused_and_nothing_is_written(
    client: Client, limits: dict[str, Any]
) -> None:
    with pytest.raises(InvalidOption, match=next(iter(limits))):
        client.queue("quick").set(**limits)
    assert client.queues() == []


@pytest.mark.parametrize(
    "given",
    [(0, 1), (1, 0), (1, 1, "fixed"), (1, 1, "window", 2), (1, -1), (float("nan"), 1)],
)
def test_what_is_no_rate_is_refused(given: tuple[Any, ...]) -> None:
    with pytest.raises(InvalidOption):
        RateLimit(*given)


def test_what_a_job_says_of_limits_is_checked(client: Client) -> None:
    wrong: list[dict[str, Any]] = [
        {"serial_key": "a", "partition_key": "b"},
        {"weight": 0},
        {"serial_key": ""},
    ]
    for given in wrong:
        with pytest.raises(InvalidOption):
            client.enqueue(does_nothing, 1, **given)
    assert client.queues() == []


def test_queues_are_listed_with_their_limits_and_what_waits(client: Client) -> None:
    client.queue("mail").set(global_limit=5, rate_limit=RateLimit(100, 60, "bucket", 10))
    client.enqueue(does_nothing, 1, queue="mail")
    (mail,) = client.queues()
    assert (mail.name, mail.global_limit, mail.waiting, mail.workers) == ("mail", 5, 1, 0)
    assert mail.rate_limit == RateLimit(100, 60, "bucket", 10)
    client.queue("mail").set(global_limit=None)
    assert client.queue("mail").describe().global_limit is None
    assert client.queue("mail").describe().rate_limit is not None, "what is not named stays"


def test_the_pause_is_in_the_operators_log(client: Client, sql: Sql) -> None:
    client.queue("mail").pause("an outage", actor="ops")
    assert sql.execute(
        "select subject, workflow_id, action, reason, actor from durable.operator_commands"
    ).fetchall() == [("queue", "mail", "pause_queue", "an outage", "ops")]
