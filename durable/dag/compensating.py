"""What a step says of its failure and of its undoing: two activities, `compensate=` and `undo=`, and what the first may decide.

Both are called with parameters of fixed names, of which they take those that they declare: `compensate` gets `error` (an object with `type`, `message`
and `attempt`), `arguments` and `context`; `undo` gets `result`, `arguments` and `context`. So the stored definition needs no second language of arguments.
What `compensate` decides is its result, hence in the history: replay does not ask it again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from durable.definitions import Activity

Purpose = Literal["undo", "compensate"]
Verdict = Literal["continue", "retry", "give_up"]

OFFERED: dict[Purpose, tuple[str, ...]] = {
    "undo": ("result", "arguments", "context"),
    "compensate": ("error", "arguments", "context"),
}
DEFAULT_RETRIES = 5
MOST_RETRIES = 100

RESERVED_NAME = re.compile(r":(undo(#\d+)?|compensate:\d+)$")
"""How the ids of calls end that the interpreter makes for a step."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What a `compensate` activity returns; see `go_on`, `try_again` and `give_up`."""

    decision: Verdict
    value: Any = None


def go_on(value: Any = None) -> Decision:
    """The step counts as completed with `value` as its result; if it has an `undo`, that is called for it like for any other."""
    return Decision("continue", value)


def try_again() -> Decision:
    """Run the step again, with its attempts counted anew; at most `compensate_retries` times, then the failure stands."""
    return Decision("retry")


def give_up() -> Decision:
    """The failure stands. None means the same."""
    return Decision("give_up")


def read_decision(value: Any) -> Decision:
    """What an activity returned, from JSON. Raises ValueError if it is no decision."""
    if value is None:
        return give_up()
    if isinstance(value, Mapping) and value.get("decision") in get_args(Verdict):
        return Decision(value["decision"], value.get("value"))
    raise ValueError(
        f"compensate returned {value!r:.200}; return go_on(value), try_again(), give_up() or None"
    )


# -- the stored form ------------------------------------------------------------------------------------------------------


def taken(purpose: Purpose, activity: Activity[..., Any]) -> list[str]:
    """Of what is offered, the parameters that the activity has."""
    properties = activity.arguments.json_schema().get("properties", {})
    return [name for name in OFFERED[purpose] if name in properties]


def arguments_of(purpose: Purpose, stored: Mapping[str, Any], **offered: Any) -> dict[str, Any]:
    """What the activity of a stored `undo` or `compensate` is called with."""
    return {name: offered[name] for name in stored.get("takes", OFFERED[purpose])}


def problems_of(step: Mapping[str, Any], known: Mapping[str, Activity[..., Any]]) -> Iterator[str]:
    """What is wrong with the `undo` and `compensate` of a step, a line each."""
    for purpose, offered in OFFERED.items():
        if (stored := step.get(purpose)) is None:
            continue
        place = f"step {step['name']!r}: {purpose}"
        activity = known.get(stored["activity"])
        if activity is None:
            yield f"{place}: no activity is named {stored['activity']!r} here (import its module)"
            continue
        schema, takes = activity.arguments.json_schema(), stored.get("takes", offered)
        for name in schema.get("required", []):
            if name not in takes:
                yield f"{place}: {activity.name} needs {name!r}; it is given {', '.join(offered)}"
        for name in takes:
            if name not in schema.get("properties", {}):
                yield f"{place}: {activity.name} has no parameter {name!r}"
    retries = (step.get("compensate") or {}).get("retries", DEFAULT_RETRIES)
    if (
        isinstance(retries, bool)
        or not isinstance(retries, int)
        or not 0 <= retries <= MOST_RETRIES
    ):
        yield f"step {step['name']!r}: compensate_retries is {retries!r}; give a whole number from 0 to {MOST_RETRIES}"
