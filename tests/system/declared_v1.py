"""Schedules that code declares, as a first release has them."""

from __future__ import annotations

from datetime import timedelta

import durable
from durable import activity, workflow


@workflow(schedule=durable.cron("0 9 * * *", timezone="Europe/Berlin", arguments={"label": "code"}))
async def declared_report(label: str) -> str:
    info = durable.info()
    return f"{label} for {info.scheduled_for:%H:%M} by {info.schedule_id}"


@activity(schedule=durable.every(timedelta(hours=6), overlap="allow", id="declared-clean-up"))
def declared_clean_up() -> None:
    pass
