"""Every bad input: one line on stderr that names the remedy, the documented exit code, and nothing written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from durable.client_sync import Client
from tests import postgres
from tests.cli.conftest import Run
from tests.client.database import Database
from tests.client.shop import Order, purchase

ORDER = '{"order": {"sku": "tea", "amount": 7}}'
CLOSED = "postgresql://nobody:secret@127.0.0.1:1/x"

TABLE = [
    # what is typed, exit code, part of the line
    (["start", "purchase", "{"], 2, "the arguments is not JSON: Expecting property name"),
    (["start", "purchase", "{order: 1}"], 2, "quote it for the shell"),
    (["start", "purchase", '{"order": NaN}'], 2, "NaN is not JSON"),
    (["start", "purchase", "[1]"], 2, "takes its arguments as one mapping"),
    (["start", "purchase", "@/nonexistent"], 2, "cannot read the file '/nonexistent'"),
    (["start", "purchase", '{"order": 5}'], 2, "order: "),
    (["start", "purchase", '{"order": {"sku": "tea", "amount": "x"}}'], 2, "order.amount: "),
    (["start", "purchase", "{}"], 2, "order"),
    (["start", "purchase", ORDER, "--id", ""], 2, "id is ''"),
    (["start", "purchase", ORDER, "--queue", "a\nb"], 2, "queue is 'a\\nb'"),
    (["start", "purchase", ORDER, "--priority", "10"], 2, "priority is 10"),
    (["start", "purchase", ORDER, "--priority", "high"], 2, "--priority"),
    (["start", "purchase", ORDER, "--delay", "-1"], 2, "delay is -1"),
    (["start", "purchase", ORDER, "--attributes", "[1]"], 2, "attributes"),
    (["start", "purchase", ORDER, "--on-closed", "maybe"], 2, "give 'existing' or 'new'"),
    (
        ["start", "purchase", ORDER, "--app", "tests.nowhere"],
        2,
        "there is no module 'tests.nowhere'",
    ),
    (["start", "registered_only", '{"n": "x"}'], 2, "n: 'x' is not of type 'integer'"),
    (["start", "purhcase", ORDER], 3, "did you mean purchase"),
    (["start"], 2, "Missing argument"),
    (["frobnicate"], 2, "No such command"),
    (["start", "purchase", ORDER, "--frobnicate"], 2, "No such option"),
    (["signal", "nope", "payment_arrived", '{"amount": 10}'], 3, "no workflow has the id 'nope'"),
    (["signal", "o-1", "payment_arrived", "{"], 2, "the payload is not JSON"),
    (["signal", "o-1", "payment_arrived", '{"amount": "x"}'], 2, "amount"),
    (["signal", "o-1", "payment_arrived"], 2, "value"),
    (["signal", "o-1", "payment_confirmd", "{}"], 3, "did you mean payment_arrived"),
    (
        ["signal", "o-1", "payment_arrived", '{"amount": 1}', "--dedupe-key", ""],
        2,
        "dedupe_key is ''",
    ),
    (["signal", "o-1"], 2, "give the workflow's ID and the SIGNAL's name"),
    (["show", "nope"], 3, "`durable list` shows those that exist"),
    (["history", "nope"], 3, "no workflow has the id 'nope'"),
    (["result", "nope"], 3, "no workflow has the id 'nope'"),
    (["result", "o-1", "--timeout", "0"], 6, "'o-1' has not ended within 0 s; it goes on"),
    (["cancel", "nope"], 3, "no workflow has the id 'nope'"),
    (["terminate", "nope", "--reason", "x"], 3, "no workflow has the id 'nope'"),
    (["terminate", "o-1"], 2, "say why: --reason"),
    (["list", "--status", "fine"], 2, "status is 'fine'; give 'running' or"),
    (["list", "--limit", "0"], 2, "limit is 0"),
    (["migrate", "--to", "0099"], 2, "there is no migration '0099'"),
]


@pytest.fixture(scope="module")
def database_url(postgres_url: str, template_database: str) -> Iterator[str]:
    """One database for the whole table: nothing is to be written to it."""
    with postgres.copied_database(postgres_url, template_database) as url:
        prepared = Database(url)
        prepared.define("workflow", "registered_only", {"properties": {"n": {"type": "integer"}}})
        prepared.define("workflow", "purchase", {})
        prepared.define("signal", "payment_arrived", {})
        with Client(url) as client:
            client.start(purchase, Order(sku="tea", amount=7), id="o-1")
            client.start(purchase, Order(sku="tea", amount=7), id="o-9")
        prepared.end("o-9", "completed", payload={"total": 7})
        prepared.connection.close()
        yield url


@pytest.mark.parametrize(
    ("typed", "code", "said"), TABLE, ids=[" ".join(row[0])[:60] for row in TABLE]
)
def test_bad_input_is_one_line_and_writes_nothing(
    run: Run, database: Database, typed: list[str], code: int, said: str
) -> None:
    before = database.counts()
    ran = run(*typed)
    assert (ran.code, ran.out) == (code, "")
    assert said in ran.err
    assert "Traceback" not in ran.err
    if ran.err.startswith("durable: "):  # click prints usage above its own errors
        assert ran.err.count("\n") == 1
    after = database.counts()
    refused = after.pop("operator_commands") - before.pop("operator_commands")
    assert after == before
    assert refused == (typed[:2] in [["signal", "nope"], ["cancel", "nope"], ["terminate", "nope"]])


def test_errors_are_json_for_programs(run: Run) -> None:
    ran = run("show", "nope", "--json")
    error = json.loads(ran.err)["error"]
    assert (ran.code, ran.out, error["type"]) == (3, "", "WorkflowNotFound")


COMMANDS = [
    ["list"],
    ["show", "o-1"],
    ["history", "o-1"],
    ["result", "o-1"],
    ["start", "purchase", ORDER],
    ["signal", "o-1", "payment_arrived", '{"amount": 1}'],
    ["cancel", "o-1"],
    ["terminate", "o-1", "--reason", "x"],
]


@pytest.mark.parametrize("command", [*COMMANDS, ["migrate"]], ids=lambda command: command[0])
def test_no_server(run: Run, command: list[str]) -> None:
    ran = run(*command, "--url", CLOSED)
    assert ran.code == 4
    assert ran.err.startswith("durable: cannot reach PostgreSQL at 127.0.0.1:1/x (")
    assert "DURABLE_DATABASE_URL" in ran.err
    assert "secret" not in ran.err
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_no_schema(run: Run, command: list[str], empty_database_url: str) -> None:
    ran = run(*command, "--url", empty_database_url)
    assert ran.code == 4
    assert "run `durable migrate`" in ran.err
    assert ran.err.count("\n") == 1


def test_no_url(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DURABLE_DATABASE_URL")
    ran = run("list")
    assert (ran.code, "set DURABLE_DATABASE_URL" in ran.err) == (4, True)


def test_a_closed_workflow_takes_nothing(run: Run, database: Database) -> None:
    before = database.counts()
    assert run("cancel", "o-9").code == 1
    assert run("terminate", "o-9", "--reason", "x").code == 1
    ran = run("signal", "o-9", "payment_arrived", '{"amount": 1}')
    assert (ran.code, "kept as evidence" in ran.err) == (1, True)
    after = database.counts()
    assert after.pop("signals") == before.pop("signals") + 1
    assert after.pop("operator_commands") == before.pop("operator_commands") + 2
    assert after == before


def test_a_taken_id_may_be_refused(run: Run) -> None:
    ran = run("start", "purchase", ORDER, "--id", "o-1", "--on-running", "fail")
    assert (ran.code, "exists already and is running" in ran.err) == (1, True)


def test_a_broken_app_names_itself(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_app.py").write_text("import nothing_of_this_name\n")
    monkeypatch.chdir(tmp_path)
    ran = run("start", "purchase", ORDER, "--app", "broken_app")
    assert ran.code == 2
    assert "--app broken_app: there is no module 'nothing_of_this_name'" in ran.err
