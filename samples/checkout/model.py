"""What the checkout speaks about. Money is integer cents everywhere."""

from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel, Field

from durable import NonRetryable, Signal


class Line(BaseModel):
    sku: str
    quantity: int = Field(gt=0)


class Order(BaseModel):
    """`payment_deadline` is how long the goods are kept for a customer who has not paid."""

    id: str
    customer: str
    card: str
    lines: tuple[Line, ...] = Field(min_length=1)
    total_cents: int = Field(ge=0)
    payment_deadline: timedelta = timedelta(days=3)


class Payment(BaseModel):
    """What the customer's bank says: `amount`, in cents, is on its way."""

    amount: int


class Reservation(BaseModel):
    order_id: str
    pieces: int


class Receipt(BaseModel):
    charge_id: str
    amount_cents: int


class Shipment(BaseModel):
    tracking: str


class Invoice(BaseModel):
    order_id: str
    charge_id: str
    amount_cents: int
    tracking: str


payment_confirmed = Signal("payment_confirmed", Payment)


class OutOfStock(NonRetryable):
    """Fewer pieces are left than were ordered. Nobody's fault; asking again at once does not help."""


class CardDeclined(NonRetryable):
    """The bank says no."""


class OrderClosed(NonRetryable):
    """The step comes too late: it has been undone already, so it must not happen any more."""


class WrongAmount(Exception):
    """The customer paid another sum than the order's."""
