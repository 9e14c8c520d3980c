"""A pool of licences that other runs borrow, and a run that hands them out in the order of asking: `durable-worker samples.resource_pool`.

The pool is a run that never ends; borrowing is an update that returns when it is the borrower's turn. Who asks twice with the same update id (a retried
activity does) gets the same licence, not another one.
"""

from __future__ import annotations

import asyncio

from pydantic import BaseModel

import durable
from durable import Client, Signal, activity, workflow

POOL_ID = "licences"


class Return(BaseModel):
    licence: str


give_back = Signal("give_back", Return)
close_pool = Signal("close_pool")


@workflow
async def licence_pool(licences: list[str]) -> int:
    free: asyncio.Queue[str] = asyncio.Queue()
    for licence in licences:
        free.put_nowait(licence)
    lent_to: dict[str, str] = {}
    loans = 0
    closing = close_pool.receive()

    @durable.query
    def borrowers() -> dict[str, str]:
        """Who has which licence."""
        return lent_to

    @durable.update
    async def borrow(borrower: str) -> str:
        """Waits for its turn: a queue serves those who wait in the order in which they came."""
        nonlocal loans
        licence = await free.get()
        loans += 1
        lent_to[licence] = borrower
        return licence

    while not closing.done():
        await durable.wait_until(lambda: closing.done() or give_back.pending() > 0)
        while give_back.pending():
            returned = await give_back.receive()
            del lent_to[returned.licence]
            free.put_nowait(returned.licence)
    await durable.wait_until(durable.handlers_finished)
    return loans


@activity
def borrow_licence(borrower: str) -> str:
    """Ask the pool. The update's id is the attempt's idempotency key: a second attempt gets the first one's licence."""
    key = durable.activity_info().idempotency_key
    with Client() as client:
        return client.handle(POOL_ID).update("borrow", borrower, id=key, returns=str)


@activity
def return_licence(licence: str) -> None:
    with Client() as client:
        client.handle(POOL_ID).signal(
            give_back, Return(licence=licence), dedupe_key=durable.activity_info().idempotency_key
        )


@activity
async def simulate_turbine(name: str, licence: str) -> str:
    return f"{name} with {licence}"


@workflow
async def use_licence(name: str) -> str:
    licence = await borrow_licence(name)
    try:
        return await simulate_turbine(name, licence)
    finally:
        await return_licence(licence)
