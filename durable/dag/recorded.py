"""What the interpreter of a recorded run knows about its steps: for pictures and explanations."""

from __future__ import annotations

import json
from typing import Any

from durable.dag.interpreter import run_dag
from durable.histories import RecordedHistory
from durable.replays import begun


def steps_and_shape(history: RecordedHistory) -> dict[str, Any]:
    """How each step stands and which there are, by a replay of the interpreter: a run that has closed is asked like one that goes on.

    The history's payloads are open: see `durable.replays.readable`.
    """
    execution = begun(history, run_dag)
    execution.outlives_its_end = True
    try:
        execution.replay(history.events)
        if not execution.turn:  # its first turn left no row
            execution.activate([], execution.now_us)
        return {name: json.loads(execution.query(name, "{}")) for name in ("steps", "shape")}
    finally:
        execution.evict()
