"""Ids made by the client: UUIDv7, so that rows made together lie together in the index."""

from __future__ import annotations

import os
import struct
import threading
import time
from uuid import UUID

_PAIR = struct.Struct(">QQ")
_MILLISECONDS = (1 << 48) - 1 << 16
_SMALL_STEP_BACK = 10_000 * 4096  # ticks: ten seconds
_lock = threading.Lock()
_next_tick = 0


def uuid7() -> UUID:
    """A fresh UUID version 7, greater than every one that this process has made before."""
    return UUID(bytes=many_uuid7(1)[0])


def many_uuid7(count: int) -> list[bytes]:
    """As many of them, in their order (RFC 9562, 6.2, method 3): 48 bits of milliseconds, 12 of their 4,096ths, and 62 random bits."""
    noise = struct.unpack(f"{count}Q", os.urandom(8 * count))
    return [
        _PAIR.pack((tick << 4 & _MILLISECONDS) | 0x7000 | tick & 0xFFF, 1 << 63 | each >> 2)
        for tick, each in enumerate(noise, _reserve(count))
    ]


def _reserve(count: int) -> int:
    """The first of so many ticks, 4,096 to a millisecond, that nobody else in this process has.

    Each tick is used once: who makes more ids than there are ticks, or whose clock is set back a little, goes on from the last one. What is made
    in order therefore stays in order, among the jobs of one `enqueue_many` too. After a larger step back it goes on from the clock, or the ids
    of a process would stay in the future for as long.
    """
    global _next_tick
    with _lock:
        first = time.time_ns() * 512 // 125_000
        if 0 < _next_tick - first <= _SMALL_STEP_BACK:
            first = _next_tick
        _next_tick = first + count
    return first


def _unlock_after_fork() -> None:
    """The lock may have been held by a thread that the child does not have."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock_after_fork)
