"""Commands of the asynchronous client; of the synchronous one, its twin, the tests of the system and the command line say the rest."""

from __future__ import annotations

import asyncio

import pytest

import durable
from durable.client_async import AsyncClient
from durable.descriptions import BatchProgress
from durable.errors import InvalidOption, OperationRefused
from tests.client.database import Database
from tests.client.shop import ORDER, purchase


def test_the_asynchronous_client_commands_too(database: Database) -> None:
    async def commands() -> list[BatchProgress]:
        seen: list[BatchProgress] = []
        async with AsyncClient(database.url) as client:
            handle = await client.start(purchase, ORDER, id="o-1")
            await handle.pause("incident", actor={"name": "ann"})
            with pytest.raises(OperationRefused):
                await handle.pause("again")
            await handle.resume()
            fork = await handle.fork("o-2", "what if", to_event=1)
            assert (await fork.describe()).workflow_id == "o-2"
            receipt = await handle.reset("again", to_event=1)
            assert (await client.handle("o-1").describe()).run_id == receipt.run_id
            await client.batch(
                "terminate", "workflow=purchase", reason="over", progress=seen.append
            )
            recorded = [it.action for it in await client.handle("o-1").commands()]
            assert recorded == ["terminate", "reset", "fork", "resume", "pause", "pause"]
        return seen

    (progress,) = asyncio.run(commands())
    assert (progress.accepted, progress.matched) == (2, 2)


def test_a_command_joins_nobody_s_reason(database: Database) -> None:
    """Without a reason nothing is sent: neither to the run nor to the log."""

    async def without() -> None:
        async with AsyncClient(database.url) as client:
            handle = await client.start(purchase, ORDER, id="o-1")
            for reason in ("", None, 5, "x" * 9000):
                with pytest.raises(InvalidOption):
                    await handle.pause(reason)  # type: ignore[arg-type]
            with pytest.raises(InvalidOption, match="give one of"):
                await handle.reset("two points", to_event=1, before_activity="bill")
            with pytest.raises(InvalidOption, match="timers"):
                await handle.retry("why", timers="later")  # type: ignore[arg-type]

    asyncio.run(without())
    assert database.counts()["operator_commands"] == 0


def test_refusals_are_part_of_the_public_names() -> None:
    assert durable.OperationRefused is OperationRefused
