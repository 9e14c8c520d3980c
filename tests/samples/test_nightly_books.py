"""The books are closed every night, also those when nobody was there."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import psycopg

from durable import Client
from samples.nightly_books import Books, close_again, close_night, open_region
from tests.samples.conftest import Working
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]


def move_to(sql: Sql, at: datetime) -> None:
    sql.execute("select durable.advance_clock(%s - durable.now())", (at,))


def nights(client: Client, schedule_id: str) -> list[tuple[str, str, str | None]]:
    slots = reversed(client.schedule_handle(schedule_id).slots())
    return [(f"{each.scheduled_for:%m-%d %H:%M}", each.decision, each.outcome) for each in slots]


def test_every_night_also_those_that_were_missed(
    client: Client, working: Working, sql: Sql
) -> None:
    """Over the night in March that has no 02:30, with a downtime of two nights, and Christmas left out."""
    move_to(sql, datetime(2031, 3, 28, 12, tzinfo=UTC))
    with working("samples.nightly_books"):
        move_to(sql, datetime(2031, 3, 29, 12, tzinfo=UTC))
        eventually(lambda: len(nights(client, "close_night")) == 1)
    move_to(sql, datetime(2031, 3, 31, 12, tzinfo=UTC))
    with working("samples.nightly_books"):
        done = [
            ("03-29 01:30", "started", "completed"),
            ("03-30 01:00", "started", "completed"),
            ("03-31 00:30", "started", "completed"),
        ]
        eventually(lambda: nights(client, "close_night") == done)
        books = client.handle("close_night/2031-03-30T01:00:00Z", close_night).result(timeout=10)
        assert books == Books(region="eu", day=date(2031, 3, 29), total_cents=2900)
        move_to(sql, datetime(2031, 12, 24, 12, tzinfo=UTC))
        move_to(sql, datetime(2031, 12, 27, 12, tzinfo=UTC))
        eventually(lambda: nights(client, "close_night")[-1][0] == "12-27 01:30")
        assert not [
            each
            for each in nights(client, "close_night")
            if each[0] in ("12-25 01:30", "12-26 01:30")
        ]


def test_a_region_is_added_and_its_past_made_up_for(
    client: Client, working: Working, sql: Sql
) -> None:
    move_to(sql, datetime(2031, 6, 10, 12, tzinfo=UTC))
    with working("samples.nightly_books"):
        open_region(client, "us", "America/New_York")
        open_region(client, "us", "America/New_York")
        assert (
            close_again(
                client,
                "us",
                datetime(2031, 6, 8, tzinfo=UTC),
                datetime(2031, 6, 10, 12, tzinfo=UTC),
            )
            == 3
        )
        eventually(lambda: [each[2] for each in nights(client, "books-us")] == ["completed"] * 3)
        assert len(client.list(id_prefix="books-us/")) == 3


def test_a_failed_night_stops_the_schedule_until_somebody_has_looked(
    client: Client, working: Working, sql: Sql
) -> None:
    move_to(sql, datetime(2031, 6, 10, 12, tzinfo=UTC))
    with working("samples.nightly_books"):
        open_region(client, "moon", "UTC")
        move_to(sql, datetime(2031, 6, 11, 12, tzinfo=UTC))
        handle = client.schedule_handle("books-moon")
        eventually(lambda: handle.describe().paused)
        move_to(sql, datetime(2031, 6, 12, 12, tzinfo=UTC))
        eventually(
            lambda: [each[1] for each in nights(client, "books-moon")] == ["started", "skipped"]
        )
