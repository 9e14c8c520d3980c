"""What a history says of each thing that a run started or received: when it began, when and how it ended, after how many attempts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from durable.core import events as e
from durable.graphs.model import Kind, State

_KINDS: Mapping[str, Kind] = {
    e.ACTIVITY_SCHEDULED: "activity",
    e.CHILD_STARTED: "child",
    e.TIMER_STARTED: "timer",
    e.UPDATE_ACCEPTED: "update",
}
OPENS = frozenset(_KINDS)
CLOSES: Mapping[str, State] = {
    e.ACTIVITY_COMPLETED: "completed", e.ACTIVITY_FAILED: "failed", e.ACTIVITY_TIMED_OUT: "failed", e.ACTIVITY_CANCELLED: "cancelled",
    e.CHILD_COMPLETED: "completed", e.CHILD_FAILED: "failed", e.CHILD_CANCELLED: "cancelled", e.CHILD_TERMINATED: "cancelled",
    e.CHILD_REJECTED: "failed", e.TIMER_FIRED: "completed", e.TIMER_CANCELLED: "cancelled",
}  # fmt: skip
ENDS: Mapping[str, State] = {
    e.WORKFLOW_COMPLETED: "completed", e.WORKFLOW_FAILED: "failed", e.WORKFLOW_CANCELLED: "cancelled", e.WORKFLOW_CONTINUED: "completed",
    e.WORKFLOW_TERMINATED: "cancelled", e.WORKFLOW_TIMED_OUT: "failed", e.WORKFLOW_RESET: "cancelled",
}  # fmt: skip
LOCAL_ENDS: Mapping[str, State] = {
    e.LOCAL_ACTIVITY_COMPLETED: "completed",
    e.LOCAL_ACTIVITY_FAILED: "failed",
}


@dataclass(slots=True)
class Happening:
    """Something that was started or arrived, as far as history knows it. `id` is the activity's id or the child's workflow id."""

    key: str
    kind: Kind
    label: str
    begin_us: int
    state: State = "running"
    end_us: int | None = None
    name: str = ""
    """What it is called in a picture, where the label is not enough."""
    id: str = ""
    line: str = ""
    attempt: int = 1
    failure: Any = None
    note: str = ""
    due_us: int | None = None
    after: list[str] = field(default_factory=list)
    inferred: bool = False

    def end(self, state: State, event: e.Event) -> None:
        """It is over; a second end is evidence and changes nothing."""
        if self.end_us is not None:
            return
        body = event.body
        self.state, self.end_us = state, event.at_us
        self.attempt = body.get("attempt", self.attempt)
        self.failure = body.get("failure")
        if body.get("timeout"):
            self.note = f"{body['timeout']} timeout"
        elif body.get("reason"):
            self.note = str(body["reason"])


def opened(event: e.Event) -> Happening:
    """What an opening event starts."""
    body = event.body
    name = str(body.get("name") or body.get("workflow") or body.get("reason") or event.type)
    return Happening(
        str(event.seq),
        _KINDS[event.type],
        name,
        event.at_us,
        id=str(body.get("id") or body.get("workflow_id") or body.get("update_id") or ""),
        line=str(body.get("line") or ""),
        due_us=body.get("fire_at_us"),
    )


def failure_text(failure: Any) -> str:
    """The innermost cause of an encoded failure: `PaymentDeclined: no money`."""
    while isinstance(failure, Mapping) and isinstance(failure.get("cause"), Mapping):
        failure = failure["cause"]
    if not isinstance(failure, Mapping):
        return ""
    kind = str(failure.get("type", "")).rpartition(":")[2].rpartition(".")[2]
    message = str(failure.get("message", "")).partition("\n")[0]
    return f"{kind}: {message}" if message else kind


class Story:
    """Reads a history turn by turn. `happenings` are in the order in which they began; `after` of each names what it waited for.

    What is started in a turn waited for what had come in since the turn before that started something: a single await gives one
    predecessor, a gather all of its members. Where the history has no row for a beginning (local activities, signals), the order is
    inferred from what came before, and said to be.
    """

    def __init__(self, events: Sequence[e.Event]) -> None:
        self.happenings: dict[str, Happening] = {}
        self.end: Happening | None = None
        self._came: list[str] = ["start"]  # ended or arrived, and led to nothing yet
        self._led: list[str] = ["start"]  # what led to the things started last
        self._turn_us = events[0].at_us
        self._signals: dict[str, list[Happening]] = {}
        self._backing_off: dict[str, Happening] = {}
        at = 0
        while at < len(events):
            turn, begin = events[at].turn, at
            while at < len(events) and events[at].turn == turn:
                at += 1
            self._take(events[begin:at])

    @property
    def frontier(self) -> list[str]:
        """What the code has in hand now: whatever it starts next waited for this."""
        return self._came or self._led

    def _take(self, rows: Sequence[e.Event]) -> None:
        came, before_us = self.frontier, self._turn_us
        starts = [row for row in rows if row.type in OPENS and row.type != e.UPDATE_ACCEPTED]
        for row in rows:
            if row.type not in OPENS or row.type == e.UPDATE_ACCEPTED:
                self._note(row, came, before_us)
        if starts:
            self._led = self.frontier
            self._came = []
        for row in starts:
            self._begin(row)
        if rows[-1].type in ENDS:
            self._finish(rows[-1])
        self._turn_us = rows[-1].at_us

    def _begin(self, row: e.Event) -> None:
        it = opened(row)
        it.after = list(self._led)
        if it.kind == "timer" and it.label.startswith("signal "):  # a wait with a deadline
            it.kind, it.label = "signal", it.label.removeprefix("signal ")
            it.state = "waiting"
            self._signals.setdefault(it.label, []).append(it)
        self.happenings[it.key] = it

    def _note(self, row: e.Event, came: list[str], before_us: int) -> None:
        if row.type in CLOSES:
            self._close(row)
        elif row.type in LOCAL_ENDS or row.type == e.LOCAL_ACTIVITY_BACKED_OFF:
            self._local(row, came, before_us)
        elif row.type == e.SIGNAL_RECEIVED:
            self._signal(row, came, before_us)
        elif row.type == e.CANCEL_REQUESTED:
            self._arrive(row, Happening(str(row.seq), "cancel", "cancel requested", row.at_us))
        elif row.type == e.UPDATE_ACCEPTED:
            it = opened(row)
            self.happenings[it.key] = it
            self._came.append(it.key)
        elif row.type in (e.UPDATE_COMPLETED, e.UPDATE_FAILED):
            self._end_update(row)

    def _close(self, row: e.Event) -> None:
        it = self.happenings.get(str(row.body.get("ref")))
        if it is None or it.end_us is not None:
            return
        if it.kind == "signal":
            given_up = row.type == e.TIMER_CANCELLED
            it.end("cancelled" if given_up else "failed", row)
            it.note = "no longer awaited" if given_up else "did not come in time"
            self._signals[it.label].remove(it)
        else:
            it.end(CLOSES[row.type], row)
        if row.type != e.TIMER_CANCELLED:
            self._came.append(it.key)

    def _signal(self, row: e.Event, came: list[str], before_us: int) -> None:
        name = str(row.body.get("name", ""))
        waits = self._signals.get(name, [])
        if waits:
            it = waits.pop(0)
            it.end("completed", row)
            self._came.append(it.key)
            return
        busy = any(it.end_us is None for it in self.happenings.values())
        it = Happening(str(row.seq), "signal", name, row.at_us if busy else before_us)
        it.after, it.inferred = [] if busy else list(came), True
        self._arrive(row, it)

    def _local(self, row: e.Event, came: list[str], before_us: int) -> None:
        id_ = str(row.body.get("id", ""))
        it = self._backing_off.pop(id_, None)
        if it is None:
            name, line = str(row.body.get("name", "")), str(row.body.get("line") or "")
            it = Happening(str(row.seq), "local", name, before_us, id=id_, line=line)
            it.after, it.inferred = list(came), True
            self.happenings[it.key] = it
        if row.type == e.LOCAL_ACTIVITY_BACKED_OFF:
            self._backing_off[id_] = it
            return
        it.end(LOCAL_ENDS[row.type], row)
        self._lead_from(it)

    def _arrive(self, row: e.Event, it: Happening) -> None:
        it.end("completed", row)
        it.note = str(row.body.get("reason") or "")
        self.happenings[it.key] = it
        self._lead_from(it)

    def _lead_from(self, it: Happening) -> None:
        self._came = [key for key in self._came if key not in it.after]
        self._came.append(it.key)

    def _end_update(self, row: e.Event) -> None:
        wanted = row.body.get("update_id")
        for it in self.happenings.values():
            if it.kind == "update" and it.id == wanted:
                it.end("completed" if row.type == e.UPDATE_COMPLETED else "failed", row)

    def _finish(self, row: e.Event) -> None:
        it = Happening("end", "end", row.type.removeprefix("Workflow").lower(), row.at_us)
        it.end(ENDS[row.type], row)
        it.after = [key for key in self.frontier if key != it.key]
        self.end = it
