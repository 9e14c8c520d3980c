"""A sleeper whose alarm can be moved while it sleeps: `durable-worker samples.updatable_timer`.

durable signal alarm-1 set_alarm '{"at": "2031-01-01T07:00:00Z"}'
"""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel

import durable
from durable import Signal, workflow


class Alarm(BaseModel):
    at: datetime


set_alarm = Signal("set_alarm", Alarm)


@workflow
async def sleep_until(alarm: Alarm) -> datetime:
    """Waits for the alarm or for another one, whichever comes first. Answers when it woke."""

    @durable.query
    def wakes_at() -> datetime:
        return alarm.at

    while (left := alarm.at - durable.now()).total_seconds() > 0:
        try:
            alarm = await set_alarm.receive(timeout=left)
        except TimeoutError:
            break
    return durable.now()
