"""Which steps of a DAG may start, which never will: states and one event in, what is ready out.

Pure, and iterative: a failure at the top of a chain of 10,000 steps is a loop, not a recursion. Each edge is looked at once in the whole life of a
run, when its upstream ends, so the work is that of the edges and not that of the steps times the turns. A step counts its edges down, whoever
ends first or in the same turn, so a join cannot be lost.

What an edge hands on when its upstream ends:

    completed            release: the edge is satisfied, and the branch it comes from is active
    failed, cancelled    cancel: the step is cancelled at once, and so is what depends on it (the default); or continue, as if it had completed
    skipped              join: satisfied, but not active; a step all of whose edges are so is skipped itself (the default); or cancel, or continue

So a step that joins several branches waits for the activated ones only, and is skipped when none of them was.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Status = Literal["pending", "running", "completed", "failed", "cancelled", "skipped"]
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


_ADDED = Edge("")
"""The edge from an added step to the one that added it, which waits while it is running."""


class Scheduler:
    """The states of all steps. `begin()` once, then `settle()` for each step that ended; both give the steps that became ready."""

    def __init__(self, steps: Mapping[str, Sequence[Edge]]) -> None:
        self.status: dict[str, Status] = {}
        self.cause: dict[str, str] = {}
        """The step because of which a step was cancelled or skipped."""
        self._waiting: dict[str, int] = {}
        self._active: dict[str, bool] = {}
        self._below: dict[str, list[tuple[str, Edge]]] = {}
        self._open = 0
        self._take_in(steps)

    def _take_in(self, steps: Mapping[str, Sequence[Edge]]) -> None:
        for name, edges in steps.items():
            self.status[name] = "pending"
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
        """A running step ended; `chosen` is what a branch decided. What it is said of a step that has ended is without effect."""
        if self.status[name] in FINAL:
            return []
        ready: list[str] = []
        ended: deque[tuple[str, Status, str | None]] = deque([(name, status, chosen)])
        self._end(name, status)
        self._cascade(ended, ready)
        return ready

    def extend(self, adding: str, steps: Mapping[str, Sequence[Edge]]) -> list[str]:
        """Add steps, of which there is at least one, that the running step `adding` waits for: when they have ended it is ready once more.

        Gives the added ones that are ready now. What has ended before counts at once.
        """
        before = {name for name, status in self.status.items() if status in FINAL}
        self._take_in(steps)
        self._waiting[adding] = len(steps)
        ready = [name for name, edges in steps.items() if not edges]
        ended: deque[tuple[str, Status, str | None]] = deque()
        for name in ready:
            self.status[name] = "running"
        for name, edges in steps.items():
            self._below[name].append((adding, _ADDED))
            for each in edges:
                if each.upstream in before and self.status[name] == "pending":
                    effect = each.effect(self.status[each.upstream], None)
                    self._hand_on(each.upstream, name, effect, ready, ended)
        self._cascade(ended, ready)
        return ready

    def _cascade(self, ended: deque[tuple[str, Status, str | None]], ready: list[str]) -> None:
        while ended:
            upstream, how, which = ended.popleft()
            for below, each in self._below[upstream]:
                if each is _ADDED:
                    self._count_down(below, ready)
                elif self.status[below] == "pending":
                    self._hand_on(upstream, below, each.effect(how, which), ready, ended)

    def _count_down(self, adding: str, ready: list[str]) -> None:
        self._waiting[adding] -= 1
        if not self._waiting[adding] and self.status[adding] == "running":
            ready.append(adding)

    def _hand_on(
        self,
        upstream: str,
        below: str,
        effect: str,
        ready: list[str],
        ended: deque[tuple[str, Status, str | None]],
    ) -> None:
        if effect == "cancel":
            self._end(below, "cancelled", upstream)
            ended.append((below, "cancelled", None))
            return
        self._waiting[below] -= 1
        self._active[below] = self._active[below] or effect == "release"
        if self._waiting[below]:
            return
        if self._active[below]:
            self.status[below] = "running"
            ready.append(below)
        else:
            self._end(below, "skipped", upstream)
            ended.append((below, "skipped", None))

    def _end(self, name: str, status: Status, cause: str | None = None) -> None:
        self.status[name] = status
        self._open -= 1
        if cause is not None:
            self.cause[name] = cause
