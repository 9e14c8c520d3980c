"""The filter language: what it means, on a real jsonb column, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable.client_sync import Client
from durable.errors import InvalidOption
from durable.filters import compiled_filter
from tests.client.database import Database
from tests.client.shop import nothing

RUNS: dict[str, dict[str, Any] | None] = {
    "a": {"customer": "x", "amount": 3, "urgent": True, "tags": ["red", "big"]},
    "b": {"customer": "y", "amount": 7, "urgent": False, "tags": []},
    "c": {"customer": 'quote " and \\ and $', "amount": "7"},
    "d": {"due": "2026-05-01T10:00:00.000000Z", "order-nr.x": 1.5},
    "none": None,
}
MEANINGS = [
    ('customer = "x"', "a"),
    ("customer == 'y'", "b"),
    ("amount > 5", "b"),
    ("amount >= 3 and amount <= 7", "ab"),
    ("amount < 3.5", "a"),
    ("amount = -1", ""),
    ('amount = "7"', "c"),
    ('customer != "x"', "bc"),
    ('not customer = "x"', "bcd"),
    ("urgent = true or urgent = FALSE", "ab"),
    ('tags = "big"', "a"),
    ('customer in ("x", "y")', "ab"),
    ('customer starts with "quo"', "c"),
    ('customer = "quote \\" and \\\\ and $"', "c"),
    ("exists due", "d"),
    ("NOT EXISTS customer", "d"),
    ('due < "2026-06" AND due >= "2026-05"', "d"),
    ("order-nr.x = 1.5", "d"),
    ('customer = "x" and amount > 5 or amount = 7', "b"),
    ('customer = "x" and (amount > 5 or amount = 3)', "a"),
]


@pytest.fixture
def shelf(client: Client) -> Client:
    for id_, attributes in RUNS.items():
        client.start(nothing, id=id_, attributes=attributes)
    return client


def test_what_filters_mean(shelf: Client) -> None:
    for where, expected in MEANINGS:
        found = {run.workflow_id for run in shelf.list(where=where)}
        assert found == set(expected), where


def test_filters_join_the_others_and_the_limit(shelf: Client) -> None:
    assert [run.workflow_id for run in shelf.list(where="exists customer", limit=2)] == ["c", "b"]
    assert shelf.list(where="exists customer", status="failed") == []


@pytest.mark.parametrize(
    ("where", "at", "expected"),
    [
        ("customer", 9, "an operator"),
        ('customer = "x" and', 19, "the name"),
        ("customer = x", 12, "a value"),
        ("customer ~ 1", 10, "a name, a value or an operator"),
        ('(customer = "x"', 16, "`)`"),
        ('customer = "x" amount = 1', 16, "`and`, `or` or the end"),
        ("customer starts with 5", 22, "a text"),
        ("and = 1", 1, "the name"),
        ("a = 1; drop table runs", 6, "a name, a value or an operator"),
        ("a = 'x", 5, "a name, a value or an operator"),
        ("not " * 60 + "a = 1", 205, "fewer levels"),
    ],
)
def test_what_cannot_be_read_says_where(where: str, at: int, expected: str) -> None:
    with pytest.raises(InvalidOption) as refused:
        compiled_filter(where)
    assert f"character {at}: expected {expected}" in str(refused.value)


@pytest.mark.parametrize("where", ["", "  ", "a = '\0'", "a = 1 or " * 1000 + "a = 1"])
def test_what_is_no_filter_is_refused(where: str) -> None:
    with pytest.raises(InvalidOption, match="where is"):
        compiled_filter(where)


@given(st.text(max_size=40).filter(lambda it: "\0" not in it and it.isprintable()))
def test_any_text_is_a_text_and_nothing_else(text: str) -> None:
    quoted = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    path = compiled_filter(f"a = {quoted} and b = 1")
    assert path.startswith('($."a" == "')
    assert path.endswith('" && $."b" == 1)')


def test_hostile_texts_reach_the_database_as_texts(client: Client, database: Database) -> None:
    hostile = "\"'); drop table durable.runs; -- \\u0041 $.x \u2603 \U0001f40d"
    client.start(nothing, id="h", attributes={"a": hostile})
    quoted = '"' + hostile.replace("\\", "\\\\").replace('"', '\\"') + '"'
    assert [run.workflow_id for run in client.list(where=f"a = {quoted}")] == ["h"]
    assert [run.workflow_id for run in client.list(where=f"not a = {quoted}")] == []


def test_equality_is_found_along_the_index(client: Client, database: Database) -> None:
    database.rows(
        "insert into durable.runs (shard, run_id, workflow_id, workflow, attributes, created_at)"
        " select durable.shard_of(n::text), durable.uuid7(), n::text, 'w', jsonb_build_object('n', n), now()"
        " from generate_series(1, 20000) n"
    )
    database.rows("analyze durable.runs")
    plan = database.rows(
        "explain select * from durable.runs where attributes @@ '$.\"n\" == 77'::jsonpath"
    )
    assert "runs_attributes" in str(plan)
    assert [run.workflow_id for run in client.list(where="n = 77")] == ["77"]
