"""Which steps of a DAG may start, which never will: states and one event in, what is ready out.

Pure, and iterative: a failure at the top of a chain of 10,000 steps is a loop, not a recursion. Each edge is looked at once in the whole life of a
run, when its upstream ends, so the work is that of the edges and not that of the steps times the turns. A step counts its edges down, whoever
ends first or in the same turn, so a join cannot be lost.

What an edge hands on when its upstream ends:

    completed            release: the edge is satisfied, and the branch it comes from is active
    failed, cancelled    cancel: the step is cancelled at once, and so is what depends on it (the default); or continue, as if it had completed
    skipped              join: satisfied, but not active; a step all of whose edges are so is skipped itself (the default); or cancel, or continue

So a step that joins several branches waits for the activated ones only, and is skipped when none of them was.

`retry` takes the end of a step back. What was cancelled because of it, directly or through others, is pending again, and nothing else: what ran because the step
failed has run. Their edges, and those of pending steps below them, are counted anew from what has ended; another failure above one of them cancels it again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

Status = Literal["pending", "running", "completed", "failed", "cancelled", "skipped"]
Completion = Literal["completed", "failed", "skipped"]
"""How a step can be ended from outside; to cancel it is an operation of its own."""
FINAL: frozenset[str] = frozenset({"completed", "failed", "cancelled", "skipped"})


@dataclass(frozen=True, slots=True)
class Edge:
    """A dependency on the step `upstream`, and what its end means. `only`: only that value of a branch activates the edge."""

    upstream: str
    failed: str = "cancel"
    cancelled: str = "cancel"
    skipped: str = "join"
    only: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()

    def effect(self, status: str, chosen: str | None) -> str:
        """What the end of the upstream does: "release", "join" or "cancel"."""
        if status == "completed":
            if (self.only and chosen not in self.only) or (self.unless and chosen in self.unless):
                return "join"
            return "release"
        policy = {"failed": self.failed, "cancelled": self.cancelled, "skipped": self.skipped}
        return "release" if policy[status] == "continue" else policy[status]


class Revival(NamedTuple):
    """What a retry did: the steps that are ready now, and those whose end was taken back, the retried one first."""

    ready: list[str]
    revived: list[str]


class Scheduler:
    """The states of all steps. `begin()` once, then `settle()` for each step that ended; both give the steps that became ready."""

    def __init__(self, steps: Mapping[str, Sequence[Edge]]) -> None:
        self.status: dict[str, Status] = {}
        self.cause: dict[str, str] = {}
        """The step because of which a step was cancelled or skipped."""
        self._above: dict[str, Sequence[Edge]] = {}
        self._waiting: dict[str, int] = {}
        self._active: dict[str, bool] = {}
        self._below: dict[str, list[tuple[str, Edge]]] = {}
        self._adding: dict[str, str] = {}
        """By added step: the one that added it, and waits for it."""
        self._added: dict[str, list[str]] = {}
        self._chosen: dict[str, str] = {}
        self._ended: deque[str] = deque()
        self._ready: list[str] = []
        self._open = 0
        self._take_in(steps)

    def _take_in(self, steps: Mapping[str, Sequence[Edge]]) -> None:
        for name, edges in steps.items():
            self.status[name] = "pending"
            self._above[name] = edges
            self._waiting[name] = len(edges)
            self._active[name] = not edges
            self._below[name] = []
        for name, edges in steps.items():
            for each in edges:
                self._below[each.upstream].append((name, each))
        self._open += len(steps)

    @property
    def done(self) -> bool:
        return self._open == 0

    def begin(self) -> list[str]:
        """The steps without dependencies, in the order of their declaration."""
        ready = [name for name, count in self._waiting.items() if count == 0]
        for name in ready:
            self.status[name] = "running"
        return ready

    def settle(self, name: str, status: Status, *, chosen: str | None = None) -> list[str]:
        """A step ended; `chosen` is what a branch decided. What is said of a step that has ended is without effect."""
        if self.status[name] in FINAL:
            return []
        if chosen is not None:
            self._chosen[name] = chosen
        self._end(name, status)
        return self._spread()

    def extend(self, adding: str, steps: Mapping[str, Sequence[Edge]]) -> list[str]:
        """Add steps, of which there is at least one, that the running step `adding` waits for: when they have ended it is ready once more.

        Gives the steps that are ready now. What has ended before counts at once.
        """
        self._take_in(steps)
        self._added[adding] = list(steps)
        self._adding.update(dict.fromkeys(steps, adding))
        self._waiting[adding] = len(steps)
        doomed = [(it, cause) for it in steps if (cause := self._count(it)) is not None]
        for it, cause in doomed:
            self._end(it, "cancelled", cause)
        for it, edges in steps.items():
            if self.status[it] == "pending" and not self._waiting[it]:
                self._begin_or_skip(it, edges[-1].upstream if edges else None)
        return self._spread()

    def waits_for(self, name: str) -> list[str]:
        """The steps that it depends on, and those that it has added."""
        return [it.upstream for it in self._above[name]] + self._added.get(name, [])

    def added_by(self, name: str) -> list[str]:
        """The step that added it, the one that added that, and so on."""
        found: list[str] = []
        while (adding := self._adding.get(name)) is not None:
            found.append(name := adding)
        return found

    def retry(self, name: str) -> Revival:
        """Take back the end of a step that failed or was cancelled by itself, and every cancellation that it caused.

        So does the end of the step that added it, unless that completed: it waits once more.
        """
        revived = self._cancelled_by(name)
        for each in revived:
            self.status[each] = "running" if each in self._added and each != name else "pending"
            self.cause.pop(each, None)
        self._open += len(revived)
        for adding in {self._adding[it] for it in revived if it in self._adding}:
            self._waiting[adding] = sum(self.status[it] not in FINAL for it in self._added[adding])
        below = (it for each in revived for it, _ in self._below[each])
        again = [it for it in dict.fromkeys([*revived, *below]) if self.status[it] == "pending"]
        doomed = [(it, cause) for it in again if (cause := self._count(it)) is not None]
        for it, cause in doomed:
            self._end(it, "cancelled", cause)
        if self.status[name] == "pending" and not self._waiting[name]:
            self._begin_or_skip(name, None)
        return Revival(self._spread(), [it for it in revived if self.status[it] not in FINAL])

    def _cancelled_by(self, name: str) -> list[str]:
        """The step, and those cancelled because of it or of one of them."""
        found = {name: True}
        pending = deque(found)
        while pending:
            upstream = pending.popleft()
            for below, _ in self._below[upstream]:
                caused = self.status[below] == "cancelled" and self.cause.get(below) == upstream
                if caused and below not in found:
                    found[below] = True
                    pending.append(below)
            adding = self._adding.get(upstream)
            if adding is not None and adding not in found and self._ended_badly(adding):
                found[adding] = True
                pending.append(adding)
        return list(found)

    def _ended_badly(self, name: str) -> bool:
        return self.status[name] in ("failed", "cancelled") and name not in self.cause

    def _count(self, name: str) -> str | None:
        """Count a step's edges anew; gives the ended upstream that cancels it, if there is one."""
        self._waiting[name], doom = 0, None
        self._active[name] = not self._above[name]
        for each in self._above[name]:
            status = self.status[each.upstream]
            if status not in FINAL:
                self._waiting[name] += 1
                continue
            effect = each.effect(status, self._chosen.get(each.upstream))
            self._active[name] = self._active[name] or effect == "release"
            if effect == "cancel" and doom is None:
                doom = each.upstream
        return doom

    def _spread(self) -> list[str]:
        """Hand on what ended, and what ends because of it; gives what became ready."""
        while self._ended:
            upstream = self._ended.popleft()
            status, chosen = self.status[upstream], self._chosen.get(upstream)
            for below, each in self._below[upstream]:
                if self.status[below] == "pending":
                    self._hand_on(upstream, below, each.effect(status, chosen))
            if (adding := self._adding.get(upstream)) is not None:
                self._count_down(adding)
        ready, self._ready = self._ready, []
        return ready

    def _hand_on(self, upstream: str, below: str, effect: str) -> None:
        if effect == "cancel":
            self._end(below, "cancelled", upstream)
            return
        self._waiting[below] -= 1
        self._active[below] = self._active[below] or effect == "release"
        if not self._waiting[below]:
            self._begin_or_skip(below, upstream)

    def _count_down(self, adding: str) -> None:
        self._waiting[adding] -= 1
        if not self._waiting[adding] and self.status[adding] == "running":
            self._ready.append(adding)

    def _begin_or_skip(self, name: str, upstream: str | None) -> None:
        """All its edges have ended."""
        if self._active[name]:
            self.status[name] = "running"
            self._ready.append(name)
        else:
            self._end(name, "skipped", upstream)

    def _end(self, name: str, status: Status, cause: str | None = None) -> None:
        self.status[name] = status
        self._open -= 1
        self._ended.append(name)
        if cause is not None:
            self.cause[name] = cause
