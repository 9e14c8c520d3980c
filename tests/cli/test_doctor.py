"""The doctor: each of its checks made to fail by what it is about, and all of them content."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from durable.cli import health_checks
from durable.client_sync import Client
from durable.errors import InternalError
from durable.store import calls, health
from durable.store.health import HealthReader
from durable.store.migrate import migrate
from tests.cli.conftest import Run
from tests.cli.pooler import pooler
from tests.client import shop
from tests.client.database import Database
from tests.postgres import drop, in_database
from tests.system import background, flows, mending_flows
from tests.waiting import eventually

ORDER = '{"order": {"sku": "tea", "amount": 7}}'
CHECKS = {
    "database", "schema", "indexes", "clock", "workers", "duties", "queues", "review", "parked", "bloat", "pooler", "notify"
}  # fmt: skip
WORKER = (
    "insert into durable.workers (worker_id, name, queues, started_at, beat_at, lease_until) values"
    " (gen_random_uuid(), 'w', '{\"orders\": 20}', durable.now() - interval '1 hour', durable.now(), durable.now() + %s::interval)"
)
HELD = "update durable.duties set holder = (select worker_id from durable.workers), lease_until = durable.now() + interval '1 hour'"

Findings = list[dict[str, Any]]
Look = Callable[..., tuple[int, Findings]]


@pytest.fixture
def look(run: Run) -> Look:
    """The exit code, and the findings (of one check)."""

    def look(check: str | None = None, *more: str) -> tuple[int, Findings]:
        ran = run("doctor", "--json", *more)
        report = json.loads(ran.out)
        assert report["schema_version"] == 1
        worst = max(("ok", "attention", "problem").index(it["level"]) for it in report["findings"])
        assert (report["level"], ran.code) == (("ok", "attention", "problem")[worst], worst)
        for it in report["findings"]:
            assert bool(it["fault"]) == bool(it["remedy"]) == (it["level"] != "ok"), it
        return ran.code, [it for it in report["findings"] if check in (None, it["check"])]

    return look


def one(found: tuple[int, Findings]) -> tuple[str, str, str, str]:
    """The level, whose fault, what and the remedy of the only finding."""
    ((finding,),) = (found[1],)
    return finding["level"], finding["fault"], finding["finding"], finding["remedy"]


def healthy(database: Database) -> None:
    """A worker that lives, and holds the duties."""
    database.rows(WORKER, "1 hour")
    database.rows(HELD)


# -- the whole ----------------------------------------------------------------------------------------------------------


def test_all_is_well_with_a_real_worker(database_url: str, run: Run, look: Look) -> None:
    with background.working(database_url, "tests.system.graph_flows"):
        eventually(lambda: look("duties")[1][0]["finding"].startswith("rescue"))
        code, findings = look()
        assert (code, {it["check"] for it in findings}) == (0, CHECKS)
        assert {it["level"] for it in findings} == {"ok"}
        said = run("doctor")
    assert said.code == 0
    assert said.out.splitlines()[0].split() == ["STATE", "CHECK", "FINDING", "UP", "TO", "WHAT", "TO", "DO"]  # fmt: skip


def test_it_wants_a_worker(look: Look) -> None:
    code, findings = look()
    levels = {it["check"]: it["level"] for it in findings}
    assert code == 1
    assert levels == {**dict.fromkeys(CHECKS, "ok"), "workers": "attention"}


def test_it_can_only_read(database_url: str) -> None:
    start = calls.start_run("o-1", shop.purchase.name, "orders", {
        "version": 1, "priority": 5, "delay_s": None, "body": "{}", "payload": "{}", "actor": None,
        "attributes": None, "memo": None, "on_running": "fail", "on_closed": "fail",
    })  # fmt: skip
    with (
        HealthReader(database_url) as reader,
        pytest.raises(InternalError, match="read-only transaction"),
    ):
        reader.read(start)


def test_a_check_that_hangs_is_a_finding_and_the_others_are_made(
    database_url: str, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "PATIENCE_S", 1)
    with psycopg.connect(database_url) as busy:
        busy.execute("lock durable.duties in access exclusive mode")
        _, findings = look()
    (duties,) = [it for it in findings if it["check"] == "duties"]
    assert (duties["level"], duties["fault"]) == ("problem", "database")
    assert "could not be looked at" in duties["finding"]
    assert {it["check"] for it in findings} == CHECKS


# -- the database -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["server", "schema"])
def test_what_is_missing(look: Look, missing: str, empty_database_url: str) -> None:
    url = "host=/nonexistent" if missing == "server" else empty_database_url
    code, findings = look(None, "--url", url)
    assert (code, [it["check"] for it in findings]) == (
        2,
        ["database" if missing == "server" else "schema"],
    )


def test_sessions_that_cannot_write(look: Look, database: Database) -> None:
    name = database.connection.info.dbname
    database.rows(f'alter database "{name}" set default_transaction_read_only = on')
    level, fault, said, _ = one(look("database"))
    assert (level, fault) == ("problem", "database")
    assert said.endswith("sessions are read-only")


def test_a_database_that_has_not_all_letters(look: Look, postgres_url: str) -> None:
    name = "durable_test_latin"
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f"create database {name} encoding 'LATIN1' locale 'C' template template0")
        try:
            migrate(in_database(postgres_url, name))
            level, fault, said, _ = one(look("database", "--url", in_database(postgres_url, name)))
            assert (level, fault) == ("attention", "operator")
            assert "its encoding is LATIN1" in said
        finally:
            drop(admin, name)


def test_a_schema_that_was_changed_by_hand(look: Look, database: Database) -> None:
    assert one(look("schema"))[2] == "up to date, and as the migrations left it"
    database.rows("alter table durable.jobs set (fillfactor = 70)")  # may be tuned
    assert one(look("schema"))[0] == "ok"
    database.rows("drop index durable.runs_delayed")
    database.rows("alter table durable.runs drop constraint runs_are_legal")
    database.rows("create or replace function durable.from_us(us bigint) returns timestamptz language sql stable as 'select now()'")  # fmt: skip
    database.rows("create table durable.mine ()")
    code, (changed, added) = look("schema")
    assert (code, changed["level"], changed["fault"]) == (2, "problem", "operator")
    assert changed["facts"]["missing"] == [
        "constraint runs_are_legal on durable.runs", "index runs_delayed",
    ]  # fmt: skip
    assert changed["facts"]["changed"] == ["function durable.from_us(bigint)"]
    assert (added["level"], added["facts"]["added"]) == ("attention", ["table mine"])


def test_a_search_path_of_the_user_is_no_drift(look: Look, database: Database) -> None:
    name = database.connection.info.dbname
    database.rows(f'alter database "{name}" set search_path = durable, public')
    assert one(look("schema"))[0] == "ok"


def test_drift_of_a_schema_of_which_nothing_was_written_down(
    look: Look, database: Database
) -> None:
    database.rows("update durable.migration set catalogue = null")
    level, _, said, _ = one(look("schema"))
    assert (level, "nothing was written down" in said) == ("ok", True)


def test_an_invalid_index(look: Look, database: Database) -> None:
    """Left behind by a build that failed, as one does."""
    database.rows(WORKER, "1 hour")
    database.rows(WORKER, "1 hour")
    with pytest.raises(psycopg.errors.UniqueViolation):
        database.rows("create unique index concurrently workers_named on durable.workers (name)")
    level, fault, said, remedy = one(look("indexes"))
    assert (level, fault) == ("problem", "operator")
    assert "workers_named of workers is invalid" in said
    assert remedy.startswith("remove duplicates, then reindex index concurrently durable.workers_")


def test_a_clock_that_was_moved(look: Look, database: Database) -> None:
    database.rows("select durable.advance_clock('1 hour')")
    assert one(look("clock"))[:3] == (
        "attention", "operator", "moved by 1h with durable.advance_clock",
    )  # fmt: skip


def test_a_clock_that_is_off(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 9000)
    level, fault, said, _ = one(look("clock"))
    assert (level, fault) == ("attention", "clocks")
    assert said.startswith(("2h 29m", "2h 30m"))


def test_dead_rows_and_tables_that_are_never_vacuumed(look: Look, database: Database) -> None:
    database.rows("alter table durable.evidence set (autovacuum_enabled = false)")
    database.rows(
        "insert into durable.evidence (shard, run_id, at, kind, body)"
        " select 0, gen_random_uuid(), now(), 'x', '{}' from generate_series(1, 60000)"
    )
    database.rows("delete from durable.evidence")
    database.rows("select pg_stat_force_next_flush()")
    code, findings = eventually(lambda: it if len((it := look("bloat"))[1]) == 2 else (0, []), 5)
    assert code == 1
    assert findings[0]["finding"].startswith("evidence has 60,000 dead rows and 0 live ones; never")
    assert findings[1]["finding"] == "autovacuum is off for evidence"
    assert {it["fault"] for it in findings} == {"database"}


def test_a_transaction_that_never_ends(
    look: Look, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_checks, "LONG_TRANSACTION_S", 0.0)
    with psycopg.connect(database_url, application_name="report") as forgotten:
        forgotten.execute("select 1")
        level, fault, said, remedy = one(look("bloat"))
        pid = forgotten.info.backend_pid
    assert (level, fault) == ("attention", "application")
    assert said.startswith(f"report (pid {pid}, idle in transaction) has been in a transaction")
    assert f"pg_terminate_backend({pid})" in remedy


@pytest.mark.parametrize("by_transaction", [True, False])
def test_a_pooler(
    look: Look, database_url: str, by_transaction: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By transaction, sessions are not one's own, and notifications go to whoever asks next."""
    monkeypatch.setattr(health, "HEARD_WITHIN_S", 0.3)
    with pooler(database_url, by_transaction=by_transaction) as url:
        _, findings = look(None, "--url", url)
    found = {it["check"]: it for it in findings}
    assert found["pooler"]["facts"] == {"pooling": "transaction" if by_transaction else "session"}
    level = "attention" if by_transaction else "ok"
    assert (found["pooler"]["level"], found["notify"]["level"]) == (level, level)
    if by_transaction:
        assert "--no-notify" in found["notify"]["remedy"]
        assert (found["pooler"]["fault"], found["notify"]["fault"]) == ("deployment", "network")


# -- workers and what they do -------------------------------------------------------------------------------------------


def test_workers_that_fell_silent(look: Look, database: Database) -> None:
    database.rows(WORKER, "-1 minute")
    _, (none, late) = look("workers")
    assert (none["finding"], none["fault"]) == ("none is alive", "deployment")
    assert (late["facts"]["state"], late["remedy"]) == (
        "late", "its work goes to the others; see why it ended",
    )  # fmt: skip


def test_duties_that_nobody_does(look: Look, database: Database) -> None:
    database.rows(WORKER, "1 hour")
    code, findings = look("duties")
    assert code == 2
    assert [it["facts"]["name"] for it in findings] == ["rescue", "retention", "schedules"]
    database.rows(HELD)
    database.rows("update durable.duties set lease_until = durable.now() - interval '5 minutes' where name = 'rescue'")  # fmt: skip
    level, fault, said, _ = one(look("duties"))
    assert (level, fault) == ("problem", "deployment")
    assert said.startswith("nobody has done the duty rescue for 5m")


def test_a_rescue_that_is_stuck(look: Look, database: Database, run: Run) -> None:
    healthy(database)
    run("start", shop.purchase.name, ORDER, "--id", "o-1")
    database.rows(
        "insert into durable.workers (worker_id, name, queues, started_at, beat_at, lease_until) values"
        " (gen_random_uuid(), 'gone', '{}', now(), now() - interval '1 hour', now() - interval '1 hour')"
    )
    database.rows("update durable.runs set ready_at = null, epoch = 1, owner = (select worker_id from durable.workers where name = 'gone')")  # fmt: skip
    level, _, said, _ = one(look("duties"))
    assert (level, said) == (
        "problem",
        "gone fell silent 1h ago and still holds 1 workflows: the rescue is stuck",
    )


def test_work_that_nobody_serves(look: Look, database: Database, run: Run) -> None:
    database.rows(WORKER, "-1 minute")
    run("start", shop.purchase.name, ORDER)
    level, fault, said, remedy = one(look("queues"))
    assert (level, fault, "no live worker serves this queue" in said) == (
        "problem", "deployment", True,
    )  # fmt: skip
    assert remedy.endswith("durable worker MODULE --queue orders")


def test_work_that_has_waited_long(look: Look, database: Database, run: Run) -> None:
    healthy(database)
    run("start", shop.purchase.name, ORDER)
    assert one(look("queues"))[0] == "ok"
    database.rows("select durable.advance_clock('10 minutes')")
    level, fault, said, _ = one(look("queues"))
    assert (level, fault, "the oldest for 10m" in said) == ("attention", "deployment", True)
    assert look("queues")[1][0]["facts"]["oldest_s"] >= 600


def test_queues_that_nobody_polls(look: Look, database: Database, run: Run) -> None:
    healthy(database)
    database.define("activity", "print", {}, queue="printers")
    run("queue", "create", "scanners", "--global", "3")
    _, findings = look("queues")
    assert [it["finding"] for it in findings if it["level"] == "attention"] == [
        "no live worker polls printers, and running code has activities or workflows for it",
        "no live worker polls scanners, and it has limits",
    ]


def test_a_paused_queue(look: Look, database: Database, run: Run) -> None:
    healthy(database)
    run("queue", "pause", "orders", "--reason", "the bank is down")
    run("start", shop.purchase.name, ORDER)
    database.rows("select durable.advance_clock('10 minutes')")
    _, (paused, waiting) = look("queues")
    assert (paused["level"], paused["fault"]) == ("attention", "operator")
    assert paused["finding"] == "orders has been paused for 10m: the bank is down"
    assert waiting["level"] == "ok"  # the pause is the reason


def test_runs_to_be_looked_at(look: Look, database: Database, run: Run) -> None:
    healthy(database)
    run("start", shop.purchase.name, ORDER, "--id", "o-1")
    database.rows("""update durable.runs set review = '{"kind": "nondeterminism"}'""")
    assert one(look("review"))[:3] == ("attention", "code", "1 workflows need a look")
    database.rows("""update durable.runs set review = '{"kind": "unknown_workflow"}'""")
    assert one(look("review"))[:2] == ("attention", "deployment")


def test_what_is_parked(
    look: Look, database_url: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An activity whose attempts ran out, and a workflow that an operator holds; by a real worker."""
    flows.create_tables(database_url)
    monkeypatch.setenv("SYSTEM_DATABASE_URL", database_url)
    assert one(look("parked"))[0] == "ok"
    with (
        Client(database_url) as client,
        background.working(database_url, "tests.system.mending_flows"),
    ):
        held = client.start(mending_flows.mended, -1, id="p-1")
        eventually(lambda: held.describe().operator_status == "needs_review")
        level, fault, said, _ = one(look("parked"))
        assert (level, fault) == ("attention", "code")
        assert said == "1 workflows wait for an operator: the attempts of an activity ran out"
        run("pause", "p-1", "--reason", "let me see")
        findings = look("parked")[1]
    assert "1 workflows are paused" in [it["finding"] for it in findings]
