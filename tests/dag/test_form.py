"""Definitions from data that nobody has looked at: a DAG, or InvalidDag with every problem and its place; never another error."""

from __future__ import annotations

import copy
import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import durable
from durable.dag import Dag, context, edge, guard, item, result
from durable.dag.format import json_schema
from durable.dag.model import edges_of
from durable.dag.scheduler import Scheduler
from tests.system import dag_flows as flows


def everything() -> Dag:
    """A DAG that has each kind of step and every field."""
    inner = Dag("inner", context={"text": "x"}, output={"it": result("say")}).add(
        "say", flows.note, {"text": context("text")}
    )
    retry = durable.RetryPolicy(max_attempts=3, jitter=0.5, non_retryable=(ValueError,))
    return (
        Dag("everything", context={"id": 7, "deep": {"list": [1, None]}}, on_failure="wait", output=[result("fetch", "id")])
        .add("fetch", flows.fetch, {"id": context("id")}, queue="slow", priority=1, retry=retry, timeout=timedelta(minutes=2))
        .map("double", flows.double, result("fetch", "orders"), {"amount": item()}, max_concurrency=3)
        .branch("fork", result("fetch", "id"), {"7": ["say"]}, default=["other"])
        .add("say", flows.note, {"text": "x"}, deps=[edge("double", policy="continue")], undo=flows.take_back, compensate=flows.take_back, compensate_retries=2)
        .add("other", flows.note, {"text": "x"}, when=result("fetch", "id").gt(3))
        .add("sub", inner, {"text": result("say")}, guard=guard(result("fetch", "id").is_true(), otherwise={"it": "y"}))
        .add("more", flows.note, {"text": "x"}, expand=True)
        .wait("approval", signal="approved", deps=["more"])
    )  # fmt: skip


def test_a_definition_with_everything_survives_json_and_yaml() -> None:
    dag = everything()
    assert dag.problems() == []
    stored = dag.to_json()
    assert Dag.from_json(json.loads(json.dumps(stored))).to_json() == stored
    again = Dag.from_yaml(dag.to_yaml())
    assert again.to_json() == stored
    assert again.problems() == []


def test_what_may_be_left_out_is_filled_in() -> None:
    dag = Dag.from_json(
        {
            "format": 1,
            "name": "short",
            "steps": [
                {"name": "a", "activity": "dag.fetch", "args": {"id": 1}, "expand": False},
                {"name": "b", "activity": "dag.note", "args": {"text": "x"}, "deps": ["a"]},
                {"name": "c", "activity": "dag.fetch", "args": {"id": {"$result": "a", "path": ["id"]}}},
            ],
        }
    )  # fmt: skip
    assert dag.problems() == []
    assert [step["deps"] for step in dag.steps] == [[], [{"step": "a"}], [{"step": "a"}]]
    assert dag.to_json()["context"] == {}
    assert "expand" not in dag.steps[0]


REF = {"$result": "a"}
STEP = {"name": "a", "activity": "x"}


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        (7, "definition: Input should be an object"),
        ({"format": 2}, "format is 2; this release reads 1"),
        ({"format": None}, "format is None; this release reads 1"),
        ({"name": 7}, "name: Input should be a valid string"),
        ({"colour": "red"}, "colour: there is no such field"),
        ({"steps": {}}, "steps: Input should be a valid array"),
        ({"on_failure": "shrug"}, "on_failure: Input should be"),
        ({"context": []}, "context: Input should be an object"),
        ({"context": {"a": {"$b": 1}}}, "context: the key '$b' begins with $"),
        ({"context": {"a": [object()]}}, "context.a.0: object is not JSON"),
        ({"context": {"a": float("nan")}}, "context.a: nan is not"),
        ({"context": {"a": {1: 2}}}, "context.a: the key 1 is not text"),
        ({"output": {"$result": 5}}, "output: $result is 5"),
        ({"steps": [{"activity": "x"}]}, "steps.0.name: it is missing"),
        ({"steps": [{"name": "a"}]}, "steps.0: give one of activity, dag, branch, wait; it has none"),
        ({"steps": [{**STEP, "branch": {"on": REF, "cases": {}}}]}, "it has activity and branch"),
        ({"steps": [{**STEP, "deps": [{"step": "b", "failed": "maybe"}]}]}, "steps.0.deps.0.failed: "),
        ({"steps": [{**STEP, "deps": [7]}]}, "steps.0.deps.0: "),
        ({"steps": [{**STEP, "args": {"x": {"$result": ""}}}]}, "steps.0.args.x: $result is ''"),
        ({"steps": [{**STEP, "args": {"x": {"$what": 1}}}]}, "steps.0.args.x: the key '$what' begins with $"),
        ({"steps": [{**STEP, "args": {"x": {**REF, "more": 1}}}]}, "steps.0.args.x: a reference has no field 'more'"),
        ({"steps": [{**STEP, "args": {"x": {**REF, "$item": ""}}}]}, "steps.0.args.x: a reference has one source"),
        ({"steps": [{**STEP, "args": {"x": {**REF, "path": "id"}}}]}, "steps.0.args.x: path is 'id'"),
        ({"steps": [{**STEP, "args": {"x": {**REF, "path": [True]}}}]}, "steps.0.args.x: path is [True]"),
        ({"steps": [{**STEP, "args": {"x": {**REF, "transform": 3}}}]}, "steps.0.args.x: transform is 3"),
        ({"steps": [{**STEP, "args": {"x": {"$context": "id"}}}]}, "steps.0.args.x: $context is 'id'"),
        ({"steps": [{**STEP, "when": {"op": "eq", "of": 5}}]}, "steps.0.when.of: Input should be an object"),
        ({"steps": [{**STEP, "when": {"op": "eq", "of": {"a": 5}}}]}, "steps.0.when.of: it is not a reference"),
        ({"steps": [{**STEP, "guard": {"otherwise": 1}}]}, "steps.0.guard.if: it is missing"),
        ({"steps": [{**STEP, "map": {"over": [], "max_concurrency": "3"}}]}, "steps.0.map.max_concurrency: "),
        ({"steps": [{**STEP, "map": {"over": []}, "expand": True}]}, "steps.0: expand does not go with map"),
        ({"steps": [{"name": "a", "wait": {}, "args": {}}]}, "steps.0: args does not go with wait"),
        ({"steps": [{**STEP, "options": {"retry": {"tries": 3}}}]}, "steps.0.options.retry.tries: there is no such"),
        ({"steps": [{**STEP, "options": {"retry": {"non_retryable": 3}}}]}, "steps.0.options.retry.non_retryable: "),
        ({"steps": [{"name": "a", "dag": {"format": 1, "name": "b", "steps": 3}}]}, "steps.0.dag.steps: "),
        ({"steps": [{"name": "a", "dag": {"format": 1, "name": "b", "steps": [{"name": "c"}]}}]}, "steps.0.dag.steps.0: give one of"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_the_form_is_told_with_its_path(changed: Any, problem: str) -> None:
    data = {"format": 1, "name": "d", "steps": [], **changed} if isinstance(changed, dict) else 7
    with pytest.raises(durable.InvalidDag) as caught:
        Dag.from_json(data)
    assert any(it.startswith(problem) or problem in it for it in caught.value.problems)


def test_all_problems_of_the_form_are_told_at_once() -> None:
    steps = [{"name": 1, "activity": "x"}, {"name": "b", "colour": 1, "deps": [{"stop": "a"}]}]
    with pytest.raises(durable.InvalidDag) as caught:
        Dag.from_json({"format": 1, "name": "d", "steps": steps, "extra": 1})
    assert len(caught.value.problems) == 5


def test_data_that_is_too_deep_or_contains_itself_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(5_000):
        deep = [deep]
    endless: list[Any] = []
    endless.append(endless)
    for value in (deep, endless):
        with pytest.raises(durable.InvalidDag):
            Dag.from_json({"format": 1, "name": "d", "context": {"a": value}, "steps": []})
        dag = Dag("d").add("a", flows.total, {"amounts": value})
        assert any("too deep" in it or "cannot" in it for it in dag.problems())


def test_what_is_nested_too_deep_or_too_large_is_a_problem_and_no_other_error() -> None:
    dag = Dag("0").add("a", flows.note, {"text": "x"})
    for level in range(1, 1_000):
        dag = Dag(str(level)).add("a", dag)
        if level == 20:
            assert dag.problems() == []
    large = Dag("large", context={"text": "x" * 3_000_000}).add("a", flows.note, {"text": "x"})
    for broken in (dag, large):
        with pytest.raises(durable.InvalidDag) as caught:
            broken.validate()
        assert len(caught.value.problems) == 1


def test_the_schema_of_the_form_says_what_is_read() -> None:
    from jsonschema import Draft202012Validator

    schema = json_schema()
    Draft202012Validator.check_schema(schema)
    assert list(Draft202012Validator(schema).iter_errors(everything().to_json())) == []
    assert list(Draft202012Validator(schema).iter_errors({"format": 1, "name": 3, "steps": []}))


# -- whatever comes ----------------------------------------------------------------------------------------------------------

WORDS = ["a", "b", "fetch", "$result", "$item", "$context", "path", "op", "of", "name", "steps", "dag", "branch", "map", "7", ""]  # fmt: skip
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats()
    | st.sampled_from(WORDS)
    | st.text(max_size=3)
)
KEYS = st.sampled_from(WORDS) | st.text(max_size=2)
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    if isinstance(node, dict):
        for key, value in node.items():
            found += places(value, (*path, key))
    elif isinstance(node, list):
        for number, value in enumerate(node):
            found += places(value, (*path, number))
    return found


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """A right definition in which some values are replaced, removed, added or doubled."""
    root = {"root": copy.deepcopy(everything().to_json())}
    for _ in range(draw(st.integers(1, 4))):
        path = draw(st.sampled_from(places(root["root"])))
        node: Any = root
        steps = ("root", *path)
        for key in steps[:-1]:
            node = node[key]
        how = draw(st.sampled_from(["replace", "remove", "add", "swap"]))
        if how == "remove" and path:
            del node[steps[-1]]
        elif how == "add" and isinstance(node[steps[-1]], dict):
            node[steps[-1]][draw(KEYS)] = draw(JSON)
        elif how == "swap":
            other: Any = root["root"]
            for key in draw(st.sampled_from(places(root["root"]))):
                other = other[key]
            node[steps[-1]] = copy.deepcopy(other)
        else:
            node[steps[-1]] = draw(JSON)
    return root["root"]


def judged(data: Any) -> Dag | None:
    """The DAG, which then has the form that everything else relies on; or None, and the reason is one that says where."""
    try:
        dag = Dag.from_json(data)
    except durable.InvalidDag as error:
        said = error.problems
    else:
        return _sound(dag)
    assert said
    assert all(isinstance(it, str) and it for it in said)
    return None


def _sound(dag: Dag) -> Dag:
    assert Dag.from_json(dag.to_json()).to_json() == dag.to_json()
    if not dag.problems():
        scheduler = Scheduler(edges_of(dag.steps))
        running = scheduler.begin()
        while running:
            running += scheduler.settle(running.pop(), "completed", chosen="7")
        assert scheduler.done
    return dag


@settings(max_examples=200, deadline=None)
@given(mutated())
def test_a_definition_that_is_damaged_is_read_or_refused(data: Any) -> None:
    judged(data)


@settings(max_examples=200, deadline=None)
@given(JSON)
def test_anything_is_read_or_refused(data: Any) -> None:
    judged(data)


@settings(max_examples=100, deadline=None)
@given(JSON)
def test_anything_that_an_activity_returns_is_added_or_refused(data: Any) -> None:
    from durable.dag.expansion import added_steps

    dag = everything()
    steps, scheduler = {step["name"]: step for step in dag.steps}, Scheduler(edges_of(dag.steps))
    scheduler.begin()
    try:
        added = added_steps("more", data, steps, scheduler, {})
    except durable.InvalidDag:
        return
    assert all(it["name"] == name for name, it in added.items())


def test_the_cases_of_a_branch_are_names_even_if_they_look_like_references() -> None:
    """Found by the test of damaged definitions."""
    branching = {"on": {"$context": "", "path": ["a"]}, "cases": {"$result": []}, "default": []}
    dag = Dag.from_json(
        {
            "format": 1,
            "name": "d",
            "context": {"a": 1},
            "steps": [{"name": "fork", "branch": branching}],
        }
    )
    assert dag.problems() == ["step 'fork' branches to nothing"]
    assert dag.steps[0]["deps"] == []
