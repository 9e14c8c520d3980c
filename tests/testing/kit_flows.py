"""What the tests of `durable.testing` run."""

from __future__ import annotations

from datetime import timedelta

import durable
from durable import Cancel, Retry, RetryPolicy, Snooze, activity, activity_info, workflow
from durable.client_sync import Client

sent: list[str] = []
client = Client("postgresql://nobody@localhost:1/nothing")  # nothing ever connects


@activity(queue="post", retry=RetryPolicy(max_attempts=3, jitter="none"))
def post_card(to: str, text: str = "hi") -> str:
    sent.append(to)
    return f"{text}, {to}"


@activity
async def post_many(to: list[str]) -> int:
    info = activity_info()
    for each in to:
        client.enqueue(post_card, each, text=str(info.attempt))
    return len(to)


@activity(retry=RetryPolicy(max_attempts=2))
async def always_fails() -> None:
    raise LookupError("not here")


@activity
def dozes() -> str | Snooze | Cancel:
    if activity_info().snoozes < 2:
        return Snooze(timedelta(days=1))
    return Cancel("too tired")


@activity(chunk_size=10, retry=RetryPolicy(max_attempts=2, jitter="none"))
def stamps(cards: list[str]) -> list[str | Retry]:
    info = activity_info()
    durable.heartbeat({"done": (1,)})
    return [
        Retry(60, "no stamps") if info.attempt == 1 else str(info.heartbeat_details) for _ in cards
    ]


@workflow
async def sleeps_for_long() -> float:
    began = durable.now()
    await durable.sleep(timedelta(days=30))
    await post_by_hand("ann")
    return (durable.now() - began) / timedelta(days=1)


@activity(
    retry=RetryPolicy(
        initial_interval=timedelta(hours=5), max_interval=timedelta(hours=5), jitter="none"
    )
)
async def post_by_hand(to: str) -> str:
    if activity_info().attempt < 3:
        raise ConnectionError("no stamps")
    return to
