"""Why a run or a job has ended: closed lists. The words are never renamed, because programs and alerts match them.

A status says how a run stands; a cause says what brought it there, apart from what was asked: a run that was asked to stop and completed all the same is
`completed_after_cancel_request` (C9). The database derives causes from the last event (migrations/0014_evidence.sql), and a test compares
its lists with these. Nondeterminism is not among them: it parks a run and ends none (C8).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

RunCause = Literal[
    "completed", "completed_after_cancel_request", "failed", "step_failed", "failed_after_cancel_request", "timed_out", "cancelled",
    "cancelled_before_start", "terminated", "terminated_with_parent", "replaced", "continued", "reset",
]  # fmt: skip
JobCause = Literal[
    "completed", "completed_after_cancel_request", "cancelled", "cancelled_by_itself", "timed_out", "worker_lost", "non_retryable",
    "attempts_exhausted",
]  # fmt: skip

RUN_CAUSES: tuple[RunCause, ...] = get_args(RunCause)
JOB_CAUSES: tuple[JobCause, ...] = get_args(JobCause)

RUN_CAUSE_TEXTS: Mapping[RunCause, str] = {
    "completed": "its code returned",
    "completed_after_cancel_request": "it had been asked to stop, and its code returned all the same",
    "failed": "its code raised",
    "step_failed": "an activity or child failed, and its code did not catch that",
    "failed_after_cancel_request": "it had been asked to stop, and its code raised something else meanwhile",
    "timed_out": "it exceeded its run or execution timeout",
    "cancelled": "it was asked to stop, and its code did",
    "cancelled_before_start": "it was asked to stop before any worker had begun with it",
    "terminated": "somebody ended it by force",
    "terminated_with_parent": "its parent closed, and its close policy is to end with it",
    "replaced": "a start of the same id ended it by force and took its place",
    "continued": "its code continued as new; another run goes on",
    "reset": "somebody reset it; another run goes on from an earlier event",
}
JOB_CAUSE_TEXTS: Mapping[JobCause, str] = {
    "completed": "its activity returned",
    "completed_after_cancel_request": "it had been asked to stop, and returned all the same",
    "cancelled": "it was asked to stop",
    "cancelled_by_itself": "its activity said that it is no longer wanted",
    "timed_out": "a time limit passed",
    "worker_lost": "the worker that ran its last attempt died",
    "non_retryable": "its activity raised what is not tried again",
    "attempts_exhausted": "its last attempt failed",
}
