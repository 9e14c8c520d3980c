"""`durable explain`: what it prints, and that what it advises can be typed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

from durable import Client, activity, workflow
from durable.cli.commands import app
from durable.core.causes import KINDS
from tests.cli.conftest import ROOT, Run

PAGE = ROOT / "docs" / "guide" / "explain.md"


@activity(queue="parcels")
async def packs_a_parcel(number: int) -> None: ...


@workflow(queue="parcels")
async def delivers(number: int) -> None:
    await packs_a_parcel(number)


@pytest.fixture
def client(run: Run) -> Iterator[Client]:
    assert run("migrate").code == 0
    with Client() as client:
        yield client


def test_a_workflow_a_job_and_a_schedule_are_found_by_their_ids(run: Run, client: Client) -> None:
    client.start(delivers, 1, id="o-1")
    job = client.enqueue(packs_a_parcel, 1)
    for id_, kind in (("o-1", "workflow delivers"), (job.job_id, "job packs_a_parcel")):
        said = run("explain", id_)
        assert said.code == 0, said.err
        lines = said.out.splitlines()
        assert lines[0] == f"{id_}  {kind}"
        assert lines[1] == "BLOCKED: it stays so until somebody acts"
        assert "why          no live worker serves queue 'parcels'" in lines
        assert re.search(r"you can +durable-worker MODULE --queue parcels=10  +start one", said.out)


def test_json_has_codes_facts_and_commands(run: Run, client: Client) -> None:
    client.start(delivers, 1, id="o-1")
    found = json.loads(run("explain", "o-1", "--json").out)
    assert (found["kind"], found["id"], found["status"]) == ("workflow", "o-1", "blocked")
    assert [it["code"] for it in found["causes"]] == ["no_worker", "ready"]
    assert found["causes"][0]["facts"] == {"queue": "parcels"}
    assert found["next_steps"][0] == {
        "command": "durable-worker MODULE --queue parcels=10",
        "remark": "start one",
    }
    assert found["causes"][1]["since"] is not None


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("nothing",), 3, "no workflow, job or schedule has the id 'nothing'"),
        (("nothing", "--schedule"), 3, "no schedule has the id 'nothing'"),
        (("nothing", "--step", "a"), 3, "no workflow has the id 'nothing'"),
        (("o-1", "--step", "a"), 2, "has no activity pending of this id"),
        (("o-1", "--step", "a", "--schedule"), 2, "a schedule has none"),
    ],
)
def test_what_is_not_there(
    run: Run, client: Client, arguments: tuple[str, ...], code: int, message: str
) -> None:
    client.start(delivers, 1, id="o-1")
    said = run("explain", *arguments)
    assert said.code == code
    assert message in said.err


# -- what it advises ------------------------------------------------------------------------------------------------------


def commands() -> list[str]:
    listed = [step.partition("  # ")[0] for kind in KINDS.values() for step in kind.steps]
    return sorted({it for it in listed if it.startswith("durable ")})


@pytest.mark.parametrize("command", commands())
def test_every_command_that_is_advised_exists(command: str) -> None:
    """With its options, and with no more arguments than it takes."""
    found: Any = typer.main.get_command(app)
    words = re.sub(r"\{\w+\}|\bN\b", "2", command).split()[1:]
    while hasattr(found, "commands"):
        found = found.commands[words.pop(0)]
    context = found.make_context("durable", words)
    assert context.params


def test_the_guide_lists_every_cause_with_its_status() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    listed = {code: status for code, status in rows if code in KINDS}
    assert listed == {code: kind.status for code, kind in KINDS.items()}
