"""What the tests of the client and the command line start and signal. No worker runs here: what workers write is written with SQL."""

from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel

from durable import RetryPolicy, Signal, activity, workflow


class Order(BaseModel):
    sku: str
    amount: int


class Invoice(BaseModel):
    total: int


class Payment(BaseModel):
    amount: int


payment_arrived = Signal("payment_arrived", Payment)


class Declined(Exception):
    pass


@activity(retry=RetryPolicy(max_attempts=3), timeout=timedelta(seconds=30), queue="payments")
def bill(order: Order) -> Invoice:
    return Invoice(total=order.amount)


@workflow(queue="orders", priority=3)
async def purchase(order: Order, gift: bool = False) -> Invoice:
    payment = await payment_arrived.receive()
    return Invoice(total=payment.amount)


@workflow
def nothing() -> None:
    return None


ORDER = Order(sku="tea", amount=7)
