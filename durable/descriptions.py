"""What reading a run gives: plain values, the same for both clients and the command line.

Times are aware datetimes in UTC, by the database's clock (C19). Everything that is JSON in the database is decoded JSON here; a payload is not
turned into the author's classes, because reading must work without the author's code.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from durable.core import causes
from durable.core.history_length import LONG_HISTORY, long_history
from durable.core.job_life import JobState
from durable.core.terminal_causes import JobCause, RunCause

Status = Literal["running", "completed", "failed", "cancelled", "terminated", "continued"]
OperatorStatus = causes.OperatorStatus
SignalStatus = Literal[
    "buffered", "delivered", "duplicate", "dropped", "late", "ambiguous", "replayed"
]


@dataclass(frozen=True, slots=True)
class CompletionHeartbeat:
    """The answer to a heartbeat from outside. `cancel_requested`: the run has given the activity up, or closed; nobody waits for the outcome."""

    cancel_requested: bool


@dataclass(frozen=True, slots=True)
class StepReceipt:
    """What an operation did to a step of a DAG. `status`: how the step stands after it; `others`: the steps that it released, cancelled or revived, at most 100 of them."""

    step: str
    status: str
    others: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RunDescription:
    """A run as it is now.

    `operator_status`: runnable (a worker has, or should have, something to do), waiting (for a timer, signal, activity or its start time),
    blocked (no worker knows the function, or none has the `build` that it is pinned to, or it is paused: `paused` has actor, reason and at),
    needs_review (somebody must look: `review` says why, C8, or an activity whose attempts ran out or a DAG's failed step waits for an operator), done.
    `waiting_on` is what the code awaits, as the worker last wrote it; of a DAG the `id` of an activity is its step.
    `static_details` were given at the start, `details` by `set_details`; `deadline_at` is when its run or execution timeout ends it.
    `last_seq` is the number of its events. `cause`: why it ended (durable/core/terminal_causes.py); None while it goes on.
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
    paused: dict[str, Any] | None
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
    cause: RunCause | None = None

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
    """One attempt to signal a run, and what became of it (C11). `seq` is the event that delivered it.

    `times`: beyond a thousand attempts that were refused, further ones are counted with the newest of their kind.
    """

    signal_id: str
    name: str
    status: SignalStatus
    reason: str | None
    dedupe_key: str | None
    payload: Any
    actor: Any
    at: datetime
    seq: int | None
    times: int = 1


UpdateStatus = Literal["requested", "accepted", "completed", "failed", "rejected", "aborted"]


@dataclass(frozen=True, slots=True)
class UpdateEvidence:
    """An update that was requested of a run, and what became of it (C14).

    `aborted`: the run ended first, before it was accepted or (with `accepted_at`) while its handler was running; `reason` says how. `payload` is what
    the handler returned, as decoded JSON. `seq` is the event that accepted it; a rejected one has none.
    """

    update_id: str
    name: str
    status: UpdateStatus
    reason: str | None
    payload: Any
    failure: dict[str, Any] | None
    actor: Any
    seq: int | None
    at: datetime
    accepted_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class PendingJob:
    """An activity or timer of a run that has not ended. `seq` is its opening event.

    `attempt` counts attempts that have begun; `next_at` is when the next one (or the timer) is due, None while one is executing.
    `errors` are the failed attempts, oldest first: `attempt`, `at`, `failure` (C6: they are not in the history). `paused` says what holds it:
    its `kind` is operator (with actor and reason), run (the whole run is paused) or exhausted (its attempts ran out).
    """

    seq: int
    kind: Literal["activity", "timer"]
    name: str
    queue: str
    state: JobState | Literal["paused"]
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
    paused: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class JobDescription:
    """A standalone job as it is now; it stays after its end.

    `attempt` counts attempts that have begun, `max_attempts` None is the library's default, 0 no bound; `snoozes` are the attempts that did
    not count. `errors` are the failed attempts, oldest first, as in `PendingJob`, with `worker` (its id); `attempts()` of the handle
    gives them as exceptions. `arguments` and `result` are plain JSON. `cause`: why it ended (durable/core/terminal_causes.py).
    """

    job_id: str
    name: str
    queue: str
    priority: int
    state: JobState
    attempt: int
    max_attempts: int | None
    snoozes: int
    created_at: datetime
    scheduled_at: datetime
    finished_at: datetime | None
    cancel_requested_at: datetime | None
    owner: str | None
    errors: list[dict[str, Any]]
    tags: list[str] | None
    meta: Any
    unique_key: str | None
    arguments: Any
    result: Any
    note: Any
    cause: JobCause | None = None


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """One attempt of a job that did not succeed. `worker` is the id of the worker that ran it; None: it was never given to one.

    `error` is the exception as far as it can be rebuilt here; `traceback` its text. `delay_s` is the wait before the next attempt.
    """

    attempt: int
    at: datetime
    worker: str | None
    error: BaseException
    traceback: str | None
    delay_s: float | None


@dataclass(frozen=True, slots=True)
class GroupDescription:
    """How a group of jobs stands: `open` ones have not ended; of `attempted` ones the first attempt has, or none will come. `fired` are the events that have happened (each once)."""

    group_id: str
    name: str | None
    total: int
    open: int
    completed: int
    discarded: int
    cancelled: int
    attempted: int
    fired: list[str]
    created_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class JobReceipt:
    """What a cancel did: `cancelled` now; `requested` of an executing job, or `already_requested` before; `ended`: it was over (`state`)."""

    job_id: str
    status: Literal["cancelled", "requested", "already_requested", "ended"]
    state: JobState


@dataclass(frozen=True, slots=True)
class Conflict:
    """An item of `enqueue_many`, by its index, that met the unique key of another job. `outcome`: conflict, or replaced."""

    index: int
    job_id: str
    state: JobState
    outcome: Literal["conflict", "replaced"]


@dataclass(frozen=True, slots=True)
class EnqueuedMany:
    """What `enqueue_many` did: how many jobs it made, and the items that met another job's unique key."""

    created: int
    conflicts: list[Conflict]


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


Subject = Literal["workflow", "job", "queue", "schedule"]


@dataclass(frozen=True, slots=True)
class CommandRecord:
    """One command that somebody gave, accepted or refused (`code` says why; see durable/refusals.py).

    `seq` is the event that it was about: of an activity its opening event, of a reset, retry or fork the last one kept. `before` and `after` are what it
    changed. A signal to a workflow is listed too, as it stands in the evidence of signals. `workflow_id` is the name of the `subject`: the id of a
    workflow, job or schedule, or the name of a queue. `next_steps`: what was legal instead of what was refused. `recovery_id`: see `client.recovery`.
    """

    workflow_id: str
    run_id: str
    command_id: str
    action: str
    seq: int | None
    accepted: bool
    code: str
    reason: str | None
    actor: Any
    at: datetime
    before: Any
    after: Any
    batch_id: str | None
    subject: Subject = "workflow"
    recovery_id: str | None = None
    next_steps: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """One request to stop a workflow, apart from how it ended (C9): who (`actor`; a parent as {"parent": its id}), when and why, and what `became` of it.

    delivered: its code was told (how it ended is the run's `cause`); pending: it will be; overtaken: the run ended first; dropped: a reset took the
    run back to before it; repeated: an earlier request stands; late: the run had ended.
    """

    run_id: str
    command_id: str
    became: Literal["delivered", "pending", "overtaken", "dropped", "repeated", "late"]
    actor: Any
    reason: str | None
    at: datetime
    batch_id: str | None
    recovery_id: str | None


EvidenceKind = Literal["signal", "cancel", "command", "update", "outcome", "callback"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Something about a workflow that did not simply happen.

    `kind` and `status`: signal (duplicate, late, ambiguous, dropped, replayed), cancel (as `CancelRequest.became`), command (refused: its code), update (rejected,
    aborted), outcome (of an attempt, refused or after the close), callback (the job that follows the end: its state, or gone). `times`: how many attempts it stands for.
    """

    run_id: str
    at: datetime
    kind: EvidenceKind
    status: str
    name: str | None
    reason: str | None
    actor: Any
    times: int
    detail: Any
    payload: Any


@dataclass(frozen=True, slots=True)
class RecoveryRecord:
    """Commands that belong together (`client.recovery`), and why. `ended_at` None: it goes on. `accepted` and `refused` count its commands."""

    recovery_id: str
    reason: str
    actor: Any
    begun_at: datetime
    ended_at: datetime | None
    note: str | None
    accepted: int
    refused: int


@dataclass(frozen=True, slots=True)
class RewindReceipt:
    """What a reset, retry, undo or fork made: the run `run_id` of `workflow_id`, which goes on after `event` of the run `from_run_id`.

    `discarded` counts the activities, by name, that had completed beyond that event: what they did to the world stays done. `signals_sent_again`
    counts the signals that came after it and are delivered to the new run.
    """

    workflow_id: str
    run_id: str
    from_run_id: str
    event: int
    discarded: dict[str, int]
    signals_sent_again: int


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """How far a batch is. `matched` is how many runs there were when it began; those that changed meanwhile are left out, so that the others may be fewer."""

    batch_id: str
    action: str
    filter: dict[str, Any]
    options: dict[str, Any]
    reason: str
    actor: Any
    bound: str
    reached: str | None
    matched: int
    accepted: int
    refused: int
    created_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class MoveReceipt:
    """What became of a move to another build (`build`; None: to any). `was` is the build before. `served`: a live worker could run it now."""

    run_id: str
    status: Literal["moved", "unchanged"]
    was: str | None
    build: str | None
    served: bool
