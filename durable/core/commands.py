"""What workflow code asks for, before it has a number; and the source line that asked.

A command becomes the outbound event of the same type when its turn ends. A command that is cancelled before that is
*struck*: it leaves no trace.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from pathlib import Path
from types import CodeType
from typing import Any, Protocol


class Operation(Protocol):
    """Something durable that was started and waits for the event that closes it."""

    seq: int
    """The number of the opening event; 0 until its turn ends."""

    def waiting(self) -> dict[str, Any]:
        """How `explain` shows it."""
        ...


class Command:
    """A prospective outbound event. `line` is where the author's code gave it: `file.py:31`, or empty."""

    __slots__ = ("body", "line", "operation", "payload", "struck", "type")

    def __init__(
        self,
        type: str,
        body: dict[str, Any],
        payload: str | None = None,
        line: str = "",
    ) -> None:
        self.type = type
        self.body = body
        self.payload = payload
        self.operation: Operation | None = None
        self.line = line
        self.struck = False


_CORE = Path(__file__).parent
_INTERNAL_FOLDERS = frozenset(
    map(str, (_CORE, _CORE.parent, _CORE.parent / "dag", Path(asyncio.__file__).parent))
)
_INTERNAL_FILES = frozenset({contextlib.__file__})

_short_names: dict[str, str] = {}
"""File name -> how we print it; empty for files that are not the author's."""

drain_code: set[CodeType] = set()
"""The code of the loop's drain: below it on the stack is the worker, where no author's line can be."""


def source_line(depth: int = 1) -> str:
    """Where the author's code called us: `file.py:31`; empty if nothing of the author's is on the stack.

    On the hot path, hence by hand: mostly one frame, whose module names its file. `f_code` would do so too, but reading it is an
    audited event, and the guard's hook makes those dear; so it is left to frames without `__file__`, and to ours.
    """
    frame = sys._getframe(depth)
    while frame is not None:
        name = _short_names.get(frame.f_globals.get("__file__", ""))
        if name is None:
            name = short_name(frame.f_code.co_filename)
        if name:
            return f"{name}:{frame.f_lineno}"
        if frame.f_code in drain_code:
            return ""
        frame = frame.f_back  # type: ignore[assignment]
    return ""


def short_name(filename: str) -> str:
    """How we print a file of the author's; empty for Python's and ours."""
    folder, _, base = filename.rpartition(os.sep)
    internal = folder in _INTERNAL_FOLDERS or filename in _INTERNAL_FILES
    return _short_names.setdefault(filename, "" if internal else base)
