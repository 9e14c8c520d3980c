"""Declared workflows that are files, on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from durable.client_sync import Client
from tests.cli.conftest import Run
from tests.client.database import Database

GOOD = """\
format: 1
name: customer
context: {id: 7}
steps:
  - name: fetch
    activity: dag.fetch
    args: {id: {$context: "", path: [id]}}
  - {name: note, activity: dag.note, args: {text: done}, deps: [fetch]}
"""
APP = ("--app", "tests.system.dag_flows")


@pytest.fixture
def good(tmp_path: Path) -> str:
    path = tmp_path / "good.yaml"
    path.write_text(GOOD, encoding="utf-8")
    return str(path)


@pytest.fixture
def bad(tmp_path: Path) -> str:
    path = tmp_path / "bad.yaml"
    path.write_text(GOOD.replace("[id]", "[it]").replace("{text:", "{txt:"), encoding="utf-8")
    return str(path)


def test_validate_tells_the_problems_of_every_file(run: Run, good: str, bad: str) -> None:
    assert run("dag", "validate", good, *APP).code == 0
    ran = run("dag", "validate", good, bad, "nowhere.yaml", *APP)
    assert ran.code == 2
    lines = ran.out.splitlines()
    assert lines[0] == f"{good}: valid"
    assert f"{bad}: line 5: step 'fetch': the context has no 'it'" in lines
    assert f"{bad}: line 8: step 'note': dag.note has no parameter 'txt'" in lines
    assert lines[-1].startswith("nowhere.yaml: cannot read the file")


def test_validate_says_lines_and_json(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("format: 1\nname: a\ncolour: red\n", encoding="utf-8")
    ran = run("dag", "validate", str(tmp_path / "a.yaml"), "--json")
    assert ran.code == 2
    assert json.loads(ran.out) == [
        {
            "file": str(tmp_path / "a.yaml"),
            "valid": False,
            "problems": ["steps: it is missing", "line 3: colour: there is no such field"],
        }
    ]


def test_start_starts_the_file_s_definition_with_another_context(
    run: Run, good: str, database_url: str
) -> None:
    ran = run("dag", "start", good, "--id", "c-8", "--context", '{"id": 8}', *APP)
    assert (ran.code, ran.out) == (0, "started customer c-8\n")
    again = run("dag", "start", good, "--id", "c-8", *APP, "--json")
    assert json.loads(again.out)["created"] is False
    with Client(database_url) as client:
        given = client.handle("c-8").history()[0].payload["definition"]
    assert given["context"] == {"id": 8}
    assert given["steps"][0]["activity"] == "dag.fetch"


def test_what_cannot_be_started_writes_nothing(
    run: Run, good: str, bad: str, database: Database
) -> None:
    for arguments, said in (
        ([bad], "the context has no 'it'"),
        (["nowhere.yaml"], "cannot read the file"),
        ([good, "--context", "[1]"], "--context is no JSON object"),
        ([good, "--context", '{"id": "x"}'], "'x' is not of type 'integer'"),
        ([good, "--context", '{"$id": 1}'], "begins with $"),
    ):
        ran = run("dag", "start", *arguments, *APP)
        assert ran.code == 2
        assert said in ran.err
        assert len(ran.err.splitlines()) == 1
    told = json.loads(run("dag", "start", bad, *APP, "--json").err)["error"]
    assert (told["type"], len(told["problems"])) == ("InvalidDag", 3)
    assert database.rows("select 1 from durable.runs") == []


def test_activities_of_workers_need_no_app(run: Run, tmp_path: Path, database: Database) -> None:
    (tmp_path / "far.json").write_text(
        json.dumps({"format": 1, "name": "far", "steps": [{"name": "a", "activity": "far.away"}]}),
        encoding="utf-8",
    )
    assert "no activity is named 'far.away'" in run("dag", "start", str(tmp_path / "far.json")).err
    database.define("activity", "far.away", {"properties": {}})
    assert run("dag", "start", str(tmp_path / "far.json"), "--id", "far").code == 0


def test_schema_is_a_json_schema(run: Run) -> None:
    from jsonschema import Draft202012Validator

    Draft202012Validator.check_schema(json.loads(run("dag", "schema").out))
