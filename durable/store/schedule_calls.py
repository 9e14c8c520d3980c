"""The client's operations on schedules, each described once, as those of calls.py."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from durable.core.schedule_policy import Overlap, Policy
from durable.core.schedule_times import Times
from durable.errors import ScheduleAlreadyExists, ScheduleChanged, ScheduleNotFound
from durable.ids import uuid7
from durable.store.arrays import plain
from durable.store.calls import Call, Row, Sent, from_us
from durable.store.queries import load_queries

_SQL = load_queries("schedules.sql")

Mode = Literal["update", "keep", "fail", "revise"]
Command = Literal["pause", "resume", "delete", "trigger", "backfill"]
Outcome = Literal["created", "updated", "unchanged"]


@dataclass(frozen=True, slots=True)
class StoredSchedule:
    """A schedule as the database has it. `input` is JSON text; `open` counts runs that go on, `waiting` slots that wait to start."""

    schedule_id: str
    revision: int
    times: Times
    policy: Policy
    action: dict[str, Any]
    input: str | None
    paused: bool
    note: str | None
    declared: bool
    cursor_us: int
    created_at: datetime
    updated_at: datetime
    now_us: int
    open: int
    waiting: int


@dataclass(frozen=True, slots=True)
class ScheduleSlot:
    """What was decided about one slot, and what became of it.

    `origin`: its own time, a trigger or a backfill. `decision`: pending, started, buffered, skipped or missed, `reason` says why. `target` is the
    workflow id, or the id of the job, that was started, `outcome` how that stands.
    """

    scheduled_for: datetime
    origin: str
    decision: str
    reason: str | None
    kind: str | None
    target: str | None
    outcome: str | None
    decided_at: datetime


def put_schedule(
    schedule_id: str, mode: Mode, given: Mapping[str, Any], *, revision: int | None = None
) -> Call[Outcome]:
    """Create or change a schedule. Raises ScheduleAlreadyExists, ScheduleNotFound; ScheduleChanged when it is not at `revision` any more."""

    def decode(rows: list[Row]) -> Outcome:
        match rows[0]["outcome"]:
            case "refused":
                msg = f"a schedule with the id {schedule_id!r} exists already; use another id, or on_existing="
                raise ScheduleAlreadyExists(msg)
            case "deleted":
                raise not_found(schedule_id)
            case "changed":
                msg = f"schedule {schedule_id!r} was changed by somebody else meanwhile; look at it and try again"
                raise ScheduleChanged(msg)
            case outcome:
                found: Outcome = outcome
                return found

    parameters = {
        "paused": False,
        "note": None,
        "actor": None,
        **given,
        "schedule_id": schedule_id,
        "request_id": str(uuid7()),
        "mode": mode,
        "revision": revision,
    }
    return Call(_SQL["put_schedule"], parameters, decode)


def command_schedule(
    schedule_id: str,
    command: Command,
    *,
    note: str | None = None,
    overlap: Overlap | None = None,
    slots: Sequence[int] = (),
    actor: str | None = None,
) -> Call[Sent[Row]]:
    """Pause, resume, delete, trigger or backfill; answers `slot_us` and how many were `asked`. Raises ScheduleNotFound."""

    def decode(rows: list[Row]) -> Sent[Row]:
        if rows[0]["status"] == "unknown":
            raise not_found(schedule_id)
        return Sent(rows[0])

    parameters = {
        "schedule_id": schedule_id,
        "command": command,
        "note": note,
        "overlap": overlap,
        "slots": plain(slots),
        "actor": actor,
        "request_id": str(uuid7()),
    }
    return Call(_SQL["command_schedule"], parameters, decode)


def read_schedule(schedule_id: str) -> Call[StoredSchedule]:
    """Raises ScheduleNotFound."""

    def decode(rows: list[Row]) -> StoredSchedule:
        if not rows:
            raise not_found(schedule_id)
        return _stored(rows[0])

    return Call(
        _SQL["read_schedules"], {"schedule_id": schedule_id, "prefix": None, "limit": 1}, decode
    )


def list_schedules(prefix: str | None, limit: int) -> Call[list[StoredSchedule]]:
    """All, or those whose ids begin so, in the order of their ids."""
    parameters = {"schedule_id": None, "prefix": prefix, "limit": limit}
    return Call(_SQL["read_schedules"], parameters, lambda rows: [_stored(row) for row in rows])


def read_slots(schedule_id: str, decision: str | None, limit: int) -> Call[list[ScheduleSlot]]:
    """The decisions about a schedule's slots, the newest first."""
    parameters = {"schedule_id": schedule_id, "decision": decision, "limit": limit}
    return Call(_SQL["read_slots"], parameters, lambda rows: [_slot(row) for row in rows])


def read_now() -> Call[int]:
    """The database's time (C19) in microseconds."""
    return Call(_SQL["read_now"], {}, lambda rows: int(rows[0]["now_us"]))


def count_schedules() -> Call[tuple[int, int, int]]:
    """How many there are, are overdue, and have paused themselves."""
    return Call(
        _SQL["count_schedules"],
        {},
        lambda rows: (rows[0]["total"], rows[0]["overdue"], rows[0]["stopped"]),
    )


def not_found(schedule_id: str) -> ScheduleNotFound:
    return ScheduleNotFound(
        f"no schedule has the id {schedule_id!r} in this database; `durable schedule list` shows those that exist"
    )


def _stored(row: Row) -> StoredSchedule:
    times = {name: from_us(row[name]) for name in ("created_at", "updated_at")}
    read = {
        "times": Times.from_body(json.loads(row["spec"])),
        "policy": Policy(**json.loads(row["policy"])),
        "action": json.loads(row["action"]),
    }
    kept = {name: value for name, value in row.items() if name not in ("spec", "policy")}
    return StoredSchedule(**{**kept, **times, **read})


def _slot(row: Row) -> ScheduleSlot:
    times = {name: from_us(row[name]) for name in ("scheduled_for", "decided_at")}
    return ScheduleSlot(**{**row, **times})
