"""The connection: broken, refused, shared; and an answer that was lost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg.rows import namedtuple_row

from durable.client_async import AsyncClient
from durable.client_sync import Client
from durable.errors import DatabaseUnavailable, InvalidOption, SchemaOutOfDate
from durable.store import calls, job_calls
from durable.store.calls import Call
from tests.client.database import Database
from tests.client.shop import ORDER, Invoice, Payment, bill, payment_arrived, purchase


def test_without_a_url_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DURABLE_DATABASE_URL", raising=False)
    with pytest.raises(DatabaseUnavailable, match="DURABLE_DATABASE_URL"):
        Client()


def test_the_url_comes_from_the_environment(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DURABLE_DATABASE_URL", database_url)
    with Client() as client:
        assert client.list() == []


@pytest.mark.parametrize(
    "url",
    ["postgresql://nobody:secret@127.0.0.1:1/x", "host=/nonexistent dbname=x password=secret"],
)
def test_an_unreachable_server_is_named_without_its_password(url: str) -> None:
    with (
        Client(url) as client,
        pytest.raises(DatabaseUnavailable, match="cannot reach PostgreSQL at") as caught,
    ):
        client.list()
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_malformed_url_is_the_callers_fault() -> None:
    with Client("postgres:/what") as client, pytest.raises(InvalidOption, match="postgresql://"):
        client.list()


def test_an_empty_database_wants_a_migration(empty_database_url: str) -> None:
    with (
        Client(empty_database_url) as client,
        pytest.raises(SchemaOutOfDate, match="durable migrate"),
    ):
        client.start(purchase, ORDER)


def test_a_newer_schema_wants_another_release(database: Database) -> None:
    database.rows("insert into durable.migration (id, sha256) values ('9999_future', 'x')")
    with Client(database.url) as client, pytest.raises(SchemaOutOfDate, match="9999_future"):
        client.list()


def _kill_connections(database: Database) -> None:
    database.rows(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where application_name = 'durable client' and datname = current_database()"
    )


def test_a_broken_connection_is_opened_again(client: Client, database: Database) -> None:
    client.start(purchase, ORDER, id="o-1")
    _kill_connections(database)
    assert client.start(purchase, ORDER, id="o-2").created
    assert len(client.list()) == 2


def test_a_connection_that_breaks_twice_says_that_the_outcome_is_unknown(client: Client) -> None:
    """The statement itself ends its connection, each time."""
    call: Call[Any] = Call("select pg_terminate_backend(pg_backend_pid())", {}, lambda rows: rows)
    with pytest.raises(DatabaseUnavailable, match="twice"):
        client._execute(call)
    assert client.list() == []


def _start(id: str) -> Call[Any]:
    given = {
        "version": 1, "priority": 0, "delay_s": 0, "body": "{}", "payload": "{}", "actor": None, "attributes": None,
        "memo": None, "on_running": "fail", "on_closed": "new",
    }  # fmt: skip
    return calls.start_run(id, "purchase", "orders", given)


def _job(_: str) -> Call[Any]:
    job_id = "01890000-0000-7000-8000-000000000000"
    empty = ("at_us", "tags", "meta", "key", "states", "period_s", "replace")
    given = {
        "name": "bill", "queue": "payments", "priority": 0, "delay_s": 0, "input": "{}", "options": "{}",
        **dict.fromkeys(empty),
    }  # fmt: skip
    return job_calls.enqueue_job(job_id, given, fresh=True)


WRITES: dict[str, Callable[[str], Call[Any]]] = {
    "start": _start,
    "signal": lambda key: calls.send_signal(key, "s", "1", None, None),
    "signal with a key": lambda key: calls.send_signal(key, "s", "1", "k", None),
    "cancel": lambda key: calls.request_cancel(key, "why", None),
    "terminate": lambda key: calls.terminate_run(key, "why", None),
    "enqueue": _job,
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("meanwhile", ["nothing", "claimed", "closed"])
def test_a_call_whose_answer_was_lost_may_be_sent_again(
    client: Client, database: Database, write: str, meanwhile: str
) -> None:
    """Sent twice it writes once and answers the same, whatever happened between."""
    if write != "start":
        client.start(purchase, ORDER, id="o-1")
    call = WRITES[write]("o-1")
    first = client._execute(call).answer
    open_run = database.rows("select 1 from durable.runs where status = 'running'")
    if meanwhile == "claimed" and open_run:
        database.claim("o-1")
    elif meanwhile == "closed" and open_run:
        database.end("o-1", "completed")
    before = database.counts()
    assert client._execute(call).answer == first
    assert database.counts() == before


def test_threads_share_a_client(client: Client) -> None:
    def work(name: str) -> None:
        for number in range(10):
            handle = client.start(purchase, ORDER, id=f"{name}-{number}")
            handle.signal(payment_arrived, Payment(amount=1))

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(client.list()) == 40


def test_statements_do_not_depend_on_a_callers_connection(
    client: Client, database: Database
) -> None:
    """Its row factory, JSON loader and time zone are its own."""
    from psycopg.types.json import set_json_loads

    with psycopg.connect(database.url, row_factory=namedtuple_row) as mine:
        set_json_loads(lambda text: pytest.fail("not ours to use"), mine)
        mine.execute("set time zone 'Asia/Kolkata'")
        handle = client.start(purchase, ORDER, connection=mine)
        handle.terminate("why", connection=mine)


def test_the_asynchronous_client_does_the_same(database_url: str, database: Database) -> None:
    async def main() -> None:
        async with AsyncClient(database_url) as client:
            handle = await client.start(purchase, ORDER, id="o-1")
            await asyncio.gather(
                *(handle.signal(payment_arrived, Payment(amount=n)) for n in range(5))
            )
            assert [each.payload for each in await handle.signals()] == [
                {"amount": n} for n in range(5)
            ]
            async with await psycopg.AsyncConnection.connect(database_url) as mine:
                job = await client.enqueue(bill, ORDER, connection=mine)
            assert (await job.describe()).state == "available"
            waiting = asyncio.create_task(handle.result(timeout=20))
            await asyncio.sleep(0)
            database.end("o-1", "completed", payload={"total": 7})
            assert await waiting == Invoice(total=7)
            _kill_connections(database)
            assert [run.status for run in await client.list()] == ["completed"]

    asyncio.run(main())


def test_a_cancelled_task_leaves_the_client_usable(database_url: str) -> None:
    async def main() -> None:
        async with AsyncClient(database_url) as client:
            await client.list()
            slow: Call[Any] = Call("select pg_sleep(60)", {}, lambda rows: rows)
            task = asyncio.create_task(client._execute(slow))
            done, _ = await asyncio.wait([task], timeout=0.05)
            assert not done
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await client.list() == []

    asyncio.run(main())


def test_c4_a_hint_that_fails_does_not_hide_what_was_done(
    client: Client, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it tells of is committed by then, and the workers' polling finds it: be it sent along (a start) or afterwards (a signal)."""
    tried: list[str] = []

    def deadly(hint: str) -> Call[Any]:
        tried.append(hint)
        return Call("select pg_terminate_backend(pg_backend_pid())", {}, lambda rows: rows)

    along = b"select pg_terminate_backend(pg_backend_pid()), $1::text"
    monkeypatch.setattr("durable.store.round_trip._NOTIFY", along)
    monkeypatch.setattr("durable.store.client_session_sync.notify", deadly)
    assert client.start(purchase, ORDER, id="o-1").created
    assert (database.counts()["runs"], tried) == (1, [])
    assert client.handle("o-1").signal(payment_arrived, Payment(amount=7)).status == "buffered"
    assert len(client.handle("o-1").signals()) == 1
    assert len(tried) >= 1


def test_c4_a_hint_leaves_from_a_recovery_as_well(client: Client, database_url: str) -> None:
    """There it cannot go along, because the transaction is several statements: it is given afterwards."""
    with psycopg.connect(database_url, autocommit=True) as listener:
        listener.execute("listen durable")
        with client.recovery("a bad release", actor="ada"):
            client.enqueue(bill, ORDER)
        assert [it.payload for it in listener.notifies(timeout=5, stop_after=1)] == [
            "jobs:payments"
        ]
