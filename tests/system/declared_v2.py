"""The same in the next release, at another hour."""

from __future__ import annotations

import durable
from durable import workflow


@workflow(schedule=durable.cron("0 7 * * *", timezone="Europe/Berlin", arguments={"label": "new"}))
async def declared_report(label: str) -> str:
    info = durable.info()
    return f"{label} for {info.scheduled_for:%H:%M} by {info.schedule_id}"
