"""Names the workflow and the line that blocks the worker's loop.

Workflow code runs on the loop's thread. Code that computes for seconds, or calls something blocking, stops every run of this worker. A thread looks on: when one
turn takes longer than the limit it logs the workflow, the run and the source line where the loop's thread stands, once a turn.
"""

from __future__ import annotations

import inspect
import logging
import os
import sys
import threading
import time
import traceback
from pathlib import Path
from types import FrameType

import durable
from durable_worker.runs import LiveRun

logger = logging.getLogger("durable.worker")

_OURS = tuple(f"{Path(file).parent}{os.sep}" for file in (durable.__file__, __file__))


class Watchdog:
    """Watches the turns taken on the thread that creates it."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._thread_id = threading.get_ident()
        self._turn: tuple[LiveRun, float] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, name="durable-watchdog", daemon=True)
        self.reports: list[str] = []

    def start(self) -> None:
        """Begin to look on."""
        self._thread.start()

    def stop(self) -> None:
        """Stop looking on."""
        self._stop.set()

    def watch(self, run: LiveRun | None) -> None:
        """A turn of `run` begins; None: it ended."""
        self._turn = None if run is None else (run, time.monotonic())

    def _look(self) -> None:
        reported: tuple[LiveRun, float] | None = None
        while not self._stop.wait(self._limit_s / 4):
            turn = self._turn
            if (
                turn is not None
                and turn is not reported
                and time.monotonic() - turn[1] > self._limit_s
            ):
                reported = turn
                self._report(turn[0])

    def _report(self, run: LiveRun) -> None:
        where = _standing_at(run, sys._current_frames().get(self._thread_id))
        report = (
            f"{run.name} {run.workflow_id} has been blocking the worker for more than {self._limit_s} s at {where}; "
            "move the work into an activity"
        )
        self.reports.append(report)
        logger.error(report)


def _standing_at(run: LiveRun, frame: FrameType | None) -> str:
    """The innermost line in the workflow's own file, and what that line is calling, as far as it is not our code."""
    stack = traceback.extract_stack(frame) if frame is not None else []
    theirs = [_shown(f) for f in reversed(stack) if not f.filename.startswith(_OURS)]
    code = getattr(inspect.unwrap(run.execution.definition.fn), "__code__", None)
    own = [
        _shown(f) for f in reversed(stack) if code is not None and f.filename == code.co_filename
    ]
    if own and theirs and own[0] != theirs[0]:
        return f"{own[0]}, in a call of {theirs[0]}"
    return (own or theirs or ["an unknown line"])[0]


def _shown(frame: traceback.FrameSummary) -> str:
    return f"{frame.filename}:{frame.lineno} in {frame.name}"
