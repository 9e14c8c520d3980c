"""A million records, never more than so many in work at once, in a history that stays short: `durable-worker samples.sliding_window`.

One run processes a page of the records with a bounded window of children, then continues as new at the next page.
"""

from __future__ import annotations

import asyncio

from durable import activity, workflow
from durable.core.children import ChildFuture


@activity
async def index_record(number: int) -> int:
    return number


@workflow
async def process_record(number: int) -> int:
    return await index_record(number)


@workflow
async def process_batch(
    records: int, window: int, page: int, offset: int = 0, total: int = 0
) -> int:
    """The sum of all results. `window` children at most are open at any time; the next one starts when any one ends."""
    last = min(offset + page, records)
    open_children: set[ChildFuture[int]] = set()
    for number in range(offset, last):
        if len(open_children) == window:
            total += await _first_to_end(open_children)
        open_children.add(process_record.options(id=f"record-{number}")(number))
    while open_children:
        total += await _first_to_end(open_children)
    if last < records:
        return process_batch.continue_as_new(records, window, page, last, total)
    return total


async def _first_to_end(children: set[ChildFuture[int]]) -> int:
    """Wait until at least one has ended, take those out, and add up what they gave."""
    done, _ = await asyncio.wait(children, return_when=asyncio.FIRST_COMPLETED)
    children -= done
    return sum(child.result() for child in done)
