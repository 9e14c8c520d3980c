"""The duty of schedules: look at what is due, decide, write; and, when a worker starts, say what its code declares.

The decisions are `durable.core.schedule_policy`'s, the writing is one function in SQL. Whoever makes a pass from a state that has changed meanwhile, or
without being the duty's holder any more, writes nothing. Each slot's run has an id that follows from the schedule and the slot, which is one more
guard against starting it twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

from durable import schedule_requests, schedules
from durable.core.schedule_policy import MOST_IN_A_PASS, Pass, Policy, decide
from durable.core.schedule_times import Times
from durable.definitions import Activity, Workflow
from durable.errors import DurableError
from durable.store import duties
from durable.store.duties import DueSchedule, Duty, SlotStart
from durable.store.session import DatabaseRefused, Session
from durable.store.shards import shard_of

logger = logging.getLogger("durable.worker")

_JOBS = UUID("0f6ff2c5-9f0a-4f6e-8d2b-54a0d1c0a5d7")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_AT_ONCE = 50
_LONGEST_WAIT_S = 0.5
_AFTER_FAILURE_US = 60_000_000


class Scheduling:
    """Makes passes over the schedules that are due."""

    def __init__(self, session: Session, owner: str, *, tell: Callable[[str], None]) -> None:
        self._session = session
        self._owner = owner
        self._tell = tell

    async def round(self, duty: Duty) -> float:
        """One pass over each schedule that is due. Returns the seconds until there may be more to do."""
        due = await duties.due_schedules(self._session, _AT_ONCE, MOST_IN_A_PASS)
        for each in due:
            await self._pass(duty.epoch, each)
        next_us, now_us = await duties.next_schedule_us(self._session)
        wait_s = _LONGEST_WAIT_S if next_us is None else (next_us - now_us) / 1_000_000
        return min(max(wait_s, 0.0), _LONGEST_WAIT_S)

    async def _pass(self, epoch: int, due: DueSchedule) -> None:
        try:
            decided = decided_about(due)
            await self._write(epoch, due, decided)
        except (DurableError, LookupError, TypeError, ValueError):
            logger.exception(
                "schedule %s cannot be read here, it is left for a minute",
                due.schedule_id,
            )
            await self._write(epoch, due, Pass(due.state.cursor_us, due.now_us + _AFTER_FAILURE_US))
        except DatabaseRefused as error:
            if duties.is_duty_lost(error) or error.transient:
                raise
            note = f"paused because its slots cannot be started: {error}"
            logger.exception("schedule %s: %s", due.schedule_id, note)
            await self._write(epoch, due, Pass(due.state.cursor_us, None, pause_note=note))

    async def _write(self, epoch: int, due: DueSchedule, decided: Pass) -> None:
        started = (
            slot for slot, verdict in decided.verdicts.items() if verdict.decision == "started"
        )
        starts = {slot: start_of(due.schedule_id, due.action_kind, slot) for slot in started}
        _, hints = await duties.decide_slots(
            self._session, self._owner, epoch, due, decided, starts
        )
        for hint in dict.fromkeys(hints):
            self._tell(hint)


def decided_about(due: DueSchedule) -> Pass:
    """What is to become of a schedule's slots now."""
    times, policy = Times.from_body(dict(due.spec)), Policy(**due.policy)
    before = tuple((Times.from_body(each["spec"]), each["until_us"]) for each in due.before)
    return decide(due.schedule_id, times, policy, replace(due.state, before=before), due.now_us)


def start_of(schedule_id: str, kind: str, slot_us: int) -> SlotStart:
    """The id of what a slot starts: the schedule's id and the slot in UTC; for a job, a UUID made of these."""
    at = (_EPOCH + timedelta(microseconds=slot_us)).isoformat().replace("+00:00", "Z")
    name = f"{schedule_id}/{at}"
    target = name if kind == "workflow" else str(uuid5(_JOBS, name))
    return SlotStart(shard_of(target), target)


async def declare(
    session: Session, definitions: Iterable[Workflow[..., Any] | Activity[..., Any]]
) -> None:
    """Create or change the schedules that code declares with `schedule=`. What an operator has deleted or paused stays so."""
    newest: dict[str, Workflow[..., Any] | Activity[..., Any]] = {}
    for it in sorted(definitions, key=lambda it: getattr(it, "version", 1)):
        if it.schedule is not None:
            newest[schedules.declared_id(it)] = it
    for schedule_id, it in newest.items():
        given, digest = schedule_requests.declaration(it)
        outcome = await duties.declare_schedule(session, schedule_id, digest, given)
        _say(outcome, schedule_id, it)


def _say(outcome: str, schedule_id: str, it: Workflow[..., Any] | Activity[..., Any]) -> None:
    if outcome == "refused":
        logger.warning(
            "%r declares the schedule %s, an id that was made by hand; that one stays",
            it,
            schedule_id,
        )
    elif outcome == "deleted":
        logger.info("the schedule %s of %r was deleted by hand and stays so", schedule_id, it)
    elif outcome != "unchanged":
        logger.info("schedule %s of %r: %s", schedule_id, it, outcome)
