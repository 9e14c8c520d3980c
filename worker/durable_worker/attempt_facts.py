"""What an attempt's code is told about it: from the claimed row, the options of its call, and the context of its run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from uuid import UUID

from durable.activity_context import ActivityInfo
from durable.context import rebuilt, rebuilt_headers
from durable.core.policy import LIBRARY_DEFAULT
from durable.store.engine import ClaimedJob

if TYPE_CHECKING:
    from durable_worker.attempts import Attempt

_DEFAULT_ATTEMPTS = LIBRARY_DEFAULT.max_attempts or 0


@lru_cache(256)
def parsed_options(options: str) -> Mapping[str, Any]:
    """Options of jobs, which are the same text for all jobs of an activity as a rule."""
    parsed: Mapping[str, Any] = json.loads(options)
    return parsed


def carried_by(job: ClaimedJob, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The actor and the headers that came with the run, or with the standalone job."""
    if job.kind == "job":
        return options
    return {
        "actor": json.loads(job.actor) if job.actor else None,
        "headers": json.loads(job.headers) if job.headers else None,
    }


def info_of(
    attempt: Attempt,
    carried: Mapping[str, Any],
    heartbeat: str | None,
    scheduled_us: int,
    deadline_us: int | None,
) -> ActivityInfo:
    retry = attempt.options.get("retry") or {}
    snoozes = attempt.options.get("snoozes", 0)
    limit = retry.get("max_attempts", _DEFAULT_ATTEMPTS)
    slot = attempt.options.get("schedule") or {}
    return ActivityInfo(
        workflow_id=attempt.workflow_id,
        run_id=UUID(attempt.run_id) if attempt.kind == "activity" else None,
        activity_id=attempt.options.get("id") or attempt.run_id,
        name=attempt.name,
        queue=attempt.queue,
        attempt=attempt.attempt - snoozes,
        max_attempts=limit and limit - snoozes,
        idempotency_key=attempt.options.get("idempotency_key") or f"{attempt.run_id}/{attempt.seq}",
        actor=rebuilt(carried.get("actor")),
        deadline=None if deadline_us is None else _instant(deadline_us),
        heartbeat_details=tuple(json.loads(heartbeat)) if heartbeat else (),
        scheduled_at=_instant(scheduled_us),
        snoozes=snoozes,
        schedule_id=slot.get("id"),
        scheduled_for=_instant(slot["slot_us"]) if slot else None,
        headers=rebuilt_headers(carried.get("headers")),
        callback=attempt.options.get("callback"),
    )


def _instant(at_us: int) -> datetime:
    return datetime.fromtimestamp(at_us / 1e6, tz=UTC)
