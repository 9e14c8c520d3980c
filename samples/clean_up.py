"""Cancelled in the middle, a run tidies up after itself: `durable-worker samples.clean_up`.

`finally` is all there is to it. The cancellation arrives once, as `CancelledError`, where the code waits; what `finally` awaits is not disturbed by it.
"""

from __future__ import annotations

from datetime import timedelta

import durable
from durable import activity, workflow


@activity
async def book_room(guest: str) -> str:
    return f"room of {guest}"


@activity
async def free_room(room: str) -> None:
    """Where a real one calls the hotel. Its idempotency key keeps a second call from harm."""


@workflow
async def stay(guest: str, nights: int) -> str:
    room = await book_room(guest)
    try:
        await durable.sleep(timedelta(days=nights))
    finally:
        await free_room(room)
    return f"{guest} stayed {nights} nights"
