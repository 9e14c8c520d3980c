"""NOTIFY is a hint: with none sent and none heard everything still works, by polling (C4)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from durable.client_sync import Client
from durable.errors import WorkflowCancelled
from samples.checkout import Line, Order, Payment, cases, checkout, ledger, payment_confirmed, shop
from samples.checkout.payment_service import PaymentService
from tests.system import flows
from tests.system.conftest import Working
from tests.system.invariants import assert_sound
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]
SILENT: dict[str, Any] = {"notify": False, "poll_s": 0.03}


@pytest.fixture
def silent_client(system_url: str) -> Iterator[Client]:
    """And a witness that nobody sends anything."""
    with psycopg.connect(system_url, autocommit=True) as witness, Client(system_url, notify=False) as client:
        witness.execute("listen durable")
        yield client
        assert list(witness.notifies(timeout=0)) == []


def test_runs_signals_sleeps_and_cancels_need_no_notify(working: Working, silent_client: Client, sql: Sql) -> None:
    """C4: two workers, one for workflows and one for activities, so that everything goes through the database."""
    client = silent_client
    with working(**SILENT, run_activities=False), working(**SILENT, run_workflows=False):
        handles = [client.start(flows.interleaving, n, id=f"i-{n}") for n in range(30)]
        asleep = client.start(flows.sleeps, 3600.0, id="asleep")
        for handle in handles:
            handle.signal(flows.go, 1)
        for handle in handles:
            handle.result(timeout=30)
        eventually(lambda: "sleep" in str(asleep.describe().waiting_on))
        asleep.cancel("enough")
        with pytest.raises(WorkflowCancelled):
            asleep.result(timeout=30)
    assert_sound(sql)


def test_the_checkout_needs_no_notify(
    working: Working, system_url: str, silent_client: Client, sql: Sql, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C4: paid, unpaid and cancelled orders; the ledger adds up."""
    client = silent_client
    monkeypatch.setenv("SHOP_DATABASE_URL", system_url)
    shop.create(system_url, cases.load().items)
    modules = ("samples.checkout.workflow", "samples.checkout.activities")
    with PaymentService(tmp_path / "payments.sqlite", stall_s=0.5) as service:
        monkeypatch.setenv("SHOP_PAYMENT_URL", service.url)
        monkeypatch.setenv("SHOP_PAYMENT_TIMEOUT_S", "0.3")
        orders = [order(f"o-{n}", unpaid=n % 3 == 2) for n in range(9)]
        with working(*modules, **SILENT, queues={"default": 10, "payments": 5}):
            handles = [client.start(checkout, it, id=it.id) for it in orders]
            for number, handle in enumerate(handles):
                if number % 3 == 0:
                    handle.signal(payment_confirmed, Payment(amount=1_175))
                elif number % 3 == 1:
                    handle.cancel("changed my mind")
            ends = {handle.workflow_id: handle.outcome(60).status for handle in handles}
        assert ledger.violations(orders, ends) == []
        shop.close_idle_connections()
    assert list(ends.values()) == ["completed", "cancelled", "failed"] * 3
    assert_sound(sql)


def order(order_id: str, *, unpaid: bool) -> Order:
    return Order(
        id=order_id,
        customer="Ada",
        card="4242-4242-4242-4242",
        lines=(Line(sku="cup-01", quantity=1),),
        total_cents=1_175,
        payment_deadline=timedelta(milliseconds=200) if unpaid else timedelta(days=3),
    )
