"""Samples that wait for days: the tests move the database's clock."""

from __future__ import annotations

from typing import Any

import psycopg

from durable import Client
from samples.approval import Decision, Expense, decision, file_expense
from samples.reminders import Done, Outcome, Plan, done, remind
from tests.samples.conftest import Working
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]
EXPENSE = Expense(employee="Ada", what="punched cards", cents=4_200)


def advance(sql: Sql, by: str) -> None:
    sql.execute("select durable.advance_clock(%s::interval)", (by,))


def calls(client: Client, workflow_id: str, activity: str) -> int:
    return sum(
        event.type == "ActivityScheduled" and event.body["name"] == activity
        for event in client.handle(workflow_id).history()
    )


def waits_after(client: Client, workflow_id: str, activity: str, times: int) -> None:
    """Wait until the activity has been called so often and the run waits for what comes next."""

    def parked() -> bool:
        events = client.handle(workflow_id).history()
        return calls(client, workflow_id, activity) == times and events[-1].type == "TimerStarted"

    eventually(parked)


def test_reminders_come_every_few_days_until_it_is_done(
    client: Client, working: Working, sql: Sql
) -> None:
    with working("samples.reminders"):
        handle = client.start(remind, Plan(person="Ada", what="water the plants"), id="r1")
        waits_after(client, "r1", "send_reminder", 0)
        advance(sql, "3 days")
        waits_after(client, "r1", "send_reminder", 1)
        advance(sql, "7 days")
        waits_after(client, "r1", "send_reminder", 2)
        handle.signal(done, Done(note="they are wet"))
        assert handle.result(timeout=30) == Outcome(reminders=2, done=True, note="they are wet")


def test_reminders_end_when_nobody_answers(client: Client, working: Working, sql: Sql) -> None:
    with working("samples.reminders"):
        handle = client.start(
            remind, Plan(person="Ada", what="water the plants", at_most=2), id="r2"
        )
        for times, days in enumerate(("3 days", "7 days", "7 days")):
            waits_after(client, "r2", "send_reminder", times)
            advance(sql, days)
        assert handle.result(timeout=30) == Outcome(reminders=2, done=False)


def test_a_sleep_goes_on_without_any_worker(client: Client, working: Working, sql: Sql) -> None:
    with working("samples.reminders"):
        handle = client.start(remind, Plan(person="Ada", what="water the plants"), id="r3")
        waits_after(client, "r3", "send_reminder", 0)
    advance(sql, "30 days")  # nobody is there; the date passes in the database alone
    with working("samples.reminders"):
        waits_after(client, "r3", "send_reminder", 1)
        handle.signal(done, Done())
        assert handle.result(timeout=30).reminders == 1


def test_a_decision_in_time_is_paid_out(client: Client, working: Working) -> None:
    with working("samples.approval"):
        handle = client.start(file_expense, EXPENSE, id="e1")
        handle.signal(decision, Decision(by="team lead", approved=True))
        assert handle.result(timeout=30).approved
    assert calls(client, "e1", "pay_out") == 1
    assert calls(client, "e1", "ask") == 1


def test_silence_goes_up_the_ladder(client: Client, working: Working, sql: Sql) -> None:
    with working("samples.approval"):
        handle = client.start(file_expense, EXPENSE, id="e2")
        waits_after(client, "e2", "ask", 1)
        advance(sql, "2 days")
        waits_after(client, "e2", "ask", 2)
        handle.signal(
            decision, Decision(by="department head", approved=False, reason="too many holes")
        )
        assert handle.result(timeout=30).reason == "too many holes"
    assert calls(client, "e2", "pay_out") == 0


def test_silence_to_the_end_is_a_no(client: Client, working: Working, sql: Sql) -> None:
    with working("samples.approval"):
        handle = client.start(file_expense, EXPENSE, id="e3")
        waits_after(client, "e3", "ask", 1)
        advance(sql, "2 days")
        waits_after(client, "e3", "ask", 2)
        advance(sql, "5 days")
        assert handle.result(timeout=30) == Decision(
            by="nobody", approved=False, reason="nobody has decided in time"
        )
    assert calls(client, "e3", "pay_out") == 0
