"""The graph of what a run really did: who waited for what, for how long, after how many attempts, and what it waits for now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from durable.core.events import Event
from durable.descriptions import PendingJob
from durable.graphs.model import (
    Edge,
    Graph,
    Node,
    State,
    distinct,
    lasting,
    one_line,
    with_critical_path,
)
from durable.graphs.operations import Happening, Story, failure_text

ALIKE = 5
"""So many of one name, started together, are drawn one by one; more are drawn as one node."""


_KNOWN_OTHERWISE = frozenset({"activity", "local activity", "child", "timer", "task", "more"})
"""Kinds of waits that the history or a pending job stands for, or that are waits of waits."""

_WORST_FIRST: tuple[State, ...] = ("failed", "running", "waiting", "cancelled", "completed")


@dataclass(frozen=True, slots=True)
class Standing:
    """What is not in the history of a run that goes on: its pending activities and timers, what its code awaits, and the time, in microseconds."""

    now_us: int | None = None
    pending: Sequence[PendingJob] = ()
    waiting_on: Sequence[Mapping[str, Any]] = ()

    def of(self, key: str) -> PendingJob | None:
        """The job of an opening event."""
        return next((job for job in self.pending if str(job.seq) == key), None)


def run_graph(title: str, events: Sequence[Event], standing: Standing | None = None) -> Graph:
    """The execution that a history tells of. `events` is the whole of it; its payloads are not looked at."""
    now = standing or Standing()
    story = Story(events)
    shown = [it for it in story.happenings.values() if not _is_unused_deadline(it)]
    _name_apart(shown)
    if story.end is not None:
        _leave_behind(shown)
    workflow = one_line(str(events[0].body.get("workflow", "start")), 60)
    begun = events[0].at_us
    nodes = [Node("start", workflow, "start", "completed", begin_us=begun, end_us=begun)]
    edges: list[Edge] = []
    merged = _merged(shown)
    names = {"start": "start"} | {it.key: members[0].key for members in merged for it in members}
    for members in merged:
        first = members[0].key
        nodes.append(happening_node(members[0], now) if len(members) == 1 else _crowd(members))
        edges += [
            Edge(names[source], first, soft=it.inferred)
            for it in members
            for source in it.after
            if source in names
        ]
    if story.end is not None:
        nodes.append(_end_node(story.end, events))
        edges += [Edge(names[source], "end") for source in story.end.after if source in names]
    else:
        _add_waits(now, story, names, nodes, edges)
    graph = Graph(title, tuple(nodes), distinct(edges), _facts(events, story, now), now.now_us)
    return with_critical_path(graph)


def _is_unused_deadline(it: Happening) -> bool:
    return it.kind == "timer" and it.state == "cancelled"


def _name_apart(shown: Sequence[Happening]) -> None:
    """Of several with one name, activities are called by their ids, others are numbered."""
    counts = Counter(it.label for it in shown)
    seen: Counter[str] = Counter()
    for it in shown:
        name = it.label
        seen[name] += 1
        if counts[name] > 1 and it.kind in ("activity", "local") and it.id:
            it.name = it.id
        elif counts[name] > 1:
            it.name = f"{name} {seen[name]}"


def _leave_behind(shown: Iterable[Happening]) -> None:
    """What the run did not wait for."""
    for it in shown:
        if it.end_us is None:
            it.state, it.note = "cancelled", "left when the workflow ended"


def _merged(shown: Iterable[Happening]) -> list[list[Happening]]:
    """Happenings of one name that were started together, as groups if they are many."""
    groups: dict[Any, list[Happening]] = {}
    for it in shown:
        groups.setdefault((it.kind, it.label, it.begin_us, tuple(it.after)), []).append(it)
    found: list[list[Happening]] = []
    for members in groups.values():
        found += [members] if len(members) > ALIKE else [[it] for it in members]
    return found


def happening_node(it: Happening, now: Standing) -> Node:
    """One thing, with what is known of it."""
    job = now.of(it.key) if it.end_us is None else None
    failure = failure_text(it.failure)
    state: State = it.state
    facts = [_how_long(it, now)]
    if it.attempt > 1:
        facts.append(f"attempt {it.attempt}")
    if job is not None:
        state, more, failure = _pending(job, failure)
        facts += more
    facts += [it.note, failure]
    detail = " ".join(
        filter(None, (it.id if it.id not in (it.label, it.name) else "", it.line, failure))
    )
    return Node(
        it.key,
        one_line(it.name or it.label, 60),
        it.kind,
        state,
        tuple(one_line(fact, 44) for fact in facts if fact),
        one_line(detail, 400),
        it.begin_us,
        it.end_us,
    )


def _how_long(it: Happening, now: Standing) -> str:
    verb = "waited" if it.kind in ("timer", "signal") else "took"
    if it.end_us is not None:
        return f"{verb} {lasting(it.end_us - it.begin_us)}" if it.end_us > it.begin_us else ""
    if now.now_us is None or it.state == "cancelled":
        return ""
    said = f"for {lasting(max(0, now.now_us - it.begin_us))} now"
    left = (
        f", {lasting(it.due_us - now.now_us)} left" if it.due_us and it.due_us > now.now_us else ""
    )
    return said + left


def _pending(job: PendingJob, failure: str) -> tuple[State, list[str], str]:
    """State and facts of what is under way, from its job."""
    facts = (
        [f"attempt {job.attempt} of {job.max_attempts or 'any number'}"] if job.attempt > 1 else []
    )
    if job.errors:
        failure = failure_text(job.errors[-1].get("failure"))
    said = {
        "retryable": "will be tried again",
        "available": f"waits in queue {job.queue}",
        "paused": "paused" if (job.paused or {}).get("kind") != "exhausted" else "attempts ran out",
        "waiting": "to be completed from elsewhere",
    }.get(job.state)
    state: State = "running" if job.state == "executing" else "waiting"
    return state, facts + ([said] if said and job.kind != "timer" else []), failure


def _crowd(members: Sequence[Happening]) -> Node:
    """Many alike as one node."""
    by_state: dict[State, int] = {}
    for it in members:
        by_state[it.state] = by_state.get(it.state, 0) + 1
    worst = min(by_state, key=_WORST_FIRST.index)
    ends = [it.end_us for it in members]
    open_ = [it for it in members if it.end_us is None]
    closed = [it.end_us - it.begin_us for it in members if it.end_us is not None]
    facts = [", ".join(f"{count} {state}" for state, count in by_state.items())]
    if closed:
        facts.append(f"took {lasting(min(closed))} to {lasting(max(closed))}")
    retried = sum(it.attempt > 1 for it in members)
    if retried:
        facts.append(f"{retried} tried again")
    failures = [failure_text(it.failure) for it in members if it.failure]
    first = members[0]
    return Node(
        first.key,
        f"{one_line(first.label, 60)} x {len(members)}",
        first.kind,
        worst,
        tuple(one_line(fact, 44) for fact in (*facts, *failures[:1])),
        one_line(first.line),
        first.begin_us,
        None if open_ else max(end for end in ends if end is not None),
    )


def _end_node(it: Happening, events: Sequence[Event]) -> Node:
    failure = failure_text(it.failure)
    facts = [f"after {lasting(events[-1].at_us - events[0].at_us)}", failure or it.note]
    return Node(
        "end",
        it.label,
        "end",
        it.state,
        tuple(one_line(fact, 44) for fact in facts if fact),
        one_line(failure, 400),
        it.begin_us,
        it.end_us,
    )


def _add_waits(
    now: Standing, story: Story, names: Mapping[str, str], nodes: list[Node], edges: list[Edge]
) -> None:
    """What the code awaits that nothing of the history stands for: a signal without a deadline, a condition."""
    since = max((node.end_us or 0 for node in nodes), default=0) or None
    for number, wait in enumerate(now.waiting_on):
        kind, name = str(wait.get("kind", "")), one_line(str(wait.get("name", "")), 60)
        if kind in _KNOWN_OTHERWISE or str(wait.get("seq")) in names:
            continue
        waited = f"for {lasting(now.now_us - since)} now" if now.now_us and since else ""
        key = f"wait-{number}"
        shown = "signal" if kind == "signal" else "wait"
        facts = tuple(filter(None, (waited, one_line(str(wait.get("line") or "")))))
        nodes.append(Node(key, name or kind, shown, "waiting", facts, begin_us=since))  # type: ignore[arg-type]
        edges += [
            Edge(names[source], key, soft=True) for source in story.frontier if source in names
        ]


def _facts(events: Sequence[Event], story: Story, now: Standing) -> tuple[str, ...]:
    begun, last = events[0].at_us, events[-1].at_us
    if story.end is not None:
        return (f"{story.end.label} after {lasting(last - begun)}",)
    return (f"running for {lasting(max(0, now.now_us - begun))}",) if now.now_us else ("running",)
