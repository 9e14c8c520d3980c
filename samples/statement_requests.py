"""A request that takes its time: an id at once, its status whenever it is asked, and every change told to all who listen.

    durable-worker samples.statement_requests
    durable query s-1 stage

The status is a query: it writes nothing, and answers after the end too. The broadcast is a transactional activity: what it tells and that it has told it commit together,
so every listener hears every stage, once. Whoever was not connected reads the status; that is what a client of a web page does when it comes back.
"""

from __future__ import annotations

import json
from typing import Any

import psycopg
from pydantic import BaseModel

import durable
from durable import Client, activity, workflow

CHANNEL = "statements"

BOOKINGS = {
    "DE-07": [
        ("2026-10-01", "rent", -95_000),
        ("2026-10-03", "salary", 284_300),
        ("2026-10-17", "groceries", -8_412),
        ("2026-11-01", "rent", -95_000),
    ]
}
OPENING_CENTS = {"DE-07": 41_250}


class Asked(BaseModel):
    account: str
    month: str


@activity
def collect_bookings(asked: Asked) -> list[tuple[str, str, int]]:
    """Where a real one asks the ledger, for minutes."""
    return [row for row in BOOKINGS.get(asked.account, []) if row[0].startswith(asked.month)]


@activity
def write_statement(asked: Asked, bookings: list[tuple[str, str, int]]) -> str:
    closing = OPENING_CENTS[asked.account] + sum(cents for _, _, cents in bookings)
    lines = [f"{day} {what:<10}{cents / 100:>10.2f}" for day, what, cents in bookings]
    return "\n".join([f"{asked.account} {asked.month}", *lines, f"balance {closing / 100:.2f}"])


@activity(transactional=True)
def tell_all(connection: psycopg.Connection[Any], stage: str) -> None:
    """PostgreSQL hands it to whoever listens when this commits, and to nobody if it does not."""
    said = json.dumps({"request": durable.activity_info().workflow_id, "stage": stage})
    connection.execute("select pg_notify(%s, %s)", (CHANNEL, said))


@workflow
async def prepare_statement(asked: Asked) -> str:
    at = "accepted"

    @durable.query
    def stage() -> str:
        return at

    async def enter(next_stage: str) -> None:
        nonlocal at
        at = next_stage
        await tell_all(next_stage)

    try:
        await enter("collecting")
        bookings = await collect_bookings(asked)
        await enter("writing")
        statement = await write_statement(asked, bookings)
    except Exception:
        await enter("failed")
        raise
    await enter("ready")
    return statement


def request_statement(client: Client, request_id: str, asked: Asked) -> str:
    """Answers at once. Asking again with the same id starts nothing."""
    return client.start(prepare_statement, asked, id=request_id).workflow_id


def status(client: Client, request_id: str) -> str:
    return str(client.handle(request_id).query("stage"))
