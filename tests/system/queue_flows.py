"""Activities and a workflow of queues with limits. Each execution leaves its span in the table `spans`."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import psycopg

from durable import activity, workflow

SCHEMA = """
create table if not exists spans (key text, number integer, began timestamptz, ended timestamptz);
create table if not exists claims (job uuid, at timestamptz);
create or replace function note_claim() returns trigger language plpgsql as
    $$ begin insert into claims values (new.run_id, clock_timestamp()); return null; end $$;
create or replace trigger claimed after update on durable.jobs for each row
    when (new.state = 'executing' and old.state <> 'executing') execute function note_claim();
"""


def create_tables(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(SCHEMA)


def _connect() -> psycopg.Connection[tuple[Any, ...]]:
    return psycopg.connect(os.environ["SYSTEM_DATABASE_URL"], autocommit=True)


@activity(queue="narrow")
def spans_a_while(key: str, number: int, seconds: float) -> None:
    with _connect() as connection:
        began = connection.execute("select clock_timestamp()").fetchone()
        time.sleep(seconds)  # what the test is about is how many do this at once
        connection.execute(
            "insert into spans values (%s, %s, %s, clock_timestamp())",
            (key, number, *(began or ())),
        )


@activity(queue="quick")
async def does_nothing(number: int) -> int:
    return number


@activity(queue="quick")
async def takes_its_time(seconds: float) -> None:
    await asyncio.sleep(seconds)


@workflow
async def many_at_once(count: int) -> None:
    await asyncio.gather(*(spans_a_while("w", n, 0.05) for n in range(count)))


@workflow
async def nothing_after_nothing(count: int) -> int:
    for number in range(count):
        await does_nothing(number)
    return count
