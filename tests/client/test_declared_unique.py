"""`@activity(unique=...)`: the declaration holds for whoever enqueues, by the function or by its name; and keys of each item of many (S128, S165, S167)."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from durable import InvalidOption, JobCall, Unique, activity
from durable.client_sync import Client
from durable.errors import DurableError
from durable.testing import manual
from tests.client.database import Database

BY_ACCOUNT = Unique(fields=("account",), period=timedelta(hours=1), replace=("priority",))


@activity(unique=BY_ACCOUNT)
def sync_account(account: str, full: bool = False) -> None: ...


@activity(unique=Unique(key=lambda account, **_: account.lower()))
def index_account(account: str) -> None: ...


@activity(queue="ledger")
def book_entry(account: str, amount: int) -> None: ...


def register(database: Database, it: Any) -> None:
    """As a worker does."""
    database.rows(
        "insert into durable.definitions (kind, name, queue, schema, options, updated_at) values ('activity', %s, %s, %s::jsonb, %s::jsonb, now())",
        f"far_{it.name}", it.queue, json.dumps({"type": "object"}), json.dumps(it.job_options()),
    )  # fmt: skip


def test_what_is_declared_holds_for_each_enqueue(client: Client, database: Database) -> None:
    first = client.enqueue(sync_account, "ann")
    second = client.enqueue(sync_account, "ann", full=True, priority=7)
    assert (second.conflict, second.replaced, second.job_id) == (True, True, first.job_id)
    assert first.describe().priority == 7
    assert client.enqueue(sync_account, "bob").created
    done = client.enqueue_many(sync_account, [("ann",), ("bob",), ("eve",)])
    assert (done.created, [it.index for it in done.conflicts]) == (1, [0, 1])
    assert database.rows("select distinct unique_until - created_at from durable.jobs") == [
        (timedelta(hours=1),)
    ]


def test_by_name_it_is_the_same(client: Client) -> None:
    first = client.enqueue(sync_account, "ann")
    assert client.enqueue("sync_account", {"account": "ann"}).job_id == first.job_id
    one = client.enqueue(index_account, "Ann")
    assert client.enqueue("index_account", {"account": "ANN"}).job_id == one.job_id


def test_by_name_without_the_code_it_is_the_same(client: Client, database: Database) -> None:
    register(database, sync_account)
    first = client.enqueue("far_sync_account", {"account": "ann"})
    assert client.enqueue("far_sync_account", {"account": "ann", "full": True}).replaced
    assert client.enqueue("far_sync_account", {"account": "bob"}).created
    assert str(first.describe().unique_key).startswith("far_sync_account:")
    ((options,),) = database.rows("select options from durable.jobs limit 1")
    assert "unique" not in options
    register(database, index_account)
    with pytest.raises(InvalidOption, match="import its module"):
        client.enqueue("far_index_account", {"account": "ann"})


def test_one_call_may_say_something_else(client: Client) -> None:
    client.enqueue(sync_account, "ann")
    assert client.enqueue(sync_account, "ann", unique=False).created
    assert client.enqueue(sync_account, "ann", unique=Unique(key="another")).created
    assert client.enqueue_many(sync_account, [("ann",)], unique=False).created == 1
    with pytest.raises(InvalidOption, match="id or unique"):
        client.enqueue(sync_account, "ann", id=UUID(int=1))


def test_groups_and_chains_wait_for_jobs_of_their_own(client: Client) -> None:
    client.enqueue(sync_account, "ann")
    group = client.enqueue_group(sync_account, [("ann",), ("ann",)])
    assert group.describe().total == 2
    chain = client.enqueue_chain(JobCall(sync_account, "ann"), JobCall(sync_account, "ann"))
    assert chain.jobs[0].describe().unique_key is None


def test_sql_has_to_say_what_is_the_same(client: Client, database: Database) -> None:
    register(database, sync_account)
    ask = "select durable.enqueue('far_sync_account', '{\"account\": \"ann\"}'"
    with pytest.raises(Exception, match="are unique, and what makes them so"):
        database.rows(ask + ")")
    again = ask + ", unique_key => 'ann')"
    assert database.rows(again) == database.rows(again)
    assert database.rows("select unique_until - created_at, unique_states from durable.jobs") == [
        (timedelta(hours=1), None)
    ]


def test_in_memory_too() -> None:
    with manual() as jobs, Client("postgresql://nowhere") as client:
        client.enqueue(sync_account, "ann")
        assert client.enqueue(sync_account, "ann").conflict
        assert client.enqueue_many(sync_account, [("ann",), ("bob",)]).created == 1
        client.enqueue_many(book_entry, [("a", 1)], serial_key=lambda account, amount: account)
        assert jobs.jobs[-1].options["limit_key"] == "a"


def test_a_wrong_declaration_is_refused_at_import() -> None:
    with pytest.raises(InvalidOption, match="no parameter 'acount'"):

        @activity(unique=Unique(fields=("acount",)))
        def mistyped(account: str) -> None: ...


# -- keys of each item --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("serial", [True, False])
def test_each_of_many_has_its_own_key(client: Client, database: Database, serial: bool) -> None:
    option = "serial_key" if serial else "partition_key"
    items = [("a\\b\tc\n", n) for n in range(3)] + [("b", n) for n in range(2)]
    keys: Any = {option: lambda account, amount: account}
    done = client.enqueue_many(book_entry, items, weight=2, meta={"a": 1}, **keys)
    assert done.created == 5
    assert database.rows(
        "select limit_key, serial, weight, phase, count(*) from durable.jobs group by 1, 2, 3, 4 order by 1"
    ) == [("a\\b\tc\n", serial, 2.0, "keyed", 3), ("b", serial, 2.0, "keyed", 2)]
    assert database.rows("select keyed from durable.queues where name = 'ledger'") == [(True,)]
    assert {job.arguments["account"] for job in client.jobs()} == {"a\\b\tc\n", "b"}
    named = client.enqueue_many(book_entry, [{"account": "c", "amount": 1}], **keys)
    assert (named.created, client.jobs(limit=1)[0].meta) == (1, None)


@pytest.mark.parametrize("bad", [lambda account, amount: amount, lambda account, amount: ""])
def test_a_key_that_is_none_stops_all(client: Client, database: Database, bad: Any) -> None:
    with pytest.raises(DurableError, match="key of an item"):
        client.enqueue_many(book_entry, [("a", 1)], serial_key=bad)
    assert database.counts()["jobs"] == 0


def test_a_key_function_and_unique_exclude_each_other(client: Client) -> None:
    with pytest.raises(InvalidOption, match="not both"):
        client.enqueue_many(book_entry, [("a", 1)], serial_key=lambda *_: "k", unique=Unique())
