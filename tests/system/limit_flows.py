"""Flows with limits on their life, attributes and details."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import durable
from durable import Attribute, ChildWorkflowError, Signal, WorkflowTimedOut, workflow
from tests.system.flows import gated, step

go_on = Signal("limits_go_on", str)

customer = Attribute("limits_customer", str)
amount = Attribute("limits_amount", int)
due = Attribute("limits_due", datetime)
tags = Attribute("limits_tags", list[str])


@workflow(run_timeout=timedelta(hours=1))
async def waits_an_hour_at_most() -> str:
    try:
        return await go_on.receive()
    finally:
        await step("compensated")


@workflow(run_timeout=timedelta(hours=1))
async def works_an_hour_at_most(gate: int) -> str:
    await gated("gate", gate)
    return "done"


@workflow(execution_timeout=timedelta(hours=5), run_timeout=timedelta(hours=2))
async def continues_for_ever(times: int = 0) -> str:
    await go_on.receive()
    durable.continue_as_new(times + 1)


@workflow
async def has_a_slow_child(seconds: float | None) -> list[Any]:
    limit = None if seconds is None else timedelta(seconds=seconds)
    child = waits_an_hour_at_most.options(id="slow", run_timeout=limit)
    try:
        await child()
    except ChildWorkflowError as error:
        cause = error.cause
        assert isinstance(cause, WorkflowTimedOut)
        assert isinstance(cause, TimeoutError)
        return [error.outcome, cause.kind, cause.workflow_id, str(cause)]
    return []


@workflow
async def leaves_a_child_behind() -> None:
    waits_an_hour_at_most.options(id="left", close_policy="terminate")()
    await durable.sleep(timedelta(days=1000))


@workflow
async def speaks_about_itself() -> dict[str, Any]:
    seen: list[Any] = [durable.attributes()]
    durable.set_details("waiting for the bank")
    durable.set_details("waiting for the bank")
    durable.set_attributes({customer: "acme", "limits_amount": 7, "free": True})
    amount.set(7)
    await go_on.receive()
    seen.append([customer.get(), amount.get(), due.get()])
    due.set(datetime(2027, 3, 1, 13, 0, tzinfo=UTC))
    customer.set(None)
    durable.set_details(None)
    await go_on.receive()
    seen.append([customer.get(), due.get() == datetime(2027, 3, 1, 13, tzinfo=UTC)])
    return {"seen": seen, "now": durable.attributes()}


@workflow
async def carries_attributes_on(times: int) -> dict[str, Any]:
    if times:
        amount.set(times)
        durable.set_details(f"{times} to go")
        durable.continue_as_new(times - 1)
    tags.set(["last"])
    return durable.attributes()
