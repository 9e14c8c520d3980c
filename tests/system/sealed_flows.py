"""Flows whose values are secret or large."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import durable
from durable import ActivityError, RetryPolicy, Signal, activity, workflow
from tests.system.flows import gated

SECRET = "the-secret-word"

whisper = Signal("sealed_whisper", str)


class Refused(Exception):
    def __init__(self, word: str) -> None:
        super().__init__(f"no such word: {word}")
        self.word = word


@activity
def echo_secret(word: str) -> str:
    return f"{word} echoed"


@activity(retry=RetryPolicy(max_attempts=2, initial_interval=timedelta(milliseconds=1)))
def refuse_secret(word: str) -> str:
    durable.heartbeat({"at": word})
    raise Refused(word)


@workflow
async def sealed_child(word: str) -> str:
    return await echo_secret(word)


@workflow
async def keeps_secrets(word: str) -> dict[str, Any]:
    echoed = await echo_secret(word)
    said = await whisper.receive()
    try:
        await refuse_secret(word)
        failed = ""
    except ActivityError as error:
        failed = error.cause.word if isinstance(error.cause, Refused) else "?"
    return {"echoed": echoed, "said": said, "failed": failed, "child": await sealed_child(word)}


@workflow
async def answers_with_secrets(word: str) -> str:
    @durable.query
    def asked(prefix: str) -> str:
        return prefix + word

    @durable.update
    async def replaced(by: str) -> str:
        return await echo_secret(by)

    return await whisper.receive()


@workflow
async def goes_on_with_secrets(word: str, times: int) -> str:
    await echo_secret(word)
    if times:
        durable.continue_as_new(word, times - 1)
    return word


@workflow
async def fails_with_secrets(word: str) -> None:
    raise Refused(word)


@workflow
async def passes_a_gate(word: str, gate: int) -> str:
    await gated("gate", gate)
    return await echo_secret(word)


@activity
def makes_much(count: int) -> list[str]:
    return ["0123456789abcdef" * 64] * count


@workflow
async def carries_much(count: int) -> int:
    much, again = await asyncio.gather(makes_much(count), makes_much(count))
    assert much == again
    return await counts_much(much)


@activity
def counts_much(much: list[str]) -> int:
    return sum(map(len, much))
