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

from durable.dag.signatures import Signatures
from durable.dag.step_options import activity_options
from durable.definitions import Activity
from durable.errors import InvalidOption
from durable.options import ActivityOptions

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


def saga_problems(step: Mapping[str, Any], signatures: Signatures | None) -> Iterator[str]:
    """What is wrong with the `undo` and `compensate` of a step, a line each. `signatures`: None if activities are not looked at."""
    for purpose, offered in OFFERED.items():
        if (stored := step.get(purpose)) is None:
            continue
        place = f"step {step['name']!r}: {purpose}"
        if unknown := [it for it in stored.get("takes", ()) if it not in offered]:
            yield f"{place}: it cannot take {unknown[0]!r}; it is given {', '.join(offered)}"
        elif signatures is not None:
            yield from _signature_problems(place, purpose, stored, signatures)
        try:
            ActivityOptions(**activity_options(stored.get("options", {})))
        except InvalidOption as error:
            yield f"{place}: {error}"
    retries = step.get("compensate", {}).get("retries", DEFAULT_RETRIES)
    if not 0 <= retries <= MOST_RETRIES:
        yield f"step {step['name']!r}: compensate_retries is {retries!r}; give a whole number from 0 to {MOST_RETRIES}"


def _signature_problems(
    place: str, purpose: Purpose, stored: Mapping[str, Any], signatures: Signatures
) -> Iterator[str]:
    name, offered = stored["activity"], OFFERED[purpose]
    schema = signatures.arguments(name)
    if schema is None:
        yield f"{place}: no activity is named {name!r} here (import its module)"
        return
    takes, properties = stored.get("takes", offered), schema.get("properties", {})
    for each in schema.get("required", []):
        if each not in takes:
            yield f"{place}: {name} needs {each!r}; it is given {', '.join(offered)}"
    for each in takes:
        if each not in properties and schema.get("additionalProperties") is not True:
            yield f"{place}: {name} has no parameter {each!r}"
