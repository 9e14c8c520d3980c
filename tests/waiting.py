"""Waiting for a state instead of sleeping: the only place in the tests where time is spent on purpose."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

POLL_S = 0.01


def eventually(predicate: Callable[[], T], timeout_s: float = 20.0, *, what: str = "") -> T:
    """Call `predicate` until it returns something true, and return that; AssertionError after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not (seen := predicate()):
        assert time.monotonic() < deadline, _missed(predicate, timeout_s, what, seen)
        time.sleep(POLL_S)
    return seen


async def eventually_async(
    predicate: Callable[[], Awaitable[T]], timeout_s: float = 20.0, *, what: str = ""
) -> T:
    """`eventually` for a coroutine function; the loop runs meanwhile."""
    deadline = time.monotonic() + timeout_s
    while not (seen := await predicate()):
        assert time.monotonic() < deadline, _missed(predicate, timeout_s, what, seen)
        await asyncio.sleep(POLL_S)
    return seen


def _missed(predicate: object, timeout_s: float, what: str, seen: object) -> str:
    return f"{what or predicate!r} did not become true within {timeout_s} s; last seen: {seen!r}"
