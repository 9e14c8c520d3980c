"""A shopping cart that lives in a run: queries, updates, validators, signals together: `durable-worker samples.cart`.

durable update cart-1 add '{"sku": "tea", "count": 2}'
durable query cart-1 total
durable signal cart-1 check_out
"""

from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel

import durable
from durable import Signal, activity, workflow

PRICES = {"tea": 400, "cup": 900, "kettle": 4_500}


class Receipt(BaseModel):
    items: dict[str, int]
    cents: int
    abandoned: bool = False


check_out = Signal("check_out")


@activity
async def reserve_item(sku: str, count: int) -> int:
    """What they cost together. Where a real one asks the warehouse."""
    return PRICES[sku] * count


@workflow
async def fill_cart(patience: timedelta = timedelta(days=2)) -> Receipt:
    """The first update may come together with the start: the cart is made by whoever puts the first thing into it."""
    items: dict[str, int] = {}
    cents = 0
    at_the_till = False

    @durable.query
    def total() -> int:
        return cents

    @durable.update
    async def add(sku: str, count: int = 1) -> int:
        """Answers what the cart costs now; the answer is durable before the caller has it."""
        nonlocal cents
        cost = await reserve_item(sku, count)
        items[sku] = items.get(sku, 0) + count
        cents += cost
        return cents

    @add.validator
    def can_be_added(sku: str, count: int = 1) -> None:
        """Refused here, an update leaves no trace in the history."""
        if at_the_till:
            raise ValueError("the cart is at the till already")
        if sku not in PRICES or count < 1:
            raise ValueError(f"there is no such thing as {count} x {sku}")

    try:
        await check_out.receive(timeout=patience)
    except TimeoutError:
        return Receipt(items={}, cents=0, abandoned=True)
    at_the_till = True
    await durable.wait_until(
        durable.handlers_finished
    )  # an update that is under way gets its answer first
    return Receipt(items=items, cents=cents)
