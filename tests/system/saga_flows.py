"""A saga whose compensations can be held up."""

from __future__ import annotations

from typing import Literal

import durable
from durable import RetryPolicy, activity, workflow
from tests.system.flows import FAST, go, wait_at, wrote

ONCE = RetryPolicy(max_attempts=1)


class OutOfLuck(Exception):
    pass


@activity(retry=FAST)
def booked(number: int) -> None:
    wrote(f"do {number}")


@activity(retry=FAST)
def unbooked(number: int, gate: int) -> None:
    wrote(f"undo {number}")
    if number == 2:
        wait_at(gate)


@activity(retry=ONCE)
def breaks_the_trip() -> None:
    raise OutOfLuck("no rooms")


@workflow
async def held_up_in_undoing(gate: int, ends_by: Literal["failure", "cancel"]) -> None:
    async with durable.saga() as saga:
        for number in (1, 2, 3):
            saga.compensate(unbooked, number, gate)
            await booked(number)
        await (breaks_the_trip() if ends_by == "failure" else go.receive())


@workflow
async def undoes_by_hand(gate: int, ends_by: Literal["failure", "cancel"]) -> None:
    """The same with `try` and `finally`."""
    done: list[int] = []
    try:
        for number in (1, 2, 3):
            done.append(number)
            await booked(number)
        await (breaks_the_trip() if ends_by == "failure" else go.receive())
    finally:
        for number in reversed(done):
            await unbooked(number, gate)
