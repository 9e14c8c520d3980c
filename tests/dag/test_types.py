"""What steps hand on against the types that activities declare: only what can never fit is a problem."""

from __future__ import annotations

from typing import Any

import pytest

from durable.dag import Dag, Ref, context, guard, item, result
from tests.dag import typed_activities as typed

GIVEN = result("given")


def problems(source: Any, taker: Any, value: Ref = GIVEN) -> list[str]:
    return Dag("d").add("given", source).add("taken", taker, {"it": value}).problems()


@pytest.mark.parametrize(
    ("source", "taker", "value"),
    [
        (typed.number, typed.take_number, GIVEN),
        (typed.fraction, typed.take_number, GIVEN),  # 2.0 is one
        (typed.number, typed.take_either, GIVEN),
        (typed.perhaps, typed.take_number, GIVEN),
        (typed.anything, typed.take_number, GIVEN),
        (typed.number, typed.unsaid, GIVEN),
        (typed.person, typed.take_named, GIVEN),
        (typed.person, typed.take_text, GIVEN.at("name")),
        (typed.person, typed.take_texts, GIVEN.at("tags")),
        (typed.person, typed.take_text, GIVEN.at("tags", 0)),
        (typed.person, typed.take_text, GIVEN.at("home", "street")),  # may be None: not looked into
        (typed.node, typed.take_node, GIVEN.at("below", 0, "below", 0)),
        (typed.text, typed.take_number, result("given", transform="length")),
        (typed.number, typed.take_text, result("given", transform="text")),
    ],
)
def test_what_may_fit_is_no_problem(source: Any, taker: Any, value: Ref) -> None:
    assert problems(source, taker, value) == []


@pytest.mark.parametrize(
    ("source", "taker", "value", "problem"),
    [
        (typed.number, typed.take_text, GIVEN, "integer, not string"),
        (typed.text, typed.take_number, GIVEN, "string, not integer"),
        (typed.person, typed.take_text, GIVEN, "object, not string"),
        (typed.person, typed.take_billed, GIVEN, "an object without 'account'"),
        (typed.person, typed.take_number, GIVEN.at("name"), "string, not integer"),
        (typed.person, typed.take_numbers, GIVEN.at("tags"), "a list of string, not integer"),
        (typed.person, typed.take_number, GIVEN.at("tags", 0), "string, not integer"),
        (typed.person, typed.take_node, GIVEN, "an object without 'value'"),
        (typed.node, typed.take_named, GIVEN.at("below", 0), "an object without 'name'"),
        (typed.perhaps, typed.take_text, GIVEN, "integer or null, not string"),
    ],
)
def test_what_can_never_fit_is_a_problem(source: Any, taker: Any, value: Ref, problem: str) -> None:
    assert problems(source, taker, value) == [
        f"step 'taken': it: the result of 'given' gives {problem}"
    ]


def test_elements_and_lists_of_a_map_have_types_too() -> None:
    dag = (
        Dag("d")
        .add("given", typed.person)
        .map("texts", typed.take_text, result("given", "tags"), {"it": item()})
        .map("numbers", typed.take_number, result("given", "tags"), {"it": item()})
        .map("people", typed.person, [1, 2], {})
        .add("named", typed.take_named, {"it": result("people", 1)})
        .add("all", typed.take_named, {"it": result("people")})
        .add("lost", typed.take_text, {"it": result("people", 0, "surname")})
    )
    assert dag.problems() == [
        "step 'numbers': it: the item gives string, not integer",
        "step 'all': it: the result of 'people' gives array, not object",
        "step 'lost': the result of 'people' has no '0.surname'",
    ]


def test_a_map_over_what_is_no_list_is_a_problem() -> None:
    dag = (
        Dag("d", context={"text": "abc", "texts": ["a"]})
        .add("given", typed.person)
        .map("person", typed.take_text, GIVEN, {"it": item()})
        .map("name", typed.take_text, GIVEN.at("name"), {"it": item()})
        .map("keys", typed.take_text, result("given", transform="keys"), {"it": item()})
        .map("text", typed.take_text, context("text"), {"it": item()})
        .map("texts", typed.take_text, context("texts"), {"it": item()})
    )
    assert dag.problems() == [
        "step 'person': over: the result of 'given' gives object, not array",
        "step 'name': over: the result of 'given' gives string, not array",
        "step 'text': over: 'abc' is not of type 'array'",
    ]


def test_values_of_the_context_are_checked_as_constants_are() -> None:
    dag = (
        Dag("d", context={"id": "seven", "table": {"a": 1, "b": "x"}})
        .add("number", typed.take_number, {"it": context("id")})
        .add("table", typed.take_table, {"it": context("table")})
        .add("length", typed.take_number, {"it": context("id", transform="length")})
    )
    assert dag.problems() == [
        "step 'number': it: 'seven' is not of type 'integer'",
        "step 'table': it.b: 'x' is not of type 'integer'",
    ]


def test_nothing_is_said_of_a_result_that_a_guard_may_replace() -> None:
    dag = (
        Dag("d")
        .add("first", typed.yes)
        .add("given", typed.number, guard=guard(result("first").is_true(), otherwise="none"))
        .add("taken", typed.take_text, {"it": GIVEN})
    )
    assert dag.problems() == []


def test_cases_that_the_type_excludes_are_unreachable() -> None:
    dag = (
        Dag("d")
        .add("colour", typed.colour)
        .add("yes", typed.yes)
        .add("text", typed.text)
        .add("x", typed.number)
        .branch("by_colour", result("colour"), {"red": ["x"], "blue": ["x"]})
        .branch("by_yes", result("yes"), {"true": ["x"], "True": ["x"]})
        .branch("by_text", result("text"), {"anything": ["x"]})
    )
    assert dag.problems() == [
        "step 'by_colour': the case 'blue' is unreachable: the value is one of green, red",
        "step 'by_yes': the case 'True' is unreachable: the value is one of false, true",
    ]


def test_conditions_that_the_type_excludes_are_told() -> None:
    dag = Dag("d").add("given", typed.person).add("colour", typed.colour).add("yes", typed.yes)
    age, name = result("given", "age"), result("given", "name")
    for number, fine in enumerate(
        [age.gt(3), age.eq(3.0), name.eq("x"), name.is_in(["x", 3]), age.eq(None), GIVEN.is_true(), result("yes").eq(1),
         name.ne(3), name.contains("x"), result("colour").eq("red"), age.eq(age), result("given", "tags", transform="length").gt(1)]
    ):  # fmt: skip
        dag.add(f"fine-{number}", typed.number, when=fine)
    assert dag.problems() == []
    dag.add("a", typed.number, when=age.eq("3"))
    dag.add("b", typed.number, when=name.is_in([1, 2]))
    dag.add("c", typed.number, guard=guard(GIVEN.gt(3), otherwise=1))
    dag.add("d", typed.number, when=result("colour").eq("blue"))
    assert dag.problems() == [
        "step 'a': when: the result of 'given' is never eq '3': the step is unreachable",
        "step 'b': when: the result of 'given' is never in [1, 2]: the step is unreachable",
        "step 'c': guard: the result of 'given' is never gt 3",
        "step 'd': when: the result of 'colour' is never eq 'blue': the step is unreachable",
    ]


def test_a_nested_dag_is_checked_with_the_context_that_it_is_given() -> None:
    inner = (
        Dag("inner", context={"id": 1})
        .add("a", typed.take_number, {"it": context("id")})
        .add("b", typed.take_number, {"it": context("missing")})
        .add("b", typed.take_number, {"it": context("given")})
    )
    dag = (
        Dag("outer")
        .add("given", typed.number)
        .add("good", inner, {"given": result("given"), "id": result("given")})
        .add("bad", inner, {"id": "x"})
        .add("path", typed.take_number, {"it": result("good", "c")})
    )
    assert dag.problems() == [
        "step 'good': step 'b': the context has no 'missing'",
        "step 'good': step 'b' is declared twice",
        "step 'bad': step 'a': it: 'x' is not of type 'integer'",
        "step 'bad': step 'b': the context has no 'missing'",
        "step 'bad': step 'b' is declared twice",
        "step 'bad': step 'b': the context has no 'given'",
        "step 'path': the result of 'good' has no 'c'",
    ]
