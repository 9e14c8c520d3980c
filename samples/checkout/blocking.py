"""The checkout in the second style: a plain `def` that is suspended wherever it asks for a result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import durable
from durable import workflow

from .activities import charge, notify, recall, refund, release, reserve, ship
from .model import Invoice, Order, payment_confirmed
from .workflow import check_amount


@workflow
def checkout_blocking(order: Order) -> Invoice:
    undo: list[Callable[[Order], Any]] = []
    try:
        undo.append(release)
        reserve(order).result()
        payment = payment_confirmed.receive(timeout=order.payment_deadline).result()
        check_amount(order, payment)
        undo.append(refund)
        receipt = charge(order).result()
        undo.append(recall)
        shipment = ship(order).result()
        told = [
            notify(order, "customer", f"Your order is on its way: {shipment.tracking}"),
            notify(order, "warehouse", f"{order.id} has left for {order.customer}"),
        ]
        for telling in told:
            telling.result()
    except BaseException:
        for step_back in reversed(undo):
            durable.shield(step_back(order)).result()
        raise
    return Invoice(
        order_id=order.id,
        charge_id=receipt.charge_id,
        amount_cents=receipt.amount_cents,
        tracking=shipment.tracking,
    )
