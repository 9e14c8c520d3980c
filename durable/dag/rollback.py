"""What is to be undone, and in which order: completions in, the next undo out.

Pure, so that the order can be tested without a database. The order is that of the history: completions are told in the order of their events
(C1), and the last one is undone first (S3; by its code Reactor begins with the oldest, D20). One undo at a time: the second may rely on the first.
What is told once is undone once: an undo leaves the journal when it begins, and a replay builds the same journal again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

_UNDO_ID = re.compile(r":undo(#\d+)?$")
UndoStatus = Literal["undoing", "undone", "failed"]


def undo_id(unit: Unit, number: int) -> str:
    """The id of the call that undoes a unit, for the `number`th time."""
    return f"{unit.id}:undo" + (f"#{number}" if number > 1 else "")


def is_undo(call_id: str) -> bool:
    return _UNDO_ID.search(call_id) is not None


class Unit(NamedTuple):
    """What completes, fails and is undone as one: a step, or the element `item` of a map step; `inside`: of a nested DAG, the id of one of its units."""

    step: str
    item: int | None = None
    inside: str = ""

    @property
    def id(self) -> str:
        own = self.step if self.item is None else f"{self.step}[{self.item}]"
        return f"{own}/{self.inside}" if self.inside else own


class Undo(NamedTuple):
    """The call that undoes a unit, ready to be made: an activity by name, arguments by parameter name, options as stored."""

    unit: Unit
    activity: str
    args: Mapping[str, Any]
    options: Mapping[str, Any]

    def within(self, unit: Unit) -> Undo:
        """The same, of a DAG that is nested as that unit."""
        return self._replace(unit=Unit(unit.step, unit.item, self.unit.id))

    def to_json(self) -> dict[str, Any]:
        return {
            "step": self.unit.step,
            "item": self.unit.item,
            "inside": self.unit.inside,
            "activity": self.activity,
            "args": dict(self.args),
            "options": dict(self.options),
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Undo:
        unit = Unit(stored["step"], stored["item"], stored["inside"])
        return cls(unit, stored["activity"], stored["args"], stored["options"])


@dataclass(slots=True)
class Rollback:
    """The journal of a run: what completed and can be undone, and how undoing it goes."""

    journal: list[Undo] = field(default_factory=list)
    """Not begun yet, in the order of completion."""
    status: dict[Unit, UndoStatus] = field(default_factory=dict)
    failures: dict[Unit, Mapping[str, Any]] = field(default_factory=dict)
    """Of the undos that failed, in the order in which they did."""

    def completed(self, undo: Undo) -> None:
        """A unit has completed."""
        self.journal.append(undo)

    def next(self) -> Undo | None:
        """The undo to begin now: of the last completion that is left. None: all has been undone."""
        if not self.journal:
            return None
        undo = self.journal.pop()
        self.status[undo.unit] = "undoing"
        return undo

    def undone(self, unit: Unit) -> None:
        self.status[unit] = "undone"

    def failed(self, unit: Unit, failure: Mapping[str, Any]) -> None:
        """An undo failed, after its own retries. The others go on: half a rollback is worse than one with a gap that somebody knows of."""
        self.status[unit] = "failed"
        self.failures[unit] = failure

    def reported_failures(self) -> list[dict[str, Any]]:
        """Each with its `step`, in a map its `item`, in a nested DAG its place `inside`, and `type` and `message`."""
        return [{**_place(unit), **failure} for unit, failure in self.failures.items()]

    def rows(self) -> Iterator[tuple[str, UndoStatus]]:
        """Steps and how their undoing stands: of a map "failed" if one of its elements is, "undone" when all that were begun are."""
        worst: dict[str, UndoStatus] = {}
        for unit, status in self.status.items():
            if worst.get(unit.step) != "failed" and (status != "undone" or unit.step not in worst):
                worst[unit.step] = status
        yield from worst.items()


def _place(unit: Unit) -> dict[str, Any]:
    item = {} if unit.item is None else {"item": unit.item}
    return {"step": unit.step, **item, **({"inside": unit.inside} if unit.inside else {})}
