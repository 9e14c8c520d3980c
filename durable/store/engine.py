"""The worker's verbs on the database, each one round trip. Everything here is I/O; nothing here decides."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from durable.core.events import WORKFLOW_STARTED, Event, Message
from durable.store.arrays import plain, quoted
from durable.store.batch import (
    Completion,
    Outcome,
    Parked,
    PutBack,
    Release,
    Retry,
    RunCommit,
    TokenTaken,
    attempt_arguments,
    commit_arguments,
    completion_arguments,
    outcome_arguments,
    release_arguments,
    retry_arguments,
)
from durable.store.migrate import ensure_current_async
from durable.store.queries import load_queries
from durable.store.sealing import is_sealed, opened, opened_texts, sealed_all, sealed_text
from durable.store.session import DatabaseRefused, Session

_SQL = load_queries("engine.sql")

RUN_FENCE_LOST = "DU001"
JOB_FENCE_LOST = "DU002"


class FenceLost(Exception):
    """Some run or job of the batch has another owner now; nothing was written (C2).

    `losers` are positions in the batch; empty when the database cannot tell which (then bisect).
    """

    def __init__(self, losers: frozenset[int]) -> None:
        super().__init__(f"lost the fence of {sorted(losers) or 'a job'}")
        self.losers = losers


class ClaimedRun(NamedTuple):
    """A run that is ours from now on. `start` is its whole history when that is its first event alone."""

    shard: int
    run_id: str
    workflow_id: str
    workflow: str
    version: int
    epoch: int
    last_seq: int
    turn: int
    queue: str
    priority: int
    reviewed: bool
    has_messages: bool = False
    start: Event | None = None


class InboxRow(NamedTuple):
    """A message waiting for one of our runs; or why it cannot be read here."""

    shard: int
    run_id: str
    message_id: str
    message: Message | Exception


class ClaimedJob(NamedTuple):
    """An attempt that is ours to run. `options` is the body of the opening event, or the job's own."""

    shard: int
    run_id: str
    seq: int
    kind: str
    name: str
    queue: str
    attempt: int
    input: str | None
    options: str
    workflow_id: str | None
    actor: str | None
    heartbeat: str | None
    scheduled_us: int
    created_us: int
    headers: str | None
    unreadable: str | None = None  # why its input cannot be read here


class Held(NamedTuple):
    """What the database believes that this worker holds: kind is 'run' (number: epoch) or 'job' (number: attempt)."""

    kind: str
    shard: int
    run_id: str
    number: int
    seq: int


class Heartbeat(NamedTuple):
    """A sign of life of an executing attempt; `details` None leaves the stored ones alone."""

    shard: int
    run_id: str
    seq: int
    attempt: int
    details: str | None
    interval_s: float | None


async def check_schema(session: Session) -> None:
    """Raise SchemaOutOfDate unless the database has this release's migrations."""
    await ensure_current_async(await session.connection())


async def commit(
    session: Session, owner: str, commits: Sequence[RunCommit]
) -> tuple[int, list[str]]:
    """Write a batch of turns. Returns the database's time (us) and the hints to give.

    Raises FenceLost when a run or job is no longer ours, ConnectionLost when the outcome is unknown.
    """
    try:
        plain_or_sealed = await sealed_all(session.payloads, commits)
        rows = await session.fetch(_SQL["commit"], commit_arguments(owner, plain_or_sealed))
    except DatabaseRefused as error:
        raise _fence_lost(error) or error from error
    now_us, pushes = rows[0]
    return now_us, hints(pushes)


def hints(pushes: str | None) -> list[str]:
    """What the database says who is to be told: hints, or the bare ids of workers."""
    return [it if ":" in it else f"worker:{it}" for it in json.loads(pushes)] if pushes else []


def _fence_lost(error: DatabaseRefused) -> FenceLost | None:
    if error.sqlstate not in (RUN_FENCE_LOST, JOB_FENCE_LOST):
        return None
    detail = error.detail if error.sqlstate == RUN_FENCE_LOST else ""
    return FenceLost(frozenset(int(mark[1:]) - 1 for mark in detail.split(",") if mark))


async def claim_runs(
    session: Session, owner: str, queues: Sequence[str], limit: int
) -> list[ClaimedRun]:
    """Take up to `limit` claimable runs of the queues."""
    rows = await session.fetch(_SQL["claim_runs"], (owner, quoted(queues), limit))
    claimed = [ClaimedRun._make((*row[:12], _first_event(*row[12:]))) for row in rows]
    return [await _opened_run(session, run) for run in claimed]


async def _opened_run(session: Session, run: ClaimedRun) -> ClaimedRun:
    """With its first event as it was sealed; if that cannot be read, `load_history` says why."""
    if run.start is None or not is_sealed(run.start.body, run.start.payload):
        return run
    read = await opened(session.payloads, [run.start])
    return run._replace(start=None if isinstance(read, Exception) else read[0])


def _first_event(at_us: int | None, body: str, payload: str | None) -> Event | None:
    return (
        None if at_us is None else Event(1, 0, WORKFLOW_STARTED, at_us, json.loads(body), payload)
    )


async def load_history(
    session: Session, runs: Sequence[ClaimedRun]
) -> dict[str, list[Event] | Exception]:
    """Return the whole histories of claimed runs by run id; or why one cannot be read here."""
    rows = await session.fetch(
        _SQL["load_history"], (plain([r.shard for r in runs]), plain([r.run_id for r in runs]))
    )
    histories: dict[str, list[Event]] = {run.run_id: [] for run in runs}
    for run_id, seq, turn, kind, at_us, body, payload in rows:
        histories[run_id].append(Event(seq, turn, kind, at_us, json.loads(body), payload))
    return {run_id: await opened(session.payloads, rows) for run_id, rows in histories.items()}


async def read_inbox(
    session: Session, owner: str, queues: Sequence[str], limit: int
) -> list[InboxRow]:
    """Return the messages for runs that `owner` owns, oldest first; those not yet consumed come again."""
    rows = await session.fetch(_SQL["read_inbox"], (owner, quoted(queues), limit))
    messages = []
    for shard, run_id, message_id, kind, at_us, body, payload in rows:
        sent = Message(kind, at_us, json.loads(body), payload)
        read: list[Message] | Exception = [sent]
        if is_sealed(sent.body, payload):
            read = await opened(session.payloads, [sent])
        message = read if isinstance(read, Exception) else read[0]
        messages.append(InboxRow(shard, run_id, message_id, message))
    return messages


async def release_runs(session: Session, owner: str, releases: Sequence[Release]) -> None:
    """Give runs back; those no longer ours are left alone."""
    releases = await sealed_all(session.payloads, releases)
    await session.fetch(_SQL["release_runs"], release_arguments(owner, releases))


async def stage_due(session: Session, limit: int) -> tuple[int, int | None]:
    """Fire due timers and stage due jobs. Returns how many moved, and when the next is due (us)."""
    fired, staged, next_due_us = (await session.fetch(_SQL["stage_due"], (limit,)))[0]
    return fired + staged, next_due_us


async def claim_jobs(
    session: Session, owner: str, wanted: Mapping[str, int], *, aged: bool = False
) -> list[ClaimedJob]:
    """Take available jobs, per queue at most as many as wanted. `aged`: some of them those that have waited longest, whatever their priority."""
    rows = await session.fetch(
        _SQL["claim_jobs"], (owner, quoted(wanted.keys()), plain(wanted.values()), aged)
    )
    jobs = [ClaimedJob(*row) for row in rows]
    return [
        await _opened_job(session, job)
        if is_sealed({}, job.input) or is_sealed({}, job.heartbeat)
        else job
        for job in jobs
    ]


async def _opened_job(session: Session, job: ClaimedJob) -> ClaimedJob:
    read = await opened_texts(session.payloads, job.input, job.heartbeat)
    if isinstance(read, Exception):
        return job._replace(unreadable=str(read))
    return job._replace(input=read[0], heartbeat=read[1])


class QueueRule(NamedTuple):
    """What a worker must know of a queue. `special`: it has limits or is paused; `slots` None: as the worker was started."""

    name: str
    special: bool
    slots: int | None


async def queue_rules(session: Session, queues: Sequence[str]) -> list[QueueRule]:
    """Return the rules of those of the queues that have any."""
    rows = await session.fetch(_SQL["queue_rules"], (quoted(queues),))
    return [QueueRule._make(row) for row in rows]


async def settle_jobs(
    session: Session, owner: str, outcomes: Sequence[Outcome]
) -> tuple[list[int], list[str]]:
    """Record outcomes. Returns the positions refused by the fence, and the hints to give."""
    outcomes = await sealed_all(session.payloads, outcomes)
    refused, wake = (await session.fetch(_SQL["settle_jobs"], outcome_arguments(owner, outcomes)))[
        0
    ]
    return [ix - 1 for ix in refused or ()], wake or []


async def complete_jobs(
    session: Session, owner: str, completions: Sequence[Completion]
) -> tuple[list[int], list[str]]:
    """Record that standalone jobs returned. Answers as `settle_jobs` does; nobody needs a hint."""
    completions = await sealed_all(session.payloads, completions)
    rows = await session.fetch(_SQL["complete_jobs"], completion_arguments(owner, completions))
    return [ix - 1 for ix in rows[0][0] or ()], []


async def retry_jobs(session: Session, owner: str, retries: Sequence[Retry]) -> list[int]:
    """Schedule next attempts. Returns the positions refused by the fence."""
    retries = await sealed_all(session.payloads, retries)
    rows = await session.fetch(_SQL["retry_jobs"], retry_arguments(owner, retries))
    return [ix - 1 for ix in rows[0][0] or ()]


async def put_back_jobs(session: Session, owner: str, jobs: Sequence[PutBack]) -> None:
    """Return attempts that never started."""
    await session.fetch(_SQL["put_back_jobs"], retry_arguments(owner, jobs))


async def take_tokens(session: Session, owner: str, tokens: Sequence[TokenTaken]) -> None:
    """Write down which completion tokens attempts have handed out."""
    await session.fetch(_SQL["take_tokens"], attempt_arguments(owner, tokens))


async def park_jobs(session: Session, owner: str, attempts: Sequence[Parked]) -> None:
    """End attempts whose outcome will come from outside."""
    await session.fetch(_SQL["park_jobs"], attempt_arguments(owner, attempts))


async def heartbeat_jobs(
    session: Session, owner: str, beats: Sequence[Heartbeat]
) -> dict[int, bool]:
    """Store heartbeats. Returns, by position, whether cancel was requested; a missing position has lost its fence."""
    rows = await session.fetch(
        _SQL["heartbeat_jobs"],
        (
            owner,
            plain([b.shard for b in beats]),
            plain([b.run_id for b in beats]),
            plain([b.seq for b in beats]),
            plain([b.attempt for b in beats]),
            quoted([sealed_text(session.payloads, b.details) for b in beats]),
            plain([b.interval_s for b in beats]),
        ),
    )
    return {ix - 1: cancel for ix, cancel in rows}


async def bury_dead_workers(session: Session, limit: int) -> tuple[int, int, int]:
    """Free what lapsed workers held. Returns the numbers of workers, runs and jobs."""
    workers, runs, jobs = (await session.fetch(_SQL["bury_dead_workers"], (limit,)))[0]
    return workers, runs, jobs


async def expire_deadlines(session: Session, grace_s: float, limit: int) -> int:
    """End what has waited or run past its deadline. Returns how many."""
    count: int = (await session.fetch(_SQL["expire_deadlines"], (grace_s, limit)))[0][0]
    return count


async def beat(
    session: Session, owner: str, name: str, state: str, queues: str, info: str, lease_s: float
) -> tuple[bool, int]:
    """Renew the worker's lease. Returns whether it still lives for the database, and the time (us)."""
    alive, now_us = (
        await session.fetch(_SQL["beat"], (owner, name, state, queues, info, lease_s))
    )[0]
    return alive, now_us


async def announce(session: Session, owner: str, build: str | None, workflows: str) -> None:
    """Publish the worker's build, and as a JSON object the versions of each workflow that it has."""
    await session.fetch(_SQL["announce"], (build, workflows, owner))


async def owned(session: Session, owner: str, *, jobs: bool) -> list[Held]:
    """Return what the database believes this worker holds. `jobs`: with its attempts, which takes a scan of the queue."""
    rows = await session.fetch(_SQL["owned"], (owner, jobs, owner))
    return [Held._make(row) for row in rows]


async def leave(session: Session, owner: str, *, finished: bool) -> None:
    """Sign the worker off. Not `finished`: its lease ends now and others take over what it still held."""
    await session.fetch(_SQL["leave"], (finished, owner))


async def sweep_orphans(session: Session, limit: int) -> int:
    """Remove messages that reached a run while it closed. Returns how many."""
    count: int = (await session.fetch(_SQL["sweep_orphans"], (limit,)))[0][0]
    return count


async def notify(session: Session, hint: str) -> None:
    """Send a wake-up hint (C4): 'queue:<name>' or 'worker:<id>'."""
    await session.fetch(_SQL["notify"], (hint,))


async def listen(session: Session) -> None:
    """Subscribe the session to hints; `session.listen` hears them."""
    await session.fetch(_SQL["listen"])


class Registration(NamedTuple):
    """A name that running code knows, with the JSON schema of its input."""

    kind: str
    name: str
    version: int
    queue: str | None
    schema: str
    options: str | None = None


async def register_definitions(session: Session, definitions: Sequence[Registration]) -> None:
    """Publish what this worker's code defines."""
    await session.fetch(
        _SQL["register_definitions"],
        (
            plain([d.kind for d in definitions]),
            quoted([d.name for d in definitions]),
            plain([d.version for d in definitions]),
            quoted([d.queue for d in definitions]),
            quoted([d.schema for d in definitions]),
            quoted([d.options for d in definitions]),
        ),
    )
