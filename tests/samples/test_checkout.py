"""The checkout in its three styles, against a real shop, a real payment service and a worker: every path ends with the books in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from itertools import count
from typing import Any

import psycopg
import pytest

from durable import Client, Workflow, WorkflowCancelled, WorkflowFailed
from samples import checkout as sample
from samples.checkout import Line, Order, Payment, ledger, payment_confirmed
from samples.checkout.model import CardDeclined, OutOfStock, WrongAmount
from samples.checkout.payment_service import DECLINED_CARD, FAULTS, PaymentService, faults_of
from tests.samples.conftest import Working
from tests.waiting import eventually

pytestmark = pytest.mark.usefixtures("shop_url")

Sql = psycopg.Connection[tuple[Any, ...]]
Checkout = Workflow[[Order], sample.Invoice]
MODULES = [
    f"samples.checkout.{name}" for name in ("workflow", "blocking", "yielding", "activities")
]
TOTAL_CENTS = 2 * 1_175 + 640
STYLES = [sample.checkout, sample.checkout_blocking, sample.checkout_yielding]

every_style = pytest.mark.parametrize("checkout", STYLES, ids=lambda workflow: workflow.name)


def order(order_id: str, *, cups: int = 2, card: str = "4242-4242-4242-4242") -> Order:
    lines = (Line(sku="cup-01", quantity=cups), Line(sku="tin-01", quantity=1))
    return Order(id=order_id, customer="さくら", card=card, lines=lines, total_cents=TOTAL_CENTS)


def order_id_with(faults: tuple[str, ...]) -> str:
    return next(f"o-{number}" for number in count() if faults_of(f"o-{number}") == faults)


def pay(client: Client, order_id: str, cents: int = TOTAL_CENTS) -> None:
    client.handle(order_id).signal(payment_confirmed, Payment(amount=cents))


def assert_books(client: Client, *orders: Order) -> None:
    ends = {order.id: client.handle(order.id).describe().status for order in orders}
    assert ledger.violations(orders, ends) == []


def waits_for_payment(client: Client, order_id: str) -> Callable[[], bool]:
    return lambda: "payment_confirmed" in str(client.handle(order_id).describe().waiting_on)


@every_style
def test_paid_orders_complete_whatever_the_payment_service_does(
    checkout: Checkout, client: Client, working: Working, payment_service: PaymentService
) -> None:
    """One order for each thing that the service does to a charge."""
    orders = [order(order_id_with(faults)) for faults in sorted(set(FAULTS))]
    with working(*MODULES):
        for mine in orders:
            client.start(checkout, mine, id=mine.id)
            pay(client, mine.id)
        invoices = [client.handle(mine.id, checkout).result(timeout=60) for mine in orders]
    assert [(invoice.order_id, invoice.amount_cents) for invoice in invoices] == [
        (mine.id, TOTAL_CENTS) for mine in orders
    ]
    charged = {row["charge_id"] for row in payment_service.ledger.charges()}
    assert charged == {invoice.charge_id for invoice in invoices}
    assert_books(client, *orders)


@every_style
def test_an_order_that_nobody_pays_is_released_after_three_days(
    checkout: Checkout, client: Client, working: Working, sql: Sql
) -> None:
    mine = order("unpaid")
    with working(*MODULES):
        handle = client.start(checkout, mine, id=mine.id)
        eventually(waits_for_payment(client, mine.id))
        sql.execute(
            "select durable.advance_clock(%s)", (mine.payment_deadline + timedelta(seconds=1),)
        )
        with pytest.raises(WorkflowFailed) as failed:
            handle.result(timeout=60)
    assert isinstance(failed.value.cause, TimeoutError)
    assert_books(client, mine)


@every_style
@pytest.mark.parametrize(
    ("mine", "cents", "cause"),
    [
        (order("wrong"), TOTAL_CENTS - 1, WrongAmount),
        (order("declined", card=DECLINED_CARD), TOTAL_CENTS, CardDeclined),
        (order("too-much", cups=100_000), TOTAL_CENTS, OutOfStock),
    ],
    ids=lambda value: value.id if isinstance(value, Order) else "",
)
def test_what_cannot_be_sold_is_undone(
    checkout: Checkout,
    mine: Order,
    cents: int,
    cause: type[Exception],
    client: Client,
    working: Working,
) -> None:
    handle = client.start(checkout, mine, id=mine.id)
    pay(client, mine.id, cents)  # before any worker has seen the order: the signal waits for it
    with working(*MODULES), pytest.raises(WorkflowFailed) as failed:
        handle.result(timeout=60)
    causes = [failed.value.cause, failed.value.cause and failed.value.cause.__cause__]
    assert any(isinstance(found, cause) for found in causes), causes
    assert_books(client, mine)


def test_an_order_cancelled_before_any_worker_saw_it_has_touched_nothing(
    client: Client, sql: Sql
) -> None:
    mine = order("early")
    handle = client.start(sample.checkout, mine, id=mine.id)
    handle.cancel("changed my mind")
    with pytest.raises(WorkflowCancelled):
        handle.result(timeout=30)
    assert sql.execute("select count(*) from shop.reservations").fetchone() == (0,)
    assert_books(client, mine)


# -- cancelled while something is under way ---------------------------------------------------------------------------


@contextmanager
def held_up(database_url: str, table: str) -> Iterator[Callable[[], bool]]:
    """Nobody can write to the table until the block ends; yields a question: is somebody trying to?"""
    with (
        psycopg.connect(database_url) as holder,
        psycopg.connect(database_url, autocommit=True) as asker,
    ):
        holder.execute(f"lock table shop.{table} in exclusive mode".encode())
        queued = f"select exists (select from pg_locks where relation = 'shop.{table}'::regclass and not granted)"

        def somebody_waits() -> bool:
            row = asker.execute(queued.encode()).fetchone()
            return bool(row and row[0])

        yield somebody_waits


@every_style
@pytest.mark.parametrize("table", ["reservations", "payments", "shipments", "notifications"])
def test_a_cancel_during_a_step_undoes_it_even_if_the_step_happens_afterwards(
    checkout: Checkout, table: str, client: Client, working: Working, database_url: str
) -> None:
    """reserve, charge (the money has moved already), ship and notify, each held up in the middle of its work."""
    mine = order(f"cancel-{table}")
    with working(*MODULES):
        with held_up(database_url, table) as step_waits:
            handle = client.start(checkout, mine, id=mine.id)
            pay(client, mine.id)
            eventually(step_waits)
            cancel(client, mine.id)
        with pytest.raises(WorkflowCancelled):
            handle.result(timeout=60)
    assert_books(client, mine)


@every_style
def test_a_cancel_while_waiting_for_the_payment_releases_the_stock(
    checkout: Checkout, client: Client, working: Working
) -> None:
    mine = order("cancel-waiting")
    with working(*MODULES):
        handle = client.start(checkout, mine, id=mine.id)
        eventually(waits_for_payment(client, mine.id))
        handle.cancel("the customer has changed their mind")
        with pytest.raises(WorkflowCancelled):
            handle.result(timeout=60)
    assert_books(client, mine)


@every_style
@pytest.mark.parametrize(
    ("table", "card", "cents"),
    [
        (
            "reservations",
            "4242-4242-4242-4242",
            TOTAL_CENTS - 1,
        ),  # a wrong sum is undone by release,
        ("payments", DECLINED_CARD, TOTAL_CENTS),  # a declined card by refund and release
        ("reservations", DECLINED_CARD, TOTAL_CENTS),
    ],
    ids=["release", "refund", "release after refund"],
)
def test_a_cancel_during_the_undoing_does_not_interrupt_it(
    checkout: Checkout,
    table: str,
    card: str,
    cents: int,
    client: Client,
    working: Working,
    database_url: str,
) -> None:
    mine = order("undone", card=card)
    with working(*MODULES):
        handle = client.start(checkout, mine, id=mine.id)
        eventually(waits_for_payment(client, mine.id))
        with held_up(database_url, table) as undoing_waits:
            pay(client, mine.id, cents)
            eventually(undoing_waits)
            cancel(client, mine.id)
        with pytest.raises((WorkflowFailed, WorkflowCancelled)):
            handle.result(timeout=60)
    assert_books(client, mine)


@every_style
def test_a_cancel_during_the_recall_does_not_interrupt_it(
    checkout: Checkout, client: Client, working: Working, database_url: str, sql: Sql
) -> None:
    """Nobody can be notified, so the parcel is called back; that is held up, and cancelled there."""
    mine = order("recalled")
    sql.execute("alter table shop.notifications add check (false)")
    with working(*MODULES), ExitStack() as stack:
        with held_up(database_url, "notifications") as notify_waits:
            handle = client.start(checkout, mine, id=mine.id)
            pay(client, mine.id)
            eventually(notify_waits)
            recall_waits = stack.enter_context(held_up(database_url, "shipments"))
        eventually(recall_waits)
        cancel(client, mine.id)
        stack.close()
        with pytest.raises((WorkflowFailed, WorkflowCancelled)):
            handle.result(timeout=60)
    assert sql.execute("select state from shop.shipments").fetchall() == [("recalled",)]
    assert_books(client, mine)


def cancel(client: Client, workflow_id: str) -> None:
    """Cancel, and wait until the run knows."""
    client.handle(workflow_id).cancel("the customer has changed their mind")
    eventually(lambda: "CancelRequested" in types(client, workflow_id))


def types(client: Client, workflow_id: str) -> list[str]:
    return [event.type for event in client.handle(workflow_id).history()]
