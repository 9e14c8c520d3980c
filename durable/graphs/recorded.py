"""The graph of a recorded history: of a declared workflow its steps, of any other what it did."""

from __future__ import annotations

import json

from durable.dag.model import INTERPRETER
from durable.dag.recorded import steps_and_shape
from durable.graphs.dags import dag_graph
from durable.graphs.model import Graph
from durable.graphs.runs import Standing, run_graph
from durable.histories import RecordedHistory
from durable.replays import readable


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
    asked = steps_and_shape(opened)
    steps = asked["shape"]["steps"]
    named = {"name": f"{history.workflow_id} ({definition.get('name')})", "steps": steps}
    added = asked["shape"]["added"]
    return dag_graph(named, asked["steps"], opened.events, standing, added)
