"""What the worker writes, as plain records, and how a batch of them becomes the arrays of one SQL call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pydantic_core import to_json

from durable.core.events import Event
from durable.store.arrays import plain, quoted


def _dumps(value: dict[str, Any]) -> str:
    """JSON text of one of our own documents; four times as fast as the json module here."""
    return to_json(value).decode()


class JobInsert(NamedTuple):
    """A row for the job queue, caused by the event with the same `seq`."""

    seq: int
    kind: str  # activity | timer
    name: str
    queue: str
    priority: int
    eager: bool  # inserted as executing under the committing worker's own lease
    at_us: int | None  # None: due now
    deadline_s: float | None
    deadline_kind: str | None


@dataclass(slots=True)
class RunCommit:
    """All that one turn of one run writes, and the fence it must pass."""

    shard: int
    run_id: str
    epoch: int
    expected_seq: int
    last_seq: int
    turn: int
    status: str
    waiting_on: str | None
    events: list[Event]
    cancel_requested: bool = False
    jobs: list[JobInsert] = field(default_factory=list)
    done: list[tuple[int, int]] = field(
        default_factory=list
    )  # (seq, attempt) that this worker ended
    timers_cancelled: list[int] = field(default_factory=list)
    activities_cancelled: list[int] = field(default_factory=list)
    consumed: list[str] = field(default_factory=list)  # message ids
    signals: list[tuple[str, int]] = field(default_factory=list)  # (signal id, seq)
    updates: dict[str, dict[str, Any]] | None = None  # what was decided about them, by id
    hints: set[str] = field(default_factory=set)  # to give once it is written


class Outcome(NamedTuple):
    """How an attempt ended, for a run that is owned elsewhere or a standalone job."""

    shard: int
    run_id: str
    seq: int
    attempt: int
    type: str
    body: dict[str, Any]
    payload: str | None


NO_RETRY = -1.0
"""The delay of an attempt that an operator has to allow."""


class Completion(NamedTuple):
    """A standalone job returned. What most outcomes are, so it travels light."""

    shard: int
    run_id: str
    attempt: int
    result: str


class Retry(NamedTuple):
    """An attempt failed, or without an error: snoozes; the next is due after `delay_s`, or waits for an operator (NO_RETRY)."""

    shard: int
    run_id: str
    seq: int
    attempt: int
    delay_s: float
    error: dict[str, Any] | None


class PutBack(NamedTuple):
    """An attempt that never started here; it does not count."""

    shard: int
    run_id: str
    seq: int
    attempt: int
    delay_s: float
    note: dict[str, Any] | None


class TokenTaken(NamedTuple):
    """An attempt has handed out its completion token; `token` is the SHA-256 of it, in hex."""

    shard: int
    run_id: str
    seq: int
    attempt: int
    token: str


class Parked(NamedTuple):
    """An attempt ended here after so long, and will be completed from outside with its token (as in TokenTaken)."""

    shard: int
    run_id: str
    seq: int
    attempt: int
    elapsed_s: float
    token: str


class Release(NamedTuple):
    """A run given back. `delay_s` None: claimable only through a new message."""

    shard: int
    run_id: str
    epoch: int
    delay_s: float | None
    review: dict[str, Any] | None


def commit_arguments(owner: str, commits: Sequence[RunCommit]) -> tuple[str | None, ...]:
    """Flatten a batch into the parameters of `commit`, in the statement's order."""
    numbered = list(enumerate(commits, 1))
    return (
        owner,
        *_run_columns(commits),
        *_event_columns([(ix, e) for ix, c in numbered for e in c.events]),
        *_job_columns([(ix, j) for ix, c in numbered for j in c.jobs]),
        *_columns([(ix, *d) for ix, c in numbered for d in c.done], 3),
        *_columns([(ix, s) for ix, c in numbered for s in c.timers_cancelled], 2),
        *_columns([(ix, s) for ix, c in numbered for s in c.activities_cancelled], 2),
        *_columns([(ix, m) for ix, c in numbered for m in c.consumed], 2),
        *_columns([(ix, *s) for ix, c in numbered for s in c.signals], 3),
        _update_rows(numbered),
    )


def _update_rows(numbered: list[tuple[int, RunCommit]]) -> str | None:
    """The array that `settle_updates` reads; results are the author's text, so they are not encoded again."""
    rows = [
        _update_row({"ix": ix, **update})
        for ix, c in numbered
        for update in (c.updates or {}).values()
    ]
    return f"[{','.join(rows)}]" if rows else None


def _update_row(update: dict[str, Any]) -> str:
    payload = update.pop("payload", None)
    text = _dumps(update)
    return text if payload is None else f'{text[:-1]},"payload":{payload}}}'


def _run_columns(commits: Sequence[RunCommit]) -> tuple[str, ...]:
    return (
        plain([c.shard for c in commits]),
        plain([c.run_id for c in commits]),
        plain([c.epoch for c in commits]),
        plain([c.expected_seq for c in commits]),
        plain([c.last_seq for c in commits]),
        plain([c.turn for c in commits]),
        plain([c.status for c in commits]),
        quoted([c.waiting_on for c in commits]),
        plain([c.cancel_requested for c in commits]),
    )


def _event_columns(events: list[tuple[int, Event]]) -> tuple[str, ...]:
    return (
        plain([ix for ix, _ in events]),
        plain([e.seq for _, e in events]),
        plain([e.turn for _, e in events]),
        plain([e.type for _, e in events]),
        plain([e.at_us for _, e in events]),
        quoted([_dumps(e.body) for _, e in events]),
        quoted([e.payload for _, e in events]),
    )


def _job_columns(jobs: list[tuple[int, JobInsert]]) -> tuple[str, ...]:
    if not jobs:
        return ("{}",) * 10
    return (
        plain([ix for ix, _ in jobs]),
        plain([j.seq for _, j in jobs]),
        plain([j.kind for _, j in jobs]),
        quoted([j.name for _, j in jobs]),
        quoted([j.queue for _, j in jobs]),
        plain([j.priority for _, j in jobs]),
        plain([j.eager for _, j in jobs]),
        plain([j.at_us for _, j in jobs]),
        plain([j.deadline_s for _, j in jobs]),
        plain([j.deadline_kind for _, j in jobs]),
    )


def _columns(rows: list[tuple[Any, ...]], width: int) -> tuple[str, ...]:
    if not rows:
        return ("{}",) * width
    return tuple(plain(column) for column in zip(*rows, strict=True))


def outcome_arguments(owner: str, outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    """Flatten outcomes into the parameters of `settle_jobs`."""
    return (
        owner,
        *_columns([o[:4] for o in outcomes], 4),
        plain([o.type for o in outcomes]),
        quoted([_dumps(o.body) for o in outcomes]),
        quoted([o.payload for o in outcomes]),
    )


def completion_arguments(owner: str, completions: Sequence[Completion]) -> tuple[str, ...]:
    """Flatten completions into the parameters of `complete_jobs`."""
    shards, jobs, attempts, results = zip(*completions, strict=True)
    return owner, plain(shards), plain(jobs), plain(attempts), quoted(results)


def retry_arguments(owner: str, retries: Sequence[Retry | PutBack]) -> tuple[str, ...]:
    """Flatten retries (or put-backs) into the parameters of `retry_jobs` (or `put_back_jobs`)."""
    notes = [r.error if isinstance(r, Retry) else r.note for r in retries]
    return (
        owner,
        *_columns([r[:5] for r in retries], 5),
        quoted([None if note is None else _dumps(note) for note in notes]),
    )


def attempt_arguments(owner: str, attempts: Sequence[TokenTaken | Parked]) -> tuple[str, ...]:
    """Flatten attempts with one more column into the parameters of `take_tokens` or `park_jobs`."""
    return (owner, *_columns([tuple(it) for it in attempts], len(attempts[0])))


def release_arguments(owner: str, releases: Sequence[Release]) -> tuple[str, ...]:
    """Flatten releases into the parameters of `release_runs`."""
    return (
        owner,
        *_columns([r[:4] for r in releases], 4),
        quoted([None if r.review is None else _dumps(r.review) for r in releases]),
    )
