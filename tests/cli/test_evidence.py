"""`durable evidence`, `durable recover`, `durable commands` and `durable signal --where --one` on the command line. No worker runs here."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import Run
from tests.client import shop

PURCHASE = shop.purchase.name
ORDER = '{"order": {"sku": "tea", "amount": 7}}'


@pytest.fixture
def closed(run: Run) -> str:
    """A run that was ended by force, and then asked for this and that."""
    run("start", PURCHASE, ORDER, "--id", "o-1")
    run("signal", "o-1", "payment_arrived", '{"amount": 7}', "--dedupe-key", "k")
    run("signal", "o-1", "payment_arrived", '{"amount": 8}', "--dedupe-key", "k", "--actor", "ann")
    run("terminate", "o-1", "--reason", "enough")
    assert run("signal", "o-1", "payment_arrived", '{"amount": 9}').code == 1
    assert run("cancel", "o-1", "--reason", "too dear", "--actor", "bob").code == 1
    assert run("pause", "o-1", "--reason", "a look").code == 1
    return "o-1"


def test_the_evidence_of_a_workflow(run: Run, closed: str) -> None:
    found = json.loads(run("evidence", closed, "--json").out)
    assert sorted((it["kind"], it["status"]) for it in found) == [
        ("cancel", "late"), ("command", "workflow_closed"),
        ("signal", "dropped"), ("signal", "duplicate"), ("signal", "late"),
    ]  # fmt: skip
    (duplicate,) = [it for it in found if it["status"] == "duplicate"]
    assert (duplicate["actor"], duplicate["payload"]) == ("ann", {"amount": 8})
    table = run("evidence", closed).out
    assert "too dear" in table
    assert "the run closed before it was read" in table
    assert "terminated: somebody ended it by force" in run("show", closed).out


def test_no_evidence_is_not_no_workflow(run: Run) -> None:
    run("start", PURCHASE, ORDER, "--id", "o-1")
    assert run("evidence", "o-1").out == "everything arrived, and nobody asked it to stop\n"
    missing = run("evidence", "o-2")
    assert (missing.code, "no workflow has the id 'o-2'" in missing.err) == (3, True)


def test_refused_commands_say_what_is_legal(run: Run, closed: str) -> None:
    (pause, cancel) = [
        it for it in json.loads(run("commands", "--refused", "--json").out) if it["action"] != "signal"
    ]  # fmt: skip
    assert (pause["code"], cancel["actor"]) == ("workflow_closed", "bob")
    assert pause["next_steps"][0] == "durable retry o-1"
    assert "durable retry o-1" in run("commands", "--refused").out


def test_schedules_and_queues_are_in_the_log(run: Run) -> None:
    run("schedule", "create", "s", PURCHASE, ORDER, "--every", "1d", "--actor", "ann")
    run("schedule", "pause", "s", "--note", "a holiday", "--actor", "bob")
    run("queue", "pause", "mail", "--actor", "cid")
    assert run("schedule", "resume", "t").code == 3
    told = json.loads(run("commands", "--about", "schedule", "--json").out)
    assert [(it["action"], it["code"], it["actor"]) for it in reversed(told)][:2] == [
        ("create_schedule", "accepted", "ann"),
        ("pause_schedule", "accepted", "bob"),
    ]
    assert (told[0]["code"], told[0]["workflow_id"]) == ("unknown_schedule", "t")
    assert "queue mail" in run("commands", "mail").out


def test_a_signal_for_one_of_several(run: Run) -> None:
    for each in ("o-1", "o-2"):
        run("start", PURCHASE, ORDER, "--id", each, "--attributes", f'{{"n": "{each}"}}')
    told = run(
        "signal", "payment_arrived", '{"amount": 7}', "--where", "workflow=purchase", "--one"
    )
    assert (told.code, "may be meant for any of 2 workflows (o-1, o-2)" in told.err) == (1, True)
    sent = run("signal", "payment_arrived", '{"amount": 7}', "--where", "attribute.n=o-2", "--one")
    assert (sent.code, sent.out) == (0, "sent payment_arrived to the one that it means\n")
    assert "ambiguous" in run("evidence", "o-1").out


def test_a_recovery_from_begin_to_end(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run("start", PURCHASE, ORDER, "--id", "o-1")
    recovery_id = run("recover", "begin", "a bad release", "--actor", "ann").out.strip()
    monkeypatch.setenv("DURABLE_RECOVERY", recovery_id)
    run("pause", "o-1", "--reason", "hold it")
    assert run("pause", "o-1", "--reason", "hold it").code == 1
    assert run("recover", "end", recovery_id, "--note", "rolled back").code == 0
    late = run("resume", "o-1")
    assert (late.code, "has ended" in late.err) == (2, True)
    monkeypatch.delenv("DURABLE_RECOVERY")
    assert run("resume", "o-1").code == 0
    found = json.loads(run("commands", "--recovery", recovery_id, "--json").out)
    assert [(it["action"], it["code"]) for it in reversed(found)] == [
        ("pause", "accepted"), ("pause", "already_paused"),
    ]  # fmt: skip
    (record,) = json.loads(run("recover", "list", "--json").out)
    assert (record["reason"], record["note"], record["accepted"], record["refused"]) == (
        "a bad release", "rolled back", 1, 1,
    )  # fmt: skip
    assert "rolled back" in run("recover", "list").out
    assert run("recover", "end", "00000000-0000-7000-8000-000000000000").code == 2


def test_a_refusal_is_the_same_for_programs(run: Run, closed: str) -> None:
    """S107: the code and what is legal instead travel with the error, not in its words alone."""
    for command in (("pause", closed, "--reason", "x"), ("cancel", closed), ("signal", closed, "payment_arrived", '{"amount": 1}')):  # fmt: skip
        refused = json.loads(run(*command, "--json").err)["error"]
        assert (refused["code"], refused["next_steps"][0]) == (
            "workflow_closed",
            "durable retry o-1",
        )
    assert json.loads(run("cancel", "o-2", "--json").err)["error"]["code"] == "unknown_workflow"
