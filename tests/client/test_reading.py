"""describe, history, list, pending."""

from __future__ import annotations

import json
from datetime import UTC
from typing import Any

import pytest

from durable.client_sync import Client
from durable.errors import InvalidOption, WorkflowNotFound
from durable.failure import encode_failure
from durable.store.calls import Call
from tests.client.database import Database
from tests.client.shop import ORDER, Declined, nothing, purchase


def test_times_are_the_databases_in_utc(client: Client, database: Database) -> None:
    database.rows("select durable.advance_clock('1000 days')")
    client._execute(Call("set time zone 'Asia/Kolkata'", {}, lambda rows: rows))
    run = client.start(purchase, ORDER).describe()
    ((expected,),) = database.rows("select created_at from durable.runs")
    assert run.created_at == expected
    assert run.created_at.tzinfo is UTC


@pytest.mark.parametrize("look", ["describe", "history"])
def test_looking_at_nobody_says_so(client: Client, look: str) -> None:
    with pytest.raises(WorkflowNotFound, match="durable list"):
        getattr(client.handle("nope"), look)()


def test_history_can_be_followed(client: Client, database: Database) -> None:
    handle = client.start(purchase, ORDER, id="o-1")
    database.append("o-1", "TimerStarted", {"reason": "sleep"})
    assert [(event.seq, event.type) for event in handle.history(after=1)] == [(2, "TimerStarted")]
    assert handle.history(after=2) == []


def test_list_filters(client: Client, database: Database) -> None:
    for number in range(5):
        client.start(purchase, ORDER, id=f"a-{number}")
    client.start(nothing, id="b-1", delay=60)
    database.end("a-0", "completed", payload={"total": 1})
    database.end("a-1", "failed")

    def ids(**filters: Any) -> list[str]:
        return [run.workflow_id for run in client.list(**filters)]

    assert ids() == ["b-1", "a-4", "a-3", "a-2", "a-1", "a-0"]
    assert ids(limit=2) == ["b-1", "a-4"]
    assert ids(status="failed") == ["a-1"]
    assert ids(workflow="nothing") == ["b-1"]
    assert ids(queue="orders", status="running") == ["a-4", "a-3", "a-2"]
    assert ids(operator_status="waiting") == ["b-1"]
    assert ids(operator_status="done", id_prefix="a-") == ["a-1", "a-0"]
    assert ids(id_prefix="a_") == []


@pytest.mark.parametrize(
    ("filters", "named"),
    [
        ({"status": "fine"}, "status"),
        ({"operator_status": "fine"}, "operator_status"),
        ({"limit": 0}, "limit"),
        ({"limit": 10_001}, "limit"),
        ({"workflow": ""}, "workflow"),
        ({"queue": "\0"}, "queue"),
        ({"id_prefix": "\0"}, "id_prefix"),
    ],
)
def test_c18_bad_filters_name_the_filter(client: Client, filters: Any, named: str) -> None:
    with pytest.raises(InvalidOption, match=f"^{named} "):
        client.list(**filters)


def test_pending_activities_show_attempts_and_errors(client: Client, database: Database) -> None:
    handle = client.start(purchase, ORDER, id="o-1")
    database.append("o-1", "ActivityScheduled", {"name": "bill", "retry": {"max_attempts": 3}})
    database.rows(
        "insert into durable.jobs (shard, run_id, seq, kind, name, queue, state, attempt, scheduled_at, errors, created_at)"
        " select shard, run_id, 2, 'activity', 'bill', 'payments', 'retryable', 2, durable.now(), %s::jsonb, durable.now()"
        " from durable.runs",
        json.dumps([{"attempt": 1, "failure": encode_failure(Declined("no money"))}]),
    )
    (job,) = handle.pending()
    assert (job.seq, job.name, job.state, job.attempt, job.max_attempts) == (
        2,
        "bill",
        "retryable",
        2,
        3,
    )
    assert job.next_at is not None
    assert job.errors[0]["failure"]["message"] == "no money"


def test_a_list_reads_a_few_heads_of_each_shard(database: Database) -> None:
    """At many runs the plan walks the primary key, newest first, and sorts only what came out of it."""
    from durable.store import calls

    database.rows(
        "insert into durable.runs (shard, run_id, workflow_id, workflow, created_at)"
        " select durable.shard_of(n::text), gen_random_uuid(), n::text, 'w', now() - n * interval '1 second'"
        " from generate_series(1, 20000) n"
    )
    database.rows("analyze durable.runs")
    call = calls.list_runs(
        status=None, operator_status=None, workflow=None, queue=None, id_prefix=None, limit=20
    )
    plan = "\n".join(
        row[0] for row in database.connection.execute("explain " + call.statement, call.parameters)
    )
    assert "runs_pkey" in plan
    assert "Seq Scan on runs" not in plan
