"""Activities that DAGs are made of, for the system tests and the tests of validation."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from pydantic import BaseModel

from durable import NonRetryable, RetryPolicy, Signal, activity, activity_info, workflow
from durable.dag import Dag, result


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


@activity(name="dag.hangs")
async def hangs() -> None:
    await asyncio.Event().wait()


@workflow(name="dag.parent")
async def parent() -> Any:
    dag = Dag("inner").add("a", note, {"text": "x"}).add("b", note, {"text": result("a")})
    return (await dag())["b"]


gate: dict[str, str] = {}
"""What `gated` does, by key: fails with that text; without an entry it completes. For workers in the test's own process."""
seen_keys: dict[str, list[str]] = {}


@activity(name="dag.gated", retry=RetryPolicy(max_attempts=1))
async def gated(key: str) -> str:
    seen_keys.setdefault(key, []).append(activity_info().idempotency_key)
    if key in gate:
        raise NonRetryable(gate[key])
    return f"done {key}"


approved: Signal[dict[str, Any]] = Signal("dag.approved", dict[str, Any])


@activity(name="dag.hangs_on")
async def hangs_on(number: int) -> int:
    await asyncio.Event().wait()
    return number


HOURLY = RetryPolicy(
    max_attempts=10,
    initial_interval=timedelta(hours=1),
    max_interval=timedelta(hours=1),
    jitter="none",
)


@activity(name="dag.unsteady", retry=HOURLY)
async def unsteady(key: str) -> str:
    """What `gate` says of the key goes by: the activity is tried again."""
    if key in gate:
        raise ValueError(gate[key])
    return f"done {key}"


@activity(name="dag.take_back")
def take_back(arguments: dict[str, Any]) -> None:
    """Undoes or compensates any step."""
