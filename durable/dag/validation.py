"""What is wrong with a DAG: every problem at once, before anything is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

from jsonschema import Draft202012Validator

from durable.dag.compensating import RESERVED_NAME, problems_of
from durable.dag.expressions import OPERATORS, TRANSFORMS, references, source_of
from durable.dag.model import LONGEST_STEP_NAME, Step, edges_of
from durable.definitions import Activity, registered_activities

if TYPE_CHECKING:
    from durable.dag.model import Dag


def problems(dag: Dag) -> list[str]:
    """A line each; the order is that of the steps."""
    known = {it.name: it for it in registered_activities()} | dag.activities
    by_name = {step["name"]: step for step in dag.steps}
    found = list(dag.problems_found)
    found += [] if dag.steps else ["it has no steps"]
    seen: set[str] = set()
    for step in dag.steps:
        found += _names(step, seen)
        found += _edges(step, by_name)
        found += _references(step, by_name, known, dag.context)
        found += _settings(step)
        found += problems_of(step, known)
        if "activity" in step:
            found += _call(step, known)
    found += _order(dag.steps, by_name)
    return list(dict.fromkeys(found))


def _names(step: Step, seen: set[str]) -> Iterator[str]:
    name = step["name"]
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_STEP_NAME:
        yield f"step {name!r}: give a name of 1 to {LONGEST_STEP_NAME} characters"
    elif not name.isprintable():
        yield f"step {name!r}: give a name of printable characters"
    elif RESERVED_NAME.search(name):
        yield f"step {name!r}: the ids of calls that undo or compensate steps end like this; use another name"
    if name in seen:
        yield f"step {name!r} is declared twice"
    seen.add(name)


def _edges(step: Step, by_name: Mapping[str, Step]) -> Iterator[str]:
    name = step["name"]
    for each in step["deps"]:
        if each["step"] == name:
            yield f"step {name!r} depends on itself"
        elif each["step"] not in by_name:
            yield f"step {name!r} depends on {each['step']!r}, which does not exist"
    if "branch" in step:
        cases = step["branch"]
        for target in chain(*cases["cases"].values(), cases["default"]):
            if target == name:
                yield f"step {name!r} branches to itself"
            elif target not in by_name:
                yield f"step {name!r} branches to {target!r}, which does not exist"


def _settings(step: Step) -> Iterator[str]:
    name = step["name"]
    if "map" in step:
        limit, over = step["map"]["max_concurrency"], step["map"]["over"]
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            yield f"step {name!r}: max_concurrency is {limit!r}; give a whole number from 1"
        if not isinstance(over, list) and not source_of(over):
            yield f"step {name!r}: over is neither a list nor a reference"
    if "wait" in step:
        limit, signal = step["wait"].get("timeout_us", 1), step["wait"].get("signal", "signal")
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            yield f"step {name!r}: timeout is {limit!r}; give more than nothing"
        if not isinstance(signal, str) or not signal:
            yield f"step {name!r}: signal is {signal!r}; give a Signal or its name"
    for condition in (step.get("when"), (step.get("guard") or {}).get("if")):
        if condition is not None and condition.get("op") not in OPERATORS:
            yield f"step {name!r}: unknown condition {condition.get('op')!r}"


# -- references -----------------------------------------------------------------------------------------------------------


def _references(
    step: Step, by_name: Mapping[str, Step], known: Mapping[str, Activity[..., Any]], context: Any
) -> Iterator[str]:
    name = step["name"]
    for ref in references([step.get(key) for key in ("args", "map", "when", "guard", "branch")]):
        path = ref.get("path", [])
        if ref.get("transform") not in (None, *TRANSFORMS):
            yield f"step {name!r}: unknown transform {ref['transform']!r}"
        if "$item" in ref and "map" not in step:
            yield f"step {name!r}: item() is for map steps"
        if "$context" in ref:
            yield from _context_path(name, context, path)
        if (upstream := by_name.get(ref.get("$result", ""))) is not None:
            yield from _result_path(name, upstream, known, path)


def _context_path(name: str, context: Any, path: list[Any]) -> Iterator[str]:
    value = context
    for part in path:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            yield f"step {name!r}: the context has no {'.'.join(map(str, path))!r}"
            return


def _result_path(
    name: str, upstream: Step, known: Mapping[str, Activity[..., Any]], path: list[Any]
) -> Iterator[str]:
    activity = known.get(upstream.get("activity", ""))
    if activity is None or not path or "guard" in upstream:
        return
    schema: Any = activity.arguments.result.json_schema()
    if "map" in upstream:
        schema = {"type": "array", "items": schema, "$defs": schema.get("$defs", {})}
    if not _has(schema, path):
        yield f"step {name!r}: the result of {upstream['name']!r} has no {'.'.join(map(str, path))!r}"


def _has(root: Mapping[str, Any], path: list[Any]) -> bool:
    """Whether a schema allows the path; what it does not say is allowed."""
    schema: Any = root
    for part in path:
        while isinstance(schema, Mapping) and "$ref" in schema:
            schema = root.get("$defs", {}).get(str(schema["$ref"]).rpartition("/")[2], {})
        if not isinstance(schema, Mapping) or "type" not in schema:
            return True
        if schema["type"] == "object":
            properties, more = schema.get("properties", {}), schema.get("additionalProperties")
            if part not in properties and (more is False or (properties and more is None)):
                return False
            schema = properties.get(part, more if isinstance(more, Mapping) else {})
        elif schema["type"] == "array":
            if not isinstance(part, int):
                return False
            schema = schema.get("items", {})
        else:
            return False
    return True


# -- activities -----------------------------------------------------------------------------------------------------------


def _call(step: Step, known: Mapping[str, Activity[..., Any]]) -> Iterator[str]:
    """Whether the activity is known and takes the arguments; what refers to a value of the run is not looked at."""
    name, called = step["name"], step["activity"]
    activity = known.get(called)
    if activity is None:
        yield f"step {name!r}: no activity is named {called!r} here (import its module)"
        return
    schema = activity.arguments.json_schema()
    properties = schema.get("properties", {})
    args = step["args"]
    for key in schema.get("required", []):
        if key not in args:
            yield f"step {name!r}: {called} needs {key!r}"
    for key, value in args.items():
        if key not in properties:
            if schema.get("additionalProperties") is not True:
                yield f"step {name!r}: {called} has no parameter {key!r}"
        elif next(references(value), None) is None:
            whole = {"$defs": schema.get("$defs", {}), **properties[key]}
            for error in Draft202012Validator(whole).iter_errors(value):
                place = ".".join([key, *(str(part) for part in error.absolute_path)])
                yield f"step {name!r}: {place}: {error.message}"


# -- order ------------------------------------------------------------------------------------------------------------------


def _order(steps: list[Step], by_name: Mapping[str, Step]) -> Iterator[str]:
    """Cycles with their paths, and the steps behind them, which could never start. Iterative: 10,000 steps in a row are nothing special."""
    above = {
        name: [it.upstream for it in edges if it.upstream in by_name and it.upstream != name]
        for name, edges in edges_of(steps).items()
    }
    below: dict[str, list[str]] = {name: [] for name in above}
    for name, upstream in above.items():
        for each in upstream:
            below[each].append(name)
    left = {name: len(upstream) for name, upstream in above.items()}
    free = [name for name, count in left.items() if not count]
    while free:
        for each in below[free.pop()]:
            left[each] -= 1
            if not left[each]:
                free.append(each)
    stuck = {name for name, count in left.items() if count}
    in_cycles: set[str] = set()
    declared = {name: number for number, name in enumerate(above)}
    visited: set[str] = set()
    for name in above:
        if name in stuck and name not in visited and (cycle := _cycle(name, above, stuck, visited)):
            in_cycles.update(cycle)
            first = min(range(len(cycle)), key=lambda number: declared[cycle[number]])
            yield f"cycle: {' -> '.join([*cycle[first:], *cycle[:first], cycle[first]])}"
    for name in above:
        if name in stuck and name not in in_cycles:
            yield f"step {name!r} is unreachable: it is behind a cycle"


def _cycle(
    start: str, above: Mapping[str, list[str]], stuck: set[str], visited: set[str]
) -> list[str]:
    """The cycle that one meets going up from a stuck step, each of which has a stuck step above; empty if it was met before."""
    path: list[str] = []
    place: dict[str, int] = {}
    name = start
    while name not in place:
        if name in visited:
            return []
        visited.add(name)
        place[name] = len(path)
        path.append(name)
        name = next(it for it in above[name] if it in stuck)
    return path[place[name] :][::-1]
