"""The checkout in the third style: a generator. `yield from` keeps the type of what comes back; `yield [a, b]` gathers."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import durable
from durable import workflow

from .activities import charge, notify, recall, refund, release, reserve, ship
from .model import Invoice, Order, payment_confirmed
from .workflow import check_amount


@workflow
def checkout_yielding(order: Order) -> Generator[Any, Any, Invoice]:
    saga = durable.saga()
    try:
        saga.compensate(release, order)
        yield reserve(order)
        payment = yield from payment_confirmed.receive(timeout=order.payment_deadline)
        check_amount(order, payment)
        saga.compensate(refund, order)
        receipt = yield from charge(order)
        saga.compensate(recall, order)
        shipment = yield from ship(order)
        yield [
            notify(order, "customer", f"Your order is on its way: {shipment.tracking}"),
            notify(order, "warehouse", f"{order.id} has left for {order.customer}"),
        ]
    except BaseException:
        yield saga.unwind()
        raise
    return Invoice(
        order_id=order.id,
        charge_id=receipt.charge_id,
        amount_cents=receipt.amount_cents,
        tracking=shipment.tracking,
    )
