"""Transactional activities that write to a ledger in this database. What is in it was committed together with an outcome."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import psycopg

from durable import AsyncClient, Client, RetryPolicy, Signal, activity, activity_info, workflow
from tests.system.flows import FAST, quick, wait_at

LEDGER = """
create table system.ledger (key text, attempt integer, pid integer);
create sequence system.calls;
"""
Sql = psycopg.Connection[Any]
word_of_the_ledger = Signal("word_of_the_ledger", str)


def add(connection: Sql, key: str) -> None:
    connection.execute(
        "insert into system.ledger values (%s, %s, %s)",
        (key, activity_info().attempt, os.getpid()),
    )


def count_call(connection: Sql) -> int:
    """A sequence does not roll back: how often this was called so far, in all."""
    row = connection.execute("select nextval('system.calls')").fetchone()
    assert row is not None
    return int(row[0])


@activity(transactional=True, retry=FAST)
def enter(connection: psycopg.Connection[Any], key: str) -> str:
    add(connection, key)
    return key


@activity(transactional=True, retry=FAST)
async def enter_async(connection: psycopg.AsyncConnection[Any], key: str) -> str:
    await connection.execute(
        "insert into system.ledger values (%s, %s, %s)",
        (key, activity_info().attempt, os.getpid()),
    )
    return key


@activity(transactional=True, retry=FAST)
def enter_at_gate(connection: Sql, key: str, gate: int) -> int:
    add(connection, key)
    wait_at(gate)
    return activity_info().attempt


@activity(transactional=True, retry=FAST)
def fails_at_first(connection: Sql, key: str) -> int:
    add(connection, key)
    attempt = activity_info().attempt
    if attempt < 3:
        raise ValueError(f"attempt {attempt}")
    return attempt


@activity(transactional=True, retry=RetryPolicy(max_attempts=2, initial_interval=timedelta(0.0001)))
async def always_fails(connection: psycopg.AsyncConnection[Any], key: str) -> None:
    await connection.execute("insert into system.ledger values (%s, 0, 0)", (key,))
    raise ValueError("no")


@activity(transactional=True, retry=FAST)
def loses_a_conflict(connection: Sql, sqlstate: str) -> tuple[int, int]:
    """The first two calls meet a conflict."""
    connection.execute("set transaction isolation level serializable")
    add(connection, sqlstate)
    if (calls := count_call(connection)) < 3:
        connection.execute(
            f"do $$ begin raise exception 'conflict' using errcode = '{sqlstate}'; end $$".encode()
        )
    return activity_info().attempt, calls


@activity(transactional=True, retry=FAST)
def misuses(connection: Sql, how: str) -> None:
    add(connection, how)
    count_call(connection)
    match how:
        case "commit()":
            connection.commit()
        case "rollback()":
            connection.rollback()
        case "close()":
            connection.close()
        case "commit":
            connection.execute("commit")
        case "commit and begin":
            connection.execute("commit")
            connection.execute("begin")
        case "swallow":
            try:
                connection.execute("select 1 / 0")
            except psycopg.Error:
                return
        case _:
            raise AssertionError(how)


@activity(transactional=True, retry=RetryPolicy(max_attempts=1))
def starts_others(connection: Sql, key: str, fails: bool) -> str:
    """What it starts, sends and enqueues is there if it succeeds."""
    add(connection, key)
    with Client(os.environ["SYSTEM_DATABASE_URL"]) as client:
        client.start(enters, f"{key}-child", id=f"{key}-child", connection=connection)
        client.handle("listener").signal(word_of_the_ledger, key, connection=connection)
        job = client.enqueue(enter, f"{key}-job", connection=connection)
    if fails:
        raise ValueError("no")
    return job.job_id


@activity(transactional=True, retry=RetryPolicy(max_attempts=1))
async def starts_others_async(connection: psycopg.AsyncConnection[Any], key: str) -> str:
    async with AsyncClient(os.environ["SYSTEM_DATABASE_URL"]) as client:
        await client.start(enters, f"{key}-child", id=f"{key}-child", connection=connection)
    return key


@activity(transactional=True, retry=FAST)
def savepoints(connection: Sql, key: str) -> None:
    add(connection, key)
    try:
        with connection.transaction():
            add(connection, "lost")
            connection.execute("select 1 / 0")
    except psycopg.Error:
        add(connection, f"{key}: went on")


@workflow
async def enters(key: str) -> str:
    return await enter(key)


@workflow
async def enters_many(count: int) -> int:
    for number in range(count):
        await enter(f"sync {number}")
        await quick(await quick(number))
        await enter_async(f"async {number}")
    return count


@workflow
async def enters_one(is_async: bool) -> str:
    return await (enter_async("one") if is_async else enter("one"))


@workflow
async def enters_at_gate(gate: int) -> int:
    return await enter_at_gate("gated", gate)


@workflow
async def enters_by(name: str, argument: str) -> Any:
    match name:
        case "fails_at_first":
            return await fails_at_first(argument)
        case "always_fails":
            return await always_fails(argument)
        case "loses_a_conflict":
            return await loses_a_conflict(argument)
        case "misuses":
            return await misuses(argument)
        case "starts_others":
            return await starts_others(argument, fails=False)
        case "starts_others_in_vain":
            return await starts_others(argument, fails=True)
        case "starts_others_async":
            return await starts_others_async(argument)
        case _:
            return await savepoints(argument)


@workflow
async def listens_to_the_ledger() -> str:
    return await word_of_the_ledger.receive()
