"""Workflows and activities that a worker's own client starts."""

from __future__ import annotations

import json
from contextvars import ContextVar
from datetime import timedelta
from typing import Any

import durable
from durable import Signal, activity, activity_info, workflow
from tests.system.flows import FAST, step, wait_at, wrote

WHOSE: ContextVar[str | None] = ContextVar("tests_whose", default=None)
HEADERS = {"zebra": 1, "ant": [1e22, 0.1], "bee": {"wings": 4, "a": None}}
"""As a document these come back in another order, and one of the numbers as another type."""

ORDER = {"b": 1, "a": [2.0]}

reply = Signal("eager_reply", str)


@activity(retry=FAST)
def pays(key: str) -> str:
    wrote(key)
    return key


@activity(
    timeout=timedelta(hours=1),
    heartbeat_timeout=timedelta(minutes=30),
)
def pays_in_time(gate: int) -> str:
    wait_at(gate)
    return str(activity_info().deadline)


@activity
async def tells_whose() -> str | None:
    return WHOSE.get()


@workflow
async def tells_whose_here() -> list[str | None]:
    """What context variables say in a local activity, and in one of the queue."""
    return [await durable.local(tells_whose)(), await tells_whose()]


@workflow
async def compares(order: dict[str, Any]) -> list[str]:
    """What it was given, as the first life of the run saw it and as the last one does."""
    info = durable.info()
    about = (info.workflow_id, info.run_id, info.queue, info.priority, info.actor, info.started_at)
    seen = json.dumps([order, durable.headers(), repr(about), str(durable.now())])
    first = await step(seen)
    await reply.receive()
    return [first, seen]


@workflow
async def awaits_reply() -> str:
    return await reply.receive()


@workflow
async def renews(left: int) -> int:
    if left:
        renews.continue_as_new(left - 1)
    return left


@workflow(pinned=True)
async def stays_with_its_build() -> str:
    return await reply.receive()
