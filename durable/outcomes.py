"""How an ended run or job becomes a return value or an exception, and how to wait for its end."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from durable.errors import (
    ActivityError,
    PayloadError,
    WorkflowCancelled,
    WorkflowFailed,
    WorkflowOutcome,
    WorkflowTerminated,
    WorkflowTimedOut,
)
from durable.failure import decode_failure
from durable.payload import ValueCodec
from durable.payload_codecs import unreadable_placeholder
from durable.requests import timeout_s
from durable.store.calls import RunOutcome
from durable.store.job_calls import JobOutcome

FIRST_POLL_S = 0.002
LAST_POLL_S = 0.2
POLL_GROWTH = 1.5

_OPEN_RUN = frozenset({"running", "continued"})  # continued: its successor is read next
_ENDED_JOB = frozenset({"completed", "discarded", "cancelled"})
_ERRORS: Mapping[str, type[WorkflowOutcome]] = {
    "failed": WorkflowFailed,
    "cancelled": WorkflowCancelled,
    "terminated": WorkflowTerminated,
}


class Waiting:
    """The gaps between two looks, growing, until the time is up.

    `timeout` bounds the whole wait (seconds or timedelta, None: for ever).
    """

    def __init__(self, what: str, timeout: timedelta | float | None) -> None:
        self._what = what
        self._timeout_s = timeout_s(timeout)
        self._until = time.monotonic() + self._timeout_s
        self._gap_s = FIRST_POLL_S

    def left_s(self) -> float:
        """Seconds until the time is up."""
        return self._until - time.monotonic()

    def gap_s(self) -> float:
        """Seconds to wait before the next look. Raises TimeoutError when the time is up."""
        left_s = self.left_s()
        if left_s <= 0:
            msg = f"{self._what} has not ended within {self._timeout_s:g} s; it goes on"
            raise TimeoutError(msg)
        gap_s, self._gap_s = self._gap_s, min(LAST_POLL_S, self._gap_s * POLL_GROWTH)
        return min(gap_s, left_s)


def has_ended(outcome: RunOutcome) -> bool:
    return outcome.status not in _OPEN_RUN


def result_of(workflow_id: str, outcome: RunOutcome, codec: ValueCodec | None) -> Any:
    """The result of an ended run. Without a codec it is plain JSON.

    Raises WorkflowFailed (its cause is what the code raised), WorkflowTimedOut, WorkflowCancelled, WorkflowTerminated.
    """
    if outcome.status == "completed":
        return _decoded(outcome.payload, codec)
    if kind := outcome.body.get("timeout"):
        raise WorkflowTimedOut(workflow_id, outcome.run_id, kind=kind)
    error = _ERRORS[outcome.status](workflow_id, outcome.run_id, outcome.body.get("reason"))
    raise error from _cause(outcome.body.get("failure"))


def job_has_ended(outcome: JobOutcome) -> bool:
    return outcome.state in _ENDED_JOB


def job_result_of(job_id: str, outcome: JobOutcome, codec: ValueCodec | None) -> Any:
    """The result of an ended job. Raises ActivityError; its cause is what the last attempt raised."""
    if outcome.state == "completed":
        return _decoded(outcome.result_text, codec)
    last = outcome.errors[-1] if outcome.errors else {}
    why = "cancelled" if outcome.state == "cancelled" else last.get("retry_state")
    raise ActivityError(outcome.name, job_id, outcome.attempt, why) from _cause(last.get("failure"))


def _decoded(text: str | None, codec: ValueCodec | None) -> Any:
    if (why := unreadable_placeholder(text)) is not None:
        raise PayloadError("result", why, "Ask with a client that has it.")
    if codec is not None:
        return codec.decode("null" if text is None else text)
    return None if text is None else json.loads(text)


def _cause(failure: Any) -> BaseException | None:
    return decode_failure(failure) if isinstance(failure, Mapping) else None
