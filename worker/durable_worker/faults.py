"""Named points at the commit boundaries where a test may kill this process.

`DURABLE_CRASH_AT=commit.before:3` ends the process with SIGKILL when the point `commit.before` is reached for the third time;
`DURABLE_TRACE_POINTS=<file>` appends each point reached to the file. Neither is set outside tests, and then `reach` does nothing.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

_crash_point, _, _crash_count = os.environ.get("DURABLE_CRASH_AT", "").partition(":")
_trace = os.environ.get("DURABLE_TRACE_POINTS")
_reached: dict[str, int] = {}


def _reach(point: str) -> None:
    _reached[point] = _reached.get(point, 0) + 1
    if _trace:
        with Path(_trace).open("a", encoding="utf-8") as file:
            file.write(f"{point}:{_reached[point]}\n")
    if point == _crash_point and _reached[point] == int(_crash_count or 1):
        os.kill(os.getpid(), signal.SIGKILL)


def _pass(_point: str) -> None:
    """What `reach` does in production."""


reach = _reach if _crash_point or _trace else _pass
