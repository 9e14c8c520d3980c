"""An expense waits for a decision, and goes up the ladder when nobody decides: `durable-worker samples.approval`.

durable start file_expense '{"expense": {"employee": "Ada", "what": "punched cards", "cents": 4200}}' --id expense-1
durable signal expense-1 decision '{"by": "team lead", "approved": true}'
"""

from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel

from durable import Signal, activity, workflow

LADDER = (("team lead", timedelta(days=2)), ("department head", timedelta(days=5)))
"""Who is asked, and how long we wait before the next one is."""


class Expense(BaseModel):
    employee: str
    what: str
    cents: int


class Decision(BaseModel):
    by: str
    approved: bool
    reason: str = ""


decision = Signal("decision", Decision)


@activity
async def ask(approver: str, expense: Expense) -> None:
    """Where a real one sends a message with two buttons, each of which sends the signal."""


@activity
async def pay_out(expense: Expense) -> str:
    return f"{expense.cents} cents to {expense.employee}"


@workflow
async def file_expense(expense: Expense) -> Decision:
    """Ask one approver after the other; nobody's answer is a no."""
    answer = await first_decision(expense)
    if answer.approved:
        await pay_out(expense)
    return answer


async def first_decision(expense: Expense) -> Decision:
    for approver, patience in LADDER:
        await ask(approver, expense)
        try:
            return await decision.receive(timeout=patience)
        except TimeoutError:
            continue
    return Decision(by="nobody", approved=False, reason="nobody has decided in time")
