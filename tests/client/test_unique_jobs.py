"""Unique jobs: what is the same, for how long, and who wins. The index decides (S128, D2)."""

from __future__ import annotations

import threading
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from durable import InvalidOption, JobRefused, Unique, activity
from durable.client_sync import Client
from durable.core.job_life import UNFINISHED, JobState
from durable.jobs_sync import JobHandle
from tests.client.database import Database
from tests.client.shop import ORDER, bill
from tests.waiting import eventually

BY_CUSTOMER = Unique(fields=("customer",))
UNTIL_START = Unique(fields=("customer",), states=("scheduled", "available"))


@activity
def remind(customer: str, text: str = "", address: dict[str, str] | None = None) -> None: ...


def force(database: Database, job: JobHandle[Any], state: str) -> None:
    """Bring a job to a state as a worker would."""
    ended = state in ("completed", "discarded", "cancelled")
    database.rows(
        "update durable.jobs set state = %s, owner = case when %s then gen_random_uuid() end,"
        " finished_at = case when %s then durable.now() end where run_id = %s",
        state, state == "executing", ended, job.job_id,
    )  # fmt: skip


# -- what is the same -------------------------------------------------------------------------------------------------


def test_a_second_job_gives_the_first_as_a_value(client: Client, database: Database) -> None:
    first = client.enqueue(remind, "ann", "hello", unique=BY_CUSTOMER)
    second = client.enqueue(remind, "ann", "something else", unique=BY_CUSTOMER)
    other = client.enqueue(remind, "bob", "hello", unique=BY_CUSTOMER)
    assert (first.created, first.conflict) == (True, False)
    assert (second.created, second.conflict, second.replaced) == (False, True, False)
    assert (second.job_id, second.state) == (first.job_id, "available")
    assert other.created
    assert first.describe().arguments == {"customer": "ann", "text": "hello"}
    assert database.counts()["jobs"] == 2


@pytest.mark.parametrize(
    ("unique", "one", "other", "same"),
    [
        (Unique(), ("ann", "x"), ("ann", "x"), True),
        (Unique(), ("ann", "x"), ("ann", "y"), False),
        (Unique(fields=("customer", "text")), ("a", "x"), ("a", "x", {"c": "d"}), True),
        (Unique(fields=("address.city",)), ("a", "", {"city": "B", "z": "1"}), ("b", "", {"city": "B"}), True),
        (Unique(fields=("address.city",)), ("a", "", {"city": "B"}), ("a", "", {"city": "C"}), False),
        (Unique(key="one for all"), ("a",), ("b",), True),
        (Unique(key=lambda customer, *_: customer.upper()), ("ann", "x"), ("ANN", "y"), True),
        (Unique(key=lambda customer, *_: customer), ("ann", "x"), ("ANN", "x"), False),
    ],
)  # fmt: skip
def test_fields_or_a_key_say_what_is_the_same(
    client: Client, unique: Unique, one: Any, other: Any, same: bool
) -> None:
    client.enqueue(remind, *one, unique=unique)
    assert client.enqueue(remind, *other, unique=unique).conflict is same


def test_jobs_of_other_activities_and_jobs_without_unique_do_not_count(client: Client) -> None:
    everything = Unique(key="k")
    assert client.enqueue(remind, "ann", unique=everything).created
    assert client.enqueue(bill, ORDER, unique=everything).created
    assert client.enqueue(remind, "ann").created


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"fields": ("customer",), "key": "k"}, "not both"),
        ({"fields": "customer"}, "collections"),
        ({"states": ("executing",)}, "'available' must be among them"),
        ({"states": ("scheduled", "available", "retryable")}, "first start"),
        ({"states": ("scheduled", "available", "executing")}, "'retryable' and comes back"),
        ({"states": ("scheduled", "available", "done")}, "no state 'done'"),
        ({"period": 0}, "period"),
        ({"replace": ("argumnets",)}, "argumnets"),
        ({"replace": {"executing": ("arguments",)}}, "executing"),
    ],
)
def test_what_makes_no_sense_is_refused_when_it_is_written(
    given: dict[str, Any], match: str
) -> None:
    with pytest.raises(InvalidOption, match=match):
        Unique(**given)


def test_what_does_not_fit_the_activity_is_refused(client: Client, database: Database) -> None:
    with pytest.raises(InvalidOption, match="no parameter 'custmer'; it has customer, text"):
        client.enqueue(remind, "ann", unique=Unique(fields=("custmer",)))
    with pytest.raises(InvalidOption, match="the key is 5"):
        client.enqueue(remind, "ann", unique=Unique(key=lambda *_: 5))  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="id or unique"):
        client.enqueue(remind, "ann", id=__import__("uuid").uuid4(), unique=Unique())
    assert database.counts()["jobs"] == 0


# -- for how long -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["scheduled", "available", "executing", "retryable", "completed", "discarded", "cancelled"])  # fmt: skip
@pytest.mark.parametrize(
    "states",
    [("scheduled", "available"), UNFINISHED, {*UNFINISHED, "completed"}, {*UNFINISHED, "cancelled", "discarded"}],
)  # fmt: skip
def test_the_key_is_held_in_just_the_given_states(
    client: Client, database: Database, states: Collection[JobState], state: str
) -> None:
    unique = Unique(fields=("customer",), states=states)
    first = client.enqueue(remind, "ann", unique=unique)
    force(database, first, state)
    assert client.enqueue(remind, "ann", unique=unique).conflict is (state in states)


def test_what_comes_after_the_start_gets_a_job_of_its_own(
    client: Client, database: Database
) -> None:
    """D2: no lost wake-up; and the first one, when it comes back to waiting, does not meet the second."""
    first = client.enqueue(remind, "ann", unique=UNTIL_START)
    worker = "00000000-0000-7000-8000-000000000001"
    database.rows(
        "insert into durable.workers (worker_id, name, state, queues, started_at, beat_at, lease_until) values (%s, 'w', 'alive', '{}', now(), now(), now() + '1 h')",
        worker,
    )
    claim = "select attempt from durable.claim_jobs(%s, '{default}', '{1}')"
    assert database.rows(claim, worker) == [(1,)]
    second = client.enqueue(remind, "ann", unique=UNTIL_START)
    assert second.created
    where = "array[durable.shard_of(%s)], array[%s::uuid], '{0}', '{1}', '{60}'"
    for error in (None, "{}"):  # a snooze, and a failure
        retry = f"select durable.retry_jobs(%s, {where}, array[%s]::jsonb[])"
        assert database.rows(retry, worker, first.job_id, first.job_id, error) == [(None,)]
        force(database, first, "executing")
        database.rows("update durable.jobs set owner = %s where run_id = %s", worker, first.job_id)
    put_back = f"select durable.put_back_jobs(%s, {where}, '{{null}}')"
    assert database.rows(put_back, worker, first.job_id, first.job_id) == [(1,)]
    assert (first.describe().state, first.describe().unique_key) == ("scheduled", None)
    assert second.describe().unique_key is not None


def test_a_lost_worker_does_not_bring_a_released_key_back(
    client: Client, database: Database
) -> None:
    first = client.enqueue(remind, "ann", unique=UNTIL_START)
    worker = "00000000-0000-7000-8000-000000000002"
    database.rows(
        "insert into durable.workers (worker_id, name, state, queues, started_at, beat_at, lease_until) values (%s, 'w', 'alive', '{}', now(), now(), now() + '1 h')",
        worker,
    )
    database.rows("select * from durable.claim_jobs(%s, '{default}', '{1}')", worker)
    assert client.enqueue(remind, "ann", unique=UNTIL_START).created
    database.rows("update durable.workers set lease_until = durable.now() - interval '1 s'")
    assert database.rows("select jobs from durable.bury_dead_workers(10)") == [(1,)]
    assert (first.describe().state, first.describe().unique_key) == ("available", None)


def test_the_period_ends_it_while_the_first_still_waits(client: Client, database: Database) -> None:
    hourly = Unique(fields=("customer",), period=timedelta(hours=1))
    first = client.enqueue(remind, "ann", unique=hourly)
    database.rows("select durable.advance_clock('59 minutes')")
    assert client.enqueue(remind, "ann", unique=hourly).job_id == first.job_id
    database.rows("select durable.advance_clock('2 minutes')")
    second = client.enqueue(remind, "ann", unique=hourly)
    assert second.created
    assert client.enqueue(remind, "ann", unique=hourly).job_id == second.job_id


def test_the_period_holds_after_the_end_where_the_states_say_so(
    client: Client, database: Database
) -> None:
    once_an_hour = Unique(period=3600, states={*UNFINISHED, "completed"})
    first = client.enqueue(remind, "ann", unique=once_an_hour)
    force(database, first, "completed")
    assert client.enqueue(remind, "ann", unique=once_an_hour).conflict
    database.rows("select durable.advance_clock('61 minutes')")
    assert client.enqueue(remind, "ann", unique=once_an_hour).created


def test_a_retry_by_hand_that_meets_the_key_is_refused(client: Client, database: Database) -> None:
    first = client.enqueue(remind, "ann", unique=BY_CUSTOMER)
    first.cancel()
    second = client.enqueue(remind, "ann", unique=BY_CUSTOMER)
    assert second.created
    with pytest.raises(JobRefused, match="unique key"):
        first.retry()
    second.cancel()
    first.retry()
    assert client.enqueue(remind, "ann", unique=BY_CUSTOMER).job_id == first.job_id


# -- what the second does to the first --------------------------------------------------------------------------------


def test_a_waiting_job_takes_over_what_replace_names(client: Client) -> None:
    first = client.enqueue(
        remind, "ann", "old", unique=BY_CUSTOMER, delay=60, tags=["old"], priority=5
    )
    before = first.describe()
    newer = Unique(fields=("customer",), replace=("arguments", "scheduled_at", "priority"))
    second = client.enqueue(remind, "ann", "new", unique=newer, tags=["new"], priority=1)
    assert (second.conflict, second.replaced, second.job_id) == (True, True, first.job_id)
    after = first.describe()
    assert (after.arguments["text"], after.priority, after.state) == ("new", 1, "available")
    assert after.scheduled_at < before.scheduled_at
    assert after.tags == ["old"]
    client.enqueue(remind, "ann", "newer", unique=newer, delay=3600)
    assert first.describe().state == "scheduled"


def test_replace_by_state_and_never_of_an_executing_job(client: Client, database: Database) -> None:
    later_only = Unique(fields=("customer",), replace={"scheduled": ("arguments",)})
    first = client.enqueue(remind, "ann", "old", unique=later_only)
    assert not client.enqueue(remind, "ann", "new", unique=later_only).replaced
    force(database, first, "executing")
    everything = Unique(fields=("customer",), replace=("arguments",))
    assert not client.enqueue(remind, "ann", "new", unique=everything).replaced
    assert first.describe().arguments["text"] == "old"
    force(database, first, "scheduled")
    assert client.enqueue(remind, "ann", "new", unique=later_only).replaced


# -- races ------------------------------------------------------------------------------------------------------------


def test_of_32_enqueuers_at_once_one_wins_and_all_name_it(
    database_url: str, database: Database
) -> None:
    """Real connections, let go together, for ten keys in turn."""
    start = threading.Barrier(32)

    def enqueuer(_: int) -> list[tuple[bool | None, str]]:
        with Client(database_url) as client:
            client.list()
            seen = []
            for number in range(10):
                start.wait(30)
                job = client.enqueue(remind, f"customer {number}", unique=BY_CUSTOMER)
                seen.append((job.created, job.job_id))
            return seen

    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(enqueuer, range(32)))
    for of_one_key in zip(*answers, strict=True):
        assert [created for created, _ in of_one_key].count(True) == 1
        assert len({job_id for _, job_id in of_one_key}) == 1
    assert database.counts()["jobs"] == 10


def test_bulk_enqueuers_of_the_same_keys_neither_race_nor_deadlock(
    database_url: str, database: Database
) -> None:
    """Eight at once, each with the same 3,000 customers in another order, twice over within the set."""
    start = threading.Barrier(8)

    def enqueuer(number: int) -> tuple[int, int]:
        customers = [f"c{(index * (2 * number + 1)) % 3_000}" for index in range(6_000)]
        with Client(database_url) as client:
            client.list()
            start.wait(30)
            done = client.enqueue_many(remind, ((each,) for each in customers), unique=BY_CUSTOMER)
            assert {it.outcome for it in done.conflicts} == {"conflict"}
            return done.created, len(done.conflicts)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(enqueuer, range(8)))
    distinct = database.rows("select count(*), count(distinct unique_key) from durable.jobs")
    assert [(sum(created for created, _ in answers),) * 2] == distinct
    assert all(created + conflicts == 6_000 for created, conflicts in answers)


def test_bulk_enqueuers_that_replace_do_not_deadlock(
    database_url: str, client: Client, database: Database
) -> None:
    """Sets of different sizes, of new customers and known ones: each cuts its statements elsewhere, and goes back in each to the keys whose jobs it replaces."""
    takes_over = Unique(fields=("customer",), replace=("priority",))
    client.enqueue_many(remind, ((f"c{n}",) for n in range(3_000)), unique=takes_over, delay=600)
    start = threading.Barrier(6)

    def enqueuer(number: int) -> int:
        with Client(database_url) as mine:
            mine.list()
            start.wait(30)
            some = [(f"c{n * 7 % 6_000}",) for n in range(6_000 - 700 * number)]
            done = mine.enqueue_many(remind, some, unique=takes_over, delay=600, priority=number)
            assert done.created + len(done.conflicts) == len(some)
            assert {it.outcome for it in done.conflicts} == {"replaced"}
            return done.created

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(enqueuer, range(6))) == 3_000
    assert database.counts()["jobs"] == 6_000


def test_a_bulk_that_deadlocks_with_another_transaction_begins_anew(
    database_url: str, client: Client, database: Database
) -> None:
    """A transaction may take keys in any order; a set that has passed one of them, and waits for the other, gives way."""
    takes_over = Unique(fields=("customer",), replace=("priority",))
    everybody = [(f"c{n}",) for n in range(2_500)]
    client.enqueue_many(remind, everybody, unique=takes_over)
    order = database.rows(
        "select input ->> 'customer', run_id::text from durable.jobs order by ctid"
    )
    (first, _), (last, last_id) = order[0], order[-1]
    client.job(last_id).cancel()
    with (
        ThreadPoolExecutor(1) as pool,
        Client(database_url) as other,
        psycopg.connect(database_url) as mine,
    ):
        client.enqueue(remind, last, unique=takes_over, connection=mine)
        many = pool.submit(other.enqueue_many, remind, everybody, unique=takes_over)
        waiting = "select 1 from pg_stat_activity where wait_event_type = 'Lock'"
        eventually(lambda: database.rows(waiting), what="the set waits for the last key")
        client.enqueue(remind, first, unique=takes_over, connection=mine, priority=3)
        mine.commit()
        assert [it.outcome for it in many.result(30).conflicts] == ["replaced"] * 2_500


def test_bulk_names_the_existing_jobs_by_index(client: Client, database: Database) -> None:
    held = client.enqueue(remind, "bob", unique=BY_CUSTOMER)
    done = client.enqueue_many(remind, [("ann",), ("bob",), ("cat",), ("ann",)], unique=BY_CUSTOMER)
    assert done.created == 2
    found = {it.index: it.job_id for it in done.conflicts}
    (ann,) = database.rows(
        "select run_id::text from durable.jobs where input ->> 'customer' = 'ann'"
    )
    assert found == {1: held.job_id, 3: ann[0]}


# -- what it costs ----------------------------------------------------------------------------------------------------


def test_jobs_without_a_key_are_not_in_the_index(client: Client, database: Database) -> None:
    client.enqueue_many(remind, ((f"c{number}",) for number in range(2_000)))
    assert database.rows("select pg_relation_size('durable.jobs_unique')") == [(8192,)]
