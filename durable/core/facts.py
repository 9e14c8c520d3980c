"""What the database knows about a run, a job or a schedule at one moment: what an explanation is made from. Times are microseconds since 1970."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from durable.core.terminal_causes import JobCause, RunCause


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """A worker that holds something. It beats three times in a lease."""

    name: str
    state: str
    beat_us: int
    lease_us: int

    def is_silent(self, now_us: int) -> bool:
        """Whether a beat is overdue, or the worker is known to be dead."""
        overdue = now_us - self.beat_us > (self.lease_us - self.beat_us) * 2 / 3
        return overdue or self.state not in ("alive", "stopping")


@dataclass(frozen=True, slots=True)
class ReasonFacts:
    """Why a job is not running, as `durable.explain_job` says it."""

    reason: str
    until_us: int | None
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class JobFacts:
    """An activity or timer of a run, or a standalone job (`seq` 0). `call_id` and `line` are those of the call; `max_attempts` None: no bound."""

    job_id: str
    seq: int
    kind: str
    name: str
    queue: str
    state: str
    attempt: int
    max_attempts: int | None
    created_us: int
    scheduled_us: int
    finished_us: int | None
    deadline_us: int | None
    deadline_kind: str | None
    timeouts: Mapping[str, float]
    worker: WorkerFacts | None
    failure: Mapping[str, Any] | None
    heartbeat: Any
    note: Mapping[str, Any] | None
    paused: Mapping[str, Any] | None
    cancel_us: int | None
    call_id: str | None
    line: str | None
    reasons: Sequence[ReasonFacts]
    cause: JobCause | None

    @property
    def begun_us(self) -> int:
        """When the attempt under way began, as far as that is known: its time limit says so exactly, else it began no earlier than it was due."""
        limit_s = self.timeouts.get("start_to_close_s")
        if self.deadline_us is not None and self.deadline_kind == "start_to_close" and limit_s:
            return self.deadline_us - round(limit_s * 1e6)
        return self.scheduled_us

    @property
    def beat_us(self) -> int | None:
        """When its last heartbeat came, if it owes any."""
        limit_s = self.timeouts.get("heartbeat_s")
        if self.deadline_us is None or self.deadline_kind != "heartbeat" or not limit_s:
            return None
        return self.deadline_us - round(limit_s * 1e6)


@dataclass(frozen=True, slots=True)
class ServiceFacts:
    """Whether some live worker, other than the owner, serves the run's queue, has its workflow and version too, and is of its build too."""

    queue: bool
    workflow: bool
    build: bool


@dataclass(frozen=True, slots=True)
class MessageFacts:
    """A message that the run has not applied yet; `name` of its signal or update."""

    type: str
    name: str | None
    at_us: int
    reason: str | None


@dataclass(frozen=True, slots=True)
class UpdateFacts:
    """An update that was requested or accepted, and has not ended."""

    update_id: str
    name: str
    status: str
    at_us: int


@dataclass(frozen=True, slots=True)
class CancelFacts:
    """The cancel request that counts."""

    at_us: int
    reason: str | None
    actor: Any


@dataclass(frozen=True, slots=True)
class RunFacts:
    """A run. `jobs`, `children`, `messages` and `updates` hold the first of them, the counts all (messages: up to 1,000). `last` is its last event, if it is closed."""

    now_us: int
    workflow_id: str
    run_id: str
    workflow: str
    version: int
    status: str
    queue: str
    build: str | None
    last_seq: int
    created_us: int
    closed_us: int | None
    ready_us: int | None
    delayed_us: int | None
    cancel_us: int | None
    review: Mapping[str, Any] | None
    review_us: int | None
    paused: Mapping[str, Any] | None
    paused_us: int | None
    waiting_on: Sequence[Mapping[str, Any]] | None
    parent_seq: int | None
    owner: WorkerFacts | None
    service: ServiceFacts
    cancel: CancelFacts | None
    messages: Sequence[MessageFacts]
    message_count: int
    updates: Sequence[UpdateFacts]
    jobs: Sequence[JobFacts]
    job_count: int
    children: Sequence[RunFacts]
    child_count: int
    last: Mapping[str, Any] | None
    cause: RunCause | None


class SlotFacts(NamedTuple):
    """One decided slot, with how the run or job that it started stands."""

    slot_us: int
    decision: str
    reason: str | None
    target: str | None
    status: str | None


@dataclass(frozen=True, slots=True)
class ScheduleFacts:
    """A schedule. `slots`: the newest first; `open`: what its open slots have started; `worker` looks after schedules."""

    now_us: int
    schedule_id: str
    target: str
    paused: bool
    note: str | None
    spec: Mapping[str, Any]
    before: Sequence[Mapping[str, Any]]
    overlap: str
    cursor_us: int
    slots: Sequence[SlotFacts]
    open: Sequence[str]
    worker: WorkerFacts | None


@dataclass(frozen=True, slots=True)
class StepFacts:
    """A step of a DAG: its status, the steps that it depends on, and the step because of which it was cancelled or skipped.

    `added`: the steps that it has added, until whose end it runs. `signal`: the one that it waits for.
    """

    status: str
    upstream: Sequence[str]
    cause: str | None = None
    failure: Mapping[str, Any] | None = None
    added: Sequence[str] = ()
    signal: str | None = None
