"""The life of a job as a table: every change of state that there is, and what brings it about.

This table is the reference. The diagram in docs/guide/jobs.md is made of it, and a test watches a database through everything that
its functions do and compares: no other change may happen, and each of these must.

A set of states that holds a unique key must be *closed*: a job that has left it must not come back by itself, or the way back could meet
another job that has taken the key meanwhile. `refusal_of_unique_states` says what is wrong with a set that is not.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, NamedTuple, get_args

JobState = Literal[
    "scheduled",
    "available",
    "executing",
    "retryable",
    "waiting",
    "completed",
    "discarded",
    "cancelled",
]

STATES: tuple[JobState, ...] = get_args(JobState)
WAITING: frozenset[JobState] = frozenset({"scheduled", "available", "retryable"})
ENDED: frozenset[JobState] = frozenset({"completed", "discarded", "cancelled"})
UNFINISHED: frozenset[JobState] = frozenset({*WAITING, "executing", "waiting"})
BEFORE_START: frozenset[JobState] = frozenset({"scheduled", "available"})


class Transition(NamedTuple):
    """From one state to another; `before` None: the job is made."""

    before: JobState | None
    after: JobState
    by: str


TRANSITIONS: tuple[Transition, ...] = (
    Transition(None, "scheduled", "enqueued for later"),
    Transition(None, "available", "enqueued"),
    Transition(None, "executing", "enqueued beside a worker with a free slot"),
    Transition("scheduled", "available", "due, replaced, edited or retried by hand"),
    Transition("scheduled", "cancelled", "cancelled"),
    Transition("scheduled", "discarded", "deadline passed"),
    Transition("available", "scheduled", "replaced or edited to run later"),
    Transition("available", "executing", "claimed by a worker"),
    Transition("available", "cancelled", "cancelled"),
    Transition("available", "discarded", "deadline passed"),
    Transition("executing", "completed", "returned"),
    Transition("executing", "retryable", "failed or timed out"),
    Transition("executing", "scheduled", "snoozed, or unknown to the worker"),
    Transition("executing", "available", "worker died or stopped"),
    Transition("executing", "discarded", "failed for good"),
    Transition("executing", "cancelled", "cancelled, by itself or from outside"),
    Transition("executing", "waiting", "to be completed from elsewhere"),
    Transition("waiting", "completed", "completed"),
    Transition("waiting", "retryable", "failed or timed out"),
    Transition("waiting", "discarded", "failed for good"),
    Transition("waiting", "cancelled", "cancelled"),
    Transition("waiting", "available", "retried by hand"),
    Transition("retryable", "available", "due or retried by hand"),
    Transition("retryable", "cancelled", "cancelled"),
    Transition("retryable", "discarded", "deadline passed"),
    Transition("completed", "available", "retried by hand"),
    Transition("discarded", "available", "retried by hand"),
    Transition("cancelled", "available", "retried by hand"),
)

PERMITTED = frozenset((each.before, each.after) for each in TRANSITIONS)


def diagram() -> str:
    """The table as a Mermaid state diagram."""
    lines = [f"    {each.before or '[*]'} --> {each.after}: {each.by}" for each in TRANSITIONS]
    return "\n".join(["stateDiagram-v2", *lines])


def held_states(states: Collection[str]) -> frozenset[str]:
    """The states in which a job holds its unique key: one that waits to be completed from elsewhere is still the one that executed."""
    return frozenset({*states, "waiting"} if "executing" in states else states)


def refusal_of_unique_states(states: Collection[str]) -> str | None:
    """Why a job cannot hold its unique key in just these states; None if it can."""
    given = held_states(states)
    if unknown := sorted(given - set(STATES)):
        return f"there is no state {unknown[0]!r}; there are {', '.join(STATES)}"
    if missing := sorted(BEFORE_START - given):
        return f"a new job is scheduled or available, so {missing[0]!r} must be among them"
    if "executing" not in given and given != BEFORE_START:
        return "without 'executing' the key is free from the first start on, so only 'scheduled' and 'available' can hold it"
    if "executing" in given and "retryable" not in given:
        return (
            "a job that fails is 'retryable' and comes back: with 'executing' it must be among them"
        )
    return None
