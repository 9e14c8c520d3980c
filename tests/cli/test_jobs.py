"""`durable enqueue` and `durable job ...`: what they do, print, and leave as exit codes."""

from __future__ import annotations

import json

from tests.cli.conftest import Run
from tests.client.database import Database

SCHEMA = {"type": "object", "properties": {"to": {"type": "string"}}, "required": ["to"]}


def enqueued(run: Run, database: Database, *options: str) -> str:
    if not database.rows("select 1 from durable.definitions"):
        database.define("activity", "greet", SCHEMA, "post")
    said = run("enqueue", "greet", '{"to": "ann"}', *options, "--json")
    assert said.code == 0, said.err
    return str(json.loads(said.out)["job_id"])


def test_a_job_is_enqueued_with_its_options_and_shown(run: Run, database: Database) -> None:
    options = ("--delay", "60", "--priority", "2", "--tag", "x", "--tag", "y", "--meta", '{"a": 1}')
    job_id = enqueued(run, database, *options, "--actor", "ann")
    shown = run("job", "show", job_id).out
    for fact in ("greet", "scheduled", "post, priority 2", "x, y", '{"a": 1}', '{"to": "ann"}'):
        assert fact in shown
    found = json.loads(run("job", "show", job_id, "--json").out)
    assert (found["state"], found["tags"], found["arguments"]) == (
        "scheduled",
        ["x", "y"],
        {"to": "ann"},
    )
    assert database.rows("select options ->> 'actor' from durable.jobs") == [("ann",)]
    assert run("enqueue", "greet", '{"to": "bob"}').out.startswith("enqueued greet ")


def test_jobs_are_listed_by_filters(run: Run, database: Database) -> None:
    assert run("job", "list").out == "no job here yet\n"
    job_id = enqueued(run, database, "--tag", "x")
    assert job_id in run("job", "list", "--state", "available", "--tag", "x").out
    assert run("job", "list", "--state", "discarded").out == "no job matches\n"
    assert [it["job_id"] for it in json.loads(run("job", "list", "--json").out)] == [job_id]
    wrong = run("job", "list", "--state", "done")
    assert (wrong.code, "give scheduled or available" in wrong.err) == (2, True)


def test_cancel_retry_and_delete(run: Run, database: Database) -> None:
    job_id = enqueued(run, database)
    assert run("job", "cancel", job_id, "--reason", "not today").out == f"{job_id} cancelled\n"
    assert "not today" in run("job", "show", job_id).out
    assert "had ended already: cancelled" in run("job", "cancel", job_id).out
    assert run("job", "retry", job_id).out == f"{job_id} may run now\n"
    assert json.loads(run("job", "cancel", job_id, "--json").out)["status"] == "cancelled"
    assert run("job", "delete", job_id).out == f"deleted {job_id}\n"
    gone = run("job", "show", job_id)
    assert (gone.code, "no job has the id" in gone.err) == (3, True)


def test_what_is_refused_says_why(run: Run, database: Database) -> None:
    job_id = enqueued(run, database)
    database.rows("update durable.jobs set state = 'executing', owner = gen_random_uuid()")
    busy = run("job", "retry", job_id)
    assert (busy.code, "executing" in busy.err) == (1, True)
    assert "asked to stop" in run("job", "cancel", job_id).out
    assert run("enqueue", "greeet", "{}").code == 3
    assert run("enqueue", "greet", "{}").code == 2
    assert run("job", "show", "five").code == 2


def test_waiting_prints_the_result_or_fails(run: Run, database: Database) -> None:
    database.define("activity", "greet", SCHEMA)
    late = run("enqueue", "greet", '{"to": "ann"}', "--wait", "--timeout", "0.01")
    assert (late.code, "has not ended" in late.err) == (6, True)
    database.rows(
        "create function finish() returns trigger language plpgsql as $$ begin"
        " new.state := new.input ->> 'to'; new.finished_at := now(); new.result := '\"hi\"'; return new; end $$"
    )
    database.rows(
        "create trigger finish before insert on durable.jobs for each row execute function finish()"
    )
    done = run("enqueue", "greet", '{"to": "completed"}', "--wait", "--timeout", "5")
    assert (done.code, done.out) == (0, '"hi"\n')
    failed = run("enqueue", "greet", '{"to": "discarded"}', "--wait", "--timeout", "5")
    assert (failed.code, "durable job show" in failed.err) == (5, True)


def test_a_waiting_job_is_changed(run: Run, database: Database) -> None:
    job_id = enqueued(run, database)
    changes = ("--priority", "3", "--queue", "slow", "--tag", "late", "--meta", '{"a": 2}')
    said = run("job", "edit", job_id, *changes, "--arguments", '{"to": "bob"}', "--reason", "oops")
    assert (said.code, said.out) == (0, f"changed {job_id}\n")
    shown = run("job", "show", job_id).out
    for fact in ("slow, priority 3", "late", '{"a": 2}', '{"to": "bob"}'):
        assert fact in shown
    assert json.loads(run("job", "edit", job_id, "--delay", "60", "--json").out)["edited"]
    assert "scheduled" in run("job", "show", job_id).out
    nothing = run("job", "edit", job_id)
    assert (nothing.code, "say what to change" in nothing.err) == (2, True)
    run("job", "cancel", job_id)
    ended = run("job", "edit", job_id, "--priority", "1")
    assert (ended.code, f"durable job retry {job_id}" in ended.err) == (1, True)


def test_jobs_are_commanded_by_filter(run: Run, database: Database) -> None:
    ids = {enqueued(run, database, "--tag", "x") for _ in range(3)}
    enqueued(run, database)
    counted = run("job", "cancel", "--where", "tag=x", "--dry-run", "--reason", "no")
    assert counted.out == "would cancel 3 jobs (tags=['x']); nothing was done\n"
    edited = run("job", "edit", "--where", "tag=x", "--priority", "9", "--reason", "later")
    assert (edited.code, edited.out) == (0, "edit_jobs: 3 accepted, 0 refused\n")
    done = json.loads(run("job", "cancel", "--where", "tag=x", "--reason", "no", "--json").out)
    assert (done["accepted"], done["refused"], done["reason"]) == (3, 0, "no")
    logged = json.loads(run("commands", "--batch", done["batch_id"], "--json").out)
    assert {it["run_id"] for it in logged} == ids
    database.rows(
        "update durable.jobs set state = 'executing', owner = gen_random_uuid() where tags is null"
    )
    refused = run("job", "delete", "--where", "queue=post", "--reason", "all")
    assert (refused.code, refused.out.splitlines()[0]) == (1, "delete_jobs: 3 accepted, 1 refused")
    assert run("job", "retry", "--where", "state=discarded", "--reason", "again").code == 0
    for wrong in (("cancel",), ("cancel", "--where", "tag=x"), ("cancel", "--where", "", "--reason", "x"),
                  ("edit", "--where", "tag=x", "--arguments", "{}", "--reason", "x")):  # fmt: skip
        assert run("job", *wrong).code == 2, wrong
