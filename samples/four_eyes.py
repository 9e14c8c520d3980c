"""Who acts travels along: a refund that somebody asks for and somebody else approves: `durable-worker samples.four_eyes`.

The actor is given once, where the request comes in. It is then known in the workflow, its activities and its children, on whatever machine they
run and after every replay; whoever sends a signal says who they are themselves. So the audit needs no argument that is passed through everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psycopg
from pydantic import BaseModel

import durable
from durable import Client, Signal, activity, workflow

SCHEMA = """
create schema if not exists refunds;
create table if not exists refunds.audit (id bigint generated always as identity, refund_id text, what text, by text, department text);
"""


@durable.context_type
@dataclass(frozen=True)
class Employee:
    """Rebuilt from the database, because the type is allowed."""

    name: str
    department: str


class Refund(BaseModel):
    id: str
    order: str
    cents: int


refund_approved = Signal("refund_approved", bool, require_actor=True)


@activity(transactional=True)
def note_refund(connection: psycopg.Connection[Any], refund: Refund, what: str) -> None:
    """One row in the audit, exactly once, in the name of whoever the run belongs to."""
    by: Employee = durable.current_actor()
    connection.execute(
        "insert into refunds.audit (refund_id, what, by, department) values (%s, %s, %s, %s)",
        (refund.id, what, by.name, by.department),
    )


@workflow(require_actor=True)
async def pay_refund(refund: Refund) -> str:
    """A child: it acts for the one its parent acts for."""
    await note_refund(refund, f"paid {refund.cents} cents")
    return f"{refund.cents} cents for order {refund.order}"


@workflow(require_actor=True)
async def refund_with_four_eyes(refund: Refund) -> str:
    await note_refund(refund, "requested")
    asked_by = durable.current_actor()
    while True:
        answer = refund_approved.receive(timeout=timedelta(days=2))
        approved = await answer
        by = durable.sender(answer).actor
        if by != asked_by:
            break
        await note_refund(refund, "approved by who asked: does not count")
    if not approved:
        await note_refund(refund, f"refused by {by.name}")
        return "refused"
    await note_refund(refund, f"approved by {by.name}")
    return await pay_refund(refund)


def request_refund(client: Client, refund: Refund, employee: Employee) -> None:
    """What the middleware of a web application does: everything in the block is done for this employee."""
    with durable.acting_as(employee):
        client.start(refund_with_four_eyes, refund, id=refund.id)


def create_audit(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(SCHEMA)
