"""What the holders of duties ask of the database, each one round trip (see migrations/0008_schedules.sql). Nothing here decides."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from durable.core.schedule_policy import Asked, Ended, Pass, State
from durable.ids import uuid7
from durable.store.arrays import plain, quoted
from durable.store.engine import hints
from durable.store.queries import load_queries
from durable.store.session import DatabaseRefused, Session

_SQL = load_queries("duties.sql")
_RETENTION = load_queries("retention.sql")

DUTY_LOST = "DU003"
ENDED = frozenset(["completed", "failed", "cancelled", "terminated", "discarded", "gone"])
"""How a run or job stands that has ended; the same in `durable.slot_is_open`."""


class Duty(NamedTuple):
    """A duty that is ours, until somebody else takes it after our lease."""

    name: str
    epoch: int


class DueSchedule(NamedTuple):
    """A schedule to be looked at, as the database has it. `before`: times that held earlier; `action_kind`: workflow or job."""

    schedule_id: str
    revision: int
    spec: Mapping[str, Any]
    before: Sequence[Mapping[str, Any]]
    policy: Mapping[str, Any]
    action_kind: str
    state: State
    now_us: int


class SlotStart(NamedTuple):
    """What a started slot starts: the workflow id, or the id of the job."""

    shard: int
    target: str


async def take_duties(session: Session, owner: str, lease_s: float) -> dict[str, Duty]:
    """Renew what we hold and take what nobody alive does; all that is ours then, by name."""
    rows = await session.fetch(_SQL["take_duties"], (owner, lease_s))
    return {row[0]: Duty._make(row) for row in rows}


async def drop_duties(session: Session, owner: str) -> None:
    """Leave our duties to others at once."""
    await session.fetch(_SQL["drop_duties"], (owner,))


async def due_schedules(session: Session, limit: int, slots: int) -> list[DueSchedule]:
    """Schedules that are due, the longest due first, each with at most `slots` of its open and of its pending slots."""
    rows = await session.fetch(_SQL["due_schedules"], (limit, slots))
    return [_due(*row) for row in rows]


def _due(
    schedule_id: str,
    revision: int,
    spec: str,
    before: str,
    policy: str,
    action_kind: str,
    cursor_us: int,
    passed_over_us: int,
    paused: bool,
    started: str | None,
    pending: str | None,
    buffered: str | None,
    now_us: int,
) -> DueSchedule:
    runs = json.loads(started or "[]")
    state = State(
        cursor_us,
        passed_over_us,
        paused,
        open=tuple(slot for slot, status in runs if status not in ENDED),
        ended=tuple(Ended(slot, status) for slot, status in runs if status in ENDED),
        asked=tuple(Asked(*each) for each in json.loads(pending or "[]")),
        buffered=tuple(Asked(*each) for each in json.loads(buffered or "[]")),
    )
    return DueSchedule(
        schedule_id,
        revision,
        json.loads(spec),
        json.loads(before),
        json.loads(policy),
        action_kind,
        state,
        now_us,
    )


async def next_schedule_us(session: Session) -> tuple[int | None, int]:
    """When the next schedule is due (None: none is), and the time now."""
    next_us, now_us = (await session.fetch(_SQL["next_schedule"]))[0]
    return next_us, now_us


async def decide_slots(
    session: Session,
    owner: str,
    epoch: int,
    due: DueSchedule,
    decided: Pass,
    starts: Mapping[int, SlotStart],
) -> tuple[bool, list[str]]:
    """Write a pass. Returns whether it still held, and the hints to give. Raises DatabaseRefused, also when the duty is not ours any more."""
    verdicts = [decided.verdicts[slot] for slot in sorted(decided.verdicts)]
    ended = due.state.ended
    targets = [starts.get(each.slot_us) for each in verdicts]
    rows = await session.fetch(
        _SQL["decide_slots"],
        (
            owner, epoch, due.schedule_id, due.revision, due.state.cursor_us, decided.cursor_us, decided.next_us, decided.pause_note,
            plain(each.slot_us for each in verdicts),
            plain(each.origin for each in verdicts),
            plain(each.decision for each in verdicts),
            quoted(each.reason for each in verdicts),
            plain(each.overlap for each in verdicts),
            quoted(None if each is None else each.target for each in targets),
            plain(None if each is None else each.shard for each in targets),
            plain(each.slot_us for each in ended),
            plain(each.outcome for each in ended),
            plain(decided.stops),
            plain(decided.stops.values()),
        ),
    )  # fmt: skip
    applied, pushes = rows[0]
    return applied, hints(pushes)


def is_duty_lost(error: DatabaseRefused) -> bool:
    """Whether the duty has another holder now; nothing was written."""
    return error.sqlstate == DUTY_LOST


async def declare_schedule(
    session: Session, schedule_id: str, digest: str, given: Mapping[str, str]
) -> str:
    """Say what code declares. Returns created, updated, unchanged, deleted (by somebody: it stays so) or refused (the id is somebody's own)."""
    rows = await session.fetch(
        _SQL["declare_schedule"],
        (schedule_id, str(uuid7()), digest, given["spec"], given["policy"], given["action"], given["input"]),
    )  # fmt: skip
    outcome: str = rows[0][0]
    return outcome


async def has_rules(session: Session) -> bool:
    """Whether anything is ever to be pruned."""
    found: bool = (await session.fetch(_RETENTION["has_rules"]))[0][0]
    return found


async def prune(
    session: Session,
    owner: str,
    epoch: int,
    kind: str,
    shard: int,
    after: str | None,
    scan: int,
    rows: int,
) -> tuple[str | None, int, int]:
    """One pass over a shard's runs or jobs by the stored rules. Returns where to go on (None: done), and how many were pruned and archived."""
    fence = (owner, epoch, shard, after, scan)
    name, given = (
        ("duty_prune_runs", (*fence, rows)) if kind == "run" else ("duty_prune_jobs", fence)
    )
    last_id, pruned, archived = (await session.fetch(_RETENTION[name], given))[0]
    return last_id, pruned, archived


async def prune_slots(session: Session, owner: str, epoch: int, limit: int) -> int:
    """One pass over the slots of schedules. Returns how many were pruned."""
    count: int = (await session.fetch(_RETENTION["duty_prune_slots"], (owner, epoch, limit)))[0][0]
    return count
