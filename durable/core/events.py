"""What happened to a run: the rows of its history, and the messages that may become rows.

Types are past tense and are never renamed: histories outlive releases. What each type does is in `machine.py`.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple


class Event(NamedTuple):
    """One row of a run's history (C1).

    `seq` counts from 1 without gaps. `turn` groups the rows of one activation: inbound rows first, then outbound.
    `at_us` is microseconds since the epoch and never decreases. `body` is small metadata of ours, `payload` the
    author's data as JSON text, character for character as it was encoded.
    """

    seq: int
    turn: int
    type: str
    at_us: int
    body: dict[str, Any]
    payload: str | None = None


class Message(NamedTuple):
    """A prospective inbound event: from the inbox, or straight from the worker that holds the run."""

    type: str
    at_us: int
    body: dict[str, Any]
    payload: str | None = None


WORKFLOW_STARTED: Final = "WorkflowStarted"
WORKFLOW_COMPLETED: Final = "WorkflowCompleted"
WORKFLOW_FAILED: Final = "WorkflowFailed"
WORKFLOW_CANCELLED: Final = "WorkflowCancelled"
WORKFLOW_CONTINUED: Final = "WorkflowContinued"
WORKFLOW_TERMINATED: Final = "WorkflowTerminated"
WORKFLOW_TIMED_OUT: Final = "WorkflowTimedOut"
WORKFLOW_RESET: Final = "WorkflowReset"

ACTIVITY_SCHEDULED: Final = "ActivityScheduled"
ACTIVITY_COMPLETED: Final = "ActivityCompleted"
ACTIVITY_FAILED: Final = "ActivityFailed"
ACTIVITY_TIMED_OUT: Final = "ActivityTimedOut"
ACTIVITY_CANCELLED: Final = "ActivityCancelled"
ACTIVITY_CANCEL_REQUESTED: Final = "ActivityCancelRequested"
ACTIVITY_EDITED: Final = "ActivityEdited"
ACTIVITY_RETRIED: Final = "ActivityRetried"

LOCAL_ACTIVITY_COMPLETED: Final = "LocalActivityCompleted"
LOCAL_ACTIVITY_FAILED: Final = "LocalActivityFailed"
LOCAL_ACTIVITY_BACKED_OFF: Final = "LocalActivityBackedOff"
FIRST_TURN_TAKEN: Final = "FirstTurnTaken"

TIMER_STARTED: Final = "TimerStarted"
TIMER_FIRED: Final = "TimerFired"
TIMER_CANCELLED: Final = "TimerCancelled"

CHILD_STARTED: Final = "ChildStarted"
CHILD_COMPLETED: Final = "ChildCompleted"
CHILD_FAILED: Final = "ChildFailed"
CHILD_CANCELLED: Final = "ChildCancelled"
CHILD_TERMINATED: Final = "ChildTerminated"
CHILD_REJECTED: Final = "ChildRejected"
CHILD_CANCEL_REQUESTED: Final = "ChildCancelRequested"
CHILD_SIGNALLED: Final = "ChildSignalled"

ATTRIBUTES_SET: Final = "AttributesSet"
DETAILS_SET: Final = "DetailsSet"
UPDATE_REQUESTED: Final = "UpdateRequested"
"""A message only: a request that is refused leaves no row."""
UPDATE_ACCEPTED: Final = "UpdateAccepted"
UPDATE_COMPLETED: Final = "UpdateCompleted"
UPDATE_FAILED: Final = "UpdateFailed"
PATCH_RECORDED: Final = "PatchRecorded"

SIGNAL_RECEIVED: Final = "SignalReceived"
CANCEL_REQUESTED: Final = "CancelRequested"
