"""`durable query` and `durable update`, with a worker that answers; and how `show` and `history` tell of it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.cli.conftest import Run
from tests.system.background import working
from tests.system.update_flows import finish

FLOWS = ("tests.system.update_flows",)
TEA = '{"item": {"sku": "tea"}}'


@pytest.fixture
def answering(database_url: str) -> Iterator[None]:
    with working(database_url, *FLOWS):
        yield


@pytest.fixture
def basket(run: Run, answering: None) -> Run:
    run("start", "updates.basket", '{"owner": "ann", "capacity": 1}', "--id", "b")
    return run


def test_query(basket: Run) -> None:
    plain, program = basket("query", "b", "content"), basket("query", "b", "content", "--json")
    assert (plain.code, plain.out) == (0, '{"owner": "ann", "items": []}\n')
    assert json.loads(program.out) == {
        "workflow_id": "b",
        "query": "content",
        "result": {"owner": "ann", "items": []},
    }


def test_update(basket: Run) -> None:
    plain = basket("update", "b", "add", TEA, "--update-id", "u-1")
    again = basket("update", "b", "add", TEA, "--update-id", "u-1", "--json")
    assert (plain.code, plain.out) == (0, "3\n")
    assert json.loads(again.out) == {
        "workflow_id": "b",
        "update_id": "u-1",
        "status": "completed",
        "result": 3,
    }


def test_arguments_by_position(basket: Run) -> None:
    assert basket("update", "b", "add", '[{"sku": "milk"}]').out == "4\n"


def test_an_update_without_waiting(basket: Run) -> None:
    assert basket("update", "b", "add", TEA, "--update-id", "u", "--no-wait").out == (
        "requested update add of b: u\n"
    )
    said = json.loads(
        basket("update", "b", "add", TEA, "--update-id", "u", "--no-wait", "--json").out
    )
    assert said == {"workflow_id": "b", "update_id": "u", "status": "requested"}
    assert basket("update", "b", "add", TEA, "--update-id", "u").out == "3\n"


def test_show_and_history_tell_of_updates(basket: Run) -> None:
    basket("update", "b", "add", TEA, "--update-id", "u-1")
    assert basket("update", "b", "add", TEA, "--update-id", "u-2").code == 1
    shown = basket("show", "b").out
    rows = [line.split() for line in shown.splitlines()]
    assert any(row[2:6] == ["completed", "2", "u-1", "3"] for row in rows if row[1:2] == ["add"]), (
        shown
    )
    assert any(row[2:4] == ["rejected", "u-2"] for row in rows if row[1:2] == ["add"]), shown
    updates = json.loads(basket("show", "b", "--json").out)["updates"]
    assert [it["status"] for it in updates] == ["completed", "rejected"]
    told = basket("history", "b").out
    assert "UpdateAccepted" in told
    assert "UpdateCompleted" in told
    assert "u-2" not in told


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (("query", "b", "contents"), 3, "has no query 'contents' now; it has: content"),
        (("query", "b", "fails"), 1, "query 'fails' of workflow 'b' failed: as asked"),
        (("query", "nobody", "content"), 3, "no workflow has the id 'nobody'"),
        (("query", "b", "content", "7"), 2, "give a JSON object by name or an array by position"),
        (("query", "b", "content", "{"), 2, "is not JSON"),
        (("update", "b", "ad"), 3, "has no update 'ad' now; it has: add"),
        (("update", "b", "add", "[{}]"), 1, "item.sku: it is missing"),
        (("update", "b", "breaks"), 1, "failed: the handler's own fault"),
        (("update", "nobody", "add"), 3, "no workflow has the id 'nobody'"),
    ],
)
def test_errors_are_one_line_and_a_code(
    basket: Run, command: tuple[str, ...], code: int, said: str
) -> None:
    ran = basket(*command)
    assert (ran.code, ran.out) == (code, "")
    assert said in ran.err
    assert ran.err.count("\n") == 1


def test_a_closed_workflow_takes_no_update_and_still_answers(basket: Run) -> None:
    basket("signal", "b", finish.name, '"now"')
    basket("result", "b")
    assert (ran := basket("update", "b", "add", TEA)).code == 1
    assert "takes no update 'add' any more: it is completed" in ran.err
    assert basket("query", "b", "content").code == 0


@pytest.mark.parametrize("command", [("query", "e", "x"), ("update", "e", "x")])
def test_nobody_serves_it(run: Run, command: tuple[str, ...]) -> None:
    run("start", "updates.elsewhere", "--id", "e")
    ran = run(*command, "--timeout", "0.1")
    assert ran.code == 6
    assert "no live worker serves the queue 'nobody-serves-this'" in ran.err
