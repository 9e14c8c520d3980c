"""Enqueueing: when, with what, in whose transaction, how many at once; and finding jobs (S125, S129, S130, S136, S148)."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import sqlalchemy
import sqlalchemy.orm
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from durable import (
    BulkRefused,
    InvalidOption,
    JobNotFound,
    PayloadError,
    Unique,
    UnknownActivity,
    activity,
)
from durable.client_async import AsyncClient
from durable.client_sync import Client
from tests.client.database import Database
from tests.client.shop import ORDER, Invoice, bill


@activity(queue="post")
def send_letter(to: str, stamps: int = 1) -> None: ...


def letters(count: int) -> Iterator[tuple[str, int]]:
    return ((f"person {number}", number) for number in range(count))


# -- when and with what -----------------------------------------------------------------------------------------------


def test_a_job_for_later_is_scheduled(client: Client, database: Database) -> None:
    ((now,),) = database.rows("select durable.now()")
    soon = client.enqueue(send_letter, "a", delay=timedelta(hours=1)).describe()
    at = client.enqueue(send_letter, "b", at=now + timedelta(days=2)).describe()
    past = client.enqueue(send_letter, "c", at=datetime(2020, 1, 1, tzinfo=UTC)).describe()
    assert (soon.state, at.state, past.state) == ("scheduled", "scheduled", "available")
    assert timedelta(minutes=59) < soon.scheduled_at - now <= timedelta(hours=1, seconds=20)
    assert at.scheduled_at == now + timedelta(days=2)


def test_tags_are_cleaned_and_meta_is_kept(client: Client) -> None:
    job = client.enqueue(send_letter, "a", tags=[" Urgent", "urgent", "EU", " "], meta={"n": [1]})
    assert (job.describe().tags, job.describe().meta) == (["urgent", "eu"], {"n": [1]})
    assert job.describe().arguments == {"to": "a"}


@pytest.mark.parametrize(
    "options",
    [
        {"at": datetime(2030, 1, 1)},  # noqa: DTZ001 - that is the point
        {"at": datetime(2030, 1, 1, tzinfo=UTC), "delay": 5},
        {"delay": -1},
        {"tags": "urgent"},
        {"tags": ["a\0"]},
        {"priority": 10},
        {"queue": ""},
    ],
)
def test_options_that_make_no_sense_are_refused(
    client: Client, database: Database, options: dict[str, Any]
) -> None:
    with pytest.raises(InvalidOption, match=next(iter(options))):
        client.enqueue(send_letter, "a", **options)
    with pytest.raises(PayloadError, match="meta"):
        client.enqueue(send_letter, "a", meta={"x": float("nan")})
    assert database.counts()["jobs"] == 0


def test_by_name_what_is_imported_or_registered(client: Client, database: Database) -> None:
    job = client.enqueue("send_letter", {"to": "a", "stamps": 2})
    assert (job.describe().queue, job.describe().arguments) == ("post", {"to": "a", "stamps": 2})
    with pytest.raises(PayloadError, match="stamps"):
        client.enqueue("send_letter", {"to": "a", "stamps": "many"})
    with pytest.raises(UnknownActivity, match="no activity"):
        client.enqueue("sned_telegram", {})
    schema = {"type": "object", "properties": {"to": {"type": "string"}}, "required": ["to"]}
    database.define("activity", "send_telegram", schema, "wires")
    database.rows(
        'update durable.definitions set options = \'{"priority": 3, "retry": {"max_attempts": 9}}\''
    )
    found = client.enqueue("send_telegram", {"to": "b"}).describe()
    assert (found.queue, found.priority, found.max_attempts) == ("wires", 3, 9)
    with pytest.raises(PayloadError, match="to"):
        client.enqueue("send_telegram", {})


def test_ids_make_it_idempotent_and_tell(client: Client) -> None:
    job_id = uuid4()
    first = client.enqueue(send_letter, "a", id=job_id)
    again = client.enqueue(send_letter, "a", id=job_id)
    assert (first.created, again.created, again.conflict) == (True, False, False)
    assert client.job(job_id).describe() == first.describe()


# -- in the caller's transaction --------------------------------------------------------------------------------------


@pytest.fixture
def sqlalchemy_url(database_url: str) -> str:
    return database_url.replace("postgresql://", "postgresql+psycopg://", 1)


def test_a_sqlalchemy_session_commits_and_rolls_back_the_job(
    client: Client, database: Database, sqlalchemy_url: str
) -> None:
    database.rows("create table letters (id int)")
    engine = sqlalchemy.create_engine(sqlalchemy_url)
    with sqlalchemy.orm.Session(engine) as session:
        session.execute(sqlalchemy.text("insert into letters values (1)"))
        job = client.enqueue(send_letter, "a", connection=session)
        many = client.enqueue_many(send_letter, letters(3), connection=session)
        assert database.counts()["jobs"] == 0
        session.commit()
        assert job.describe().state == "available"
        assert (many.created, database.counts()["jobs"]) == (3, 4)
        client.enqueue(send_letter, "b", connection=session)
        client.enqueue_many(send_letter, letters(3), connection=session)
        session.rollback()
    assert (database.counts()["jobs"], database.rows("select * from letters")) == (4, [(1,)])
    with engine.begin() as connection:
        client.enqueue(send_letter, "c", connection=connection)
    assert database.counts()["jobs"] == 5
    engine.dispose()


async def _async_sessions(client: AsyncClient, url: str) -> list[str]:
    engine = create_async_engine(url)
    async with AsyncSession(engine) as session:
        await client.enqueue(send_letter, "a", connection=session)
        await client.enqueue_many(send_letter, letters(3), connection=session)
        await session.rollback()
        kept = await client.enqueue(send_letter, "b", connection=session)
        await session.commit()
    async with engine.begin() as connection:
        also = await client.enqueue(send_letter, "c", connection=connection)
    await engine.dispose()
    return [kept.job_id, also.job_id]


def test_so_does_an_asynchronous_one(
    database: Database, database_url: str, sqlalchemy_url: str
) -> None:
    import asyncio

    async def both() -> list[str]:
        async with AsyncClient(database_url) as client:
            return await _async_sessions(client, sqlalchemy_url)

    kept = asyncio.run(both())
    rows = database.rows("select run_id::text from durable.jobs order by created_at")
    assert [job_id for (job_id,) in rows] == kept


def test_another_driver_is_refused_by_name(client: Client, database: Database) -> None:
    with pytest.raises(InvalidOption, match=r"connection is builtins.str.*psycopg"):
        client.enqueue(send_letter, "a", connection="postgresql://x")  # type: ignore[call-overload]
    assert database.counts()["jobs"] == 0


def test_a_refused_bulk_leaves_the_callers_transaction_usable(
    client: Client, database: Database
) -> None:
    with psycopg.connect(database.url) as mine:
        client.enqueue(send_letter, "kept", connection=mine)
        with pytest.raises(BulkRefused):
            client.enqueue_many(send_letter, [("a", 1), ("b", "x")], connection=mine)
        mine.commit()
    assert database.rows("select input ->> 'to' from durable.jobs") == [("kept",)]


def test_a_bulk_that_comes_first_in_a_transaction_does_not_commit_it(
    client: Client, database: Database
) -> None:
    with psycopg.connect(database.url) as mine:
        client.enqueue_many(send_letter, letters(2), connection=mine)
        mine.rollback()
        assert database.counts()["jobs"] == 0
        client.enqueue_many(send_letter, letters(2), connection=mine)
        mine.commit()
    assert database.counts()["jobs"] == 2


# -- many -------------------------------------------------------------------------------------------------------------


def test_many_jobs_are_those_that_one_by_one_would_be(client: Client, database: Database) -> None:
    """Every column, but for ids and the time."""
    awkward = 'back\\slash "quote" new\nline tab\t ünïcode {,} \\N'
    options: dict[str, Any] = {
        "queue": "a\\b", "priority": 3, "delay": 60, "tags": ['x"y', "a,b\\"], "meta": {"k": awkward},
    }  # fmt: skip
    client.enqueue(send_letter, awkward, 2, **options)
    done = client.enqueue_many(send_letter, [(awkward, 2), {"to": awkward, "stamps": 2}], **options)
    assert (done.created, done.conflicts) == (2, [])
    columns = "seq, kind, name, queue, priority, state, attempt, deadline_at, owner, input::text, options, tags, meta"
    rows = database.rows(f"select distinct {columns}, scheduled_at - created_at from durable.jobs")
    assert len(rows) == 1
    assert (
        database.rows("select shard = durable.shard_of(run_id::text) from durable.jobs")
        == [(True,)] * 3
    )
    assert len(client.jobs(activity=send_letter)) == 3


SERIAL: list[dict[str, Any]] = [
    {"serial_key": "a"},
    {"serial_key": lambda to, stamps: "a"},
    {"serial_key": "a", "unique": Unique(fields=["stamps"])},
]


@pytest.mark.parametrize("options", SERIAL, ids=["one key", "a key of each", "unique as well"])
def test_many_jobs_of_a_serial_key_are_in_the_order_of_the_items(
    client: Client, database: Database, options: dict[str, Any]
) -> None:
    """Strictly: they are enqueued in one moment, so that their ids alone tell which is first."""
    count = 2_500  # in more than one statement where they are unique
    assert client.enqueue_many(send_letter, letters(count), **options).created == count
    order = database.rows(
        "select (input ->> 'stamps')::int from durable.jobs where serial and phase is not null order by queue, limit_key, created_at, run_id"
    )
    assert order == [(number,) for number in range(count)]


@pytest.mark.parametrize("unique", [None, Unique()], ids=["plain", "unique"])
def test_a_bulk_lies_by_shard_but_for_its_end(
    client: Client, database: Database, unique: Unique | None
) -> None:
    """Its end lies over all shards: its last jobs would be on a few of them otherwise, and be overtaken by younger ones of the others."""
    client.enqueue_many(send_letter, letters(6_000), unique=unique)
    rows = database.rows("select shard from durable.jobs order by ctid")
    first, last = rows[:1_000], rows[-60:]
    assert len(list(groupby(first))) <= 100
    assert len(list(groupby(last))) >= 40


@pytest.mark.parametrize("unique", [None, Unique()], ids=["plain", "unique"])
def test_many_jobs_arrive_as_they_are_over_a_connection_of_another_encoding(
    client: Client, database: Database, unique: Unique | None
) -> None:
    with psycopg.connect(database.url, client_encoding="latin1") as mine:
        client.enqueue_many(send_letter, [("Zoé", 1)], unique=unique, connection=mine, tags=["é"])
        with pytest.raises(UnicodeEncodeError):
            client.enqueue_many(send_letter, [("€", 1)], unique=unique, connection=mine)
        mine.commit()
    assert database.rows("select input ->> 'to', tags from durable.jobs") == [("Zoé", ["é"])]


def test_deadlines_of_many_are_those_of_one(client: Client, database: Database) -> None:
    limits = activity(
        name="limited_letters",
        schedule_to_start=timedelta(minutes=5),
        schedule_to_close=timedelta(hours=1),
    )(lambda: None)
    client.enqueue(limits)
    client.enqueue_many(limits, [()])
    rows = database.rows("select deadline_kind, deadline_at - created_at from durable.jobs")
    assert rows == [("schedule_to_start", timedelta(minutes=5))] * 2


def test_bad_items_are_named_by_their_index_and_nothing_is_enqueued(
    client: Client, database: Database
) -> None:
    items: list[Any] = [("a", 1), ("b", "x"), {"to": "c", "stmaps": 1}, "d", ("e", 2), {}]
    with pytest.raises(BulkRefused) as refused:
        client.enqueue_many(send_letter, items)
    assert [index for index, _ in refused.value.errors] == [1, 2, 3, 5]
    assert [error.field for _, error in refused.value.errors] == ["stamps", "stmaps", "item", "to"]
    assert refused.value.count == 4
    assert "item 2: stmaps" in str(refused.value)
    assert database.counts()["jobs"] == 0


def test_errors_are_counted_to_the_end_and_kept_to_a_bound(
    client: Client, database: Database
) -> None:
    with pytest.raises(BulkRefused) as refused:
        client.enqueue_many(send_letter, ((number,) for number in range(5_000)))
    assert (refused.value.count, len(refused.value.errors)) == (5_000, 100)
    assert database.counts()["jobs"] == 0


def test_an_iterable_that_breaks_enqueues_nothing_and_the_client_goes_on(
    client: Client, database: Database
) -> None:
    def breaks() -> Iterator[tuple[str, int]]:
        yield from letters(2_500)
        raise KeyError("the source dried up")

    with pytest.raises(KeyError, match="dried up"):
        client.enqueue_many(send_letter, breaks())
    assert database.counts()["jobs"] == 0
    assert client.enqueue_many(send_letter, []).created == 0
    assert client.enqueue_many(send_letter, letters(1)).created == 1


def test_memory_does_not_grow_with_the_number_of_items(client: Client, database: Database) -> None:
    """100 MB of arguments pass through a process that grows by less than half of it, buffers and all."""
    client.enqueue_many(send_letter, letters(2_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    large = "x" * 10_000
    client.enqueue_many(send_letter, ((large, number) for number in range(10_000)))
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kb < 40_000
    assert database.counts()["jobs"] == 12_000


# -- finding them -----------------------------------------------------------------------------------------------------


def test_jobs_are_found_by_what_they_are(client: Client) -> None:
    a = client.enqueue(send_letter, "a", tags=["x", "y"], meta={"team": {"id": 1}, "z": 0})
    b = client.enqueue(send_letter, "b", tags=["x"], delay=60)
    c = client.enqueue(bill, ORDER)
    c.cancel()

    def found(**filters: Any) -> set[str]:
        return {job.job_id for job in client.jobs(**filters)}

    assert found() == {a.job_id, b.job_id, c.job_id}
    assert found(activity=send_letter) == found(activity="send_letter") == {a.job_id, b.job_id}
    assert found(state="scheduled") == {b.job_id}
    assert found(state=["available", "cancelled"]) == {a.job_id, c.job_id}
    assert found(tags=["X", "y"]) == {a.job_id}
    assert found(meta={"team": {"id": 1}}) == found(arguments={"to": "a"}) == {a.job_id}
    assert found(queue="payments") == {c.job_id}
    assert len(found(limit=1)) == 1


@pytest.mark.parametrize("option", ["state", "tags", "meta", "arguments"])
def test_an_empty_filter_is_refused_rather_than_ignored(client: Client, option: str) -> None:
    empty: Any = {} if option in ("meta", "arguments") else []
    with pytest.raises(InvalidOption, match=f"{option} is empty"):
        client.jobs(**{option: empty})


def test_a_job_that_is_not_there(client: Client) -> None:
    job = client.job(uuid4(), bill)
    for look in (job.describe, job.result, job.attempts, job.cancel, job.retry, job.delete):
        with pytest.raises(JobNotFound, match="durable job list"):
            look()
    with pytest.raises(InvalidOption, match="job_id"):
        client.job("five")


# -- from SQL ---------------------------------------------------------------------------------------------------------


def test_sql_enqueues_what_a_worker_has_registered(client: Client, database: Database) -> None:
    with pytest.raises(psycopg.Error, match="no worker has registered an activity named bill"):
        database.rows("select durable.enqueue('bill', '{}')")
    database.define("activity", "bill", {}, "payments")
    database.rows(
        'update durable.definitions set options = \'{"priority": 2, "retry": {"max_attempts": 3}}\''
    )
    enqueue = "select durable.enqueue('bill', %s::json, tags => array['x'], unique_key => %s)::text"
    body = '{"order": {"sku": "tea", "amount": 7}}'
    (first,), (again,), (other,) = (
        database.rows(enqueue, body, key)[0] for key in ("o-1", "o-1", None)
    )
    assert first == again != other
    found = client.job(first).describe()
    assert (found.queue, found.priority, found.max_attempts, found.tags) == (
        "payments",
        2,
        3,
        ["x"],
    )
    assert found.arguments == {"order": {"sku": "tea", "amount": 7}}
    with pytest.raises(psycopg.Error, match="not a JSON object"):
        database.rows(enqueue, "[1]", None)


def test_the_result_type_is_known_by_the_activity(client: Client, database: Database) -> None:
    job = client.enqueue(bill, ORDER)
    database.rows(
        "update durable.jobs set state = 'completed', finished_at = now(), result = '{\"total\": 7}'"
    )
    assert client.job(job.job_id, bill).result() == Invoice(total=7)
    assert client.job(job.job_id).result() == {"total": 7}
