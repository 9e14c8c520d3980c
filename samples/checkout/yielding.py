"""The checkout in the third style: a generator. `yield from` keeps the type of what comes back; `yield [a, b]` gathers."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import durable
from durable import workflow

from .activities import charge, notify, recall, refund, release, reserve, ship
from .model import Invoice, Order, payment_confirmed
from .workflow import check_amount


@workflow
def checkout_yielding(order: Order) -> Generator[Any, Any, Invoice]:
    undo: list[Callable[[Order], Any]] = []
    try:
        undo.append(release)
        yield reserve(order)
        payment = yield from payment_confirmed.receive(timeout=order.payment_deadline)
        check_amount(order, payment)
        undo.append(refund)
        receipt = yield from charge(order)
        undo.append(recall)
        shipment = yield from ship(order)
        yield [
            notify(order, "customer", f"Your order is on its way: {shipment.tracking}"),
            notify(order, "warehouse", f"{order.id} has left for {order.customer}"),
        ]
    except BaseException:
        for step_back in reversed(undo):
            yield durable.shield(step_back(order))
        raise
    return Invoice(
        order_id=order.id,
        charge_id=receipt.charge_id,
        amount_cents=receipt.amount_cents,
        tracking=shipment.tracking,
    )
