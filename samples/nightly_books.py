"""Closes the books of every region each night: `durable-worker samples.nightly_books`.

The schedule of the house's own region is declared in code; an operator adds others while workers run (`open_region`). A night that was missed, because
nothing ran, is made up for; a night that failed stops the schedule until somebody has looked; and `close_again` does a range of nights anew.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta

from pydantic import BaseModel

import durable
from durable import Client, activity, workflow


class Books(BaseModel):
    region: str
    day: date
    total_cents: int


HOLIDAYS = [durable.Calendar(month=12, day=(25, 26)), durable.Calendar(month=1, day=1)]


@activity
def add_up(region: str, day: date) -> int:
    """Where a real one asks the shop's database. The till of the moon has never been counted."""
    if region == "moon":
        msg = "nobody has counted the till"
        raise durable.NonRetryable(msg)
    return 100 * day.day


@workflow(
    schedule=durable.cron(
        "30 2 * * *",
        timezone="Europe/Berlin",
        exclude=HOLIDAYS,
        overlap="buffer_all",
        pause_on_failure=True,
    )
)
async def close_night(region: str = "eu") -> Books:
    """The slot says which night it is, however late the run begins."""
    slot = durable.info().scheduled_for or durable.now()
    day = slot.date() - timedelta(days=1)
    return Books(region=region, day=day, total_cents=await add_up(region, day))


def open_region(client: Client, region: str, timezone: str) -> None:
    """Calling it again changes nothing, or the zone."""
    client.schedule(
        f"books-{region}",
        close_night,
        region,
        cron="30 2 * * *",
        timezone=timezone,
        exclude=HOLIDAYS,
        overlap="buffer_all",
        pause_on_failure=True,
    )


def close_again(client: Client, region: str, first: datetime, last: datetime) -> int:
    """Do the nights that have not been done, one after another; how many these are."""
    return client.schedule_handle(f"books-{region}").backfill(first, last, overlap="buffer_all")
