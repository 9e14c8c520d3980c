"""Definitions in files: what YAML 1.2 says is what is read, and every refusal names its line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import durable
from durable.dag import Dag
from durable.dag.files import read_yaml, to_yaml
from tests.system import dag_flows as flows

CUSTOMER = """\
# What is done for a new customer.
format: 1
name: customer
context: {id: 7, country: no}
steps:
  - name: fetch
    activity: dag.fetch
    args:
      id: {$context: "", path: [id]}
  - name: size
    branch:
      on: {$result: fetch, path: [orders], transform: length}
      cases: {3: [few]}
      default: [many]
  - {name: few, activity: dag.note, args: {text: 12:30}}
  - {name: many, activity: dag.note, args: {text: x}, options: {queue: slow, retry: {max_attempts: 3}}}
  - name: joined
    activity: dag.note
    args: {text: all}
    deps: [few, {step: many, failed: continue}]
"""


def test_a_file_says_what_yaml_says_it_says(tmp_path: Path) -> None:
    """`no` is a country, `on` a key, `12:30` a time of day, `3` a case."""
    (tmp_path / "customer.yaml").write_text(CUSTOMER, encoding="utf-8")
    dag = Dag.from_file(tmp_path / "customer.yaml")
    assert dag.activity_names() == ["dag.fetch", "dag.note"]
    dag.activities = {it.name: it for it in (flows.fetch, flows.note)}
    assert dag.problems() == []
    assert dag.context == {"id": 7, "country": "no"}
    size, few = dag.steps[1], dag.steps[2]
    assert size["branch"]["cases"] == {"3": ["few"]}
    assert size["deps"] == [{"step": "fetch"}]
    assert few["args"] == {"text": "12:30"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[true, True, yes, on, no]", [True, True, "yes", "on", "no"]),
        ("[null, ~, Null, '']", [None, None, None, ""]),
        ("[1, -1, 012, 0o14, 0xff, 1_000]", [1, -1, 12, 12, 255, "1_000"]),
        ("[1.5, .5, 1e3, -1E-2, 1.]", [1.5, 0.5, 1000.0, -0.01, 1.0]),
        ('["1", \'2\', "true"]', ["1", "2", "true"]),
        ("[2026-01-01, 12:30:45, 1.2.3]", ["2026-01-01", "12:30:45", "1.2.3"]),
        ("a: |\n  1\nb: >-\n  2\n", {"a": "1\n", "b": "2"}),
        ("on: 1\n1: 2\nnull: 3\n", {"on": 1, "1": 2, "null": 3}),
        ("", None),
    ],
)
def test_yaml_is_yaml_1_2(text: str, value: Any) -> None:
    assert read_yaml(text, "x")[0] == value


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: &x 1\nb: *x\n", "line 1: b: aliases are not read"),
        ("a: &x [*x]\n", "aliases are not read"),
        ("a: 1\nb: 2\na: 3\n", "line 3: a: the key 'a' occurs twice"),
        ("a: !!python/object:os.system x\n", "line 1: a: the tag tag:yaml.org,2002:python/object:os.system is not read"),
        ("a: !secret x\n", "line 1: a: the tag !secret is not read"),
        ("? [a]\n: 3\n", "line 1: a key is not a text"),
        ("a: .inf\n", "line 1: a: .inf is not a JSON number"),
        ("a: [1\nb: 2\n", "it is not YAML: "),
        ("a: 1\n--- \nb: 2\n", "it is not YAML: "),
        ("a: \x07\n", "it is not YAML: "),
        ("- " * 3_000 + "x", "it is nested too deep"),
        ("format: 1\nname: x\nsteps:\n  - name: a\n    activity: b\n    colour: red\n", "line 6: steps.0.colour: there is no such field"),
        ("format: 1\nname: x\nsteps:\n  - name: a\n    activity: b\n    deps:\n      - c\n      - {stop: d}\n", "line 8: steps.0.deps.1.step: it is missing"),
    ],
)  # fmt: skip
def test_what_is_not_read_is_refused_with_its_line(text: str, problem: str) -> None:
    with pytest.raises(durable.InvalidDag) as caught:
        Dag.from_yaml(text)
    assert any(problem in it for it in caught.value.problems)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "it is not JSON: "),
        ('{"format": 1, "name": "a", "name": "b", "steps": []}', "the key 'name' occurs twice"),
        ("[" * 100_000, "it is nested too deep"),
        ('{"format": 1, "name": "a", "context": {"x": NaN}, "steps": []}', "context.x: nan is not"),
        ('{"format": 1, "name": "a", "steps": [{"name": 3}]}', "steps.0.name: "),
    ],
)
def test_json_files_are_read_or_refused(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    with pytest.raises(durable.InvalidDag) as caught:
        Dag.from_file(tmp_path / "a.json")
    assert any(problem in it for it in caught.value.problems)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"name: \xff")
    with pytest.raises(durable.InvalidDag, match="it is not UTF-8"):
        Dag.from_file(tmp_path / "a.yaml")


def test_without_pyyaml_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    for call in (lambda: Dag.from_yaml(CUSTOMER), Dag("a").to_yaml):
        with pytest.raises(durable.InvalidOption, match=r"pip install 'durable\[yaml\]'"):
            call()


def test_problems_of_steps_have_lines_too() -> None:
    text = (
        CUSTOMER.replace("[id]", "[it]")
        .replace("few, {step", "fev, {step")
        .replace("name: fetch", "name: it's")
    )
    dag = Dag.from_yaml(text)
    dag.activities = {it.name: it for it in (flows.fetch, flows.note)}
    assert dag.problems() == [
        "line 6: step \"it's\": the context has no 'it'",
        "line 10: step 'size' depends on 'fetch', which does not exist",
        "line 17: step 'joined' depends on 'fev', which does not exist",
    ]


TEXTS = st.text(max_size=8) | st.sampled_from(
    ["no", "1e3", "0o14", "12:30", "~", "<<", "=", "- a", "a: b", "#", ".5", "+1", "null", "*a", "&a", "!", "1_000", " x ", "\n"]
)  # fmt: skip
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(TEXTS, VALUES, max_size=4))
def test_whatever_is_written_as_yaml_is_read_as_the_same(value: dict[str, Any]) -> None:
    read = read_yaml(to_yaml(value), "x")[0]
    assert read == value
    assert repr(read) == repr(value)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab:-{}[],&*!#|>'\"% \n\t?1.0", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        Dag.from_yaml(text)
    except durable.InvalidDag as error:
        assert error.problems  # noqa: PT017
