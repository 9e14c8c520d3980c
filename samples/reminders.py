"""Reminds somebody of something until it is done: `durable-worker samples.reminders`.

The run sleeps for days. Asleep it is a row with a date in the job queue; no process, thread or timer waits for it, and it
makes no difference to it whether the workers were restarted in between.
"""

from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel

import durable
from durable import Signal, activity, workflow


class Plan(BaseModel):
    """Remind `person` of `what`: first after `first_after`, then every `then_every`, at most `at_most` times."""

    person: str
    what: str
    first_after: timedelta = timedelta(days=3)
    then_every: timedelta = timedelta(days=7)
    at_most: int = 4


class Done(BaseModel):
    note: str = ""


class Outcome(BaseModel):
    reminders: int
    done: bool
    note: str = ""


done = Signal("done", Done)


@activity
async def send_reminder(person: str, what: str, number: int) -> str:
    """Where a real one sends a mail."""
    return f"{person}, reminder {number}: {what}"


@workflow
async def remind(plan: Plan) -> Outcome:
    await durable.sleep(plan.first_after)
    for number in range(1, plan.at_most + 1):
        await send_reminder(plan.person, plan.what, number)
        try:
            answer = await done.receive(timeout=plan.then_every)
        except TimeoutError:
            continue
        return Outcome(reminders=number, done=True, note=answer.note)
    return Outcome(reminders=plan.at_most, done=False)
