"""What clients write for queries and updates, and what they refuse before writing (C14, C18); no worker is needed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel

from durable import AsyncClient, UpdateRequest
from durable.client_sync import Client
from durable.errors import (
    InvalidOption,
    PayloadError,
    UnknownUpdate,
    WorkflowClosed,
    WorkflowNotFound,
)
from tests.client.database import Database
from tests.client.shop import ORDER, Payment, payment_arrived, purchase


class Item(BaseModel):
    sku: str


@dataclass
class Price:
    amount: Decimal


def add(item: Item, count: int = 1) -> int:
    raise NotImplementedError


def requested(database: Database) -> list[tuple[Any, ...]]:
    return database.rows("select body, payload from durable.inbox where type = 'UpdateRequested'")


def test_a_request_is_a_message_and_a_row_to_wait_at(client: Client, database: Database) -> None:
    handle = client.start(purchase, ORDER, id="o-1")
    update = handle.start_update("add", Item(sku="tea"), id="u-1", actor="ann")
    assert requested(database) == [
        ({"update_id": "u-1", "name": "add", "actor": "ann"}, [{"sku": "tea"}])
    ]
    (row,) = handle.updates()
    assert (row.update_id, row.name, row.status, row.actor, row.seq) == (
        "u-1", "add", "requested", "ann", None,
    )  # fmt: skip
    assert (update.id, repr(update)) == ("u-1", "<UpdateHandle 'u-1' of 'o-1'>")
    assert database.counts()["history"] == 1


def test_c18_a_function_that_stands_for_the_handler_checks_arguments(
    client: Client, database: Database
) -> None:
    handle = client.start(purchase, ORDER, id="o-1")
    handle.start_update(add, Item(sku="tea"), count=2)
    assert requested(database)[0][1] == {"item": {"sku": "tea"}, "count": 2}
    with pytest.raises(PayloadError, match="item"):
        handle.start_update(add, "tea")
    with pytest.raises(PayloadError, match="add"):
        handle.start_update(add)
    assert len(requested(database)) == 1


def test_values_are_written_by_the_types_that_they_have(client: Client, database: Database) -> None:
    handle = client.start(purchase, ORDER, id="o-1")
    handle.start_update(
        "add", [Item(sku="a"), {"x": Price(Decimal("1.50"))}], date(2030, 1, 2), None
    )
    assert requested(database)[0][1] == [
        [{"sku": "a"}, {"x": {"amount": "1.50"}}],
        "2030-01-02",
        None,
    ]


@pytest.mark.parametrize("bad", ["\ud800", "\0", float("nan"), object()])
def test_c18_what_cannot_be_stored_is_refused(client: Client, database: Database, bad: Any) -> None:
    handle = client.start(purchase, ORDER, id="o-1")
    with pytest.raises(PayloadError):
        handle.start_update("add", bad)
    with pytest.raises(PayloadError):
        handle.query("status", bad)
    assert requested(database) == []
    assert database.rows("select * from durable.queries") == []


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("", {}),
        ("a\nb", {}),
        ("x" * 201, {}),
        ("add", {"id": ""}),
        ("add", {"id": "x" * 1001}),
        ("add", {"id": "\0"}),
    ],
)
def test_c18_hostile_names_and_ids(
    client: Client, database: Database, name: str, options: Any
) -> None:
    handle = client.start(purchase, ORDER, id="o-1")
    with pytest.raises(InvalidOption):
        handle.start_update(name, **options)
    assert requested(database) == []


def test_arguments_go_one_way(client: Client) -> None:
    handle = client.start(purchase, ORDER, id="o-1")
    with pytest.raises(InvalidOption, match="by position and by name"):
        handle.start_update("add", 1, count=2)


def test_requests_to_nobody_and_to_the_closed(client: Client, database: Database) -> None:
    with pytest.raises(WorkflowNotFound):
        client.handle("nobody").start_update("add")
    handle = client.start(purchase, ORDER, id="o-1")
    database.end("o-1", "completed")
    with pytest.raises(WorkflowClosed, match="it is completed; nothing was written"):
        handle.start_update("add")
    assert handle.updates() == []


def test_an_update_that_nobody_requested(client: Client) -> None:
    handle = client.start(purchase, ORDER, id="o-1")
    with pytest.raises(UnknownUpdate, match="nobody has requested"):
        handle.update_handle("u-1").result(timeout=1)


def test_the_same_request_sent_again_is_one(client: Client, database: Database) -> None:
    handle = client.start(purchase, ORDER, id="o-1")
    request = UpdateRequest("add", 1, id="u-1")
    call = request.call("o-1")
    for _ in range(3):  # an answer was lost
        client._send(call, None)
    handle.start_update("add", 1, id="u-1")
    assert len(requested(database)) == 1


def test_a_start_takes_a_signal_and_an_update_along(client: Client, database: Database) -> None:
    request = UpdateRequest(add, Item(sku="tea"))
    handle = client.start(
        purchase, ORDER, id="o-1", actor="ann", with_signal=(payment_arrived, Payment(amount=7)), with_update=request
    )  # fmt: skip
    assert handle.created
    rows = database.rows("select type, body ->> 'actor' from durable.inbox order by at")
    assert rows == [("SignalReceived", "ann"), ("UpdateRequested", "ann")]
    with pytest.raises(PayloadError):
        client.start(purchase, ORDER, id="o-2", with_signal=(payment_arrived, "no payment"))  # type: ignore[misc]
    assert database.counts()["runs"] == 1


def test_an_update_joins_the_caller_s_transaction(client: Client, database: Database) -> None:
    import psycopg

    handle = client.start(purchase, ORDER, id="o-1")
    with psycopg.connect(database.url) as mine:
        update = handle.start_update("add", 1, connection=mine)
        mine.rollback()
    assert requested(database) == []
    with pytest.raises(UnknownUpdate, match="rolled back"):
        update.accepted(timeout=1)


def test_the_asynchronous_client(database_url: str) -> None:
    asyncio.run(_asynchronously(database_url))


async def _asynchronously(database_url: str) -> None:
    async with AsyncClient(database_url) as client:
        handle = await client.start(
            purchase, ORDER, id="o-1", with_update=UpdateRequest("add", 1, id="u-1")
        )
        update = await handle.start_update("add", 1, id="u-2")
        with pytest.raises(TimeoutError, match="no live worker serves the queue 'orders'"):
            await update.accepted(timeout=0.05)
        with pytest.raises(TimeoutError, match="no live worker serves the queue 'orders'"):
            await handle.query("status", timeout=0.05)
        assert [it.update_id for it in await handle.updates()] == ["u-1", "u-2"]
