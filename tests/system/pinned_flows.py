"""Workflows whose runs stay with the build of the worker that took their first turn, and versions that continue as new."""

from __future__ import annotations

from pydantic import BaseModel

from durable import workflow
from durable.authoring import continue_as_new
from tests.system.flows import go, step


@workflow(pinned=True)
async def stays(key: str) -> str:
    await step(f"{key} one")
    await go.receive()
    await step(f"{key} two")
    return key


@workflow
async def moves(key: str) -> str:
    await step(f"{key} one")
    await go.receive()
    await step(f"{key} two")
    return key


@workflow
async def parent_of_pinned(key: str) -> str:
    return await stays(key)


@workflow(pinned=True)
async def goes_round(rounds: int) -> int:
    await go.receive()
    if rounds > 1:
        continue_as_new(rounds - 1)
    await go.receive()
    return rounds


class Tally(BaseModel):
    total: int
    currency: str


@workflow(name="renewed")
async def renewed_1(rounds: int, total: int = 0) -> int:
    """Version 1: goes round, then says itself that it becomes version 2."""
    total += await go.receive()
    if rounds > 0:
        continue_as_new(rounds - 1, total)
    renewed.continue_as_new(Tally(total=total, currency="EUR"))


@workflow(name="renewed", version=2)
async def renewed(tally: Tally) -> Tally:
    return Tally(total=tally.total + await go.receive(), currency=tally.currency)


@workflow
async def parent_of_renewed() -> Tally:
    return await renewed(Tally(total=1, currency="CHF"))
