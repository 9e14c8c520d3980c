"""replayed_code.py after changes: one step renamed in `checkout`, version 1 of `steady` deleted, an argument of another type in `crowd`."""

from __future__ import annotations

from durable import workflow
from tests.cli.replayed_code import paid, reserve, ship, steady_2

__all__ = ["checkout", "crowd", "steady_2"]


@workflow(name="replayed.checkout")
async def checkout(order: str) -> str:
    held = await ship(order)
    await paid.receive()
    return held


@workflow(name="replayed.crowd")
async def crowd(size: int) -> None:
    for n in range(size):
        await reserve(str(n))
