"""Activities that run in processes of their own."""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from decimal import Decimal

import durable
from durable import Cancel, RetryPolicy, Snooze, activity, activity_info, workflow
from tests.system.flows import wrote

ONCE = RetryPolicy(max_attempts=1)


class Overheated(Exception):
    pass


@activity(process=True)
def squares(numbers: list[int]) -> tuple[int, list[int]]:
    print("an activity may print")  # noqa: T201
    return os.getpid(), [number * number for number in numbers]


@activity(process=True, retry=ONCE)
def spins(seconds: float | None = None) -> None:
    """Holds the interpreter for ever, or so."""
    wrote(str(os.getpid()))
    while True:
        pass


limited_spin = activity(
    name="limited_spin", process=True, timeout=timedelta(seconds=6), retry=ONCE
)(spins.fn)


@activity(process=True, retry=ONCE)
def ends_badly(how: str) -> str | Snooze | Cancel:
    if how == "raise":
        raise Overheated("too hot")
    if how == "cancel":
        return Cancel("no more")
    if how == "heartbeat":
        durable.heartbeat(Decimal(1))
    if how == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if activity_info().snoozes == 0:
        return Snooze(0.01)
    return "rested"


@activity(
    process=True, retry=RetryPolicy(max_attempts=2, initial_interval=timedelta(milliseconds=10))
)
def tells(upto: int) -> list[object]:
    info = activity_info()
    if info.attempt == 1:
        for number in range(upto):
            durable.heartbeat(number)
        wrote("told")
        while not os.path.exists(os.environ["MAY_FAIL"]):  # noqa: PTH110 - as plain as it gets
            pass
        raise Overheated("again")
    return [info.heartbeat_details, info.actor, info.name, info.idempotency_key.endswith("/0")]


@workflow
async def works_hard(numbers: list[int]) -> list[int]:
    return (await squares(numbers))[1]


@workflow
async def gives_up_spinning() -> str:
    try:
        await limited_spin()
    except TimeoutError:
        return "timed out"
    return "?"
