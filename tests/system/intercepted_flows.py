"""Flows for interceptors to be around."""

from __future__ import annotations

import asyncio
from typing import Any

import durable
from durable import Signal, activity, workflow

knock = Signal("intercepted_knock", str)


@activity
def shouted(text: str) -> str:
    return text.upper()


@activity
async def whispered(text: str) -> str:
    return text.lower()


@activity
def about_context() -> dict[str, Any]:
    return dict(durable.headers())


@workflow
async def intercepted_leaf(text: str) -> str:
    return f"leaf {text}"


@workflow
async def many_calls(text: str) -> list[Any]:
    received = await knock.receive()
    return [
        *await asyncio.gather(shouted(text), whispered(text), durable.local(shouted)(text)),
        await intercepted_leaf(text),
        received,
        dict(durable.headers()),
    ]


@workflow
def plain_calls(text: str) -> str:
    return shouted(text).result()
