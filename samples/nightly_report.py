"""Something every night, whatever the clocks do in spring and autumn: `durable-worker samples.nightly_report`.

durable schedule list
durable schedule trigger nightly-report
"""

from __future__ import annotations

import durable
from durable import activity, workflow


@activity
async def count_sales(shop: str, day: str) -> int:
    """Where a real one asks the till."""
    return len(shop) + len(day)


@workflow(
    schedule=durable.cron(
        "30 2 * * *", timezone="Europe/Berlin", id="nightly-report", overlap="skip"
    )
)
async def report_sales(shop: str = "Harbour Street") -> str:
    """`scheduled_for` is the slot's time, not the time at which a worker came to it: the day is right also after a night without workers."""
    day = (durable.info().scheduled_for or durable.now()).date().isoformat()
    return f"{shop} {day}: {await count_sales(shop, day)} sales"
