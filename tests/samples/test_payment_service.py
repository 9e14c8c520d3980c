"""The service misbehaves as announced, and its ledger does not forget."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from samples.checkout.payment_service import DECLINED_CARD, FAULTS, PaymentService, faults_of


def order_with(faults: tuple[str, ...]) -> str:
    return next(f"order-{number}" for number in count() if faults_of(f"order-{number}") == faults)


@contextmanager
def serving(folder: Path) -> Iterator[PaymentService]:
    with PaymentService(folder / "payments.sqlite", stall_s=60.0) as service:
        yield service


def post(
    service: PaymentService, path: str, key: str, timeout_s: float = 5.0, **body: Any
) -> tuple[int, dict[str, Any]]:
    connection = HTTPConnection(urlsplit(service.url).netloc, timeout=timeout_s)
    try:
        connection.request("POST", path, json.dumps(body), {"Idempotency-Key": key})
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read())
    finally:
        connection.close()


def charge(
    service: PaymentService, order_id: str, key: str = "k", timeout_s: float = 5.0
) -> tuple[int, dict[str, Any]]:
    return post(
        service, "/charges", key, timeout_s, order_id=order_id, card="4242", amount_cents=500
    )


def test_every_kind_of_fault_happens_to_some_order_of_the_file() -> None:
    from samples.checkout import cases

    seen = {faults_of(case.order.id) for case in cases.load().orders}
    assert seen == set(FAULTS)


def test_one_key_is_charged_once_and_another_key_again(tmp_path: Path) -> None:
    order_id = order_with(())
    with serving(tmp_path) as service:
        first = charge(service, order_id)
        assert (
            first
            == charge(service, order_id)
            == (200, {"charge_id": "ch-000001", "amount_cents": 500})
        )
        assert charge(service, order_id, key="another") == (
            200,
            {"charge_id": "ch-000002", "amount_cents": 500},
        )
        assert len(service.ledger.charges()) == 2


def test_a_dropped_connection_says_nothing_about_the_money(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        with pytest.raises((HTTPException, OSError)):
            charge(service, order_with(("dropped before",)), key="before")
        with pytest.raises((HTTPException, OSError)):
            charge(service, order_with(("dropped after",)), key="after")
        assert [row["idempotency_key"] for row in service.ledger.charges()] == ["after"]
        assert charge(service, order_with(("dropped after",)), key="after")[0] == 200
        assert len(service.ledger.charges()) == 1


def test_a_late_answer_has_charged_and_a_503_has_not(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        with pytest.raises(TimeoutError):
            charge(service, order_with(("too late",)), key="late", timeout_s=0.2)
        assert charge(service, order_with(("503",)), key="503")[0] == 503
        assert [row["idempotency_key"] for row in service.ledger.charges()] == ["late"]
        assert service.faults == {"too late": 1, "503": 1}


def test_a_refund_gives_back_once_and_refuses_what_comes_later(tmp_path: Path) -> None:
    charged, never = order_with(()), "order-unknown"
    with serving(tmp_path) as service:
        charge(service, charged)
        for key in ("r1", "r1", "r2"):
            assert post(service, "/refunds", key, order_id=charged) == (
                200,
                {"refunded_cents": 500},
            )
        assert charge(service, charged, key="later")[0] == 409
        assert service.ledger.refund(never) == (200, {"refunded_cents": 0})
        assert service.ledger.charge("k2", never, "4242", 1)[0] == 409
        assert [row["state"] for row in service.ledger.charges()] == ["refunded"]


def test_a_declined_card_is_not_charged(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        assert service.ledger.charge("k", "order-1", DECLINED_CARD, 500)[0] == 402
        assert service.ledger.charges() == []


def test_the_ledger_outlives_the_service(tmp_path: Path) -> None:
    order_id = order_with(())
    with serving(tmp_path) as service:
        first = charge(service, order_id)
    with serving(tmp_path) as service:
        assert charge(service, order_id) == first
        assert len(service.ledger.charges()) == 1
