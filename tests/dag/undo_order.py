"""What a history says about a saga: what completed and can be undone, and what was undone, each in its order."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from durable.core import events as e

ENDS = (e.ACTIVITY_COMPLETED, e.ACTIVITY_FAILED, e.ACTIVITY_TIMED_OUT, e.ACTIVITY_CANCELLED)

History = Sequence[Any]
"""Of the core's events, whose payload is text, or of the client's, whose payload is decoded."""


def ids(history: History) -> dict[int, str]:
    """The ids of the activity calls, by the number of their first event."""
    return {it.seq: it.body["id"] for it in history if it.type == e.ACTIVITY_SCHEDULED}


def undone(history: History) -> list[str]:
    """The units that were begun to be undone."""
    return [it.removesuffix(":undo") for it in ids(history).values() if it.endswith(":undo")]


def completed(history: History) -> list[str]:
    """The units of steps with an undo that completed, by their activity or by what their `compensate` decided."""
    undoable = {
        step["name"] for step in _plain(history[0].payload)["definition"]["steps"] if "undo" in step
    }
    named, found = ids(history), []
    for it in history:
        if it.type != e.ACTIVITY_COMPLETED:
            continue
        call, _, purpose = named[it.body["ref"]].partition(":")
        unit = call.partition("#")[0]
        if purpose == "undo" or (purpose.startswith("compensate") and not _goes_on(it.payload)):
            continue
        if unit.partition("[")[0] in undoable:
            found.append(unit)
    return found


def failed_undos(history: History) -> list[str]:
    """The ids of undos that failed, in the order in which they did."""
    named = ids(history)
    failed = [named[it.body["ref"]] for it in history if it.type in ENDS and it.type != ENDS[0]]
    return [it for it in failed if it.endswith(":undo")]


def assert_undone_in_order(history: History) -> None:
    """Every completed undoable unit exactly once, the last completion first, and one call at a time."""
    assert undone(history) == completed(history)[::-1]
    under_way: set[int] = set()
    for it in history:
        if it.type == e.ACTIVITY_SCHEDULED:
            assert not (it.body["id"].endswith(":undo") and under_way), it
            under_way.add(it.seq)
        elif it.type in ENDS:
            under_way.discard(it.body["ref"])


def _plain(payload: Any) -> Any:
    return json.loads(payload) if isinstance(payload, str) else payload


def _goes_on(payload: Any) -> bool:
    decision = _plain(payload)
    return isinstance(decision, dict) and decision["decision"] == "continue"
