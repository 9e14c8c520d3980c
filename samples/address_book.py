"""What can go wrong, and what each of it is for: places are looked up by services that fail in every way: `durable-worker samples.address_book`.

* An error that passes (`ConnectionError`) is raised, and the policy tries again; the workflow does not see it.
* An error that stays (`NonRetryable`) is not tried again. It arrives as `ActivityError`, whose `cause` is what was raised.
* What takes too long is a `TimeoutError`, and another service is asked.
* What nobody knows is no reason to fail for the others: it is part of the result.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

from pydantic import BaseModel

import durable
from durable import ActivityError, NonRetryable, RetryPolicy, activity, workflow

PLACES = {
    "Hamburg": (53.55, 9.99),
    "Lyon": (45.76, 4.84),
    "Porto": (41.15, -8.61),
    "Turku": (60.45, 22.27),
}
BUSY = {"Lyon": 2}
"""How often the first service is too busy before it answers."""
NEVER_ANSWERED = {"Turku"}

QUICK = RetryPolicy(max_attempts=4, initial_interval=timedelta(milliseconds=10))


class Found(BaseModel):
    city: str
    latitude: float | None = None
    longitude: float | None = None
    by: str = ""
    problem: str = ""


class UnknownPlace(NonRetryable):
    """It will be as unknown at the next attempt."""


@activity(retry=QUICK, timeout=timedelta(seconds=30))
async def look_up(city: str) -> tuple[float, float]:
    """The good service; it is busy at times, and hangs at others."""
    if city in NEVER_ANSWERED:
        await asyncio.Event().wait()
    if durable.activity_info().attempt <= BUSY.get(city, 0):
        raise ConnectionError("429: too many requests")
    if city not in PLACES:
        raise UnknownPlace(f"no place is called {city!r}")
    return PLACES[city]


@activity(retry=QUICK)
async def look_up_in_old_atlas(city: str) -> tuple[float, float]:
    """Always there, and rough."""
    latitude, longitude = PLACES[city]
    return float(round(latitude)), float(round(longitude))


@workflow
async def locate(city: str, patience: timedelta = timedelta(seconds=2)) -> Found:
    quick = look_up.options(timeout=patience, retry=RetryPolicy(max_attempts=3))
    by = "service"
    try:
        latitude, longitude = await quick(city)
    except TimeoutError:
        by = "atlas"
        latitude, longitude = await look_up_in_old_atlas(city)
    except ActivityError as error:
        return Found(city=city, problem=str(error.cause))
    return Found(city=city, latitude=latitude, longitude=longitude, by=by)


@workflow
async def locate_all(cities: list[str], patience: timedelta = timedelta(seconds=2)) -> list[Found]:
    """One that is not found does not harm the others."""
    return await asyncio.gather(*(locate(city, patience) for city in cities))
