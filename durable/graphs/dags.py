"""The graph of a declared workflow: as it is stored, or with the state of each step of a run of it."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from typing import Any

from durable.core.events import Event
from durable.dag.format import Step
from durable.dag.model import edges_of
from durable.dag.scheduler import Edge as Dependency
from durable.graphs.model import (
    Edge,
    Graph,
    Kind,
    Node,
    State,
    distinct,
    lasting,
    one_line,
    with_critical_path,
)
from durable.graphs.operations import ENDS, Happening, Story, failure_text
from durable.graphs.runs import Standing

Table = Mapping[str, Mapping[str, Any]]
"""What the query `steps` of a DAG's run answers: by step, `status`, and `result`, `failure` and `cause` where it has them."""

_KINDS: tuple[Kind, ...] = ("map", "branch", "dag", "wait", "activity")
_ELEMENT = re.compile(r"\[\d+\]\Z")
_AGAIN = re.compile(r"#\d+\Z")


def dag_graph(
    definition: Mapping[str, Any],
    table: Table | None = None,
    events: Sequence[Event] = (),
    standing: Standing | None = None,
    added: Mapping[str, Sequence[str]] | None = None,
) -> Graph:
    """A definition, `Dag(...).to_json()`. With the table and the history of a run of it: how each step stands and how long it took.

    `added`: the steps that each step has added while the run went on; the definition's `steps` must have them.
    """
    now = standing or Standing()
    steps: Sequence[Step] = definition["steps"]
    begun = _by_step(events, {str(step["name"]) for step in steps})
    if table is not None and events and events[-1].type in ENDS:
        table = _left_behind(table)
    nodes = [_node(step, table, begun.get(step["name"], []), now) for step in steps]
    known = {node.key for node in nodes}
    edges = [
        Edge(each.upstream, name, one_line(_label(each), 30), soft=_goes_on(each))
        for name, dependencies in edges_of(steps).items()
        for each in dependencies
        if each.upstream in known
    ]
    edges += [
        Edge(adding, name, "adds", soft=True)
        for adding, names in (added or {}).items()
        for name in names
    ]
    graph = Graph(
        one_line(str(definition.get("name", "dag"))),
        tuple({node.key: node for node in nodes}.values()),
        distinct(edges),
        _facts(steps, table),
        now.now_us,
    )
    return with_critical_path(graph)


def _left_behind(table: Table) -> Table:
    """A run that was cancelled or ended by force leaves steps that have not."""
    return {
        name: {**row, "status": "cancelled"}
        if row["status"] in ("pending", "running", "halted")
        else row
        for name, row in table.items()
    }


def _by_step(events: Sequence[Event], known: Container[str]) -> dict[str, list[Happening]]:
    """The activities and children of each step, by the id that the interpreter gave them."""
    found: dict[str, list[Happening]] = {}
    if not events:
        return found
    run = f"{events[0].body.get('workflow_id', '')}/"
    for it in Story(events).happenings.values():
        if it.kind in ("activity", "child"):
            id_ = it.id.removeprefix(run) if it.kind == "child" else it.id
            found.setdefault(_step_of(id_, known), []).append(it)
    return found


def _step_of(call_id: str, known: Container[str]) -> str:
    """`name`, `name#2` when it was called again, `name[3]` of a map, `name[3]#2`."""
    once = call_id if call_id in known else _AGAIN.sub("", call_id)
    return once if once in known else _ELEMENT.sub("", once)


def _node(step: Step, table: Table | None, begun: Sequence[Happening], now: Standing) -> Node:
    name = str(step["name"])
    row = (table or {}).get(name, {})
    status = row.get("status", "declared" if table is None else "pending")
    state: State = "waiting" if status == "halted" else status
    if state == "running" and "wait" in step:
        state = "waiting"
    failure = failure_text(row.get("failure"))
    ended = [it.end_us for it in begun if it.end_us is not None]
    over = len(ended) == len(begun) and state not in ("running", "waiting", "pending")
    facts = [*_declared(step), *_lived(step, begun, state, now)]
    if row.get("cause"):
        facts.append(f"because of {row['cause']}")
    if row.get("undo"):
        facts.append(f"undo: {row['undo']}")
    if row.get("by"):
        facts.append("by hand")
    if row.get("undo"):
        facts.append("not undone" if row["undo"] == "failed" else str(row["undo"]))
    if row.get("halt"):
        facts.append(f"halted: {row['halt']}")
    return Node(
        name,
        one_line(name, 60),
        _kind(step),
        state,
        tuple(one_line(fact, 44) for fact in (*facts, failure) if fact),
        one_line(failure, 400),
        min((it.begin_us for it in begun), default=None),
        max(ended, default=None) if over else None,
    )


def _kind(step: Step) -> Kind:
    return next(kind for kind in _KINDS if kind in step or kind == "activity")


def _declared(step: Step) -> list[str]:
    """What the definition says of the step besides its name."""
    said = []
    activity = str(step.get("activity", ""))
    if activity and activity.rpartition(".")[2] != step["name"]:
        said.append(activity)
    if "dag" in step and step["dag"].get("name") != step["name"]:
        said.append(f"runs {step['dag'].get('name')}")
    if "wait" in step:
        signal = step["wait"].get("signal")
        said.append(f"for signal {signal}" if signal else "to be completed from outside")
    if step.get("expand"):
        said.append("adds steps")
    if "map" in step:
        said.append(f"for each, {step['map'].get('max_concurrency', '?')} at once")
    if "when" in step:
        said.append("has a condition")
    if "guard" in step:
        said.append("has a guard")
    return said


def _lived(step: Step, begun: Sequence[Happening], state: State, now: Standing) -> list[str]:
    """What its activities say: how long, how many of how many, which attempt."""
    if not begun:
        return []
    begin = min(it.begin_us for it in begun)
    ended = [it.end_us for it in begun if it.end_us is not None]
    facts = []
    if "map" in step:
        done = sum(it.state == "completed" for it in begun)
        facts.append(f"{done} of {len(begun)} begun are done")
    if state == "running" and now.now_us is not None:
        facts.append(f"for {lasting(max(0, now.now_us - begin))} now")
    elif ended:
        facts.append(f"took {lasting(max(ended) - begin)}")
    open_ = [it for it in begun if it.end_us is None]
    jobs = [job for it in open_ if (job := now.of(it.key)) is not None]
    attempts = max([it.attempt for it in begun] + [job.attempt for job in jobs])
    if attempts > 1:
        facts.append(f"attempt {attempts}")
    errors = [job.errors[-1] for job in jobs if job.errors]
    return facts + [failure_text(error.get("failure")) for error in errors[:1]]


def _label(edge: Dependency) -> str:
    return "otherwise" if edge.unless else ", ".join(edge.only)


def _goes_on(edge: Dependency) -> bool:
    return "continue" in (edge.failed, edge.cancelled)


def _facts(steps: Sequence[Step], table: Table | None) -> tuple[str, ...]:
    if table is None:
        return (f"{len(steps)} steps",)
    counts: dict[str, int] = {}
    for row in table.values():
        counts[row["status"]] = counts.get(row["status"], 0) + 1
    return (", ".join(f"{count} {status}" for status, count in counts.items()),)
