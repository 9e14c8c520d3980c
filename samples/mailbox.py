"""Signals feed a queue, in the order in which they came, until one says that it is enough: `durable-worker samples.mailbox`.

durable start sort_mail --id mailbox-1
durable signal mailbox-1 letter '"a postcard"'
durable query mailbox-1 sorted_so_far
durable signal mailbox-1 closing_time
"""

from __future__ import annotations

import asyncio

import durable
from durable import Signal, activity, workflow

letter = Signal("letter", str)
closing_time = Signal("closing_time")


@activity
async def file_away(what: str) -> str:
    return what.upper()


@workflow
async def sort_mail() -> list[str]:
    """Letters that arrive before the run starts, or while one is filed away, wait in the signal's own buffer: none is lost (C11)."""
    filed: list[str] = []

    @durable.query
    def sorted_so_far() -> list[str]:
        return filed

    closing = asyncio.ensure_future(closing_time.receive())
    while not (closing.done() and not letter.pending()):
        arriving = letter.receive()
        await asyncio.wait({arriving, closing}, return_when=asyncio.FIRST_COMPLETED)
        if arriving.done():
            filed.append(await file_away(arriving.result()))
        else:
            arriving.cancel()
    return filed
