"""Signals are never lost, never doubled, and every attempt leaves its trace (C11)."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from durable.client_sync import Client
from durable.errors import WorkflowClosed
from tests.system import flows
from tests.system.conftest import Working
from tests.system.gates import gate
from tests.system.invariants import assert_sound
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]
LONG_LEASE = {"lease_s": 1e7}


def advance(sql: Sql, by: timedelta) -> None:
    sql.execute("select durable.advance_clock(%s)", (by,))


def statuses(client: Client, workflow_id: str) -> list[str]:
    return [evidence.status for evidence in client.handle(workflow_id).signals()]


def test_signals_sent_before_a_delayed_start_wait_for_it_in_order(
    working: Working, client: Client, sql: Sql
) -> None:
    """C11: buffered before start; and the start waits for its delay although messages are there (C19)."""
    handle = client.start(flows.listens, 3, id="l", delay=timedelta(hours=1))
    for text in ("a", "b", "c"):
        handle.signal(flows.word, text)
    with working(**LONG_LEASE):
        assert client.start(flows.steps, 1, id="other").result(timeout=30)
        assert handle.describe().last_seq == 1
        advance(sql, timedelta(hours=1, seconds=1))
        assert handle.result(timeout=30) == ["a", "b", "c"]
    assert statuses(client, "l") == ["delivered"] * 3
    assert_sound(sql)


def test_signals_sent_before_receive_are_kept(
    working: Working, system_url: str, client: Client, sql: Sql
) -> None:
    """C11: they arrive while the code is at something else."""
    with working(), gate(system_url, 1) as held:
        handle = client.start(flows.listens_after_a_step, 2, 1, id="l")
        held.wait_for(1)
        handle.signal(flows.word, "early")
        handle.signal(flows.word, "bird")
        eventually(lambda: statuses(client, "l") == ["delivered"] * 2)
        held.open()
        assert handle.result(timeout=30) == ["early", "bird"]
    assert_sound(sql)


def test_a_flood_from_many_senders_arrives_once_each_in_the_order_of_each_sender(
    working: Working, system_url: str, client: Client, sql: Sql
) -> None:
    """C1, C11: 16 senders, 25 words each, two workers polling hard."""
    fast = {"poll_s": 0.005, "poll_min_s": 0.0005}
    with working(**fast), working(**fast):
        handle = client.start(flows.listens, 400, id="l")

        def speak(sender: int) -> None:
            with Client(system_url) as mine:
                for number in range(25):
                    mine.handle("l").signal(flows.word, f"{sender}/{number}")

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(speak, range(16)))
        heard = handle.result(timeout=60)
    assert len(set(heard)) == len(heard) == 400
    for sender in range(16):
        mine = [text for text in heard if text.startswith(f"{sender}/")]
        assert mine == [f"{sender}/{number}" for number in range(25)]
    assert_sound(sql)


def test_of_32_senders_with_one_dedupe_key_one_is_heard(
    working: Working, system_url: str, client: Client, sql: Sql
) -> None:
    """C11: the others are told `duplicate`, and each leaves its evidence."""
    handle = client.start(flows.listens, 2, id="l")

    def speak(sender: int) -> str:
        with Client(system_url) as mine:
            return mine.handle("l").signal(flows.word, f"{sender}", dedupe_key="once").status

    with working():
        with ThreadPoolExecutor(32) as pool:
            answers = sorted(pool.map(speak, range(32)))
        handle.signal(flows.word, "another", dedupe_key="twice")
        heard = handle.result(timeout=30)
    assert answers == ["buffered"] + ["duplicate"] * 31
    assert heard[1] == "another"
    assert sorted(statuses(client, "l")) == ["delivered"] * 2 + ["duplicate"] * 31
    assert_sound(sql)


def test_receive_gives_up_after_its_timeout_by_the_databases_clock(
    working: Working, client: Client, sql: Sql
) -> None:
    """C10, C19: an hour; the signal that comes after the run has closed is late, with the reason."""
    with working(**LONG_LEASE):
        handle = client.start(flows.waits_an_hour_for_a_word, id="w")
        eventually(lambda: "word" in str(handle.describe().waiting_on))
        advance(sql, timedelta(minutes=59))
        assert client.start(flows.steps, 1, id="other").result(timeout=30)
        assert handle.describe().status == "running"
        advance(sql, timedelta(minutes=2))
        assert handle.result(timeout=30) == "nobody spoke"
    with pytest.raises(WorkflowClosed):
        handle.signal(flows.word, "too late")
    (evidence,) = handle.signals()
    assert (evidence.status, evidence.reason) == ("late", "the run is completed")
    assert_sound(sql)


def test_a_signal_that_arrives_first_cancels_the_deadline(
    working: Working, client: Client, sql: Sql
) -> None:
    with working():
        handle = client.start(flows.waits_an_hour_for_a_word, id="w")
        eventually(lambda: "word" in str(handle.describe().waiting_on))
        handle.signal(flows.word, "here I am")
        assert handle.result(timeout=30) == "here I am"
    assert "TimerCancelled" not in [e.type for e in handle.history()][-1:]
    assert sql.execute("select count(*) from durable.jobs").fetchone() == (0,)
    assert_sound(sql)


def test_what_a_caller_rolls_back_was_never_sent(
    working: Working, system_url: str, client: Client, sql: Sql
) -> None:
    """C11: `connection=` joins the caller's transaction; also through the SQL functions."""
    handle = client.start(flows.listens, 2, id="l")
    with psycopg.connect(system_url) as callers:
        handle.signal(flows.word, "no", dedupe_key="k", connection=callers)
        callers.execute("select durable.signal('l', 'word', %s)", (json.dumps("neither"),))
        client.start(flows.steps, 1, id="never", connection=callers)
        callers.rollback()
        handle.signal(flows.word, "yes", dedupe_key="k", connection=callers)
        callers.execute("select durable.signal('l', 'word', %s)", (json.dumps("and this"),))
        callers.commit()
    with working():
        assert handle.result(timeout=30) == ["yes", "and this"]
    assert statuses(client, "l") == ["delivered"] * 2
    assert sql.execute("select count(*) from durable.runs").fetchone() == (1,)
    assert_sound(sql)


def test_a_signal_whose_transaction_ends_after_the_run_becomes_evidence(
    working: Working, system_url: str, client: Client, sql: Sql
) -> None:
    """C11: the run closed while the sender's transaction was open: the message is swept, the evidence says `dropped`."""
    with working(lease_s=1.0), psycopg.connect(system_url) as callers:
        handle = client.start(flows.listens, 1, id="l")
        handle.signal(flows.word, "slow", connection=callers)
        handle.signal(flows.word, "quick")
        assert handle.result(timeout=30) == ["quick"]
        callers.commit()
        eventually(lambda: sorted(statuses(client, "l")) == ["delivered", "dropped"])
    (dropped,) = [e for e in handle.signals() if e.status == "dropped"]
    assert dropped.reason == "the run closed before it was read"
    assert sql.execute("select count(*) from durable.inbox").fetchone() == (0,)
    assert_sound(sql)


def test_a_run_is_claimed_while_a_senders_transaction_is_open(
    working: Working, system_url: str, client: Client, sql: Sql
) -> None:
    """The sender's lock on the run's row is against continue-as-new alone."""
    handle = client.start(flows.listens, 1, id="l")
    with psycopg.connect(system_url) as callers:
        handle.signal(flows.word, "pending", connection=callers)
        handle.signal(flows.word, "sent")
        with working():
            assert handle.result(timeout=30) == ["sent"]
        callers.rollback()
    assert_sound(sql)


def test_an_open_transaction_with_a_signal_or_a_start_in_it_holds_nobody_up(
    working: Working, system_url: str, client: Client, sql: Sql
) -> None:
    """The inbox is there for this: the owner commits turns of the very run while the sender's transaction is open."""
    with working(), gate(system_url, 1) as held, psycopg.connect(system_url) as callers:
        handle = client.start(flows.listens_after_a_step, 1, 1, id="l")
        held.wait_for(1)
        handle.signal(flows.word, "pending", dedupe_key="k", connection=callers)
        client.start(flows.steps, 1, id="unborn", connection=callers)
        handle.cancel("perhaps", connection=callers)
        held.open()
        eventually(lambda: "ActivityCompleted" in [e.type for e in handle.history()], 5.0)
        assert client.start(flows.steps, 3, id="other").result(timeout=10)
        callers.rollback()
        handle.signal(flows.word, "sent")
        assert handle.result(timeout=30) == ["sent"]
    assert_sound(sql)
