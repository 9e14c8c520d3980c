"""The operator's commands on the command line. No worker runs here: what workers write is written with SQL."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from durable.cli.chosen import report_progress
from durable.descriptions import BatchProgress
from durable.refusals import CODES, REFUSALS
from tests.cli.conftest import Run
from tests.client.database import Database
from tests.client.shop import Declined

ORDER = '{"order": {"sku": "tea", "amount": 7}}'


@pytest.fixture
def stuck(run: Run, database: Database) -> str:
    """A run with an activity whose attempts have run out."""
    run("start", "purchase", ORDER, "--id", "o-1")
    database.append("o-1", "ActivityScheduled", {"name": "bill", "queue": "payments", "priority": 0, "id": "bill-1"},
                    {"order": {"sku": "tea", "amount": 7}})  # fmt: skip
    database.rows(
        "insert into durable.jobs (shard, run_id, seq, kind, name, queue, state, attempt, scheduled_at, created_at, paused)"
        " select shard, run_id, 2, 'activity', 'bill', 'payments', 'paused', 5, now(), now(), durable.exhausted(now(), '{}') from durable.runs"
    )
    return "o-1"


def test_pause_and_resume(run: Run) -> None:
    run("start", "purchase", ORDER, "--id", "o-1")
    paused = run("pause", "o-1", "--reason", "incident 7", "--actor", "ann")
    assert (paused.code, paused.out) == (0, "paused o-1; durable resume o-1 lets it go on\n")
    assert "paused     by ann since" in run("show", "o-1").out
    assert "running, blocked" in run("show", "o-1").out
    again = run("pause", "o-1", "--reason", "again")
    assert (again.code, "durable resume o-1" in again.err) == (1, True)
    assert json.loads(run("resume", "o-1", "--json").out) == {
        "workflow_id": "o-1", "status": "accepted",
    }  # fmt: skip


def test_an_activity_is_mended(run: Run, stuck: str, database: Database) -> None:
    shown = run("show", stuck)
    assert "needs review" in shown.out
    assert "its attempts ran out" in shown.out
    wrong = run("activity", "edit-input", stuck, "2", '{"order": 5}', "--reason", "typo")
    assert (wrong.code, "order" in wrong.err) == (2, True)
    edited = run(
        "activity", "edit-input", stuck, "2", '{"order": {"sku": "tea", "amount": 8}}', "--retry",
        "--reason", "typo",
    )  # fmt: skip
    assert (edited.code, edited.out) == (0, "edited activity 2 of o-1\n")
    ((state, amount, most),) = database.rows(
        "select state, input -> 'order' ->> 'amount', options -> 'retry' ->> 'max_attempts' from durable.jobs"
    )
    assert (state, amount, most) == ("available", "8", "10")
    done = run(
        "activity", "set-result", stuck, "2", '{"total": 8}', "--reason", "by hand", "--json"
    )
    assert json.loads(done.out) == {"workflow_id": stuck, "seq": 2, "status": "accepted"}
    assert run("activity", "set-failure", stuck, "2", "no", "--reason", "late").code == 1
    assert [row[0] for row in database.rows("select type from durable.inbox order by at")] == [
        "ActivityEdited", "ActivityRetried", "ActivityCompleted",
    ]  # fmt: skip


def test_reset_retry_and_fork(run: Run, stuck: str, database: Database) -> None:
    database.fail(stuck, Declined("no money"))
    retried = run("retry", stuck, "--reason", "the bank is back")
    assert (retried.code, retried.out) == (0, "retried o-1: it goes on after event 2\n")
    receipt = json.loads(
        run("reset", stuck, "--before-activity", "bill", "--reason", "again", "--json").out
    )
    assert (receipt["event"], receipt["discarded"]) == (1, {})
    forked = run("fork", stuck, "copy", "--to-event", "1", "--reason", "what if")
    assert (forked.code, forked.out) == (0, "forked o-1 as copy\n")
    assert run("fork", stuck, "copy", "--to-event", "1", "--reason", "what if").code == 1
    assert run("reset", stuck, "--reason", "no point given").code == 2
    assert run("reset", "nobody", "--to-event", "1", "--reason", "who").code == 3


def test_a_reason_is_required_and_so_is_an_id_or_a_filter(run: Run) -> None:
    for command in ("pause", "terminate", "reset", "retry"):
        refused = run(command, "o-1", *(("--to-event", "1") if command == "reset" else ()))
        assert (refused.code, "--reason" in refused.err) == (2, True)
        assert run(command, "--reason", "why").code == 2


def test_a_batch_is_counted_done_and_listed(run: Run) -> None:
    for n in range(3):
        run("start", "purchase", ORDER, "--id", f"o-{n}")
    run("pause", "o-1", "--reason", "by hand")
    where = ("--where", "workflow=purchase status=running", "--reason", "incident 7")
    counted = run("pause", *where, "--dry-run")
    assert counted.out == "would pause 3 (workflow=purchase status=running); nothing was done\n"
    done = run("pause", *where)
    assert (done.code, "pause: 2 accepted, 1 refused" in done.out) == (1, True)
    assert "3 of 3, 1 refused" in done.err
    assert "incident 7" in run("batch", "list").out
    sent = run("signal", "payment_arrived", '{"amount": 1}', *where, "--json")
    assert (sent.code, json.loads(sent.out)["accepted"]) == (0, 3)
    assert run("signal", "o-1").code == 2
    bad = run("cancel", "--where", "colour=red", "--reason", "x")
    assert (bad.code, "there are: workflow" in bad.err) == (2, True)


def test_the_log_shows_accepted_and_refused(run: Run) -> None:
    run("start", "purchase", ORDER, "--id", "o-1")
    run("cancel", "o-1", "--reason", "by mistake", "--actor", "ann")
    run("cancel", "o-1", "--reason", "again", "--actor", "bob")
    found = json.loads(run("commands", "o-1", "--json").out)
    assert [(it["action"], it["code"], it["actor"], it["reason"]) for it in found] == [
        ("cancel", "workflow_closed", "bob", "again"),
        ("cancel", "accepted", "ann", "by mistake"),
    ]
    assert (found[1]["before"]["status"], found[1]["after"]["status"]) == ("running", "cancelled")
    table = run("commands").out
    assert "status: running -> cancelled" in table


def test_the_codes_are_those_that_the_database_allows(database: Database) -> None:
    """A frozen vocabulary: one list in Python, one in a constraint; each refusal says what is legal instead."""
    ((text,),) = database.rows(
        "select pg_get_constraintdef(oid) from pg_constraint where conname = 'operator_commands_code_known'"
    )
    assert {part.split("'")[0] for part in text.split("'")[1::2]} == set(CODES)
    assert set(REFUSALS) == set(CODES) - {"accepted"}
    assert all(refusal.next_steps for refusal in REFUSALS.values())


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_one_line_that_changes_on_a_terminal(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = datetime(2026, 11, 21, tzinfo=UTC)
    begun = BatchProgress("b", "cancel", {}, {}, "why", None, "x", None, 250, 98, 2, now, None)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    report_progress(begun)
    report_progress(replace(begun, accepted=248, finished_at=now))
    first, last = "cancel: 100 of 250, 2 refused", "cancel: 250 of 250, 2 refused"
    wipe = "\r\x1b[K"
    shown = f"{wipe}{first}{wipe}{last}\n" if terminal else f"{first}\n{last}\n"
    assert capsys.readouterr().err == shown
