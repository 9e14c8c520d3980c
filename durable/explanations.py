"""Where a workflow's code stands, from its history alone: replayed here, with the code of this process. Nothing is executed but workflow code."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from durable import replays
from durable.core.causes import Explanation, TaskStand
from durable.core.diagnosis import DAG
from durable.core.facts import RunFacts, StepFacts
from durable.dag.model import edges_of
from durable.dag.recorded import steps_and_shape
from durable.definitions import Workflow, registered_workflows
from durable.histories import RecordedHistory

LONGEST_REPLAY = 20_000
"""Events that are replayed for the lines where the code stands; those of a longer history are taken from its last turn."""

QUERY_S = 2.0
"""How long the worker that holds a run is given to say where its code stands."""


def replayable(run: RunFacts) -> Workflow[..., Any] | None:
    """The code of an open run, if this process has imported it and its history is not too long."""
    if run.status != "running" or run.last_seq > LONGEST_REPLAY or run.workflow == DAG:
        return None
    wanted = (run.workflow, run.version)
    return next((it for it in registered_workflows() if (it.name, it.version) == wanted), None)


def replayed(
    found: Explanation, run: RunFacts, workflow: Workflow[..., Any], history: RecordedHistory
) -> Explanation:
    """The explanation with the lines where the code stands; as it is when the code cannot be replayed, which another cause tells of."""
    try:
        execution = replays.replay(_up_to(history, run), workflow)
    except Exception:
        return found
    tasks = told(execution.stacks())
    execution.evict()
    return replace(found, tasks=tasks, tasks_from="replay")


def told(stacks: Any) -> tuple[TaskStand, ...]:
    """What the query `__stack` answers."""
    return tuple(TaskStand(it["task"], tuple(it["lines"])) for it in stacks)


def steps_of(run: RunFacts, history: RecordedHistory) -> dict[str, StepFacts]:
    """The steps of a DAG as they are after the last recorded turn. Raises PayloadError when its definition cannot be read here."""
    asked = steps_and_shape(replays.readable(_up_to(history, run)))
    shape = asked["shape"]
    edges = edges_of(shape["steps"])
    stored = {step["name"]: step for step in shape["steps"]}
    return {
        name: StepFacts(
            row["status"],
            tuple(edge.upstream for edge in edges.get(name, ())),
            row.get("cause"),
            row.get("failure"),
            tuple(shape["added"].get(name, ())),
            stored[name].get("wait", {}).get("signal"),
        )
        for name, row in asked["steps"].items()
    }


def _up_to(history: RecordedHistory, run: RunFacts) -> RecordedHistory:
    """Without what was written after the facts were read."""
    return replace(history, events=tuple(it for it in history.events if it.seq <= run.last_seq))
