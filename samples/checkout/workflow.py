"""The checkout, in the first of three styles: `await`. blocking.py and yielding.py are the same with the other two.

Compensation is ordinary Python: `try`, `except BaseException`, undo, `raise`. What undoes a step is noted *before* the step: when the
run is cancelled while a step is under way, nobody can know how far that got, and undoing what has not happened is harmless here.
`unwind()` works the notes off, last first; it is not interrupted by a cancellation that arrives meanwhile.
"""

from __future__ import annotations

import asyncio

import durable
from durable import workflow

from .activities import charge, notify, recall, refund, release, reserve, ship
from .model import Invoice, Order, Payment, WrongAmount, payment_confirmed


@workflow
async def checkout(order: Order) -> Invoice:
    """Reserve, wait for the payment, charge, ship, notify; undo all of it if anything goes wrong."""
    saga = durable.saga()
    try:
        saga.compensate(release, order)
        await reserve(order)
        payment = await payment_confirmed.receive(timeout=order.payment_deadline)
        check_amount(order, payment)
        saga.compensate(refund, order)
        receipt = await charge(order)
        saga.compensate(recall, order)
        shipment = await ship(order)
        await asyncio.gather(
            notify(order, "customer", f"Your order is on its way: {shipment.tracking}"),
            notify(order, "warehouse", f"{order.id} has left for {order.customer}"),
        )
    except BaseException:
        await saga.unwind()
        raise
    return Invoice(
        order_id=order.id,
        charge_id=receipt.charge_id,
        amount_cents=receipt.amount_cents,
        tracking=shipment.tracking,
    )


def check_amount(order: Order, payment: Payment) -> None:
    if payment.amount != order.total_cents:
        raise WrongAmount(
            f"{order.id} costs {order.total_cents} cents, the customer pays {payment.amount}"
        )
