"""A DAG as a step of another: a child run of the interpreter, with a history of its own.

Not inlined with prefixed names: a child is cancelled, ended by force and retried as a whole by rules that exist (C15), it is found under its own id, and a
definition that holds it a thousand times (a `map` over a DAG) does not make one history of it all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from durable.authoring import info
from durable.core.children import ChildFuture
from durable.core.names import LONGEST_NAME
from durable.dag.format import Step
from durable.dag.step_options import child_options
from durable.definitions import Workflow

TELLS = "tells_undo"
"""In a definition: the run's result is an object of `result` and `undo`, which is what has to be called to undo it, in the order of completion."""


def tells_undo(step: Step) -> bool:
    """Whether the run of a nested DAG answers with what there is to undo: if there may be something."""
    return any_has(step["dag"]["steps"], "undo", "expand")


def any_has(steps: Iterable[Step], *keys: str) -> bool:
    """Whether one of the steps has one of these fields, or a DAG in which one has."""
    pending = list(steps)
    while pending:
        step = pending.pop()
        if any(key in step for key in keys):
            return True
        pending += step.get("dag", {}).get("steps", ())
    return False


def start_nested(
    interpreter: Workflow[[dict[str, Any]], Any],
    step: Step,
    arguments: Mapping[str, Any],
    call_id: str,
) -> ChildFuture[Any]:
    """Start the step's DAG with the arguments over its context. Raises PayloadError if the whole is too large.

    The child's workflow id is the parent's, "/" and the step's name, unless that is too long: then it is a child like any other.
    """
    workflow_id = f"{info().workflow_id}/{call_id}"
    named = workflow_id if len(workflow_id) <= LONGEST_NAME else None
    inner = step["dag"]
    definition = {**inner, "context": {**inner["context"], **arguments}}
    if tells_undo(step):
        definition[TELLS] = True
    return interpreter.options(**child_options(step.get("options", {})), id=named)(definition)
