"""Activities that say themselves what becomes of them, alone and in workflows."""

from __future__ import annotations

from datetime import timedelta

import durable
from durable import Cancel, RetryPolicy, Snooze, activity, activity_info, workflow
from tests.system.flows import wait_at, wrote

HOURLY = RetryPolicy(
    max_attempts=2,
    initial_interval=timedelta(hours=1),
    max_interval=timedelta(hours=1),
    jitter="none",
)


@activity(retry=HOURLY)
async def naps(times: int) -> str | Snooze:
    """Snoozes `times` times, fails at its first attempt that counts, then succeeds."""
    info = activity_info()
    wrote("naps", max_attempts=info.max_attempts)
    if info.snoozes < times:
        return Snooze(timedelta(hours=5))
    if info.attempt == 1:
        raise ValueError("not at once")
    return f"woke up at attempt {info.attempt}"


@activity
def changes_its_mind(raised: bool) -> int | Cancel:
    if raised:
        raise Cancel("no longer wanted")
    return Cancel("no longer wanted")


@activity(retry=HOURLY)
def wants_more(delay_s: float | None) -> int | durable.Retry:
    return durable.Retry(delay_s, "the printer is out of paper")


@activity
def stands_at(gate: int) -> int:
    wrote("stands_at")
    wait_at(gate)
    return activity_info().attempt


@activity(retry=RetryPolicy(max_attempts=1))
async def stays(seconds: float) -> None:
    import asyncio

    wrote("stays")
    await asyncio.sleep(seconds)


@workflow
async def takes_naps(times: int) -> str:
    return await naps(times)  # type: ignore[return-value]


@workflow
async def learns_of_a_change_of_mind() -> list[str | None]:
    try:
        await changes_its_mind(False)
    except durable.ActivityError as error:
        return [error.retry_state, type(error.cause).__name__, str(error.cause)]
    return []


@workflow
async def asks_for_more() -> int:
    return await wants_more(7200.0)  # type: ignore[return-value]


@activity(retry=RetryPolicy(max_attempts=1))
async def member(number: int) -> int:
    if number < 0:
        raise ValueError("negative")
    if number == 0:
        raise Cancel("nothing to do")
    return number


@activity
async def reports(event: str, about: dict[str, int]) -> str:
    wrote(f"{event}: {list(about)}")
    return event


@activity
async def adds(text: str, more: str) -> str:
    wrote(f"{text}{more}")
    if more == "stop":
        raise Cancel("as told")
    return text + more
