"""Versions and builds on the command line: start, show, move."""

from __future__ import annotations

import json

import pytest

from durable.cli.exits import BAD_INPUT, NOT_FOUND, REFUSED
from durable.core.history_length import LONG_HISTORY
from tests.cli.conftest import Run
from tests.client.database import Database

ORDER = '{"order": {"sku": "tea", "amount": 7}}'


def serve(database: Database, name: str, versions: list[int], build: str | None = None) -> None:
    """A live worker that has these versions of a workflow."""
    database.rows(
        "insert into durable.workers (worker_id, name, queues, build, workflows, started_at, beat_at, lease_until)"
        " values (gen_random_uuid(), 'w', '{\"default\": 1, \"orders\": 1}', %s, %s::jsonb, now(), now(), now() + interval '1 hour')",
        build, json.dumps({name: versions}),
    )  # fmt: skip


def define(database: Database, name: str, *versions: int) -> None:
    for version in versions:
        database.rows(
            "insert into durable.definitions (kind, name, version, schema, updated_at)"
            ' values (\'workflow\', %s, %s, \'{"x-durable": {"pinned": true}}\', now())',
            name, version,
        )  # fmt: skip


def test_a_start_by_name_takes_the_newest_version_that_a_live_worker_has(
    run: Run, database: Database
) -> None:
    define(database, "far_away", 1, 2, 3)
    run("start", "far_away", "--id", "nobody-lives")
    serve(database, "far_away", [1, 2])
    run("start", "far_away", "--id", "live")
    run("start", "far_away", "--id", "chosen", "--version", "1", "--no-pinned")
    rows = database.rows("select workflow_id, version, pinned from durable.runs order by 1")
    assert rows == [("chosen", 1, False), ("live", 2, True), ("nobody-lives", 3, True)]


def test_an_unknown_version_is_refused_before_anything_is_written(
    run: Run, database: Database
) -> None:
    define(database, "far_away", 1, 3)
    refused = run("start", "far_away", "--version", "2")
    assert (refused.code, "workers have registered 1, 3" in refused.err) == (NOT_FOUND, True)
    assert run("start", "far_away", "--version", "0").code == BAD_INPUT
    assert "no workflow is named" in run("start", "nowhere", "--version", "2").err
    assert database.counts()["runs"] == 0


def test_show_says_which_build_a_run_waits_for(run: Run, database: Database) -> None:
    run("start", "purchase", ORDER, "--id", "p", "--pinned", "--app", "tests.client.shop")
    assert "build      the first that takes it" in run("show", "p").out
    database.rows("update durable.runs set epoch = 1, ready_at = null, build = '7.1'")
    shown = run("show", "p").out
    assert "running, blocked" in shown
    assert "build      7.1" in shown
    assert "attention  it is pinned to build 7.1, and no live worker of that build" in shown
    assert "durable move p" in shown
    serve(database, "purchase", [1], build="7.1")
    assert "attention" not in run("show", "p").out
    said = json.loads(run("show", "p", "--json").out)
    assert (said["run"]["build"], said["warnings"]) == ("7.1", [])


def test_move_a_run_to_another_build(run: Run, database: Database) -> None:
    run("start", "purchase", ORDER, "--id", "p", "--pinned", "--app", "tests.client.shop")
    moved = run("move", "p", "--build", "7.2", "--reason", "7.1 is gone", "--actor", "ann")
    assert moved.out == "moved p to build 7.2\nno live worker could run it there now\n"
    serve(database, "purchase", [1], build="7.3")
    assert run("move", "p", "--build", "7.3").out == "moved p from build 7.2 to build 7.3\n"
    assert "with build 7.3 already" in run("move", "p", "--build", "7.3").out
    assert json.loads(run("move", "p", "--anywhere", "--json").out)["was"] == "7.3"
    ((pinned, build),) = database.rows("select pinned, build from durable.runs")
    assert (pinned, build) == (False, None)
    assert database.rows(
        "select reason, actor, accepted from durable.operator_commands where action = 'move' order by at"
    )[0] == ("7.1 is gone", "ann", True)


@pytest.mark.parametrize("given", [(), ("--build", "a", "--anywhere"), ("--build", "")])
def test_move_wants_one_place(given: tuple[str, ...], run: Run, database: Database) -> None:
    run("start", "purchase", ORDER, "--id", "p", "--app", "tests.client.shop")
    assert run("move", "p", *given).code == BAD_INPUT
    assert database.counts()["operator_commands"] == 0


def test_move_of_what_is_not_there_or_over(run: Run, database: Database) -> None:
    assert run("move", "nobody", "--anywhere").code == NOT_FOUND
    run("start", "purchase", ORDER, "--id", "p", "--app", "tests.client.shop")
    run("cancel", "p")
    assert run("move", "p", "--build", "b").code == REFUSED


def test_show_warns_of_a_long_history(run: Run, database: Database) -> None:
    run("start", "purchase", ORDER, "--id", "p", "--app", "tests.client.shop")
    database.rows("update durable.runs set last_seq = %s", LONG_HISTORY)
    assert "attention  its history has 10,000 events" in run("show", "p").out
    database.rows("update durable.runs set last_seq = %s", LONG_HISTORY - 1)
    assert "attention" not in run("show", "p").out


def test_doctor_names_builds_that_are_gone(run: Run, database: Database) -> None:
    for name in ("p", "q"):
        run("start", "purchase", ORDER, "--id", name, "--pinned", "--app", "tests.client.shop")
    database.rows("update durable.runs set build = '7.1'")
    assert "2 workflows are pinned to build 7.1, which no live worker has" in run("doctor").out
    serve(database, "purchase", [1], build="7.1")
    assert "pinned" not in run("doctor").out


def test_move_all_runs_of_a_build(run: Run, database: Database) -> None:
    for name in ("a", "b", "c"):
        run("start", "purchase", ORDER, "--id", name, "--pinned", "--app", "tests.client.shop")
    database.rows("update durable.runs set build = '7.1' where workflow_id <> 'c'")
    to = ("--where", "build=7.1", "--build", "7.2", "--reason", "retired", "--actor", "ann")
    assert "would move 2 (build=7.1)" in run("move", *to, "--dry-run").out
    moved = run("move", *to)
    assert (moved.code, moved.out) == (0, "move: 2 accepted, 0 refused\n")
    rows = database.rows("select workflow_id, build from durable.runs order by 1")
    assert rows == [("a", "7.2"), ("b", "7.2"), ("c", None)]
    audit = database.rows(
        "select action, accepted, reason, actor, before ->> 'build', after ->> 'build', batch_id is not null"
        "  from durable.operator_commands"
    )
    assert audit == [("move", True, "retired", "ann", "7.1", "7.2", True)] * 2
    freed = run("move", "--where", "build=7.2", "--anywhere", "--reason", "no need")
    assert freed.out == "move: 2 accepted, 0 refused\n"
    assert run("move", "--where", "build=7.2", "--reason", "where to?").code == BAD_INPUT
