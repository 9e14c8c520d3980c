"""Three ways to wait for a service that must be asked: `durable-worker samples.polling`.

* *often*: a loop inside one activity, which heartbeats; for waits of seconds;
* *seldom*: the activity fails with "not yet" and its retry policy asks again; costs no history, however long it takes;
* *with a rhythm*: a child workflow that asks, sleeps, and continues as new; for polling that is itself a process.
"""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

import durable
from durable import RetryPolicy, activity, workflow


class NotYet(Exception):
    """The answer is not there. Raised, it is a failed attempt like any other."""


def ask_service(answer_file: str) -> str:
    """Where a real one makes an HTTP request: the answer is there when the file is."""
    path = Path(answer_file)
    if not path.exists():
        raise NotYet(answer_file)
    return path.read_text(encoding="utf-8")


@activity(heartbeat_timeout=timedelta(seconds=5), timeout=timedelta(minutes=10))
def poll_often(answer_file: str) -> str:
    while True:
        try:
            return ask_service(answer_file)
        except NotYet:
            durable.heartbeat()  # also where this learns that nobody wants the answer any more
            time.sleep(0.05)


@activity(
    retry=RetryPolicy(
        max_attempts=0, initial_interval=timedelta(minutes=1), backoff_coefficient=1.0, jitter=0.0
    ),
    schedule_to_close=timedelta(days=7),
)
def poll_seldom(answer_file: str) -> str:
    return ask_service(answer_file)


@activity(retry=RetryPolicy(max_attempts=1))
def ask_once(answer_file: str) -> str | None:
    try:
        return ask_service(answer_file)
    except NotYet:
        return None


@workflow
async def wait_often(answer_file: str) -> str:
    return await poll_often(answer_file)


@workflow
async def wait_seldom(answer_file: str) -> str:
    return await poll_seldom(answer_file)


@workflow
async def poll_in_rounds(answer_file: str, every: timedelta, rounds: int = 10) -> str:
    for _ in range(rounds):
        answer = await ask_once(answer_file)
        if answer is not None:
            return answer
        await durable.sleep(every)
    return poll_in_rounds.continue_as_new(answer_file, every, rounds)


@workflow
async def wait_with_a_rhythm(
    answer_file: str, every: timedelta = timedelta(hours=1), rounds: int = 10
) -> str:
    """The parent sees one child, however often that has begun anew."""
    return await poll_in_rounds(answer_file, every, rounds)
