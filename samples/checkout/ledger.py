"""Does it all add up? Read from the shop's tables and the payment service's own books, after every run has ended.

Each check is a query for what must not exist; what it finds is a violation in words. Nothing here trusts the workflow's own word
except for one thing: how the run of each order ended, which says what its rows must look like.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from . import payments
from .model import Order
from .shop import Connection, transaction

ROWS = """
select o.id, r.state, p.state, p.amount_cents, s.state,
       (select count(*) from shop.notifications n where n.order_id = o.id)
  from unnest(%s::text[]) as o(id)
  left join shop.reservations r on r.order_id = o.id
  left join shop.payments p on p.order_id = o.id
  left join shop.shipments s on s.order_id = o.id
"""
STOCK = """
select i.sku, i.stock, i.on_hand, coalesce(sum(l.quantity) filter (where r.state = 'taken'), 0)
  from shop.items i left join shop.reservation_lines l on l.sku = i.sku left join shop.reservations r on r.order_id = l.order_id
 group by i.sku order by i.sku
"""
UNDONE = {
    "reservation": (None, "returned"),
    "payment": (None, "refunded"),
    "shipment": (None, "recalled"),
}
DONE = {"reservation": ("taken",), "payment": ("captured",), "shipment": ("sent",)}


def violations(orders: Sequence[Order], ends: Mapping[str, str]) -> list[str]:
    """Everything that is wrong, empty when all is well. `ends`: how each order's run ended, by order id."""
    charges = payments.ledger()["charges"]
    with transaction() as shop:
        return [
            *unfinished_orders(orders, ends),
            *order_violations(shop, orders, ends, charges),
            *stock_violations(shop),
            *stray_charges(orders, charges),
        ]


def unfinished_orders(orders: Sequence[Order], ends: Mapping[str, str]) -> Iterator[str]:
    for order in orders:
        if ends.get(order.id) not in ("completed", "failed", "cancelled"):
            yield f"{order.id}: the run has not ended: {ends.get(order.id, 'there is none')}"


def order_violations(
    shop: Connection,
    orders: Sequence[Order],
    ends: Mapping[str, str],
    charges: Sequence[Mapping[str, Any]],
) -> Iterator[str]:
    """Every step of a completed order done, every step of any other undone."""
    totals = {order.id: order.total_cents for order in orders}
    for order_id, reservation, payment, amount, shipment, notified in shop.execute(
        ROWS, (list(totals),)
    ):
        completed = ends.get(order_id) == "completed"
        legal = DONE if completed else UNDONE
        states = {"reservation": reservation, "payment": payment, "shipment": shipment}
        for step, state in states.items():
            if state not in legal[step]:
                yield f"{order_id}: the run is {ends.get(order_id)}, but the {step} is {state or 'missing'}"
        if completed and notified != 2:
            yield f"{order_id}: {notified} of 2 were notified"
        yield from _money_violations(
            order_id, totals[order_id] if completed else 0, payment, amount, charges
        )


def _money_violations(
    order_id: str,
    due: int,
    payment: str | None,
    amount: int | None,
    charges: Sequence[Mapping[str, Any]],
) -> Iterator[str]:
    own = [charge for charge in charges if charge["order_id"] == order_id]
    if len(own) > 1:
        yield f"{order_id}: charged {len(own)} times: {', '.join(charge['charge_id'] for charge in own)}"
    kept = sum(charge["amount_cents"] for charge in own if charge["state"] == "captured")
    booked = amount or 0 if payment == "captured" else 0
    if not kept == booked == due:
        yield f"{order_id}: {due} cents are due, the service kept {kept}, the shop has booked {booked}"
    if payment == "refunded" and amount != sum(charge["amount_cents"] for charge in own):
        yield f"{order_id}: the shop has booked a refund of {amount} cents, the service charged something else"


def stock_violations(shop: Connection) -> Iterator[str]:
    """What is on the shelves and what was sold is what there was."""
    for sku, stock, on_hand, taken in shop.execute(STOCK):
        if stock != on_hand + taken:
            yield f"{sku}: there were {stock}, now {on_hand} are on hand and {taken} are taken"


def stray_charges(orders: Sequence[Order], charges: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    known = {order.id for order in orders}
    for order_id, count in Counter(charge["order_id"] for charge in charges).items():
        if order_id not in known:
            yield f"{order_id}: charged {count} times, and nobody has ordered it"
