"""Flows that look at who acts, and at the headers, at every station."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import durable
from durable import Signal, activity, workflow


@durable.context_type(name="test-user")
@dataclass(frozen=True)
class User:
    name: str
    roles: frozenset[str] = frozenset()


def seen() -> list[Any]:
    return [repr(durable.current_actor()), dict(durable.headers())]


@activity
def looks_in_a_thread() -> list[Any]:
    info = durable.activity_info()
    assert (repr(info.actor), dict(info.headers)) == tuple(seen())
    return seen()


@activity
async def looks_on_the_loop() -> list[Any]:
    return seen()


told = Signal("told_by_parent", str)


@workflow
async def looks_as_a_child() -> list[Any]:
    received = told.receive()
    await received
    by = durable.sender(received)
    return [*seen(), repr(by.actor), dict(by.headers), await looks_on_the_loop()]


@workflow
async def looks_everywhere() -> dict[str, Any]:
    own = seen()
    child = looks_as_a_child()
    child.signal(told, "now")
    info = durable.info()
    assert [repr(info.actor), dict(info.headers)] == own
    return {
        "workflow": own,
        "thread": await looks_in_a_thread(),
        "loop": await looks_on_the_loop(),
        "child": await child,
    }


@workflow
async def looks_again_after_continuing(times: int) -> list[Any]:
    if times:
        durable.continue_as_new(times - 1)
    return [*seen(), await looks_in_a_thread()]


@workflow
async def tries_to_change_them() -> str:
    durable.headers()["extra"] = durable.info().headers["extra"] = "x"
    return repr(durable.headers())


@workflow(require_actor=True)
async def signed_flow() -> str:
    return str(durable.current_actor())


@activity(require_actor=True)
def signed_job() -> str:
    return str(durable.current_actor())


approval = Signal("signed_approval", bool, require_actor=True)


@workflow
async def waits_for_approval() -> list[Any]:
    received = approval.receive()
    return [await received, durable.sender(received).actor]


@workflow
async def starts_signed_child() -> str:
    return await signed_flow()
