"""What is pruned, what never is, and what the archive keeps."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from durable import InvalidOption
from durable.client_sync import Client
from durable.store import retention_calls
from tests.client.database import Database
from tests.client.shop import ORDER, Payment, bill, payment_arrived, purchase

DAY = timedelta(days=1)
OF_RUNS = ("runs", "history", "inbox", "signals", "evidence", "operator_commands")


@pytest.fixture(autouse=True)
def closed(client: Client, database: Database) -> None:
    """Runs of every end, one of them open; a finished and a waiting job."""
    for end in ("completed", "failed", "cancelled"):
        handle = client.start(purchase, ORDER, id=end)
        handle.signal(payment_arrived, Payment(amount=1))
        database.end(end, end, payload={"total": 1})
        database.rows("delete from durable.inbox")
    client.start(purchase, ORDER, id="terminated").terminate("no")
    client.start(purchase, ORDER, id="open").signal(payment_arrived, Payment(amount=1))
    for state in ("completed", "discarded"):
        job = client.enqueue(bill, ORDER)
        database.rows(
            "update durable.jobs set state = %s, finished_at = durable.now() where run_id = %s::uuid",
            state,
            job.job_id,
        )
    client.enqueue(bill, ORDER)
    advance(database, 10 * DAY)


def advance(database: Database, by: timedelta) -> None:
    database.rows("select durable.advance_clock(%s)", by)


def ids(client: Client) -> set[str]:
    return {run.workflow_id for run in client.list()}


def states(database: Database) -> list[str]:
    return [state for (state,) in database.rows("select state from durable.jobs order by state")]


def test_nothing_is_pruned_unless_a_rule_says_so(client: Client, database: Database) -> None:
    before = database.counts()
    report = client.prune()
    assert (report.runs, report.jobs, report.slots) == (0, 0, 0)
    assert database.counts() == before


def test_closed_runs_go_with_all_that_belongs_to_them_and_open_ones_stay(
    client: Client, database: Database
) -> None:
    report = client.prune(kind="run", older_than=DAY)
    assert report.runs == 4
    assert ids(client) == {"open"}
    ((open_run,),) = database.rows("select run_id from durable.runs")
    for table in OF_RUNS:
        assert {run for (run,) in database.rows(f"select run_id from durable.{table}")} <= {
            open_run
        }
    assert (
        database.counts()["signals"]
        == database.counts()["inbox"]
        == database.counts()["history"]
        == 1
    )
    assert len(states(database)) == 3


def test_age_counts_from_the_end(client: Client, database: Database) -> None:
    client.handle("open").terminate("late")
    assert client.prune(kind="run", older_than=5 * DAY).runs == 4
    assert ids(client) == {"open"}
    advance(database, 6 * DAY)
    assert client.prune(kind="run", older_than=5 * DAY).runs == 1


def test_jobs_go_by_their_state(client: Client, database: Database) -> None:
    assert client.prune(kind="job", older_than=DAY, state="completed").jobs == 1
    assert states(database) == ["available", "discarded"]
    assert client.prune(kind="job", older_than=DAY, queue="other").jobs == 0
    assert client.prune(kind="job", older_than=DAY, queue="payments").jobs == 1
    assert states(database) == ["available"]


def test_a_dry_run_counts_and_changes_nothing(client: Client, database: Database) -> None:
    before = database.counts()
    report = client.prune(older_than=DAY, archive=True, dry_run=True)
    assert (report.runs, report.jobs, report.archived, report.dry_run) == (4, 2, 6, True)
    assert database.counts() == before
    assert database.rows("select * from durable.archive") == []


RULES: list[tuple[list[tuple[Any, str, str]], set[str]]] = [
    # rules (keep, queue, state); what is left
    ([(DAY, "*", "*")], {"open"}),
    ([(30 * DAY, "*", "*")], {"open", "completed", "failed", "cancelled", "terminated"}),
    ([(DAY, "*", "*"), (None, "*", "failed")], {"open", "failed"}),
    ([(None, "*", "*"), (DAY, "orders", "*")], {"open"}),
    ([(DAY, "*", "*"), (None, "orders", "*"), (DAY, "orders", "failed")], {"open", "completed", "cancelled", "terminated"}),
    ([(DAY, "*", "failed"), (None, "orders", "*")], {"open", "completed", "failed", "cancelled", "terminated"}),
    ([(DAY, "mail", "*")], {"open", "completed", "failed", "cancelled", "terminated"}),
]  # fmt: skip


@pytest.mark.parametrize(("rules", "left"), RULES)
def test_the_most_exact_rule_counts(
    rules: list[tuple[Any, str, str]], left: set[str], client: Client
) -> None:
    for keep, queue, state in rules:
        client.set_retention("run", keep, queue=queue, state=state)
    client.prune()
    assert ids(client) == left


def test_rules_are_listed_changed_and_removed(client: Client) -> None:
    client.set_retention("job", DAY, state="completed")
    client.set_retention("job", 2 * DAY, state="completed", archive=True)
    (rule,) = client.retention()
    assert (rule.kind, rule.queue, rule.state, rule.keep_s, rule.archive) == (
        "job",
        "*",
        "completed",
        172800.0,
        True,
    )
    assert client.unset_retention("job", state="completed")
    assert not client.unset_retention("job", state="completed")


def test_the_archive_keeps_everything(client: Client, database: Database) -> None:
    history = [event.type for event in client.handle("completed").history()]
    client.prune(older_than=DAY, archive=True)
    (kept,) = client.archived("completed")
    assert kept.kind == "run"
    assert kept.record["run"]["status"] == "completed"
    assert [event["type"] for event in kept.record["history"]] == history
    assert [each["name"] for each in kept.record["signals"]] == ["payment_arrived"]
    assert database.rows("select count(*) from durable.archive") == [(6,)]


def test_what_an_open_run_continues_stays_unless_a_rule_names_it(
    client: Client, database: Database
) -> None:
    client.start(purchase, ORDER, id="chain")
    database.end("chain", "continued")
    client.start(purchase, ORDER, id="chain", on_closed="new")
    advance(database, 10 * DAY)
    generations = "select generation from durable.runs where workflow_id = 'chain' order by 1"
    client.prune(older_than=DAY)
    assert database.rows(generations) == [(0,), (1,)]
    client.prune(older_than=DAY, state="continued")
    assert database.rows(generations) == [(1,)]


def test_a_pass_is_bounded(
    client: Client, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by the events: here each pass may delete those of a single run, and all of them go nevertheless."""
    monkeypatch.setattr(retention_calls, "SCAN", 1)
    monkeypatch.setattr(retention_calls, "ROWS", 1)
    for number in range(30):
        client.start(purchase, ORDER, id=f"more-{number}").terminate("no")
    advance(database, 10 * DAY)
    for row in database.rows("select distinct shard from durable.runs"):
        last_id, pruned, _ = database.rows(
            "select * from durable.prune_runs(null, null, %s::smallint, null, 500, 1, %s::jsonb, true)",
            row[0], '[{"kind": "run", "queue": "*", "state": "*", "keep_s": 0, "archive": false}]',
        )[0]  # fmt: skip
        assert pruned <= 1
        assert last_id is None or pruned == 1
    assert client.prune(kind="run", older_than=DAY).runs == 34
    assert ids(client) == {"open"}


def test_every_table_of_a_run_is_pruned(database: Database) -> None:
    """A feature's new table is found by its columns; one that names runs in another way must be thought of here."""
    ((found,),) = database.rows("select durable.tables_of_runs()")
    assert set(OF_RUNS) - {"runs"} <= set(found)
    assert "archive" not in found


def test_what_late_answers_have_left_goes_with_a_job(client: Client, database: Database) -> None:
    ((shard, job_id),) = database.rows(
        "select shard, run_id from durable.jobs where state = 'completed'"
    )
    database.rows(
        "insert into durable.evidence (shard, run_id, at, kind, body) values (%s, %s, now(), 'OutcomeRefused', '{}')",
        shard,
        job_id,
    )
    client.prune(kind="job", older_than=DAY)
    assert database.rows("select * from durable.evidence where run_id = %s", job_id) == []


def test_large_payloads_of_what_was_archived_are_still_referred_to(
    client: Client, database: Database
) -> None:
    key = "ab" * 32
    envelope = f'{{"durable:encoded": [], "ref": "{key}", "size": 5}}'
    database.rows("update durable.history set payload = %s::json where seq = 1", envelope)
    client.prune(kind="run", older_than=DAY, archive=True)
    database.rows("delete from durable.history")
    assert (key,) in database.rows("select durable.payload_refs()")


@pytest.mark.parametrize(
    "nonsense",
    [
        {"kind": "run", "keep": DAY, "state": "running"},
        {"kind": "job", "keep": DAY, "state": "available"},
        {"kind": "history", "keep": DAY},
        {"kind": "run", "keep": -1},
        {"kind": "run", "keep": DAY, "queue": ""},
        {"kind": "slot", "keep": DAY, "archive": True},
        {"kind": "slot", "keep": DAY, "state": "pending"},
    ],
)
def test_nonsense_is_refused(client: Client, database: Database, nonsense: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption):
        client.set_retention(nonsense.pop("kind"), nonsense.pop("keep"), **nonsense)
    assert client.retention() == []


def test_filters_need_an_age(client: Client) -> None:
    with pytest.raises(InvalidOption, match="older_than"):
        client.prune(state="completed")
    with pytest.raises(InvalidOption, match="state"):
        client.prune(kind="job", older_than=DAY, state="failed")
