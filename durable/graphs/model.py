"""A graph as a value: what a builder makes and a writer writes. Nothing in it is escaped; that is each writer's own business."""

from __future__ import annotations

import unicodedata
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from durable.core.durations import span

State = Literal[
    "declared", "pending", "waiting", "running", "completed", "failed", "cancelled", "skipped"
]
Kind = Literal[
    "start", "end", "activity", "local", "timer", "child", "signal", "update", "cancel", "map",
    "branch", "dag", "wait",
]  # fmt: skip

MARKS: Mapping[State, str] = {
    "declared": "-",
    "pending": ".",
    "waiting": "~",
    "running": ">",
    "completed": "+",
    "failed": "!",
    "cancelled": "x",
    "skipped": "/",
}
"""How each state looks where there is no colour."""


@dataclass(frozen=True, slots=True)
class Node:
    """A step, or something that happened. `facts` are short lines below its name; `detail` is a longer one, shown where there is room.

    `begin_us` and `end_us` are microseconds since the epoch; a node that has begun and not ended is under way.
    """

    key: str
    label: str
    kind: Kind
    state: State = "declared"
    facts: tuple[str, ...] = ()
    detail: str = ""
    begin_us: int | None = None
    end_us: int | None = None
    critical: bool = False


@dataclass(frozen=True, slots=True)
class Edge:
    """`target` waited for `source`. `soft`: the order is inferred, or the target goes on whatever becomes of the source."""

    source: str
    target: str
    label: str = ""
    soft: bool = False
    critical: bool = False


@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes in an order that follows the edges, and the edges between them. `now_us`: when it was looked at."""

    title: str
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    facts: tuple[str, ...] = ()
    now_us: int | None = None

    def into(self) -> dict[str, list[Edge]]:
        """The edges that lead to each node."""
        found: dict[str, list[Edge]] = {node.key: [] for node in self.nodes}
        for edge in self.edges:
            found[edge.target].append(edge)
        return found


def layers(graph: Graph) -> dict[str, int]:
    """For each node, the longest way that leads to it. A cycle's edges, which only an invalid definition has, count once."""
    rank = {node.key: 0 for node in graph.nodes}
    left = {key: len(edges) for key, edges in graph.into().items()}
    below: dict[str, list[str]] = {key: [] for key in rank}
    for edge in graph.edges:
        below[edge.source].append(edge.target)
    ready = deque(key for key, count in left.items() if count == 0)
    while ready:
        key = ready.popleft()
        for target in below[key]:
            rank[target] = max(rank[target], rank[key] + 1)
            left[target] -= 1
            if left[target] == 0:
                ready.append(target)
    return rank


def with_critical_path(graph: Graph) -> Graph:
    """The same with the way marked that the run's length is due to: from what ended last back over whatever each waited for longest."""
    ends = {node.key: node.end_us for node in graph.nodes}
    finished = [node for node in graph.nodes if node.end_us is not None]
    if not finished:
        return graph
    into = graph.into()
    at: str | None = max(reversed(finished), key=lambda node: node.end_us or 0).key
    keys: set[str] = set()
    ways: set[tuple[str, str]] = set()
    while at is not None and at not in keys:
        keys.add(at)
        known = [edge.source for edge in into[at] if ends[edge.source] is not None]
        last = max(known, key=lambda key: ends[key] or 0, default=None)
        if last is not None:
            ways.add((last, at))
        at = last
    return replace(
        graph,
        nodes=tuple(replace(node, critical=node.key in keys) for node in graph.nodes),
        edges=tuple(
            replace(edge, critical=(edge.source, edge.target) in ways) for edge in graph.edges
        ),
    )


def distinct(edges: Iterable[Edge]) -> tuple[Edge, ...]:
    """One edge for each pair, the first."""
    found: dict[tuple[str, str], Edge] = {}
    for edge in edges:
        found.setdefault((edge.source, edge.target), edge)
    return tuple(found.values())


def lasting(us: int) -> str:
    """`1.2s`, `3m 2s`."""
    return span(us / 1e6) if us >= 1_000_000 else f"{us // 1000}ms"


def one_line(text: str, longest: int = 120) -> str:
    """Text that can stand in a picture: on one line, nothing that a terminal or XML would not take, cut when long."""
    kept = "".join(character if _is_shown(character) else " " for character in text)
    said = " ".join(kept.split())
    return said if len(said) <= longest else said[: longest - 3] + "..."


def _is_shown(character: str) -> bool:
    """Neither control characters, lone surrogates, private or unassigned ones, nor those that turn the direction of the text around."""
    return unicodedata.category(character)[0] != "C"
