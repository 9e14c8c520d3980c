"""What is wrong with a DAG: every problem at once, before anything is written."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from durable.core.names import LONGEST_NAME
from durable.dag.compensating import RESERVED_NAME, saga_problems
from durable.dag.expressions import OPERATORS, TRANSFORMS, references, source_of
from durable.dag.format import Step, form_problems, step_references
from durable.dag.model import LONGEST_STEP_NAME, edges_of
from durable.dag.scope import MISSING, UNKNOWN, Scope
from durable.dag.signatures import Schema, Signatures, difference, is_possible, texts
from durable.dag.step_options import NOT_FOR_CHILDREN, activity_options, child_options
from durable.definitions import registered_activities
from durable.errors import InvalidOption
from durable.options import ActivityOptions, ChildOptions

if TYPE_CHECKING:
    from durable.dag.model import Dag, Registered


def problems(dag: Dag, registered: Registered | None = None) -> list[str]:
    """A line each; the order is that of the steps. `registered`: activities known by their schemas alone.

    Of a definition whose form is wrong, only that is told.
    """
    found = [*dag.problems_found, *form_problems(definition := dag.to_json())]
    if len(found) == len(dag.problems_found):
        found += definition_problems(definition, _signatures(dag, registered), dag.context)
    return list(dict.fromkeys(found))


def expansion_problems(dag: Dag) -> list[str]:
    """The same of steps that an activity is about to return: what they refer to may be elsewhere, and so may be their activities."""
    found = [*dag.problems_found, *form_problems(dag.to_json())]
    scope = Scope({step["name"]: step for step in dag.steps}, UNKNOWN, _signatures(dag))
    if len(found) == len(dag.problems_found):
        seen: set[str] = set()
        for step in dag.steps:
            found += chain(_names(step, seen), _settings(step), saga_problems(step, None))
            found += _nested(step, scope) if "dag" in step else _call(step, scope)
    return list(dict.fromkeys(found))


def definition_problems(
    definition: Mapping[str, Any], signatures: Signatures | None, context: Any
) -> Iterator[str]:
    """What is wrong with a definition of the right form. `context`: what its steps see as such."""
    steps: list[Step] = definition["steps"]
    scope = Scope({step["name"]: step for step in steps}, context, signatures)
    if not (0 < len(definition["name"]) <= LONGEST_NAME and definition["name"].isprintable()):
        yield f"its name is {definition['name']!r}; give 1 to {LONGEST_NAME} printable characters"
    if not steps:
        yield "it has no steps"
    yield from step_problems(steps, scope, set())
    for ref in references(definition.get("output")):
        yield from _reference("output", {"name": ""}, ref, scope)
        if "$result" in ref and ref["$result"] not in scope.steps:
            yield f"output: there is no step {ref['$result']!r}"
    yield from order_problems(edges_upward(steps))


def step_problems(steps: Sequence[Step], scope: Scope, seen: set[str]) -> Iterator[str]:
    """What is wrong with single steps. `seen`: names that are taken."""
    for step in steps:
        yield from _names(step, seen)
        yield from _edges(step, scope.steps)
        yield from _references(step, scope)
        yield from _settings(step)
        yield from saga_problems(step, scope.signatures)
        yield from _conditions(step, scope)
        if "map" in step:
            yield from _elements(step, scope)
        if "dag" in step:
            yield from _nested(step, scope)
        elif "branch" in step:
            yield from _cases(step, scope)
        elif "activity" in step and scope.signatures is not None:
            called = step["activity"]
            if scope.signatures.arguments(called) is None:
                yield f"step {step['name']!r}: no activity is named {called!r} here (import its module, or start a worker that has it)"
            yield from _call(step, scope)


def _signatures(dag: Dag, registered: Registered | None = None) -> Signatures:
    return Signatures({it.name: it for it in registered_activities()} | dag.activities, registered)


def _names(step: Step, seen: set[str]) -> Iterator[str]:
    name = step["name"]
    if not 0 < len(name) <= LONGEST_STEP_NAME:
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
    said: set[str] = set()
    for each in step["deps"]:
        if each["step"] == name:
            yield f"step {name!r} depends on itself"
        elif each["step"] not in by_name:
            yield f"step {name!r} depends on {each['step']!r}, which does not exist"
        elif each["step"] in said:
            yield f"step {name!r} depends on {each['step']!r} twice"
        said.add(each["step"])
    if "branch" in step:
        cases = step["branch"]
        if not any(chain(*cases["cases"].values(), cases["default"])):
            yield f"step {name!r} branches to nothing"
        for target in chain(*cases["cases"].values(), cases["default"]):
            if target == name:
                yield f"step {name!r} branches to itself"
            elif target not in by_name:
                yield f"step {name!r} branches to {target!r}, which does not exist"


def _settings(step: Step) -> Iterator[str]:
    name = step["name"]
    if "map" in step:
        limit, over = step["map"]["max_concurrency"], step["map"]["over"]
        if limit < 1:
            yield f"step {name!r}: max_concurrency is {limit!r}; give a whole number from 1"
        if not isinstance(over, list) and not source_of(over):
            yield f"step {name!r}: over is neither a list nor a reference"
    if step.get("wait", {}).get("timeout_us", 1) < 1:
        yield f"step {name!r}: timeout is {step['wait']['timeout_us']!r} µs; give more than nothing"
    if step.get("wait", {}).get("signal") == "":
        yield f"step {name!r}: signal is ''; give a Signal or its name"
    for condition in (step.get("when"), (step.get("guard") or {}).get("if")):
        if condition is not None and condition["op"] not in OPERATORS:
            yield f"step {name!r}: unknown condition {condition['op']!r}"
    options = step.get("options", {})
    try:
        if "dag" in step:
            ChildOptions(**child_options(options))
        else:
            ActivityOptions(**activity_options(options))
    except InvalidOption as error:
        yield f"step {name!r}: {error}"
    for key in NOT_FOR_CHILDREN if "dag" in step else ():
        if key in options or key in options.get("timeouts", {}):
            yield f"step {name!r}: a nested dag has no option {key!r}"


# -- references -----------------------------------------------------------------------------------------------------------


def _references(step: Step, scope: Scope) -> Iterator[str]:
    for ref in step_references(step):
        yield from _reference(f"step {step['name']!r}", step, ref, scope)


def _reference(place: str, step: Step, ref: Mapping[str, Any], scope: Scope) -> Iterator[str]:
    path = ".".join(map(str, ref.get("path", [])))
    if ref.get("transform") not in (None, *TRANSFORMS):
        yield f"{place}: unknown transform {ref['transform']!r}"
    if "$item" in ref and "map" not in step:
        yield f"{place}: item() is for map steps"
    elif "$context" in ref:
        if scope.constant(ref) is MISSING:
            yield f"{place}: the context has no {path!r}"
    elif scope.type_of(ref, step) is None:
        of = f"the result of {ref['$result']!r}" if "$result" in ref else "the item"
        yield f"{place}: {of} has no {path!r}"


# -- activities, nested DAGs and branches -------------------------------------------------------------------------------------


def _elements(step: Step, scope: Scope) -> Iterator[str]:
    """Whether what a map goes over can be a list."""
    over = step["map"]["over"]
    if source_of(over):
        for found in _argument("over", over, {"type": "array"}, step, scope):
            yield f"step {step['name']!r}: {found}"


def _conditions(step: Step, scope: Scope) -> Iterator[str]:
    """Comparisons that the type of what is compared excludes: they fail, or never hold, and then the step never runs."""
    for key, condition in (("when", step.get("when")), ("guard", step.get("guard", {}).get("if"))):
        if condition is None or condition["op"] not in _COMPARING or "transform" in condition["of"]:
            continue
        of, value = condition["of"], condition.get("value")
        known = None if "$context" in of else scope.type_of(of, step)
        if not known or value is None or next(references(value), None) is not None:
            continue
        among = value if condition["op"] == "in" and isinstance(value, list) else [value]
        if not any(is_possible(known, it) for it in among):
            shown = f"the result of {of['$result']!r}" if "$result" in of else "the item"
            never = "" if condition["op"] in _ORDERING else ": the step is unreachable"
            yield f"step {step['name']!r}: {key}: {shown} is never {condition['op']} {value!r}{never}"


_ORDERING = ("lt", "le", "gt", "ge")
_COMPARING = ("eq", "in", *_ORDERING)


def _call(step: Step, scope: Scope) -> Iterator[str]:
    """Whether the activity takes the arguments. Of what a run will tell, only a type that cannot fit is a problem."""
    name, called, args = step["name"], step.get("activity", ""), step.get("args", {})
    schema = None if scope.signatures is None else scope.signatures.arguments(called)
    if schema is None:
        return
    properties = schema.get("properties", {})
    for key in schema.get("required", []):
        if key not in args:
            yield f"step {name!r}: {called} needs {key!r}"
    for key, value in args.items():
        if key not in properties:
            if schema.get("additionalProperties") is not True:
                yield f"step {name!r}: {called} has no parameter {key!r}"
            continue
        parameter = {"$defs": schema.get("$defs", {}), **properties[key]}
        for found in _argument(key, value, parameter, step, scope):
            yield f"step {name!r}: {found}"


def _argument(key: str, value: Any, parameter: Schema, step: Step, scope: Scope) -> Iterator[str]:
    if source_of(value) and "$context" in value:
        value = scope.constant(value)
        if value is UNKNOWN or value is MISSING:
            return
    if source_of(value):
        known = None if "transform" in value else scope.type_of(value, step)
        if known and (found := difference(known, parameter)):
            of = f"the result of {value['$result']!r}" if "$result" in value else "the item"
            yield f"{key}: {of} gives {found}"
    elif next(references(value), None) is None:
        from jsonschema import Draft202012Validator

        for error in Draft202012Validator(parameter).iter_errors(value):
            place = ".".join([key, *(str(part) for part in error.absolute_path)])
            yield f"{place}: {error.message}"


def _nested(step: Step, scope: Scope) -> Iterator[str]:
    inner = step["dag"]
    for found in definition_problems(inner, scope.signatures, {**inner["context"], **step["args"]}):
        yield f"step {step['name']!r}: {found}"


def _cases(step: Step, scope: Scope) -> Iterator[str]:
    on = step["branch"]["on"]
    known = None if "transform" in on else texts(scope.type_of(on, step) or {})
    for case in step["branch"]["cases"]:
        if known is not None and case not in known:
            yield f"step {step['name']!r}: the case {case!r} is unreachable: the value is one of {', '.join(sorted(known))}"


# -- order ------------------------------------------------------------------------------------------------------------------


def edges_upward(steps: Sequence[Step], others: Container[str] = ()) -> dict[str, list[str]]:
    """What each step waits for, as far as it exists: here, or among others."""
    found = edges_of(steps)
    return {
        name: [up for it in edges if (up := it.upstream) != name and (up in found or up in others)]
        for name, edges in found.items()
    }


def order_problems(above: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Cycles with their paths, and the steps behind them, which could never start. Iterative: 10,000 steps in a row are nothing special."""
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
    start: str, above: Mapping[str, Sequence[str]], stuck: set[str], visited: set[str]
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
