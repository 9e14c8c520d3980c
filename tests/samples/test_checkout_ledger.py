"""The check of the books finds each thing that could be wrong: a check that cannot fail proves nothing."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from samples.checkout import Line, Order, ledger
from samples.checkout.payment_service import PaymentService

Sql = psycopg.Connection[tuple[Any, ...]]
SOLD = Order(
    id="sold",
    customer="Ada",
    card="4242",
    lines=(Line(sku="cup-01", quantity=2),),
    total_cents=2_350,
)
UNDONE = Order(
    id="undone",
    customer="Zoë",
    card="4242",
    lines=(Line(sku="tin-01", quantity=1),),
    total_cents=640,
)
ENDS = {"sold": "completed", "undone": "cancelled"}


@pytest.fixture
def books(shop_url: str, payment_service: PaymentService, sql: Sql) -> Sql:
    """One order sold and one undone, everything in order."""
    payment_service.ledger.charge("k1", "sold", "4242", 2_350)
    payment_service.ledger.charge("k2", "undone", "4242", 640)
    payment_service.ledger.refund("undone")
    for statement in (
        "insert into shop.reservations values ('sold', 'taken'), ('undone', 'returned')",
        "insert into shop.reservation_lines values ('sold', 'cup-01', 2), ('undone', 'tin-01', 1)",
        "update shop.items set on_hand = on_hand - 2 where sku = 'cup-01'",
        "insert into shop.payments values ('sold', 'captured', 'ch-000001', 2350), ('undone', 'refunded', 'ch-000002', 640)",
        "insert into shop.shipments values ('sold', 'sent', 'p'), ('undone', 'recalled', '')",
        "insert into shop.notifications values ('sold', 'customer', ''), ('sold', 'warehouse', '')",
    ):
        sql.execute(statement.encode())
    return sql


def found(ends: dict[str, str] | None = None) -> str:
    return "\n".join(ledger.violations([SOLD, UNDONE], ends or ENDS))


def test_books_in_order_have_no_violations(books: Sql) -> None:
    assert found() == ""


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        ("update shop.items set on_hand = on_hand - 1 where sku = 'pot-01'", "pot-01: there were"),
        (
            "update shop.reservations set state = 'taken' where order_id = 'undone'",
            "the reservation is taken",
        ),
        (
            "update shop.reservations set state = 'returned' where order_id = 'sold'",
            "the reservation is returned",
        ),
        ("delete from shop.payments where order_id = 'sold'", "the payment is missing"),
        (
            "update shop.payments set amount_cents = 1 where order_id = 'sold'",
            "the shop has booked 1",
        ),
        (
            "update shop.payments set amount_cents = 1 where order_id = 'undone'",
            "a refund of 1 cents",
        ),
        (
            "update shop.payments set state = 'captured' where order_id = 'undone'",
            "the payment is captured",
        ),
        (
            "update shop.shipments set state = 'sent' where order_id = 'undone'",
            "the shipment is sent",
        ),
        ("delete from shop.shipments where order_id = 'sold'", "the shipment is missing"),
        ("delete from shop.notifications where recipient = 'customer'", "1 of 2 were notified"),
    ],
)
def test_damage_to_the_shop_is_found(books: Sql, damage: str, expected: str) -> None:
    books.execute(damage.encode())
    assert expected in found()


def test_a_double_charge_is_found(books: Sql, payment_service: PaymentService) -> None:
    payment_service.ledger.charge("a new key", "sold", "4242", 2_350)
    assert "sold: charged 2 times: ch-000001, ch-000003" in found()


def test_a_charge_that_nobody_ordered_is_found(books: Sql, payment_service: PaymentService) -> None:
    payment_service.ledger.charge("k9", "stranger", "4242", 1)
    assert "stranger: charged 1 times" in found()


def test_an_order_without_an_end_is_found(books: Sql) -> None:
    assert "undone: the run has not ended: running" in found({**ENDS, "undone": "running"})
    assert "undone: the run has not ended: there is none" in found({"sold": "completed"})
