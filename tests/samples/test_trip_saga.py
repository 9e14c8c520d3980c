"""A trip is booked as a whole or not at all."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from durable import Client, WorkflowCancelled, WorkflowFailed
from samples import trip_saga
from samples.trip_saga import SoldOut, Trip, book_trip
from tests.samples.conftest import Working
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture(autouse=True)
def tables(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DURABLE_DATABASE_URL", database_url)
    trip_saga.create_tables(database_url)


def bookings(sql: Sql) -> dict[str, str]:
    return dict(sql.execute("select what, state from trips.bookings").fetchall())


def test_a_trip_is_booked(client: Client, working: Working, sql: Sql) -> None:
    with working("samples.trip_saga"):
        booked = client.start(book_trip, Trip(id="t1")).result(timeout=30)
    assert bookings(sql) == {"hotel": "booked", "flight": "booked", "car": "booked"}
    assert sql.execute(
        "select count(*) from trips.bookings where booking_id = any(%s)", (booked,)
    ).fetchone() == (3,)


@pytest.mark.parametrize("sold_out", ["hotel", "flight", "car"])
def test_what_was_booked_is_cancelled_in_reverse_order(
    sold_out: str, client: Client, working: Working, sql: Sql
) -> None:
    with working("samples.trip_saga"):
        handle = client.start(book_trip, Trip(id="t1", sold_out=sold_out))
        with pytest.raises(WorkflowFailed) as failed:
            handle.result(timeout=30)
    assert failed.value.cause is not None
    assert isinstance(failed.value.cause.__cause__, SoldOut)
    assert set(bookings(sql).values()) == {"cancelled"}
    undone = [
        event.payload["what"]
        for event in handle.history()
        if event.type == "ActivityScheduled" and event.body["name"] == "cancel_booking"
    ]
    wanted = ["hotel", "flight", "car"]
    assert undone == wanted[wanted.index(sold_out) :: -1]


def test_a_cancelled_trip_leaves_no_booking(
    client: Client, working: Working, sql: Sql, database_url: str
) -> None:
    """The first booking is held up by a lock and finishes after the cancel."""
    with working("samples.trip_saga"):
        with psycopg.connect(database_url) as holder:
            holder.execute("lock table trips.bookings in exclusive mode")
            handle = client.start(book_trip, Trip(id="t1"))
            waits = "select exists (select from pg_locks where relation = 'trips.bookings'::regclass and not granted)"
            eventually(lambda: sql.execute(waits).fetchone() == (True,))
            handle.cancel("no holiday after all")
            eventually(lambda: "CancelRequested" in [event.type for event in handle.history()])
        with pytest.raises(WorkflowCancelled):
            handle.result(timeout=30)
    assert set(bookings(sql).values()) == {"cancelled"}
