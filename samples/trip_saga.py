"""A trip is booked as a whole or not at all, with `durable.saga()`: `durable-worker samples.trip_saga`.

`saga.compensate(cancel, trip, what)` notes what undoes a step. When the block is left by an error or a cancellation, the notes are
worked off in reverse order; one that fails does not keep the others from running, and a cancellation does not interrupt them.
It is noted before the step: one that is cancelled half-way may have happened, and cancelling what was never booked is harmless.
"""

from __future__ import annotations

import os
from datetime import timedelta

import psycopg
from pydantic import BaseModel

import durable
from durable import NonRetryable, RetryPolicy, activity, activity_info, workflow

SCHEMA = """
create schema if not exists trips;
create table if not exists trips.bookings (
    trip_id text, what text, booking_id text not null, state text not null check (state in ('booked', 'cancelled')),
    primary key (trip_id, what));
"""
RETRY = RetryPolicy(max_attempts=4, initial_interval=timedelta(milliseconds=100))


class Trip(BaseModel):
    """`sold_out` names what cannot be booked: "hotel", "flight" or "car"."""

    id: str
    sold_out: str = ""


class SoldOut(NonRetryable):
    """Nothing of the kind is left."""


class TripCancelled(NonRetryable):
    """The booking comes too late: the trip has been cancelled meanwhile."""


@activity(retry=RETRY)
def book(trip: Trip, what: str) -> str:
    """The booking's id. A second attempt finds the booking of the first, a late one that it was cancelled."""
    if what == trip.sold_out:
        raise SoldOut(f"no {what} for trip {trip.id}")
    booking_id, state = _booking(trip, what, "booked")
    if state == "cancelled":
        raise TripCancelled(f"trip {trip.id} was cancelled before its {what} was booked")
    return booking_id


@activity(retry=RETRY)
def cancel_booking(trip: Trip, what: str) -> None:
    _booking(trip, what, "cancelled")


@workflow
async def book_trip(trip: Trip) -> list[str]:
    """The ids of the bookings: hotel, flight, car."""
    booked = []
    async with durable.saga() as saga:
        for what in ("hotel", "flight", "car"):
            saga.compensate(cancel_booking, trip, what)
            booked.append(await book(trip, what))
    return booked


def create_tables(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(SCHEMA)


def _booking(trip: Trip, what: str, state: str) -> tuple[str, str]:
    """Bring the booking into `state`; "cancelled" is final. Its id and its state now."""
    with psycopg.connect(os.environ["DURABLE_DATABASE_URL"]) as connection:
        row = connection.execute(
            """
            insert into trips.bookings as b values (%s, %s, %s, %s)
            on conflict (trip_id, what) do update
               set state = case when b.state = 'cancelled' then b.state else excluded.state end
            returning booking_id, state
            """,
            (trip.id, what, activity_info().idempotency_key, state),
        ).fetchone()
    assert row is not None
    return str(row[0]), str(row[1])
