"""Limits on a run's life, kept by the database; attributes and details that its code sets."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import psycopg
import pytest

import durable
from durable.client_sync import Client
from durable.errors import InvalidOption, WorkflowFailed, WorkflowTimedOut
from tests.system import limit_flows as flows
from tests.system.conftest import Working
from tests.system.gates import gate
from tests.system.invariants import assert_sound
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]
MODULES = ("tests.system.flows", "tests.system.limit_flows")
HOUR = timedelta(hours=1)
NAIVE = datetime(2027, 1, 1)  # noqa: DTZ001 - no time zone is the point


def advance(sql: Sql, by: timedelta) -> None:
    sql.execute("select durable.advance_clock(%s)", (by,))


def done(sql: Sql) -> list[str]:
    return [key for (key,) in sql.execute("select key from system.executions order by id")]


def status(sql: Sql, workflow_id: str) -> list[str]:
    rows = sql.execute(
        "select status from durable.runs where workflow_id = %s order by generation", (workflow_id,)
    )
    return [value for (value,) in rows]


def continued(sql: Sql, runs: int) -> bool:
    return len(status(sql, "chain")) == runs


# -- timeouts ---------------------------------------------------------------------------------------------------------


def test_a_run_timeout_ends_a_live_run_with_a_typed_failure(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(*MODULES) as background:
        handle = client.start(flows.waits_an_hour_at_most, id="w")
        eventually(lambda: handle.describe().started_at)
        advance(sql, HOUR - timedelta(minutes=1))
        eventually(lambda: handle.describe().operator_status == "waiting")
        assert status(sql, "w") == ["running"]
        advance(sql, timedelta(minutes=1))
        with pytest.raises(WorkflowTimedOut, match="'w' exceeded its run timeout") as ended:
            handle.result(30)
        assert (ended.value.kind, ended.value.workflow_id) == ("run", "w")
        assert isinstance(ended.value, TimeoutError)
        assert isinstance(ended.value, WorkflowFailed)
        eventually(lambda: background.call(len, background.worker.runs) == 0)
    assert done(sql) == []  # no code ran: compensation is what asyncio.timeout is for
    assert_sound(sql)


def test_it_needs_no_worker_that_holds_or_could_run_it(
    working: Working, client: Client, sql: Sql
) -> None:
    handle = client.start(flows.waits_an_hour_at_most, id="w", queue="nobody-serves-it")
    advance(sql, HOUR)
    with working("tests.system.flows"), pytest.raises(WorkflowTimedOut):
        handle.result(30)
    assert [event.type for event in handle.history()] == ["WorkflowStarted", "WorkflowTimedOut"]
    assert_sound(sql)


def test_an_attempt_under_way_is_told_and_its_answer_is_evidence(
    working: Working, client: Client, sql: Sql, system_url: str
) -> None:
    with gate(system_url) as barrier, working(*MODULES):
        handle = client.start(flows.works_an_hour_at_most, 1)
        barrier.wait_for()
        advance(sql, HOUR)
        with pytest.raises(WorkflowTimedOut):
            handle.result(30)
        barrier.open()
        eventually(lambda: sql.execute("select count(*) from durable.jobs").fetchone() == (0,))
    assert_sound(sql)


def test_the_start_s_own_limit_goes_before_the_decorator_s(client: Client, sql: Sql) -> None:
    mine = client.start(flows.waits_an_hour_at_most, run_timeout=timedelta(minutes=1)).describe()
    usual = client.start(flows.waits_an_hour_at_most).describe()
    assert mine.deadline_at == mine.created_at + timedelta(minutes=1)
    assert usual.deadline_at == usual.created_at + HOUR


def test_the_limits_begin_after_the_start_delay(client: Client) -> None:
    run = client.start(flows.waits_an_hour_at_most, delay=HOUR).describe()
    assert run.deadline_at == run.created_at + 2 * HOUR


def test_an_execution_timeout_spans_the_chain(working: Working, client: Client, sql: Sql) -> None:
    with working(*MODULES):
        handle = client.start(flows.continues_for_ever, id="chain")
        for hours, runs in ((1.5, 2), (1.5, 3), (1.5, 4)):
            advance(sql, hours * HOUR)
            handle.signal(flows.go_on, "on")
            assert eventually(partial(continued, sql, runs))
        assert client.handle("chain").describe().status == "running"
        advance(sql, HOUR)
        with pytest.raises(WorkflowTimedOut, match="exceeded its execution timeout") as ended:
            handle.result(30)
        assert ended.value.kind == "execution"
    assert status(sql, "chain") == ["continued", "continued", "continued", "failed"]
    assert_sound(sql)


def test_each_run_of_a_chain_has_its_own_run_timeout(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(*MODULES):
        handle = client.start(flows.continues_for_ever, id="chain")
        advance(sql, HOUR)
        handle.signal(flows.go_on, "on")
        eventually(lambda: len(status(sql, "chain")) == 2)
        advance(sql, 2 * HOUR)
        with pytest.raises(WorkflowTimedOut) as ended:
            handle.result(30)
        assert ended.value.kind == "run"


def test_a_child_that_times_out_is_a_typed_failure(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(*MODULES):
        parent = client.start(flows.has_a_slow_child, 60.0)
        eventually(lambda: status(sql, "slow"))
        advance(sql, timedelta(minutes=1))
        assert parent.result(30) == [
            "failed", "run", "slow", "workflow 'slow' exceeded its run timeout",
        ]  # fmt: skip
    assert_sound(sql)


def test_a_child_has_its_decorator_s_limit(working: Working, client: Client, sql: Sql) -> None:
    with working(*MODULES):
        parent = client.start(flows.has_a_slow_child, None)
        eventually(lambda: status(sql, "slow"))
        advance(sql, HOUR)
        assert parent.result(30)[0] == "failed"


def test_children_of_a_run_that_times_out_follow_their_close_policies(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(*MODULES):
        parent = client.start(flows.leaves_a_child_behind, run_timeout=timedelta(minutes=5))
        eventually(lambda: status(sql, "left"))
        advance(sql, timedelta(minutes=5))
        with pytest.raises(WorkflowTimedOut):
            parent.result(30)
    assert status(sql, "left") == ["terminated"]
    assert_sound(sql)


def test_starts_by_name_and_from_sql_have_the_limit_too(
    working: Working, client: Client, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    with working(*MODULES):
        pass  # it has registered its definitions
    monkeypatch.setattr("durable.targets.local_workflow", lambda _: None)
    run = client.start("waits_an_hour_at_most", {}).describe()
    sql.execute("select durable.start('waits_an_hour_at_most', id => 'by-sql')")
    other = client.handle("by-sql").describe()
    assert run.deadline_at == run.created_at + HOUR
    assert other.deadline_at == other.created_at + HOUR


@pytest.mark.parametrize("option", ["run_timeout", "execution_timeout"])
def test_impossible_limits_are_refused(client: Client, option: str) -> None:
    none: dict[str, Any] = {option: timedelta(0)}
    with pytest.raises(InvalidOption, match=option):
        client.start(flows.continues_for_ever, **none)
    with pytest.raises(InvalidOption, match=option):
        durable.workflow(**none)
    with pytest.raises(InvalidOption, match=option):
        flows.continues_for_ever.options(**none)


# -- attributes and details -------------------------------------------------------------------------------------------


def test_a_run_speaks_about_itself(working: Working, client: Client, sql: Sql) -> None:
    with working(*MODULES, max_cached_runs=0):  # evicted after each turn: replay must agree
        handle = client.start(
            flows.speaks_about_itself, details="the first of May", attributes={flows.amount: 1}
        )
        eventually(lambda: handle.describe().details is not None)
        run = handle.describe()
        assert (run.static_details, run.details) == ("the first of May", "waiting for the bank")
        assert run.attributes == {"limits_customer": "acme", "limits_amount": 7, "free": True}
        (found,) = client.list(where='limits_customer = "acme" and limits_amount > 5')
        assert (found.workflow_id, found.details) == (handle.workflow_id, "waiting for the bank")
        handle.signal(flows.go_on, "1")
        eventually(lambda: handle.describe().details is None)
        run = handle.describe()
        assert (run.details, run.static_details) == (None, "the first of May")
        assert run.attributes["limits_due"] == "2027-03-01T13:00:00.000000Z"
        assert "limits_customer" not in run.attributes
        assert client.list(where='limits_customer = "acme"') == []
        handle.signal(flows.go_on, "2")
        assert handle.result(30) == {
            "seen": [{"limits_amount": 1}, ["acme", 7, None], [None, True]],
            "now": {
                "limits_amount": 7,
                "free": True,
                "limits_due": "2027-03-01T13:00:00.000000Z",
            },
        }
    types = [event.type for event in handle.history()]
    assert (types.count("DetailsSet"), types.count("AttributesSet")) == (2, 3)
    assert_sound(sql)


def test_they_go_along_when_a_run_continues(working: Working, client: Client, sql: Sql) -> None:
    with working(*MODULES):
        handle = client.start(
            flows.carries_attributes_on, 2, attributes={"who": "me"}, details="static"
        )
        assert handle.result(30) == {"who": "me", "limits_amount": 1, "limits_tags": ["last"]}
    run = client.handle(handle.workflow_id).describe()
    assert (run.static_details, run.details) == ("static", "1 to go")
    assert run.attributes == {"who": "me", "limits_amount": 1, "limits_tags": ["last"]}
    assert_sound(sql)


def test_typed_attributes_refuse_what_does_not_fit(client: Client) -> None:
    for given in ({flows.amount: "7"}, {"limits_amount": 7.5}, {flows.customer: 1}):
        with pytest.raises(durable.PayloadError, match="attributes.limits_"):
            client.start(flows.continues_for_ever, attributes=given)
    with pytest.raises(durable.PayloadError, match="not datetime"):
        client.start(flows.continues_for_ever, attributes={flows.due: NAIVE})
    with pytest.raises(InvalidOption, match="declared twice"):
        durable.Attribute("limits_amount", str)
    with pytest.raises(InvalidOption, match="give str, int"):
        durable.Attribute("limits_odd", dict)
    with pytest.raises(durable.NotInWorkflow):
        flows.amount.set(1)
    run = client.start(
        flows.continues_for_ever,
        attributes={flows.due: datetime(2027, 1, 1, tzinfo=UTC), flows.tags: ["a"], "gone": None},
    ).describe()
    assert run.attributes == {"limits_due": "2027-01-01T00:00:00.000000Z", "limits_tags": ["a"]}


def test_memo_is_kept_beside_the_run(client: Client) -> None:
    run = client.start(flows.continues_for_ever, memo={"ticket": [1, {"a": None}]}).describe()
    assert run.memo == {"ticket": [1, {"a": None}]}


def test_a_run_that_timed_out_can_be_retried_with_its_limits_anew(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(*MODULES):
        handle = client.start(flows.waits_an_hour_at_most, id="again")
        advance(sql, HOUR)
        with pytest.raises(WorkflowTimedOut):
            handle.result(30)
        client.handle("again").retry("the bank was on strike")
        run = client.handle("again").describe()
        assert run.deadline_at == run.created_at + HOUR
        client.handle("again").signal(flows.go_on, "paid")
        assert client.handle("again").result(30) == "paid"
    assert_sound(sql)
