"""The shop's tables: connections, set-up, and the one rule that makes every step idempotent.

An activity runs at least once: a worker may be killed after the work and before it could say so. So `once` does the
work and writes down its answer, under the call's idempotency key, in one transaction. A further attempt finds the answer.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import psycopg
from pydantic import BaseModel

import durable

HERE = Path(__file__).parent
COMMENT = "durable sample: checkout"
Connection = psycopg.Connection[tuple[Any, ...]]
Answer = TypeVar("Answer", bound=BaseModel)

_idle: SimpleQueue[tuple[str, Connection]] = SimpleQueue()


def database_url() -> str:
    """The shop lives in durable's database unless SHOP_DATABASE_URL says otherwise."""
    url = os.environ.get("SHOP_DATABASE_URL") or os.environ.get("DURABLE_DATABASE_URL")
    if not url:
        raise LookupError("set SHOP_DATABASE_URL or DURABLE_DATABASE_URL to the shop's database")
    return url


@contextlib.contextmanager
def transaction() -> Iterator[Connection]:
    """One transaction on a connection that is kept for the next one; activities run in threads, so many may be open."""
    url = database_url()
    connection = _idle_connection(url) or psycopg.connect(url, autocommit=True)
    try:
        with connection.transaction():
            yield connection
    except BaseException:
        connection.close()
        raise
    _idle.put((url, connection))


def _idle_connection(url: str) -> Connection | None:
    with contextlib.suppress(Empty):
        while True:
            of_url, connection = _idle.get_nowait()
            if of_url == url and not connection.closed:
                return connection
            connection.close()
    return None


def close_idle_connections() -> None:
    with contextlib.suppress(Empty):
        while True:
            _idle.get_nowait()[1].close()


def create(url: str, items: Iterable[dict[str, Any]]) -> None:
    """Make the shop's schema afresh and fill the shelves. Refuses to drop a schema `shop` that is not this sample's."""
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "select obj_description(oid, 'pg_namespace') from pg_namespace where nspname = 'shop'"
        ).fetchone()
        if found and found[0] != COMMENT:
            raise durable.DurableError(
                "this database has a schema named shop of its own; use another database"
            )
        connection.execute(
            "set local client_min_messages = warning; drop schema if exists shop cascade"
        )
        connection.execute((HERE / "schema.sql").read_bytes())
        connection.cursor().executemany(
            "insert into shop.items values (%(sku)s, %(name)s, %(price_cents)s, %(stock)s, %(stock)s)",
            items,
        )


def once(order_id: str, answers: type[Answer], work: Callable[[Connection], Answer]) -> Answer:
    """Run `work` unless an earlier attempt of this very call has; either way the answer is that of the one run."""
    key = durable.activity_info().idempotency_key
    with transaction() as connection:
        # Two attempts may overlap (the worker of the first was taken for dead): the later one waits here for the earlier.
        first = connection.execute(
            "insert into shop.effects (idempotency_key, order_id) values (%s, %s) on conflict do nothing",
            (key, order_id),
        )
        if not first.rowcount:
            return answers.model_validate_json(_answer(connection, key))
        answer = work(connection)
        connection.execute(
            "update shop.effects set answer = %s where idempotency_key = %s",
            (answer.model_dump_json(), key),
        )
        return answer


def _answer(connection: Connection, key: str) -> str:
    row = connection.execute(
        "select answer::text from shop.effects where idempotency_key = %s", (key,)
    ).fetchone()
    assert row is not None
    return str(row[0])
