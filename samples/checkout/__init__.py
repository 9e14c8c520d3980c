"""A checkout that survives whatever happens to its workers.

    durable-worker samples.checkout.workflow samples.checkout.activities --queue default=20 --queue payments=8

model.py says what it speaks about, workflow.py is the checkout (blocking.py and yielding.py: the same in the other two styles),
activities.py its steps. shop.py and schema.sql are the shop's tables, payment_service.py is somebody else's service and payments.py its client;
ledger.py checks that everything adds up. orders.json, written by generate_orders.py, is what demo.py runs with the processes of
crew.py, and report.py tells what came out.
"""

from __future__ import annotations

from .activities import charge, notify, recall, refund, release, reserve, ship
from .blocking import checkout_blocking
from .model import Invoice, Line, Order, Payment, payment_confirmed
from .workflow import checkout
from .yielding import checkout_yielding

__all__ = [
    "Invoice",
    "Line",
    "Order",
    "Payment",
    "charge",
    "checkout",
    "checkout_blocking",
    "checkout_yielding",
    "notify",
    "payment_confirmed",
    "recall",
    "refund",
    "release",
    "reserve",
    "ship",
]
