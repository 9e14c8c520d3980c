"""What a caller asks of retention, checked before anything is written (C18). Pure, and shared by both clients and the command line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, get_args

from durable import requests
from durable.core.job_life import JobState
from durable.core.names import checked_name
from durable.core.schedule_policy import Decision
from durable.descriptions import Status
from durable.errors import InvalidOption
from durable.store.retention_calls import Kind, RetentionRule

KINDS: tuple[Kind, ...] = get_args(Kind)
STATES: dict[Kind, tuple[str, ...]] = {
    "run": tuple(each for each in get_args(Status) if each != "running"),
    "job": ("completed", "discarded", "cancelled"),
    "slot": tuple(each for each in get_args(Decision) if each != "buffered"),
}
assert set(STATES["job"]) < set(get_args(JobState))


@dataclass(frozen=True, slots=True)
class PruneReport:
    """How many of each kind were pruned, and how many of those archived; with `dry_run`, would have been."""

    runs: int
    jobs: int
    slots: int
    archived: int
    dry_run: bool


def rule(
    kind: Any,
    keep: timedelta | float | None,
    queue: str = "*",
    state: str = "*",
    *,
    archive: bool = False,
) -> RetentionRule:
    """A rule of retention. Raises InvalidOption: an open run, for example, has no state that could be pruned."""
    checked: Kind = requests.one_of("kind", kind, Kind)
    if state != "*" and state not in STATES[checked]:
        known = ", ".join(STATES[checked])
        raise InvalidOption(
            f"state is {state!r}; a {checked} that is over is one of {known}, or * for any"
        )
    if checked == "slot" and (queue != "*" or archive):
        raise InvalidOption("slots of schedules have no queue and are not archived")
    where = queue if queue == "*" else checked_name("queue", queue)
    return RetentionRule(
        checked, where, state, None if keep is None else requests.seconds("keep", keep), archive
    )


def rules_of(
    kinds: tuple[Kind, ...], older_than: timedelta | float, queue: str, state: str, *, archive: bool
) -> str:
    """The rules of one prune by hand, as JSON."""
    made = [
        rule(
            kind,
            older_than,
            "*" if kind == "slot" else queue,
            state,
            archive=archive and kind != "slot",
        )
        for kind in kinds
        if state == "*" or state in STATES[kind]
    ]
    if not made:
        raise InvalidOption(
            f"state is {state!r}; nothing of kind {', '.join(kinds)} that is over has it"
        )
    return json.dumps(
        [{name: getattr(each, name) for name in RetentionRule.__slots__} for each in made]
    )


def kinds(kind: Any) -> tuple[Kind, ...]:
    """One kind, or all. Raises InvalidOption."""
    return KINDS if kind is None else (requests.one_of("kind", kind, Kind),)
