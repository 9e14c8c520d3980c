"""One command over a filter: counted first, done once each, and taken up again after a crash."""

from __future__ import annotations

import json
import signal
import subprocess
from typing import Any

import psycopg
import pytest

from durable.client_sync import Client
from durable.descriptions import BatchProgress
from durable.errors import InvalidOption, UnknownSignal
from tests.cli.conftest import spawn
from tests.system import mending_flows as flows
from tests.system.conftest import Working
from tests.system.invariants import assert_sound
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]
MODULE = flows.__name__


@pytest.fixture(autouse=True)
def unbroken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows, "broken", {"charge": True, "code": True})


def count(sql: Sql, query: str) -> int:
    row = sql.execute(query.encode()).fetchone()
    assert row is not None
    return int(row[0])


def test_a_dry_run_counts_and_writes_nothing(client: Client, sql: Sql) -> None:
    for n in range(7):
        client.start(flows.words, 1, id=f"w-{n}", attributes={"region": "eu" if n < 3 else "us"})
    client.start(flows.ticks, 1, id="other")
    counted = client.batch("cancel", "workflow=words status=running", reason="try", dry_run=True)
    assert (counted.matched, counted.accepted) == (7, 0)
    by_region = client.batch(
        "cancel", "workflow=words attribute.region=eu", reason="try", dry_run=True
    )
    assert by_region.matched == 3
    prefixed = client.batch("cancel", {"id_prefix": "w-1"}, reason="try", dry_run=True)
    assert prefixed.matched == 1
    assert count(sql, "select count(*) from durable.batches") == 0
    assert count(sql, "select count(*) from durable.operator_commands") == 0


def test_each_run_is_commanded_once_and_recorded(client: Client, sql: Sql) -> None:
    for n in range(230):
        client.start(flows.words, 1, id=f"w-{n}")
    client.start(flows.ticks, 1, id="other")
    passes: list[BatchProgress] = []
    done = client.batch(
        "terminate", "workflow=words", reason="a bad release", actor="ann", progress=passes.append
    )
    assert (done.matched, done.accepted, done.refused) == (230, 230, 0)
    assert done.finished_at is not None
    assert [it.accepted for it in passes] == [100, 200, 230]
    assert count(sql, "select count(*) from durable.runs where status = 'terminated'") == 230
    assert client.handle("other").describe().status == "running"
    records = client.commands(1000, batch_id=done.batch_id)
    assert {(it.action, it.reason, it.actor, it.code) for it in records} == {
        ("terminate", "a bad release", "ann", "accepted")
    }
    assert len({it.workflow_id for it in records}) == len(records) == 230
    assert client.resume_batch(done.batch_id) == done
    assert client.batches()[0] == done


def test_what_is_refused_is_counted_and_recorded_and_no_reason_to_stop(
    client: Client, sql: Sql
) -> None:
    for n in range(5):
        client.start(flows.words, 1, id=f"w-{n}")
    client.handle("w-3").pause("by hand")
    done = client.batch("pause", "workflow=words", reason="an incident")
    assert (done.accepted, done.refused) == (4, 1)
    refused = [it for it in client.commands(batch_id=done.batch_id) if not it.accepted]
    assert [(it.workflow_id, it.code) for it in refused] == [("w-3", "already_paused")]
    resumed = client.batch("resume", "operator_status=blocked", reason="over")
    assert (resumed.accepted, resumed.refused) == (5, 0)


def test_failed_runs_are_retried_and_signals_sent(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(MODULE):
        handles = [client.start(flows.order_flow, n, id=f"o-{n}") for n in range(12)]
        for handle in handles:
            assert handle.outcome(timeout=30).status == "failed"
        flows.broken["charge"] = False
        done = client.batch("retry", "workflow=order_flow status=failed", reason="it is back")
        assert (done.accepted, done.refused) == (12, 0)
        results = [client.handle(f"o-{n}").result(timeout=30) for n in range(12)]
        assert results == [["first", n, "beside"] for n in range(12)]
        waiting = [client.start(flows.words, 1, id=f"w-{n}") for n in range(3)]
        sent = client.batch(
            "signal", "workflow=words", reason="go on", signal="mending_word", value="go"
        )
        assert sent.accepted == 3
        assert [handle.result(timeout=30) for handle in waiting] == [["go"]] * 3
        reset = client.batch("reset", "workflow=words", reason="again", to_event=1)
        assert reset.accepted == 3
        assert [client.handle(f"w-{n}").result(timeout=30) for n in range(3)] == [["go"]] * 3
    assert_sound(sql)


@pytest.mark.parametrize(
    ("action", "where", "options", "match"),
    [
        ("cancel", "", {}, "where is empty"),
        ("cancel", "colour=red", {}, "no condition 'colour'"),
        ("cancel", "status=done", {}, "status is 'done'"),
        ("cancel", "workflow", {}, "conditions look like"),
        ("explode", "workflow=words", {}, "action is 'explode'"),
        ("signal", "workflow=words", {}, "needs signal="),
        ("reset", "workflow=words", {}, "give one of to_event="),
        ("pause", "workflow=words", {"to_event": 3}, "has no option 'to_event'"),
    ],
)
def test_nonsense_is_refused_before_anything_is_written(
    client: Client, sql: Sql, action: Any, where: str, options: dict[str, Any], match: str
) -> None:
    client.start(flows.words, 1, id="w-1")
    with pytest.raises(InvalidOption, match=match):
        client.batch(action, where, reason="no", **options)
    with pytest.raises(UnknownSignal):
        client.batch("signal", "workflow=words", reason="no", signal="nobody_knows_it")
    assert count(sql, "select count(*) from durable.batches") == 0


def test_a_batch_whose_caller_was_killed_is_taken_up_again(
    system_url: str, client: Client, sql: Sql
) -> None:
    """SIGKILL in its midst: what it did stays done, once; the rest is done by who goes on with it."""
    for n in range(400):
        client.start(flows.words, 1, id=f"w-{n}")
    arguments = ("terminate", "--where", "workflow=words", "--reason", "a bad release")
    caller = spawn(*arguments, url=system_url)
    commanded = "select count(*) from durable.operator_commands"
    eventually(lambda: count(sql, commanded) >= 20 or caller.poll() is not None)
    caller.send_signal(signal.SIGKILL)
    caller.communicate()
    begun = count(sql, commanded)
    assert 20 <= begun < 400, "the caller was killed in the midst"
    (batch,) = client.batches()
    assert (batch.finished_at, batch.accepted) == (None, begun)
    resumed = _run("batch", "resume", batch.batch_id, "--json", url=system_url)
    done = json.loads(resumed.stdout)
    assert (done["accepted"], done["refused"]) == (400, 0)
    assert count(sql, commanded) == 400
    assert count(sql, "select count(*) from durable.runs where status <> 'terminated'") == 0


def _run(*arguments: str, url: str) -> subprocess.CompletedProcess[str]:
    process = spawn(*arguments, url=url)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)
