"""What each command does and prints."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.client.database import Database
from tests.client.shop import Declined

ORDER = '{"order": {"sku": "tea", "amount": 7}}'


def test_the_reference_use(run: Run, database: Database) -> None:
    assert run("start", "purchase", ORDER, "--id", "o-1").out == "started purchase o-1\n"
    assert (
        run("signal", "o-1", "payment_arrived", '{"amount": 10}').out
        == "sent payment_arrived to o-1\n"
    )
    ((payload, actor),) = database.rows("select payload, actor from durable.signals")
    assert payload == {"amount": 10}
    assert actor.startswith("cli:")


def test_global_options_stand_before_the_command_too(
    run: Run, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DURABLE_DATABASE_URL", "host=/nonexistent")
    started = run("--url", database.url, "--app", "tests.client.shop", "start", "purchase", ORDER)
    assert (started.code, started.err) == (0, "")


def test_starting_again_says_so(run: Run) -> None:
    first = json.loads(run("start", "purchase", ORDER, "--id", "o-1", "--json").out)
    again = json.loads(run("start", "purchase", ORDER, "--id", "o-1", "--json").out)
    assert first["created"]
    assert again == {"workflow_id": "o-1", "run_id": first["run_id"], "created": False}
    assert (
        "exists already, nothing was started" in run("start", "purchase", ORDER, "--id", "o-1").out
    )


def test_options_reach_the_run(run: Run, database: Database) -> None:
    run(
        "start", "purchase", ORDER, "--queue", "vip", "--priority", "1", "--delay", "60",
        "--attributes", '{"region": "eu"}', "--actor", "ann",
    )  # fmt: skip
    ((queue, priority, attributes, actor, waits),) = database.rows(
        "select queue, priority, attributes, actor, delayed_until - created_at = '1 minute' from durable.runs"
    )
    assert (queue, priority, attributes, actor, waits) == ("vip", 1, {"region": "eu"}, "ann", True)


def test_arguments_come_from_a_file_or_standard_input(
    run: Run, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "order.json").write_text(ORDER)
    monkeypatch.setattr(sys, "stdin", io.StringIO(ORDER))
    assert run("start", "purchase", f"@{tmp_path / 'order.json'}").code == 0
    assert run("start", "purchase", "-").code == 0
    assert database.counts()["runs"] == 2


def test_a_duplicate_signal_says_so(run: Run) -> None:
    run("start", "purchase", ORDER, "--id", "o-1")
    signal = ("signal", "o-1", "payment_arrived", '{"amount": 10}', "--dedupe-key", "k")
    assert json.loads(run(*signal, "--json").out)["status"] == "buffered"
    assert json.loads(run(*signal, "--json").out)["status"] == "duplicate"
    assert "is not delivered" in run(*signal).out


def test_result_of_a_completed_workflow(run: Run, database: Database) -> None:
    run("start", "purchase", ORDER, "--id", "o-1")
    database.end("o-1", "completed", payload={"total": 7})
    plain, program = run("result", "o-1"), run("result", "o-1", "--json")
    assert (plain.code, plain.out) == (0, '{"total": 7}\n')
    assert json.loads(program.out)["result"] == {"total": 7}
    assert json.loads(program.out)["status"] == "completed"


def test_result_of_a_failed_workflow(run: Run, database: Database) -> None:
    run("start", "purchase", ORDER, "--id", "o-1")
    database.fail("o-1", Declined("no money"))
    plain, program = (
        run("result", "o-1"),
        run("start", "purchase", ORDER, "--id", "o-1", "--wait", "--json"),
    )
    assert (plain.code, plain.out) == (5, "")
    assert plain.err == "durable: o-1 failed: Declined: no money (durable history o-1 shows how)\n"
    assert program.code == 5
    assert json.loads(program.out)["failure"]["message"] == "no money"


def test_result_of_a_stopped_workflow(run: Run) -> None:
    run("start", "purchase", ORDER, "--id", "o-1")
    assert run("terminate", "o-1", "--reason", "wrong order").out == "terminated o-1\n"
    ran = run("result", "o-1")
    assert (ran.code, "o-1 terminated: wrong order" in ran.err) == (5, True)


def test_cancel(run: Run, database: Database) -> None:
    run("start", "purchase", ORDER, "--id", "o-1")
    database.claim("o-1")
    assert run("cancel", "o-1", "--reason", "changed my mind").out == "asked o-1 to stop\n"
    assert "the first request stands" in run("cancel", "o-1").out
    ((reason, actor),) = database.rows(
        "select reason, actor from durable.operator_commands where accepted"
    )
    assert (reason, actor.startswith("cli:")) == ("changed my mind", True)


def test_list(run: Run, database: Database) -> None:
    assert run("list").out == "no workflow here yet\n"
    run("start", "purchase", ORDER, "--id", "o-1")
    run("start", "purchase", ORDER, "--id", "o-2")
    database.end("o-1", "completed", payload={"total": 7})
    heading, *rows = [line.split() for line in run("list").out.splitlines()]
    assert heading[:4] == ["ID", "WORKFLOW", "STATUS", "STATE"]
    assert [row[:5] for row in rows] == [
        ["o-2", "purchase", "running", "runnable", "orders"],
        ["o-1", "purchase", "completed", "done", "orders"],
    ]
    assert run("list", "--status", "failed").out == "none matches\n"
    (only,) = json.loads(run("list", "--status", "completed", "--json").out)
    assert (only["workflow_id"], only["closed_at"][-6:]) == ("o-1", "+00:00")


def _history_of_a_failure(run: Run, database: Database) -> None:
    run("start", "purchase", ORDER, "--id", "o-1")
    database.append(
        "o-1", "SignalReceived", {"name": "payment_arrived", "signal_id": "x"}, {"amount": 10}
    )
    database.append(
        "o-1",
        "ActivityScheduled",
        {"name": "bill", "queue": "payments", "line": "shop.py:31"},
        {"n": 1},
    )
    failure = {"type": "shop:Declined", "message": "no money"}
    database.append("o-1", "ActivityFailed", {"ref": 3, "attempt": 3, "failure": failure})
    outer = {
        "type": "durable.errors:ActivityError",
        "message": "activity failed; the cause says why",
        "cause": failure,
    }
    database.end("o-1", "failed", {"failure": outer})


def test_history_tells_the_story(run: Run, database: Database) -> None:
    _history_of_a_failure(run, database)
    rows = [line.split(maxsplit=3) for line in run("history", "o-1").out.splitlines()]
    assert [(row[0], row[2], row[3].split()) for row in rows] == [
        ("SEQ", "TYPE", ["WHAT", "DETAILS"]),
        (
            "1",
            "WorkflowStarted",
            ["purchase", *['{"order":', '{"sku":', '"tea",', '"amount":', "7}}"]],
        ),
        ("2", "SignalReceived", ["payment_arrived", '{"amount":', "10}"]),
        ("3", "ActivityScheduled", ["bill", "shop.py:31", "queue", "payments", '{"n":', "1}"]),
        ("4", "ActivityFailed", ["bill", "#3", "attempt", "3", "Declined:", "no", "money"]),
        (
            "5",
            "WorkflowFailed",
            ["ActivityError:", "activity", "failed,", "because", "Declined:", "no", "money"],
        ),
    ]


def test_history_in_full_and_for_programs(run: Run, database: Database) -> None:
    _history_of_a_failure(run, database)
    full = run("history", "o-1", "--full").out
    assert '"message": "no money"' in full
    events = json.loads(run("history", "o-1", "--json").out)
    assert [event["seq"] for event in events] == [1, 2, 3, 4, 5]
    assert events[1]["payload"] == {"amount": 10}


def test_show_a_run_that_waits(run: Run, database: Database) -> None:
    run("start", "purchase", ORDER, "--id", "o-1")
    run("signal", "o-1", "payment_arrived", '{"amount": 10}')
    database.append("o-1", "ActivityScheduled", {"name": "bill", "retry": {"max_attempts": 3}})
    database.rows(
        "insert into durable.jobs (shard, run_id, seq, kind, name, queue, state, attempt, scheduled_at, errors, created_at)"
        " select shard, run_id, 2, 'activity', 'bill', 'payments', 'retryable', 2, now() + interval '1 hour',"
        """ '[{"attempt": 2, "failure": {"type": "shop:Declined", "message": "no money"}}]', now() from durable.runs"""
    )
    database.rows(
        "update durable.runs set ready_at = null, owner = gen_random_uuid(), waiting_on ="
        """ '[{"kind": "activity", "name": "bill", "line": "shop.py:31"}]'"""
    )
    shown = run("show", "o-1").out
    for part in (
        "purchase version 1",
        "running, waiting",
        "orders, priority 3",
        "waits for  activity bill at shop.py:31",
        "retryable  2/3",
        "Declined: no money",
        "payment_arrived  buffered",
        "1 WorkflowStarted, 1 ActivityScheduled",
    ):
        assert part in shown, shown
    as_json = json.loads(run("show", "o-1", "--json").out)
    assert as_json["pending"][0]["attempt"] == 2
    assert as_json["run"]["operator_status"] == "waiting"


def test_show_a_run_that_needs_review(run: Run, database: Database) -> None:
    run("start", "purchase", ORDER, "--id", "o-1")
    database.rows(
        "update durable.runs set review = %s::jsonb",
        json.dumps(
            {
                "kind": "nondeterminism",
                "times": 3,
                "since": "x",
                "failure": {"message": "the code and\nthe history"},
            }
        ),
    )
    shown = run("show", "o-1").out
    assert "running, needs review" in shown
    assert "needs review: nondeterminism (3 times" in shown
    assert "  the history" in shown


def test_show_a_run_that_has_ended(run: Run, database: Database) -> None:
    run("start", "purchase", ORDER, "--id", "o-1")
    database.end("o-1", "completed", payload={"total": 7})
    assert 'result     {"total": 7}' in run("show", "o-1").out


def test_migrate(run: Run, empty_database_url: str) -> None:
    url = ("--url", empty_database_url)
    assert "pending" in run("migrate", "--status", *url).out
    assert run("migrate", *url).out.startswith("applied 0001_tables")
    assert run("migrate", *url).out == "the schema is up to date\n"
    assert {
        each["state"] for each in json.loads(run("migrate", "--status", "--json", *url).out)
    } == {"applied"}
    assert run("list", *url).code == 0
