"""What each new event of a turn means for the database: a pure function of its type (C3).

A decision of the core *is* its list of events; this table turns them into the rows of one commit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from durable.core.events import Event
from durable.store.batch import JobInsert, RunCommit

CLOSING_STATUS = {
    "WorkflowCompleted": "completed",
    "WorkflowFailed": "failed",
    "WorkflowCancelled": "cancelled",
    "WorkflowContinued": "continued",
}

TakeSlot = Callable[[str, str], bool]
"""Reserves a slot for an activity (name, queue) of this worker; False when it cannot run here now."""


def add_effects(commit: RunCommit, event: Event, queue: str, take_slot: TakeSlot) -> None:
    """Add to `commit` what `event` causes. Events that only inform cause nothing."""
    effect = _EFFECTS.get(event.type)
    if effect is not None:
        effect(commit, event, queue, take_slot)


def execution_deadline(timeouts: dict[str, Any]) -> tuple[float | None, str | None]:
    """Return when (s from now) and why an attempt that starts now ends at the latest."""
    return _earliest(timeouts, ("start_to_close", "schedule_to_close", "heartbeat"))


def _earliest(timeouts: dict[str, Any], kinds: tuple[str, ...]) -> tuple[float | None, str | None]:
    set_here = [(timeouts[f"{kind}_s"], kind) for kind in kinds if f"{kind}_s" in timeouts]
    return min(set_here) if set_here else (None, None)


def _schedule_activity(commit: RunCommit, event: Event, _queue: str, take_slot: TakeSlot) -> None:
    body = event.body
    eager = take_slot(body["name"], body["queue"])
    timeouts = body.get("timeouts")
    deadline: tuple[float | None, str | None] = (None, None)
    if timeouts:
        waiting = ("schedule_to_start", "schedule_to_close")
        deadline = execution_deadline(timeouts) if eager else _earliest(timeouts, waiting)
    commit.jobs.append(
        JobInsert(
            event.seq,
            "activity",
            body["name"],
            body["queue"],
            body["priority"],
            eager,
            None,
            *deadline,
        )
    )


def _start_timer(commit: RunCommit, event: Event, queue: str, _take_slot: TakeSlot) -> None:
    commit.jobs.append(
        JobInsert(
            event.seq,
            "timer",
            event.body.get("reason", "sleep"),
            queue,
            0,
            False,
            event.body["fire_at_us"],
            None,
            None,
        )
    )


def _cancel_timer(commit: RunCommit, event: Event, _queue: str, _take_slot: TakeSlot) -> None:
    commit.timers_cancelled.append(event.body["ref"])


def _cancel_activity(commit: RunCommit, event: Event, _queue: str, _take_slot: TakeSlot) -> None:
    commit.activities_cancelled.append(event.body["ref"])


def _start_child(commit: RunCommit, event: Event, _queue: str, _take_slot: TakeSlot) -> None:
    commit.hints.add(
        f"runs:{event.body['queue']}"
    )  # the row itself the database makes of the event


def _mark_cancelled(commit: RunCommit, _event: Event, _queue: str, _take_slot: TakeSlot) -> None:
    commit.cancel_requested = True


def _deliver_signal(commit: RunCommit, event: Event, _queue: str, _take_slot: TakeSlot) -> None:
    commit.signals.append((event.body["signal_id"], event.seq))


def _close(commit: RunCommit, event: Event, _queue: str, _take_slot: TakeSlot) -> None:
    commit.status = CLOSING_STATUS[event.type]


def _continue(commit: RunCommit, event: Event, queue: str, _take_slot: TakeSlot) -> None:
    commit.status = CLOSING_STATUS[event.type]
    commit.hints.add(f"runs:{queue}")  # the successor


def _accept_update(commit: RunCommit, event: Event, _queue: str, _take_slot: TakeSlot) -> None:
    _note_update(commit, event.body, to="accepted", seq=event.seq)


def _complete_update(commit: RunCommit, event: Event, _queue: str, _take_slot: TakeSlot) -> None:
    _note_update(commit, event.body, to="completed", payload=event.payload)


def _fail_update(commit: RunCommit, event: Event, _queue: str, _take_slot: TakeSlot) -> None:
    _note_update(commit, event.body, to="failed", failure=event.body["failure"])


def refuse_updates(commit: RunCommit, refused: dict[str, dict[str, Any]]) -> None:
    """Add what requesters of rejected updates are told; there is no event for it."""
    for update_id, failure in refused.items():
        _note_update(commit, {"update_id": update_id, "name": ""}, to="rejected", failure=failure)


def _note_update(commit: RunCommit, body: dict[str, Any], **facts: Any) -> None:
    """What the table of updates is to say; of one that is accepted and ends in one turn, both."""
    commit.updates = commit.updates or {}
    known = commit.updates.setdefault(
        body["update_id"], {"id": body["update_id"], "name": body["name"]}
    )
    known.update(facts)


_EFFECTS: dict[str, Callable[[RunCommit, Event, str, TakeSlot], None]] = {
    "ActivityScheduled": _schedule_activity,
    "ActivityCancelRequested": _cancel_activity,
    "ChildStarted": _start_child,
    "TimerStarted": _start_timer,
    "TimerCancelled": _cancel_timer,
    "CancelRequested": _mark_cancelled,
    "SignalReceived": _deliver_signal,
    "UpdateAccepted": _accept_update,
    "UpdateCompleted": _complete_update,
    "UpdateFailed": _fail_update,
    **dict.fromkeys(CLOSING_STATUS, _close),
    "WorkflowContinued": _continue,
}
