"""orders.json, read: what is on the shelves, what is ordered, and what each customer does about it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from .model import Order

FILE = Path(__file__).parent / "orders.json"


class Case(BaseModel):
    """`may_end` holds the legal ends of the order's run; there are two where a race decides."""

    order: Order
    habit: str
    pays_cents: int | None
    may_end: tuple[Literal["completed", "failed", "cancelled"], ...]

    @property
    def cancels(self) -> bool:
        return self.habit.startswith("cancels")


class Input(BaseModel):
    items: list[dict[str, Any]]
    orders: list[Case]


def load(limit: int | None = None, payment_deadline: timedelta | None = None) -> Input:
    """The first `limit` orders; those who never pay are waited for no longer than `payment_deadline`."""
    given = Input.model_validate_json(FILE.read_bytes())
    given.orders = given.orders[:limit]
    for case in given.orders:
        if payment_deadline is not None and case.habit == "never pays":
            case.order.payment_deadline = payment_deadline
    return given
