"""An activity's own options stand where a step says nothing: retry policies and timeouts field by field, as in code (call > activity).

A step that is given an activity takes them when it is added. One that names an activity, in a file say, takes them when the DAG is started, from the function
if it is imported there, else from what workers have registered: the interpreter knows nothing but the stored definition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from durable.dag.format import Step
from durable.dag.step_options import stored_options
from durable.definitions import registered_activities

Options = Mapping[str, Any]


def of_imported() -> dict[str, Options]:
    """The options of all activities of this process, by name."""
    return {it.name: stored_options(it.options_given) for it in registered_activities()}


def of_registered(queue: str | None, options: Options) -> Options:
    """The options of an activity that a worker has registered."""
    kept = {key: options[key] for key in ("priority", "retry", "timeouts") if options.get(key)}
    return kept if queue is None else {"queue": queue, **kept}


def with_own_options(steps: Sequence[Step], own: Mapping[str, Options]) -> list[Step]:
    """The steps, and those of DAGs within them, with the options of the activities that they name."""
    return [_completed(step, own) for step in steps]


def _completed(step: Step, own: Mapping[str, Options]) -> Step:
    done = _over(step, own)
    for key in ("undo", "compensate"):
        if key in step:
            done[key] = _over(step[key], own)
    if "dag" in step:
        done["dag"] = {**step["dag"], "steps": with_own_options(step["dag"]["steps"], own)}
    return done


def _over(calling: Step, own: Mapping[str, Options]) -> Step:
    base = own.get(calling.get("activity", ""), {})
    if not base:
        return {**calling}
    given = calling.get("options", {})
    merged = {**base, **given}
    for key in ("retry", "timeouts"):
        if key in merged:
            merged[key] = {**base.get(key, {}), **given.get(key, {})}
    return {**calling, "options": merged}
