"""The steps of the checkout and what undoes them, shared by the three workflows.

Each step is idempotent (`shop.once`), and each step and its undoing exclude each other whatever their order: a step that was
cancelled may still be running somewhere, so undoing leaves a mark even where there is nothing to undo yet.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import psycopg

from durable import RetryPolicy, activity, activity_info

from . import payments
from .model import Order, OrderClosed, OutOfStock, Receipt, Reservation, Shipment
from .shop import Connection, once, transaction

QUICK = RetryPolicy(
    max_attempts=10,
    initial_interval=timedelta(milliseconds=100),
    max_interval=timedelta(seconds=5),
    non_retryable=(psycopg.IntegrityError,),  # the tables refuse it; they will refuse it again
)
UNTIL_DONE = RetryPolicy(
    max_attempts=0, initial_interval=timedelta(milliseconds=100), max_interval=timedelta(seconds=30)
)
HALF_A_MINUTE = timedelta(seconds=30)


@activity(retry=QUICK, timeout=HALF_A_MINUTE)
def reserve(order: Order) -> Reservation:
    """Take the order's pieces off the shelves, all or none."""
    return once(order.id, Reservation, lambda shop: _take(shop, order))


@activity(retry=UNTIL_DONE, timeout=HALF_A_MINUTE)
def release(order: Order) -> Reservation:
    """Put them back."""
    return once(order.id, Reservation, lambda shop: _put_back(shop, order))


@activity(retry=QUICK, timeout=HALF_A_MINUTE, queue="payments")
def charge(order: Order) -> Receipt:
    """Charge the card. The service is asked first, outside our transaction: it has a ledger of its own."""
    receipt = payments.charge(order)
    return once(order.id, Receipt, lambda shop: _record_payment(shop, order, receipt))


@activity(retry=UNTIL_DONE, timeout=HALF_A_MINUTE, queue="payments")
def refund(order: Order) -> Receipt:
    """Give the money back, and have a charge that is still on its way refused."""
    cents = payments.refund(order)
    return once(order.id, Receipt, lambda shop: _record_refund(shop, order, cents))


@activity(retry=QUICK, timeout=HALF_A_MINUTE)
def ship(order: Order) -> Shipment:
    return once(order.id, Shipment, lambda shop: _send(shop, order))


@activity(retry=UNTIL_DONE, timeout=HALF_A_MINUTE)
def recall(order: Order) -> Shipment:
    """Stop the parcel, or one that is about to be sent."""
    return once(order.id, Shipment, lambda shop: _call_back(shop, order))


@activity(retry=QUICK, timeout=HALF_A_MINUTE)
def notify(order: Order, recipient: str, message: str) -> None:
    """Tell somebody; once each, by the table's key."""
    with transaction() as shop:
        shop.execute(
            "insert into shop.notifications values (%s, %s, %s) on conflict do nothing",
            (order.id, recipient, message),
        )


def _take(shop: Connection, order: Order) -> Reservation:
    made = shop.execute(
        "insert into shop.reservations values (%s, 'taken') on conflict do nothing", (order.id,)
    )
    if not made.rowcount:
        raise OrderClosed(f"{order.id} has been released before it was reserved")
    wanted: Counter[str] = Counter()
    for line in order.lines:
        wanted[line.sku] += line.quantity
    for sku, quantity in sorted(wanted.items()):  # one order for everybody, or two orders deadlock
        _take_item(shop, order.id, sku, quantity)
    return Reservation(order_id=order.id, pieces=wanted.total())


def _take_item(shop: Connection, order_id: str, sku: str, quantity: int) -> None:
    taken = shop.execute(
        "update shop.items set on_hand = on_hand - %s where sku = %s and on_hand >= %s",
        (quantity, sku, quantity),
    )
    if not taken.rowcount:
        raise OutOfStock(f"{order_id} wants {quantity} of {sku}, and fewer are left")
    shop.execute(
        "insert into shop.reservation_lines values (%s, %s, %s)", (order_id, sku, quantity)
    )


def _put_back(shop: Connection, order: Order) -> Reservation:
    nothing = shop.execute(
        "insert into shop.reservations values (%s, 'returned') on conflict do nothing", (order.id,)
    )
    if nothing.rowcount:
        return Reservation(order_id=order.id, pieces=0)
    back = shop.execute(
        """
        with mine as (
            update shop.reservations set state = 'returned' where order_id = %s and state = 'taken' returning order_id
        ), back as (
            select sku, quantity from mine join shop.reservation_lines using (order_id)
        ), shelved as (
            update shop.items i set on_hand = i.on_hand + b.quantity from back b where i.sku = b.sku
        )
        select coalesce(sum(quantity), 0) from back
        """,
        (order.id,),
    ).fetchone()
    assert back is not None
    return Reservation(order_id=order.id, pieces=back[0])


def _record_payment(shop: Connection, order: Order, receipt: Receipt) -> Receipt:
    made = shop.execute(
        "insert into shop.payments values (%s, 'captured', %s, %s) on conflict do nothing",
        (order.id, receipt.charge_id, receipt.amount_cents),
    )
    if not made.rowcount:
        raise OrderClosed(f"{order.id} has been refunded before its charge came through")
    return receipt


def _record_refund(shop: Connection, order: Order, cents: int) -> Receipt:
    shop.execute(
        """
        insert into shop.payments values (%s, 'refunded', null, %s)
        on conflict (order_id) do update set state = 'refunded'
        """,
        (order.id, cents),
    )
    return Receipt(charge_id="", amount_cents=cents)


def _send(shop: Connection, order: Order) -> Shipment:
    tracking = "parcel-" + activity_info().idempotency_key.replace("/", "-")[-12:]
    made = shop.execute(
        "insert into shop.shipments values (%s, 'sent', %s) on conflict do nothing",
        (order.id, tracking),
    )
    if not made.rowcount:
        raise OrderClosed(f"{order.id} has been recalled before it was sent")
    return Shipment(tracking=tracking)


def _call_back(shop: Connection, order: Order) -> Shipment:
    shop.execute(
        """
        insert into shop.shipments values (%s, 'recalled', '')
        on conflict (order_id) do update set state = 'recalled'
        """,
        (order.id,),
    )
    return Shipment(tracking="")
