"""Workflows that no worker can carry on, for tests of how little harm they do."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from pydantic import BaseModel

from durable import NonRetryable, activity, workflow
from tests.system.flows import go, quick


class Odd(BaseModel):
    """The tests make the codec of this type write what PostgreSQL refuses."""

    value: int = 0


class Strange(BaseModel):
    """The same, for results of activities."""

    value: int = 0


UGLY = "\x00 \ud800 \udfff \x1b ￿"


@workflow
async def odd_result() -> Odd:
    await quick(1)
    return Odd()


@activity
async def strange_result() -> Strange:
    return Strange()


@workflow
async def gets_strange_result() -> int:
    return (await strange_result()).value


@activity
async def fails_uglily() -> None:
    raise NonRetryable(UGLY)


@workflow
async def ugly(kind: str) -> None:
    match kind:
        case "workflow":
            raise ValueError(UGLY)
        case "activity":
            await fails_uglily()
        case "exit":
            sys.exit(3)
        case "generator exit":
            raise GeneratorExit
        case "group":
            raise BaseExceptionGroup("both", [ValueError(UGLY), KeyError("k")])
        case _:
            raise LookupError(kind)


@workflow
async def spins() -> None:
    while True:
        await asyncio.sleep(0)


@workflow
async def neighbour(number: int) -> int:
    await go.receive()
    return await quick(number)


@workflow
async def wants_a_number(number: int) -> Any:
    return number
