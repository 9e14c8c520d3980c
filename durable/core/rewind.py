"""Plan a reset, retry or fork: what of a run's history another run shall have, and what must be made again for it.

A history is append only, so a plan stays right while its run goes on. The *point* is an event: everything up to it is kept. Where it ends a turn,
the turns up to there are copied. Where it does not, the turns before are copied, and the inbound events of its turn up to it are delivered again as messages:
the code, which may be new, decides that turn anew. So the outcome of an activity can be kept while what the code made of it is not.

What is pending at the point must be made again: jobs, timers, children. Which types open and close what, the table of `machine.py` says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from durable.core import events as e
from durable.core.machine import INBOUND, OPERATIONS

_OPENS = {operation.opens: operation.name for operation in OPERATIONS}
_CLOSES = {type_ for operation in OPERATIONS for type_ in operation.closes} | {e.TIMER_CANCELLED}
_ASKS = {operation.asks_to_end for operation in OPERATIONS} - {e.TIMER_CANCELLED}
_SUCCESSES = frozenset({e.ACTIVITY_COMPLETED, e.CHILD_COMPLETED})
_FAILURES = frozenset(
    {e.ACTIVITY_FAILED, e.ACTIVITY_TIMED_OUT, e.CHILD_FAILED, e.CHILD_REJECTED, e.WORKFLOW_FAILED}
)


class Recorded(Protocol):
    """What we need of an event."""

    @property
    def seq(self) -> int: ...
    @property
    def turn(self) -> int: ...
    @property
    def type(self) -> str: ...
    @property
    def body(self) -> Mapping[str, Any]: ...


class Rewind(NamedTuple):
    """The plan. Numbers are those of events; `cut` is the last event copied, `turn` its turn.

    `redeliver`: inbound events given again as messages; `updates`: acceptances whose requests are. `activities`, `timers`, `children`: opening events of what is pending; `keys` are the idempotency
    keys of the activities. `stopping`: those of them that had been told to stop. `origins`: [last turn, run id, workflow id] of the runs
    that took the copied turns. `discarded`: how often each activity completed beyond the point, by name; what that did to the world stays done.
    """

    event: int
    cut: int
    turn: int
    redeliver: list[int]
    updates: list[int]
    activities: list[int]
    keys: list[str]
    timers: list[int]
    children: list[int]
    stopping: list[int]
    cancelled: bool
    origins: list[list[Any]]
    discarded: dict[str, int]


def plan(
    history: Sequence[Recorded],
    event: int,
    run_id: str,
    workflow_id: str,
    *,
    keep_successes: bool = False,
) -> Rewind:
    """Plan to keep everything up to number `event`, which must be in the history.

    `keep_successes`: results that came after the point, of what was pending there, are kept too, so that it does not run twice.
    """
    cut, turn = _last_whole_turn(history, event)
    redeliver = [
        it.seq
        for it in history[cut:event]
        if it.type in INBOUND  # the others are what the code made of them
    ]
    pending, stopping = _pending(history[:cut])
    for seq in redeliver:
        pending.pop(history[seq - 1].body.get("ref", 0), None)
    if keep_successes:
        later = history[event:]
        kept = [it for it in later if it.type in _SUCCESSES and it.body["ref"] in pending]
        redeliver += [it.seq for it in kept]
        for it in kept:
            del pending[it.body["ref"]]
    origins = _origins(history[0], turn, run_id, workflow_id)
    activities = [
        seq for seq, kind in pending.items() if kind == "activity" and seq not in stopping
    ]
    return Rewind(
        event,
        cut,
        turn,
        redeliver,
        [it.seq for it in history[cut:event] if it.type == e.UPDATE_ACCEPTED],
        activities,
        [_key(history[seq - 1], origins) for seq in activities],
        [seq for seq, kind in pending.items() if kind == "timer"],
        [seq for seq, kind in pending.items() if kind == "child"],
        [seq for seq in pending if seq in stopping],
        any(it.type == e.CANCEL_REQUESTED for it in history[:cut]),
        origins,
        dict(Counter(_completed(history, event, redeliver))),
    )


def _last_whole_turn(history: Sequence[Recorded], event: int) -> tuple[int, int]:
    """The last event, up to number `event`, that ends a turn, and its turn."""
    seq = event
    while seq < len(history) and history[seq].turn == history[seq - 1].turn:
        seq += 1
    if seq == event:
        return event, history[event - 1].turn
    split = history[event - 1].turn
    while history[event - 1].turn == split:
        event -= 1
    return event, history[event - 1].turn


def _pending(copied: Sequence[Recorded]) -> tuple[dict[int, str], set[int]]:
    """What is open after these events, by number of the opening one; and which of it was told to stop."""
    pending: dict[int, str] = {}
    stopping: set[int] = set()
    for it in copied:
        if it.type in _OPENS:
            pending[it.seq] = _OPENS[it.type]
        elif it.type in _CLOSES:
            pending.pop(it.body["ref"], None)
        elif it.type in _ASKS:
            stopping.add(it.body["ref"])
    return pending, stopping


def _origins(start: Recorded, turn: int, run_id: str, workflow_id: str) -> list[list[Any]]:
    """Who took the turns up to `turn`: this run, and before it those that it was made from."""
    origins: list[list[Any]] = []
    for last, *who in start.body.get("origins") or ():
        if last >= turn:
            return [*origins, [turn, *who]]
        origins.append([last, *who])
    return [*origins, [turn, run_id, workflow_id]]


def _who(origins: Sequence[Sequence[Any]], turn: int) -> str:
    return next(str(run_id) for last, run_id, _ in origins if turn <= last)


def _key(opening: Recorded, origins: Sequence[Sequence[Any]]) -> str:
    """The idempotency key of an activity: its own number, unless it stands for an earlier call."""
    given = opening.body.get("idempotency_key")
    return str(given) if given else f"{_who(origins, opening.turn)}/{opening.seq}"


def _completed(history: Sequence[Recorded], event: int, kept: Sequence[int]) -> Iterator[str]:
    for it in history[event:]:
        if it.type == e.ACTIVITY_COMPLETED and it.seq not in kept:
            yield history[it.body["ref"] - 1].body["name"]


# -- points -----------------------------------------------------------------------------------------------------------


def before_first_failure(history: Sequence[Recorded]) -> int | None:
    """The event before the first failure of anything, caught or not. None: nothing failed."""
    return next((it.seq - 1 for it in history if it.type in _FAILURES), None)


def before_activity(history: Sequence[Recorded], name: str) -> int | None:
    """The event before an activity of this name was scheduled first. None: it never was."""
    scheduled = (it for it in history if it.type == e.ACTIVITY_SCHEDULED)
    return next((it.seq - 1 for it in scheduled if it.body.get("name") == name), None)


def before_the_end(history: Sequence[Recorded]) -> int | None:
    """Where a run that ended badly is taken up again: before the outcome that made it fail, or before the cancel request. None: it has not ended badly.

    The failing activity or child is the one that the failure itself names. A run that failed by itself, ran out of time or was terminated, loses only its end.
    """
    last = history[-1]
    if last.type == e.WORKFLOW_CANCELLED:
        asked = (it.seq for it in history if it.type == e.CANCEL_REQUESTED)
        return next(asked, last.seq) - 1
    if last.type == e.WORKFLOW_FAILED:
        return (_culprit(history, last.body.get("failure")) or last.seq) - 1
    return last.seq - 1 if last.type in (e.WORKFLOW_TERMINATED, e.WORKFLOW_TIMED_OUT) else None


def _culprit(history: Sequence[Recorded], failure: Any) -> int | None:
    """The number of the outcome that the failure was raised from: the nearest in its chain of causes."""
    opened = {it.seq: it for it in history if it.type in _OPENS}
    outcomes = {
        opening.body.get("id") or opening.body.get("workflow_id"): it.seq
        for it in history
        if it.type in _FAILURES and (opening := opened.get(it.body.get("ref", 0)))
    }
    return next(
        (outcomes[name] for it in _chain(failure) if (name := _named(it)) in outcomes), None
    )


def _chain(failure: Any) -> Iterator[Mapping[str, Any]]:
    """A failure and all that hangs on it: its cause, its context, members of a group."""
    if isinstance(failure, Mapping):
        yield failure
        for it in (failure.get("cause"), failure.get("context"), *(failure.get("group") or ())):
            yield from _chain(it)


def _named(failure: Mapping[str, Any]) -> str | None:
    state = failure.get("state") or {}
    name = state.get("activity_id") or state.get("workflow_id")
    return str(name) if name else None
