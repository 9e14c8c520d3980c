"""The client of the payment service. Every request carries the activity's idempotency key, the same for all attempts."""

from __future__ import annotations

import json
import os
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import durable

from .model import CardDeclined, Order, OrderClosed, Receipt


class ServiceFailed(Exception):
    """The payment service answered with something that another attempt may cure."""


def charge(order: Order) -> Receipt:
    body = {"order_id": order.id, "card": order.card, "amount_cents": order.total_cents}
    return Receipt.model_validate(_post("/charges", body))


def refund(order: Order) -> int:
    """Give back whatever was charged for the order, and have it refuse later charges. The amount, in cents."""
    return int(_post("/refunds", {"order_id": order.id})["refunded_cents"])


def ledger() -> dict[str, Any]:
    """The service's own books."""
    status, answer = _request("GET", "/ledger", None, {})
    if status != 200:
        raise ServiceFailed(f"the ledger answers {status}")
    return answer


def _post(path: str, body: dict[str, Any]) -> dict[str, Any]:
    key = durable.activity_info().idempotency_key
    status, answer = _request("POST", path, json.dumps(body), {"Idempotency-Key": key})
    if status == 402:
        raise CardDeclined(answer["error"])
    if status == 409:
        raise OrderClosed(answer["error"])
    if status != 200:
        raise ServiceFailed(f"the payment service answers {status}: {answer.get('error')}")
    return answer


def _request(
    method: str, path: str, body: str | None, headers: dict[str, str]
) -> tuple[int, dict[str, Any]]:
    """Raises OSError or HTTPException when the service drops the connection or stalls longer than the timeout."""
    timeout_s = float(os.environ.get("SHOP_PAYMENT_TIMEOUT_S", "10"))
    connection = HTTPConnection(urlsplit(_service_url()).netloc, timeout=timeout_s)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json", **headers})
        reply = connection.getresponse()
        answer: dict[str, Any] = json.loads(reply.read())
        return reply.status, answer
    finally:
        connection.close()


def _service_url() -> str:
    url = os.environ.get("SHOP_PAYMENT_URL")
    if not url:
        raise LookupError(
            "set SHOP_PAYMENT_URL; python -m samples.checkout.payment_service --ledger FILE prints one"
        )
    return url
