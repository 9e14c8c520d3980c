"""A DAG that cannot be run is refused with all its problems at once."""

from __future__ import annotations

import json

import pytest

import durable
from durable.dag import Dag, context, edge, item, result
from tests.system import dag_flows as flows
from tests.system import saga_dag_flows as sagas


def test_all_problems_are_told_at_once() -> None:
    dag = (
        Dag("bad", context={"a": {"b": 1}})
        .add("twice", flows.note, {"text": "x"})
        .add("twice", flows.note, {"text": "x"})
        .add("lost", flows.note, {"text": "x"}, deps=["nowhere"])
        .add("self", flows.note, {"text": "x"}, deps=["self"])
        .add("one", flows.note, {"text": "x"}, deps=["three"])
        .add("two", flows.note, {"text": "x"}, deps=["one"])
        .add("three", flows.note, {"text": "x"}, deps=["two"])
        .add("behind", flows.note, {"text": "x"}, deps=["three"])
        .add("ref", flows.note, {"text": result("missing")})
        .add("fetch", flows.fetch, {"id": "seven"})
        .add("path", flows.note, {"text": result("fetch", "name")})
        .add("ctx", flows.note, {"text": context("a", "c")})
        .add("payload", flows.total, {"amounts": [1, {"x": object()}]})
        .add("unknown", "dag.nobody", {})
        .add("extra", flows.note, {"text": "x", "loud": True})
        .add("less", flows.note)
        .add("transform", flows.note, {"text": result("ref", transform="shout")})
        .add("element", flows.note, {"text": item()})
        .branch("fork", result("ref"), {"a": ["absent"]})
    )
    with pytest.raises(durable.InvalidDag) as caught:
        dag.validate()
    told = "\n".join(caught.value.problems)
    for expected in (
        "step 'twice' is declared twice",
        "step 'lost' depends on 'nowhere', which does not exist",
        "step 'self' depends on itself",
        "cycle: one -> two -> three -> one",
        "step 'behind' is unreachable",
        "step 'ref' depends on 'missing'",
        "step 'fetch': id: 'seven' is not of type 'integer'",
        "step 'path': the result of 'fetch' has no 'name'",
        "step 'ctx': the context has no 'a.c'",
        "step 'payload': amounts.1.x",
        "step 'unknown': no activity is named 'dag.nobody'",
        "step 'extra': dag.note has no parameter 'loud'",
        "step 'less': dag.note needs 'text'",
        "step 'transform': unknown transform 'shout'",
        "step 'element': item() is for map steps",
        "step 'fork' branches to 'absent'",
    ):
        assert expected in told


def test_a_definition_survives_the_way_through_json() -> None:
    dag = (
        Dag("good", context={"id": 7}, on_failure="complete")
        .add("fetch", flows.fetch, {"id": context("id")}, queue="slow", priority=1)
        .map("double", flows.double, result("fetch", "orders"), {"amount": item()})
        .add("say", flows.note, {"text": "x"}, deps=[edge("double", policy="continue")])
    )
    stored = json.loads(json.dumps(dag.to_json()))
    again = Dag.from_json(stored)
    assert again.to_json() == stored
    assert again.problems() == []


def test_ten_thousand_steps_in_a_row_are_validated() -> None:
    dag = Dag("long").add("0", flows.note, {"text": "x"})
    for number in range(1, 10_000):
        dag.add(str(number), "dag.note", {"text": result(str(number - 1))})
    assert dag.problems() == []


def test_what_undoes_and_compensates_is_checked_like_a_step() -> None:
    dag = (
        Dag("sagas")
        .add("right", sagas.do, {"key": "k"}, undo=sagas.undo, compensate=sagas.mend)
        .add("named", sagas.do, {"key": "k"}, undo="saga.undo", compensate="saga.mend")
        .add("lost", sagas.do, {"key": "k"}, undo="saga.nobody")
        .add("other", sagas.do, {"key": "k"}, undo=flows.fetch)
        .add("tries", sagas.do, {"key": "k"}, compensate=sagas.mend, compensate_retries=-1)
        .add("named:undo", sagas.do, {"key": "k"})
    )
    dag.steps[1]["undo"]["takes"] = ["error"]
    assert dag.problems() == [
        "step 'named': undo: it cannot take 'error'; it is given result, arguments, context",
        "step 'lost': undo: no activity is named 'saga.nobody' here (import its module)",
        "step 'other': undo: dag.fetch needs 'id'; it is given result, arguments, context",
        "step 'tries': compensate_retries is -1; give a whole number from 0 to 100",
        "step 'named:undo': the ids of calls that undo or compensate steps end like this; use another name",
    ]


def test_a_definition_with_undo_survives_json() -> None:
    undo = sagas.undo.options(queue="undos", retry=durable.RetryPolicy(max_attempts=9))
    dag = Dag("stored").add(
        "a", sagas.do, {"key": "k"}, undo=undo, compensate=sagas.mend, compensate_retries=2
    )
    stored = json.loads(json.dumps(dag.to_json()))
    assert Dag.from_json(stored).validate().to_json() == stored
    (step,) = stored["steps"]
    assert step["undo"]["options"]["queue"] == "undos"
    assert (step["undo"]["takes"], step["compensate"]["takes"]) == (
        ["result"],
        ["error", "arguments"],
    )
    assert step["compensate"]["retries"] == 2
