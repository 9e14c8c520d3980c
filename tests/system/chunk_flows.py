"""Activities that take the items of several jobs in one call."""

from __future__ import annotations

from datetime import timedelta

from durable import Cancel, RetryPolicy, Snooze, activity
from tests.system.flows import wrote

LONG = timedelta(hours=1)


@activity(chunk_size=10, chunk_wait=LONG)
async def doubles(numbers: list[int]) -> list[int]:
    wrote(str(len(numbers)))
    return [2 * number for number in numbers]


@activity(chunk_size=100, chunk_wait=timedelta(milliseconds=300))
def few(numbers: list[int]) -> list[int]:
    wrote(str(len(numbers)))
    return numbers


@activity(chunk_size=4, chunk_wait=LONG, retry=RetryPolicy(max_attempts=1))
async def judges(numbers: list[int]) -> list[int | ValueError | Cancel | Snooze]:
    answers: dict[int, ValueError | Cancel | Snooze] = {
        0: ValueError("no"),
        1: Cancel("never"),
        2: Snooze(3600),
    }
    return [answers.get(number, number) for number in numbers]


@activity(chunk_size=2, chunk_wait=LONG, retry=RetryPolicy(max_attempts=1))
async def breaks(numbers: list[int]) -> list[int]:
    if numbers[0]:
        raise LookupError("all of it")
    return []
