"""Where suspended code stands: for `explain`, for the watchdog, for errors. Slow, and only asked when somebody looks."""

from __future__ import annotations

from types import FrameType
from typing import Any

from durable.core import fiber, styles
from durable.core.commands import short_name


def stack_of(coro: Any) -> list[str]:
    """The author's lines at which a suspended coroutine and those it awaits stand, outermost first: `file.py:31 in name`."""
    return [
        f"{name}:{frame.f_lineno} in {frame.f_code.co_name}"
        for frame in _frames(coro)
        if (name := short_name(frame.f_code.co_filename))
    ]


def awaited(task: Any) -> list[dict[str, Any]]:
    """What a suspended task waits for, as `Run.waiting_on` shows it; other tasks by name, and the members of a gather one by one."""
    return _waits(getattr(task, "_fut_waiter", None), set())


def _waits(future: Any, seen: set[int]) -> list[dict[str, Any]]:
    if future is None or id(future) in seen:
        return []
    seen.add(id(future))
    if (waiting := getattr(future, "waiting", None)) is not None:
        return [waiting()]
    if (name := getattr(future, "get_name", None)) is not None:
        return [{"kind": "task", "name": name()}]
    if (members := getattr(future, "_children", None)) is not None:  # gather's
        return [wait for member in members if not member.done() for wait in _waits(member, seen)]
    return [{"kind": "future", "name": getattr(future, "id", type(future).__name__)}]


def _frames(it: Any) -> list[FrameType]:
    """The frames of a chain of coroutines and generators, and of the fiber or generator workflow that one of them drives."""
    frames: list[FrameType] = []
    while it is not None:
        frame = next(
            (
                f
                for kind in ("cr", "gi", "ag")
                if (f := getattr(it, f"{kind}_frame", None)) is not None
            ),
            None,
        )
        if frame is not None:
            frames.append(frame)
            if frame.f_code is fiber.drive.__code__:
                return frames + _fiber_frames(frame.f_locals.get("fiber"))
            if frame.f_code is styles.drive.__code__:
                return frames + _frames(frame.f_locals.get("generator"))
        it = next((i for name in _AWAITED if (i := getattr(it, name, None)) is not None), None)
    return frames


_AWAITED = ("cr_await", "gi_yieldfrom", "ag_await")


def _fiber_frames(suspended: Any) -> list[FrameType]:
    frames: list[FrameType] = []
    frame = getattr(suspended, "gr_frame", None)
    while frame is not None:
        frames.insert(0, frame)
        frame = frame.f_back
    return frames
