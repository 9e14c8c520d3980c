"""Workflows whose runs stay with the build of the worker that took their first turn."""

from __future__ import annotations

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
