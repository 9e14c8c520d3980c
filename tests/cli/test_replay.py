"""`durable replay`: a recorded run under a debugger, without any effect."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from durable.cli.exits import BAD_INPUT, DONE, INCOMPATIBLE, NOT_FOUND
from tests.cli.conftest import Run, spawn
from tests.cli.recorded import Named, store, under_way
from tests.cli.replayed_code import blocking, checkout, crowd, paid
from tests.cli.test_verify import CHANGED, RIGHT, everything
from tests.client.database import Database


@pytest.fixture
def order(database: Database) -> Named:
    """Its history: started, reserve scheduled, completed, paid, ship scheduled."""
    sim = under_way(checkout, "o-1", "tea")
    sim.turn(sim.signalled(paid, 7))
    store(database, sim)
    return sim


def test_it_ends_with_every_task_and_what_it_waits_for(run: Run, database: Database) -> None:
    store(database, under_way(crowd, "c"))
    before = everything(database)
    ran = run("replay", "c", "--module", RIGHT)
    assert ran.code == DONE
    assert "replayed 4 events" in ran.out
    assert "waits for signal replayed_paid at replayed_code.py:" in ran.out
    assert "waits for task first" in ran.out
    assert "waits for activity replayed.ship #3 at replayed_code.py:" in ran.out
    assert everything(database) == before


def test_tasks_have_their_stacks(run: Run, database: Database) -> None:
    sim = Named(crowd, "c")
    sim.turn()
    store(database, sim)
    said = json.loads(run("replay", "c", "--module", RIGHT, "--json").out)
    assert {task["task"] for task in said["tasks"]} == {"main", "first"}
    (first,) = [task for task in said["tasks"] if task["task"] == "first"]
    assert first["lines"][0].endswith(" in one")
    assert [it["name"] for it in first["waits_for"]] == ["replayed.ship"]
    (main,) = [task for task in said["tasks"] if task["task"] == "main"]
    assert [(it["kind"], it["name"]) for it in main["waits_for"]] == [
        ("task", "first"), ("activity", "replayed.reserve"), ("signal", "replayed_paid"),
    ]  # fmt: skip


@pytest.mark.usefixtures("order")
def test_until_stops_after_the_turn_of_that_event(run: Run) -> None:
    ran = run("replay", "o-1", "--module", RIGHT, "--until", "3")
    assert "replayed 3 of 5 events" in ran.out
    assert "waits for signal replayed_paid" in ran.out
    whole = run("replay", "o-1", "--module", RIGHT)
    assert "waits for activity replayed.ship #5" in whole.out
    beyond = run("replay", "o-1", "--module", RIGHT, "--until", "9")
    assert (beyond.code, "the history has 5 events" in beyond.err) == (BAD_INPUT, True)


@pytest.mark.usefixtures("order")
def test_changed_code_shows_the_difference(run: Run) -> None:
    ran = run("replay", "o-1", "--module", CHANGED)
    assert ran.code == INCOMPATIBLE
    assert "part at event 2" in ran.out
    assert "'replayed.reserve' -> 'replayed.ship'" in ran.out


@pytest.mark.usefixtures("order")
def test_code_that_is_not_there_is_asked_for(run: Run) -> None:
    assert run("replay", "o-1").code == NOT_FOUND
    elsewhere = run("replay", "o-1", "--module", "tests.client.shop")
    assert "'replayed.checkout' version 1" in elsewhere.err
    assert "purchase version 1" in elsewhere.err
    assert run("replay", "nobody", "--module", RIGHT).code == NOT_FOUND
    assert run("replay", "--module", RIGHT).code == BAD_INPUT


@pytest.mark.usefixtures("order")
def test_an_exported_file_replays_without_a_database(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "o-1.json"
    run("history", "o-1", "--export", str(file))
    assert run("history", "o-1", "--export", "-").out == file.read_text()
    monkeypatch.delenv("DURABLE_DATABASE_URL")
    assert run("replay", "--file", str(file), "--app", RIGHT).code == DONE


def debugged(database: Database, *arguments: str, typed: str) -> str:
    process = spawn(
        "replay", *arguments, "--module", RIGHT, "--pdb", url=database.url, stdin=subprocess.PIPE
    )
    out, err = process.communicate(typed, timeout=60)
    assert (process.returncode, err) == (DONE, "")
    return out


@pytest.mark.usefixtures("order")
def test_the_debugger_stops_where_the_event_goes_on(database: Database) -> None:
    """Event 4 is the signal; the code stands at the await that takes it, with its variables."""
    before = everything(database)
    out = debugged(database, "o-1", "--until", "4", typed="p held\nnext\np amount\nc\n")
    assert "amount = await paid.receive()" in out
    assert "(replay) 'tea'" in out
    assert "(replay) 7" in out
    assert "waits for activity replayed.ship #5" in out
    assert everything(database) == before


@pytest.mark.usefixtures("order")
def test_without_a_number_the_debugger_stops_at_the_first_line(database: Database) -> None:
    out = debugged(database, "o-1", typed="p order\nc\n")
    assert "checkout()" in out
    assert "(replay) 'tea'" in out


@pytest.mark.usefixtures("order")
def test_quitting_the_debugger_is_no_finding(database: Database) -> None:
    out = debugged(database, "o-1", "--until", "4", typed="q\n")
    assert "Nondeterminism" not in out


def test_plain_functions_can_be_debugged_too(database: Database) -> None:
    store(database, under_way(blocking, "b", "tea"))
    out = debugged(database, "b", "--until", "3", typed="p order\np held\nc\n")
    assert "blocking()" in out
    assert out.count("(replay) 'tea'") == 2
