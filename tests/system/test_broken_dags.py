"""A DAG that is wrong anywhere starts nothing: not a row is written, whatever else is right about it."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

import psycopg
import pytest
from psycopg.types.json import Jsonb

import durable
from durable.client_sync import Client
from durable.dag import Dag, context, edge, item, result
from tests.system import dag_flows as flows


def rows(sql: psycopg.Connection[tuple[Any, ...]]) -> dict[str, int]:
    """How many rows each table has."""
    tables = sql.execute("select tablename from pg_tables where schemaname = 'durable'").fetchall()
    counts = " union all ".join(f"select '{it}', count(*) from durable.{it}" for (it,) in tables)
    return dict(sql.execute(counts.encode()).fetchall())


def sound(draw: random.Random) -> Dag:
    """Any right DAG, made of all kinds of steps."""
    dag = Dag("random", context={"n": 1, "texts": ["a", "b"]})
    names: list[str] = []
    for number in range(draw.randint(1, 8)):
        name, deps = f"s{number}", draw.sample(names, min(len(names), draw.randint(0, 2)))
        kind = draw.choice(["note", "double", "map", "nested", "wait"])
        if kind == "note":
            dag.add(name, flows.note, {"text": "x"}, deps=deps)
        elif kind == "double":
            dag.add(
                name,
                flows.double,
                {"amount": context("n")},
                deps=[edge(it, policy="continue") for it in deps],
            )
        elif kind == "map":
            dag.map(name, flows.note, context("texts"), {"text": item()}, deps=deps)
        elif kind == "nested":
            dag.add(name, Dag("inner").add("x", flows.note, {"text": "y"}), deps=deps)
        else:
            dag.wait(name, deps=deps)
        names.append(name)
    return dag.add("a", flows.fetch, {"id": 1}).add("b", flows.note, {"text": "x"}, deps=["a"])  # fmt: skip


def nested(broken: Dag) -> Dag:
    return Dag("outer").add("fine", flows.note, {"text": "x"}).add("sub", broken)


TEXT = {"text": "x"}
BREAKAGES: list[tuple[str, Callable[[Dag], Any]]] = [
    ("declared twice", lambda dag: dag.add("a", flows.note, TEXT)),
    ("which does not exist", lambda dag: dag.add("z", flows.note, TEXT, deps=["nowhere"])),
    ("depends on itself", lambda dag: dag.add("z", flows.note, TEXT, deps=["z"])),
    ("cycle: y -> z -> y", lambda dag: dag.add("y", flows.note, TEXT, deps=["z"]).add("z", flows.note, TEXT, deps=["y"])),
    ("is unreachable", lambda dag: dag.add("x", flows.note, TEXT, deps=["y"]).add("y", flows.note, TEXT, deps=["z"]).add("z", flows.note, TEXT, deps=["y"])),
    ("depends on 'nobody'", lambda dag: dag.add("z", flows.note, {"text": result("nobody")})),
    ("the result of 'a' has no 'surname'", lambda dag: dag.add("z", flows.note, {"text": result("a", "surname")})),
    ("object, not string", lambda dag: dag.add("z", flows.note, {"text": result("a")})),
    ("the context has no 'm'", lambda dag: dag.add("z", flows.note, {"text": context("m")})),
    ("not of type 'string'", lambda dag: dag.add("z", flows.note, {"text": context("n")})),
    ("unknown transform", lambda dag: dag.add("z", flows.note, {"text": result("b", transform="shout")})),
    ("item() is for map steps", lambda dag: dag.add("z", flows.note, {"text": item()})),
    ("step 'z': text", lambda dag: dag.add("z", flows.note, {"text": object()})),
    ("begins with $", lambda dag: dag.add("z", flows.note, {"text": {"$a": 1}})),
    ("no activity is named", lambda dag: dag.add("z", "dag.nobody")),
    ("has no parameter 'loud'", lambda dag: dag.add("z", flows.note, {**TEXT, "loud": True})),
    ("needs 'text'", lambda dag: dag.add("z", flows.note)),
    ("branches to 'absent'", lambda dag: dag.branch("z", result("b"), {"x": ["absent"]})),
    ("branches to itself", lambda dag: dag.branch("z", result("b"), {"x": ["z"]})),
    ("branches to nothing", lambda dag: dag.branch("z", result("b"), {"x": []})),
    ("over is neither", lambda dag: dag.map("z", flows.note, cast("Any", {"a": 1}), TEXT)),
    ("max_concurrency is 0", lambda dag: dag.map("z", flows.note, [], TEXT, max_concurrency=0)),
    ("depends on 'a' twice", lambda dag: dag.add("z", flows.note, TEXT, deps=["a", edge("a", policy="continue")])),
    ("characters", lambda dag: dag.add("z" * 151, flows.note, TEXT)),
    ("printable", lambda dag: dag.add("z\n", flows.note, TEXT)),
    ("expand does not go with dag", lambda dag: dag.add("z", Dag("i").add("x", flows.note, TEXT), expand=True)),
    ("its name is ''", lambda dag: dag.add("z", Dag("").add("x", flows.note, TEXT))),
    ("it has no steps", lambda dag: dag.add("z", Dag("empty"))),
    ("timeout is 0", lambda dag: dag.wait("z", signal="s", timeout=timedelta(0))),
    ("no option 'heartbeat_s'", lambda dag: _with_options(dag.add("z", Dag("i").add("x", flows.note, TEXT)), {"timeouts": {"heartbeat_s": 3.0}})),
    ("priority is 11", lambda dag: _with_options(dag.add("z", flows.note, TEXT), {"priority": 11})),
]  # fmt: skip


def _with_options(dag: Dag, options: dict[str, Any]) -> Dag:
    dag.steps[-1]["options"] = options
    return dag


@pytest.mark.parametrize(("problem", "breakage"), BREAKAGES, ids=[it for it, _ in BREAKAGES])
def test_every_kind_of_breakage_is_named(problem: str, breakage: Callable[[Dag], Any]) -> None:
    dag = sound(random.Random(1))
    assert dag.problems() == []
    breakage(dag)
    assert any(problem in it for it in dag.problems())
    inside = [it for it in nested(dag).problems() if problem in it]
    assert inside
    assert all(it.startswith(("step 'sub': ", "steps.1.dag.")) for it in inside)


def test_random_broken_dags_write_nothing(
    client: Client, sql: psycopg.Connection[tuple[Any, ...]]
) -> None:
    before = rows(sql)
    for seed in range(200):
        draw = random.Random(seed)
        dag = sound(draw)
        chosen = draw.sample(BREAKAGES, draw.randint(1, 3))
        for _, breakage in chosen:
            breakage(dag)
        if draw.random() < 0.3:
            dag = nested(dag)
        with pytest.raises(durable.InvalidDag) as caught:
            client.start(dag, id=f"broken-{seed}")
        assert caught.value.problems
        assert rows(sql) == before


def test_the_interpreter_is_not_started_past_the_checks(
    client: Client, sql: psycopg.Connection[tuple[Any, ...]]
) -> None:
    with pytest.raises(durable.InvalidOption, match=r"client.start\(Dag.from_json"):
        client.start("durable.dag", {"definition": {"steps": 3}})
    assert rows(sql)["runs"] == 0


def test_random_sound_dags_are_valid() -> None:
    for seed in range(200):
        dag = sound(random.Random(seed))
        assert dag.problems() == []
        assert Dag.from_json(dag.to_json()).to_json() == dag.to_json()


def test_activities_that_only_workers_know_are_checked_by_what_they_registered(
    client: Client, sql: psycopg.Connection[tuple[Any, ...]]
) -> None:
    """The process that starts the DAG has imported none of its code."""
    schema = {"properties": {"n": {"type": "integer"}}, "required": ["n"], "x-durable": {"result": {"type": "string"}}}  # fmt: skip
    sql.execute(
        "insert into durable.definitions (kind, name, schema, updated_at) values ('activity', 'far.away', %s, now())",
        [Jsonb(schema)],
    )
    good = Dag("far").add("a", "far.away", {"n": 1})
    assert client.start(good, id="far-1").created
    bad = Dag("far").add("a", "far.away", {"n": "x"}).add("b", "far.away", {"n": result("a")})
    with pytest.raises(durable.InvalidDag) as caught:
        client.start(bad.add("c", "far.off"), id="far-2")
    assert caught.value.problems == [
        "step 'a': n: 'x' is not of type 'integer'",
        "step 'b': n: the result of 'a' gives string, not integer",
        "step 'c': no activity is named 'far.off' here (import its module, or start a worker that has it)",
    ]
    assert rows(sql)["runs"] == 1
