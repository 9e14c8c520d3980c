"""Activities that are completed from outside, by token: accepted once, within the timeouts, and refused with a reason and evidence otherwise (C5)."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from datetime import date, timedelta
from typing import Any

import psycopg
import pytest

from durable import NonRetryable, cli
from durable.client_async import AsyncClient
from durable.client_sync import Client
from durable.completion_errors import CompletionRefused
from durable.errors import (
    ActivityError,
    ActivityTimeout,
    InvalidOption,
    PayloadError,
    WorkflowCancelled,
    WorkflowFailed,
)
from tests.system import completion_flows as flows
from tests.system.completion_flows import Approval
from tests.system.conftest import Working
from tests.system.gates import gate
from tests.system.invariants import assert_sound
from tests.system.processes import Fleet
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]
FLOWS = ("tests.system.flows", "tests.system.completion_flows")
LONG_LEASE = {"lease_s": 1e7}
YES = Approval(by="ada", on=date(2026, 1, 2))


@pytest.fixture(autouse=True)
def with_tokens(system_url: str, sql: Sql) -> None:
    sql.execute(flows.TOKENS.encode())


def token_of(sql: Sql, key: str, attempt: int = 1) -> str:
    """The token that the attempt has handed over."""
    query = "select token from system.tokens where key = %s and attempt = %s"
    rows = eventually(lambda: sql.execute(query, (key, attempt)).fetchall())
    return str(rows[0][0])


def parked(sql: Sql) -> bool:
    return sql.execute("select state from durable.jobs").fetchall() == [("waiting",)]


def evidence(sql: Sql) -> list[str]:
    return [
        reason
        for (reason,) in sql.execute(
            "select body ->> 'reason' from durable.evidence where kind = 'CompletionRefused' order by at"
        )
    ]


def advance(sql: Sql, **by: float) -> None:
    sql.execute("select durable.advance_clock(%s)", (timedelta(**by),))


def refusal(client: Client, token: str) -> str:
    with pytest.raises(CompletionRefused) as refused:
        client.complete(token, YES)
    return refused.value.reason


@pytest.mark.parametrize("name", ["approve", "approve_async"])
def test_it_frees_slot_and_lease_and_is_completed_later(
    name: str, working: Working, client: Client, sql: Sql
) -> None:
    with working(*FLOWS, queues={"default": 1}) as background:
        handle = client.start(flows.asks_for_approval, name, "a", id="a")
        token = token_of(sql, "a")
        eventually(lambda: parked(sql))
        other = client.start(flows.asks_for_approval, name, "b")
        other_token = token_of(sql, "b")
        eventually(lambda: len(background.worker.attempts) == 0)
        (job,) = handle.pending()
        assert (job.state, job.attempt, job.owner, job.next_at) == ("waiting", 1, None, None)
    with working(*FLOWS):  # not even the worker is needed
        client.complete(token, YES, actor="the office")
        assert handle.result(timeout=30) == "ada on 2026-01-02"
        client.complete(other_token, {"by": "bob", "on": "2026-01-03"})
        assert other.result(timeout=30) == "bob on 2026-01-03"
    (event,) = (e for e in handle.history() if e.type == "ActivityCompleted")
    assert event.body == {"ref": 2, "attempt": 1, "elsewhere": True, "actor": "the office"}
    assert_sound(sql)


def test_the_asynchronous_client_does_the_same(
    working: Working, system_url: str, client: Client, sql: Sql
) -> None:
    async def answer(token: str) -> None:
        async with AsyncClient(system_url) as office:
            assert not (await office.heartbeat(token, 1)).cancel_requested
            await office.complete(token, YES)
            with pytest.raises(CompletionRefused):
                await office.fail(token, "too late")

    with working(*FLOWS):
        handle = client.start(flows.asks_for_approval, "approve", "a")
        asyncio.run(answer(token_of(sql, "a")))
        assert handle.result(timeout=30) == "ada on 2026-01-02"


def test_standalone_jobs_too(working: Working, client: Client, sql: Sql) -> None:
    with working(*FLOWS):
        job, failing = client.enqueue(flows.approve, "a"), client.enqueue(flows.approve, "b")
        client.complete(token_of(sql, "a"), YES)
        assert job.result(timeout=30) == YES
        client.fail(token_of(sql, "b"), ValueError("no"), retry=False)
        with pytest.raises(ActivityError) as failed:
            failing.result(timeout=30)
        assert isinstance(failed.value.cause, ValueError)
        assert refusal(client, token_of(sql, "a")) == "duplicate"


def test_an_answer_may_be_faster_than_the_attempt(
    working: Working, system_url: str, client: Client, sql: Sql
) -> None:
    """It comes while the function still runs; what that does then is of no account."""
    with gate(system_url, 1) as closed, working(*FLOWS) as background:
        handle = client.start(flows.asks_for_approval, "approve_slowly", "a", 1)
        client.complete(token_of(sql, "a"), YES)
        assert handle.result(timeout=30) == "ada on 2026-01-02"
        closed.open()
        eventually(lambda: len(background.worker.attempts) == 0)
    assert evidence(sql) == []
    assert_sound(sql)


def test_the_type_is_checked_before_anything_is_written(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(*FLOWS):
        handle = client.start(flows.asks_for_approval, "approve", "a")
        token = token_of(sql, "a")
        for wrong in (5, {"by": "ada"}, {"by": "ada", "on": "someday"}, object()):
            with pytest.raises(PayloadError):
                client.complete(token, wrong)
        client.complete(token, YES)
        assert handle.result(timeout=30) == "ada on 2026-01-02"
    assert evidence(sql) == []


def test_a_token_is_bound_to_its_run_event_and_attempt_and_never_logged(
    working: Working, client: Client, sql: Sql, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), working(*FLOWS):
        handles = [client.start(flows.asks_for_approval, "approve", key) for key in "ab"]
        tokens = [token_of(sql, key) for key in "ab"]
        eventually(lambda: sql.execute("select count(*) from durable.jobs where state = 'waiting'").fetchone() == (2,))  # fmt: skip
        mine, other = (token.split(".") for token in tokens)
        assert refusal(client, ".".join([*other[:5], mine[5]])) == "forged"
        for place in (3, 4):
            moved = [*mine]
            moved[place] = str(int(mine[place]) + 1)
            assert refusal(client, ".".join(moved)) == "forged"
        with pytest.raises(CompletionRefused) as refused:
            client.heartbeat(".".join([*other[:5], mine[5]]))
        for token in tokens:
            client.complete(token, YES)
        assert [it.result(timeout=30) for it in handles] == ["ada on 2026-01-02"] * 2
    for secret in (mine[5], other[5]):
        assert secret not in caplog.text
        assert secret not in str(refused.value)


def test_duplicate_late_and_forged_ones_are_refused_and_kept(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(*FLOWS, **LONG_LEASE):
        handle = client.start(flows.asks_for_approval, "approve", "a", id="a")
        token = token_of(sql, "a")
        head, _, secret = token.rpartition(".")
        forged = f"{head}.{secret[::-1]}"
        assert refusal(client, forged) == "forged"
        client.complete(token, YES)
        assert refusal(client, token) == "duplicate"
        assert handle.result(timeout=30) == "ada on 2026-01-02"
        timed = client.start(flows.asks_for_approval, "approve_in_time", "t")
        first = token_of(sql, "t")
        eventually(lambda: parked(sql))
        advance(sql, minutes=11)
        advance(sql, seconds=60)
        second = token_of(sql, "t", 2)
        assert refusal(client, first) == "late"
        client.complete(second, YES)
        assert timed.result(timeout=30) == "ada on 2026-01-02"
    assert evidence(sql) == ["forged", "duplicate", "late"]
    assert_sound(sql)


def test_what_is_no_token_is_refused_and_not_repeated(client: Client) -> None:
    for text in ("", "x", "dct.1.2.3.4", "dct.1.no-run.2.1." + 40 * "s", 5):
        with pytest.raises(InvalidOption) as refused:
            client.complete(text, 1)  # type: ignore[arg-type]
        assert 40 * "s" not in str(refused.value)


def test_the_database_knows_only_the_hash(working: Working, client: Client, sql: Sql) -> None:
    with working(*FLOWS):
        client.start(flows.asks_for_approval, "approve", "a")
        token = token_of(sql, "a")
        eventually(lambda: parked(sql))
    assert len(token.rpartition(".")[2]) >= 43
    for (table,) in sql.execute(
        "select relname from pg_class where relnamespace = 'durable'::regnamespace and relkind = 'r'"
    ).fetchall():
        rows = sql.execute(f"select t::text from durable.{table} t".encode()).fetchall()
        assert not [row for (row,) in rows if token.rpartition(".")[2] in row], table


def test_a_failure_is_retried_with_a_new_token_until_attempts_run_out(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(*FLOWS, **LONG_LEASE):
        handle = client.start(flows.asks_for_approval, "approve", "a")
        for attempt in (1, 2, 3):
            client.fail(token_of(sql, "a", attempt), ValueError(f"no {attempt}"))
            advance(sql, minutes=1)
        with pytest.raises(WorkflowFailed) as failed:
            handle.result(timeout=30)
    error = failed.value.cause
    assert isinstance(error, ActivityError)
    assert (error.attempt, error.retry_state, str(error.cause)) == (3, "max_attempts", "no 3")
    assert_sound(sql)


@pytest.mark.parametrize("how", ["policy", "NonRetryable", "retry=False", "text"])
def test_a_failure_may_be_final(how: str, working: Working, client: Client, sql: Sql) -> None:
    errors: dict[str, BaseException | str] = {
        "policy": PermissionError("no"),
        "NonRetryable": NonRetryable("no"),
        "retry=False": ValueError("no"),
        "text": "no",
    }
    with working(*FLOWS):
        handle = client.start(flows.asks_for_approval, "approve_or_refuse", "a")
        client.fail(token_of(sql, "a"), errors[how], retry=how in ("policy", "NonRetryable"))
        with pytest.raises(WorkflowFailed) as failed:
            handle.result(timeout=30)
    error = failed.value.cause
    assert isinstance(error, ActivityError)
    assert (error.attempt, error.retry_state, str(error.cause)) == (1, "non_retryable", "no")


def test_heartbeats_keep_it_waiting_within_start_to_close(
    working: Working, client: Client, sql: Sql
) -> None:
    """Six heartbeats of nine minutes pass the heartbeat timeout of ten; none passes the hour. The next attempt gets the last details."""
    with working(*FLOWS, **LONG_LEASE):
        client.start(flows.asks_for_approval, "approve_in_time", "a")
        token = token_of(sql, "a")
        eventually(lambda: parked(sql))
        for n in range(6):
            advance(sql, minutes=9)
            assert not client.heartbeat(token, {"round": n}).cancel_requested
        kind = sql.execute("select deadline_kind from durable.jobs").fetchone()
        assert kind == ("start_to_close",)
        advance(sql, minutes=7)
        eventually(lambda: sql.execute("select state from durable.jobs where state = 'waiting'").fetchall() == [])  # fmt: skip
        with pytest.raises(CompletionRefused):
            client.heartbeat(token)
        advance(sql, minutes=1)
        assert token_of(sql, "a", 2) != token
    details = sql.execute("select details from system.tokens where attempt = 2").fetchone()
    assert details == ([{"round": 5}],)


def test_schedule_to_close_is_final(working: Working, client: Client, sql: Sql) -> None:
    with working(*FLOWS, **LONG_LEASE):
        handle = client.start(flows.asks_for_approval, "approve_in_all", "a")
        token = token_of(sql, "a")
        eventually(lambda: parked(sql))
        advance(sql, minutes=61)
        with pytest.raises(WorkflowFailed) as failed:
            handle.result(timeout=30)
        assert refusal(client, token) == "late"
    assert isinstance(failed.value.cause, ActivityTimeout)
    assert failed.value.cause.kind == "schedule_to_close"
    assert_sound(sql)


def test_a_cancelled_run_sees_it_cancelled_and_the_token_says_so(
    working: Working, client: Client, sql: Sql
) -> None:
    """C9."""
    with working(*FLOWS):
        handle = client.start(flows.asks_for_approval, "approve", "a", id="a")
        token = token_of(sql, "a")
        eventually(lambda: parked(sql))
        assert not client.heartbeat(token).cancel_requested
        handle.cancel("enough")
        with pytest.raises(WorkflowCancelled):
            handle.result(timeout=30)
        assert client.heartbeat(token).cancel_requested
        assert refusal(client, token) == "late"
    assert evidence(sql) == ["late"]
    assert_sound(sql)


def test_it_joins_the_callers_transaction(
    working: Working, system_url: str, client: Client, sql: Sql
) -> None:
    with working(*FLOWS), psycopg.connect(system_url) as office:
        handle = client.start(flows.asks_for_approval, "approve", "a")
        token = token_of(sql, "a")
        client.complete(token, YES, connection=office)
        office.rollback()
        assert handle.describe().status == "running"
        client.complete(token, YES, connection=office)
        office.commit()
        assert handle.result(timeout=30) == "ada on 2026-01-02"


def test_sql_does_it_too(working: Working, client: Client, sql: Sql) -> None:
    def answer(statement: str, *values: Any) -> Any:
        row = sql.execute(statement.encode(), values).fetchone()
        assert row is not None
        return row[0]

    with working(*FLOWS):
        handle = client.start(flows.asks_for_approval, "approve", "a")
        failing = client.start(flows.asks_for_approval, "approve", "b")
        token = token_of(sql, "a")
        eventually(lambda: sql.execute("select 1 from durable.completions having count(*) = 2").fetchall())  # fmt: skip
        given = '{"by": "sql", "on": "2026-01-02"}'
        assert answer("select durable.complete(%s, %s)", token, given) == "accepted"
        assert answer("select durable.complete(%s, %s)", token, given) == "duplicate"
        assert answer("select durable.fail(%s, 'no', false)", token_of(sql, "b")) == "accepted"
        assert handle.result(timeout=30) == "sql on 2026-01-02"
        with pytest.raises(WorkflowFailed):
            failing.result(timeout=30)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("forgets", "take durable.activity_info().completion_token first"),
        ("transactional", "cannot be completed from elsewhere"),
        ("local", "cannot be completed from elsewhere"),
    ],
)
def test_where_nobody_could_complete_it_the_attempt_fails(
    how: str, says: str, working: Working, client: Client
) -> None:
    with working(*FLOWS):
        assert says in client.start(flows.cannot_be_completed, how).result(timeout=30)


@pytest.mark.parametrize("point", ["token.before", "token.after", "park.before", "park.after"])
def test_killed_anywhere_one_token_completes_it(
    point: str, fleet: Fleet, working: Working, system_url: str, client: Client, sql: Sql
) -> None:
    """Killed before it is parked, the attempt is lost and another hands out its own token; the old one is late."""
    handle = client.start(flows.asks_for_approval, "approve", "k", id="k")
    victim = fleet.hire(system_url, *FLOWS, lease_s=1.0, env={"DURABLE_CRASH_AT": f"{point}:1"})
    eventually(victim.ended)
    with working(*FLOWS):
        attempts = 1 if point == "park.after" else 2
        token = token_of(sql, "k", attempts)
        for (lost,) in sql.execute(
            "select token from system.tokens where attempt < %s", (attempts,)
        ):
            assert refusal(client, lost) in ("late", "forged")
        client.complete(token, YES)
        assert handle.result(timeout=30) == "ada on 2026-01-02"
    assert_sound(sql)


class CommandLine:
    """The commands, in this process."""

    def __init__(
        self, url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self._url = url
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        self._capsys.readouterr()
        self._monkeypatch.setattr("sys.argv", ["durable", *arguments, "--url", self._url])
        with pytest.raises(SystemExit) as left:
            cli.main()
        said = self._capsys.readouterr()
        return int(left.value.code or 0), said.out, said.err


@pytest.fixture
def durable_command(
    system_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> CommandLine:
    return CommandLine(system_url, capsys, monkeypatch)


def test_the_commands(
    durable_command: CommandLine,
    working: Working,
    client: Client,
    sql: Sql,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with working(*FLOWS):
        handle = client.start(flows.asks_for_approval, "approve", "a")
        failing = client.start(flows.asks_for_approval, "approve", "b")
        token, other = token_of(sql, "a"), token_of(sql, "b")
        code, out, _ = durable_command("heartbeat", token, '{"percent": 40}', "--json")
        assert (code, json.loads(out)) == (0, {"cancel_requested": False})
        assert durable_command("heartbeat", token)[1] == "go on\n"
        assert durable_command("complete", token, '{"by": 5}')[0] == 2
        monkeypatch.setattr("sys.stdin", io.StringIO(f"{token}\n"))
        code, out, _ = durable_command("complete", "-", '{"by": "ada", "on": "2026-01-02"}')
        assert (code, out) == (0, "completed the activity\n")
        code, _, err = durable_command("complete", token, "{}", "--json")
        assert code in (1, 2)
        code, _, err = durable_command("fail", token, "no")
        assert code == 1
        assert "completed or failed before" in err
        assert token not in err
        assert durable_command("complete", "nonsense")[0] == 2
        code, out, _ = durable_command("fail", other, "no", "--no-retry", "--json")
        assert (code, json.loads(out)) == (0, {"status": "failed"})
        assert handle.result(timeout=30) == "ada on 2026-01-02"
        with pytest.raises(WorkflowFailed):
            failing.result(timeout=30)
