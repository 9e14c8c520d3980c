"""The checkout in the second style: a plain `def` that is suspended wherever it asks for a result."""

from __future__ import annotations

import durable
from durable import workflow

from .activities import charge, notify, recall, refund, release, reserve, ship
from .model import Invoice, Order, payment_confirmed
from .workflow import check_amount


@workflow
def checkout_blocking(order: Order) -> Invoice:
    with durable.saga() as saga:  # the same as the `except BaseException` of the other two styles
        saga.compensate(release, order)
        reserve(order).result()
        payment = payment_confirmed.receive(timeout=order.payment_deadline).result()
        check_amount(order, payment)
        saga.compensate(refund, order)
        receipt = charge(order).result()
        saga.compensate(recall, order)
        shipment = ship(order).result()
        told = [
            notify(order, "customer", f"Your order is on its way: {shipment.tracking}"),
            notify(order, "warehouse", f"{order.id} has left for {order.customer}"),
        ]
        for telling in told:
            telling.result()
    return Invoice(
        order_id=order.id,
        charge_id=receipt.charge_id,
        amount_cents=receipt.amount_cents,
        tracking=shipment.tracking,
    )
