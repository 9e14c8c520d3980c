"""The graph of a recorded history: of a declared workflow its steps, of any other what it did."""

from __future__ import annotations

import json
from typing import Any

from durable.dag.interpreter import run_dag
from durable.dag.model import INTERPRETER
from durable.graphs.dags import dag_graph
from durable.graphs.model import Graph
from durable.graphs.runs import Standing, run_graph
from durable.histories import RecordedHistory
from durable.replays import begun, readable


def recorded_graph(
    history: RecordedHistory, standing: Standing | None = None, *, execution: bool = False
) -> Graph:
    """The picture of one run. `execution`: of a declared workflow, too, what was started and what came in, instead of its steps.

    Raises PayloadError when the definition is sealed with a key that this process has not got.
    """
    title = f"{history.workflow_id} ({history.workflow})"
    if execution or history.workflow != INTERPRETER:
        return run_graph(title, history.events, standing)
    opened = readable(history)
    definition = json.loads(opened.events[0].payload or "{}")["definition"]
    asked = _asked(opened)
    steps = asked["shape"]["steps"]
    named = {"name": f"{history.workflow_id} ({definition.get('name')})", "steps": steps}
    added = asked["shape"]["added"]
    return dag_graph(named, asked["steps"], opened.events, standing, added)


def _asked(history: RecordedHistory) -> dict[str, Any]:
    """How each step stands and which there are, by a replay of the interpreter: a run that has closed is asked like one that goes on."""
    execution = begun(history, run_dag)
    execution.outlives_its_end = True
    try:
        execution.replay(history.events)
        if not execution.turn:  # its first turn left no row
            execution.activate([], execution.now_us)
        return {name: json.loads(execution.query(name, "{}")) for name in ("steps", "shape")}
    finally:
        execution.evict()
