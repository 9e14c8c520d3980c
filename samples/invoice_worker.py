"""A worker in a program of one's own: `python -m samples.invoice_worker`, until SIGTERM or Ctrl-C.

`durable-worker MODULE` does the same with options. A program is for what options cannot say: what is opened before the first activity and closed after
the last, and which queues it serves. Here reading invoices has a queue of its own with two slots, so that a flood of them leaves room for the rest.
Leaving the block stops the worker in order: it claims nothing more, lets what runs end, and gives its runs to the others.
"""

from __future__ import annotations

import asyncio
import re
import signal

from pydantic import BaseModel

from durable import NonRetryable, activity, workflow
from durable_worker import Worker

INVOICES = {
    "R-1041": "Invoice R-1041\n2 x Toner, black  at 89.90\n10 x Paper, 500 sheets at 5.49\nTotal 234.70",
    "R-1042": "Invoice R-1042\n1 x Desk lamp at 45.00\n3 x Bulb E27 at 3.20\nTotal 54.60",
    "R-1043": "Invoice R-1043\n4 x Chair at 129.00\nTotal 561.00",
}
"""As they came in by mail. The last one does not add up."""

LINE = re.compile(r"(\d+) x (.+?)\s+at (\d+\.\d\d)")


class Read(BaseModel):
    number: str
    positions: int
    cents: int
    stated_cents: int


class NoInvoice(NonRetryable):
    """Nobody has sent one of this number: trying again does not help."""


@activity(queue="reading")
def read_invoice(number: str) -> Read:
    if number not in INVOICES:
        raise NoInvoice(f"there is no invoice {number}")
    text = INVOICES[number]
    positions = [(int(count), _cents(price)) for count, _, price in LINE.findall(text)]
    stated = _cents(text.rpartition("Total ")[2])
    total = sum(count * cents for count, cents in positions)
    return Read(number=number, positions=len(positions), cents=total, stated_cents=stated)


@activity
async def book_invoice(read: Read) -> str:
    return f"{read.number}: {read.cents / 100:.2f} for {read.positions} positions"


@workflow
async def enter_invoice(number: str) -> str:
    read = await read_invoice(number)
    if read.cents != read.stated_cents:
        off = (read.stated_cents - read.cents) / 100
        return f"{number}: sent back, the total is off by {off:.2f}"
    return await book_invoice(read)


async def main() -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with Worker(
        workflows=[enter_invoice],
        activities=[read_invoice, book_invoice],
        queues={"default": 20, "reading": 2},
        name="invoices",
    ):
        print("the worker is ready", flush=True)
        await stop.wait()
    print("the worker has ended", flush=True)


def _cents(amount: str) -> int:
    return round(float(amount) * 100)


if __name__ == "__main__":
    asyncio.run(main())
