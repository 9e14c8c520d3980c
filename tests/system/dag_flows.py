"""Activities that DAGs are made of, for the system tests and the tests of validation."""

from __future__ import annotations

from pydantic import BaseModel

from durable import NonRetryable, activity


class Customer(BaseModel):
    id: int
    orders: list[int]


@activity(name="dag.fetch")
def fetch(id: int) -> Customer:
    return Customer(id=id, orders=[10, 20, 30])


@activity(name="dag.double")
def double(amount: int) -> int:
    return 2 * amount


@activity(name="dag.total")
def total(amounts: list[int]) -> int:
    return sum(amounts)


@activity(name="dag.decline")
def decline(amount: int) -> int:
    raise NonRetryable(f"{amount} is too much")


@activity(name="dag.note")
async def note(text: str) -> str:
    return text
