"""The smallest steps: one activity, a choice, five at once, and one that fails at first: `durable-worker samples.hello`.

durable start greet '{"name": "Ada"}' --id hello-1
durable result hello-1
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from enum import StrEnum

import durable
from durable import RetryPolicy, activity, workflow


class Tone(StrEnum):
    FORMAL = "formal"
    CASUAL = "casual"


@activity
def say_hello(name: str) -> str:
    """A plain function: it runs in a thread, and may block."""
    return f"Good day, {name}"


@activity
async def say_hi(name: str) -> str:
    """A coroutine function: it runs on the worker's event loop, and must not block."""
    return f"Hi {name}"


@activity(retry=RetryPolicy(max_attempts=5, initial_interval=timedelta(milliseconds=10)))
def call_a_bad_line(name: str, works_at_attempt: int) -> str:
    """Fails until the line is good. The job's row keeps the attempts; the history sees only how it ended."""
    attempt = durable.activity_info().attempt
    if attempt < works_at_attempt:
        raise ConnectionError(f"attempt {attempt}: the line is bad")
    return f"Hello {name}, at last"


@workflow
async def greet(name: str) -> str:
    return await say_hello(name)


@workflow
async def greet_in_tone(name: str, tone: Tone) -> str:
    """Which activity runs may depend on anything that the history knows: arguments, results, signals."""
    return await (say_hello(name) if tone is Tone.FORMAL else say_hi(name))


@workflow
async def greet_all(names: list[str]) -> list[str]:
    """A call starts; awaiting comes later. The results come in the order of the names, whoever ends first."""
    return await asyncio.gather(*[say_hi(name) for name in names])


@workflow
async def greet_stubbornly(name: str, works_at_attempt: int = 3) -> str:
    return await call_a_bad_line(name, works_at_attempt)
