"""What reading a run gives: plain values, the same for both clients and the command line.

Times are aware datetimes in UTC, by the database's clock (C19). Everything that is JSON in the database is decoded JSON here; a payload is not
turned into the author's classes, because reading must work without the author's code.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from durable.core.history_length import LONG_HISTORY, long_history

Status = Literal["running", "completed", "failed", "cancelled", "terminated", "continued"]
OperatorStatus = Literal["runnable", "waiting", "blocked", "needs_review", "done"]
SignalStatus = Literal[
    "buffered", "delivered", "duplicate", "dropped", "late", "ambiguous", "replayed"
]
JobState = Literal[
    "scheduled",
    "available",
    "executing",
    "retryable",
    "waiting",
    "completed",
    "discarded",
    "cancelled",
]


@dataclass(frozen=True, slots=True)
class CompletionHeartbeat:
    """The answer to a heartbeat from outside. `cancel_requested`: the run has given the activity up, or closed; nobody waits for the outcome."""

    cancel_requested: bool


@dataclass(frozen=True, slots=True)
class RunDescription:
    """A run as it is now.

    `operator_status`: runnable (a worker has, or should have, something to do), waiting (for a timer, signal, activity or its start time),
    blocked (no worker knows the function), needs_review (somebody must look: `review` says why, C8), done.
    blocked also is a run pinned to a `build` that no live worker has. `waiting_on` is what the code awaits, as the worker last wrote it.
    `static_details` were given at the start, `details` by `set_details`; `deadline_at` is when its run or execution timeout ends it.
    `last_seq` is the number of its events.
    """

    workflow_id: str
    run_id: str
    workflow: str
    version: int
    status: Status
    operator_status: OperatorStatus
    queue: str
    priority: int
    created_at: datetime
    started_at: datetime | None
    closed_at: datetime | None
    ready_at: datetime | None
    cancel_requested_at: datetime | None
    waiting_on: Any
    review: dict[str, Any] | None
    attributes: Any
    memo: Any
    actor: Any
    owner: str | None
    last_seq: int
    generation: int
    headers: Any = None
    static_details: str | None = None
    details: str | None = None
    deadline_at: datetime | None = None
    pinned: bool = False
    build: str | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What somebody should do something about, in words; empty mostly."""
        said = []
        if self.operator_status == "blocked" and self.build is not None and self.review is None:
            said.append(
                f"it is pinned to build {self.build}, and no live worker of that build serves queue {self.queue}:"
                f" start one (durable-worker --build {self.build}), or move the run (durable move {self.workflow_id})"
            )
        if self.status == "running" and self.last_seq >= LONG_HISTORY:
            said.append(long_history(self.last_seq))
        return tuple(said)


@dataclass(frozen=True, slots=True)
class HistoryEvent:
    """One event. `payload` is the author's data as decoded JSON (None: there is none, or it is null)."""

    seq: int
    type: str
    at: datetime
    body: dict[str, Any]
    turn: int
    payload: Any


@dataclass(frozen=True, slots=True)
class SignalEvidence:
    """One attempt to signal a run, and what became of it (C11). `seq` is the event that delivered it."""

    signal_id: str
    name: str
    status: SignalStatus
    reason: str | None
    dedupe_key: str | None
    payload: Any
    actor: Any
    at: datetime
    seq: int | None


@dataclass(frozen=True, slots=True)
class PendingJob:
    """An activity or timer of a run that has not ended. `seq` is its opening event.

    `attempt` counts attempts that have begun; `next_at` is when the next one (or the timer) is due, None while one is executing.
    `errors` are the failed attempts, oldest first: `attempt`, `at`, `failure` (C6: they are not in the history).
    """

    seq: int
    kind: Literal["activity", "timer"]
    name: str
    queue: str
    state: JobState
    attempt: int
    max_attempts: int | None
    created_at: datetime
    next_at: datetime | None
    deadline_at: datetime | None
    deadline_kind: str | None
    cancel_requested_at: datetime | None
    owner: str | None
    errors: list[dict[str, Any]]
    heartbeat: Any
    note: Any


@dataclass(frozen=True, slots=True)
class JobDescription:
    """A standalone job as it is now; it stays after its end. `errors` as in `PendingJob`."""

    job_id: str
    name: str
    queue: str
    priority: int
    state: JobState
    attempt: int
    created_at: datetime
    scheduled_at: datetime
    finished_at: datetime | None
    cancel_requested_at: datetime | None
    owner: str | None
    errors: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class SignalReceipt:
    """What became of a signal when it was sent: `buffered` (it will be delivered) or `duplicate` (its dedupe key was used before)."""

    signal_id: str
    run_id: str
    status: SignalStatus


@dataclass(frozen=True, slots=True)
class CancelReceipt:
    """`requested` now, or `already_requested` before (the first request and its reason stand)."""

    run_id: str
    status: Literal["requested", "already_requested"]


@dataclass(frozen=True, slots=True)
class MoveReceipt:
    """What became of a move to another build (`build`; None: to any). `was` is the build before. `served`: a live worker could run it now."""

    run_id: str
    status: Literal["moved", "unchanged"]
    was: str | None
    build: str | None
    served: bool
