"""A workflow that goes on as another run of its id: nothing that it had not read is lost, and everybody follows."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from durable.client_sync import Client
from durable.errors import WorkflowCancelled
from tests.system import family_flows as family
from tests.system.conftest import Working
from tests.system.gates import gate
from tests.system.invariants import assert_sound
from tests.system.processes import Fleet
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]
MODULES = ("tests.system.flows", "tests.system.family_flows")

NOT_ARRIVED = """
    select count(*) from durable.inbox i join durable.runs r on r.shard = i.shard and r.run_id = i.run_id where r.status <> 'running'
"""


def generations(sql: Sql, workflow_id: str) -> list[str]:
    rows = sql.execute(
        "select status from durable.runs where workflow_id = %s order by generation", (workflow_id,)
    )
    return [status for (status,) in rows]


def test_twenty_generations_lose_no_signal_in_flight(
    working: Working, client: Client, sql: Sql
) -> None:
    """Signals sent one by one, while runs end and begin, are received once each and in order (C11)."""
    with working(*MODULES):
        handle = client.start(family.collecting_on, 0, [], 60, 20, id="c")
        for number in range(60):
            handle.signal(family.proceed, number, dedupe_key=f"{number}")
        assert handle.result(timeout=60) == list(range(60))
        assert client.handle("c").result(timeout=10) == list(range(60))
    assert generations(sql, "c") == ["continued"] * 20 + ["completed"]
    statuses = sql.execute(
        "select status, count(*), count(distinct signal_id) from durable.signals group by 1"
    ).fetchall()
    assert statuses == [("delivered", 60, 60)]
    assert_sound(sql)


def test_signals_of_one_turn_that_were_not_received_keep_their_order(
    working: Working, client: Client, sql: Sql
) -> None:
    handle = client.start(family.collecting_on, 0, [], 12, 20, id="c")
    for number in range(12):
        handle.signal(family.proceed, number)
    with working(*MODULES):
        assert handle.result(timeout=60) == list(range(12))
    assert_sound(sql)


def test_a_dedupe_key_holds_for_the_runs_that_follow(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(*MODULES):
        handle = client.start(family.collecting_on, 0, [], 3, 20, id="c")
        for number in range(2):
            handle.signal(family.proceed, number, dedupe_key=f"{number}")
        eventually(lambda: generations(sql, "c") == ["continued", "running"])
        assert handle.signal(family.proceed, 0, dedupe_key="0").status == "duplicate"
        handle.signal(family.proceed, 2, dedupe_key="2")
        assert handle.result(timeout=30) == [0, 1, 2]
    assert_sound(sql)


def test_a_slow_duplicate_does_not_reach_the_run_that_follows(
    working: Working, client: Client, sql: Sql, system_url: str
) -> None:
    """Its transaction ends after the run, and the key has been used since: it is kept as evidence, and delivered to nobody."""
    with working(*MODULES, lease_s=1.0), psycopg.connect(system_url) as slow:
        handle = client.start(family.collecting_on, 0, [], 4, 20, id="c")
        handle.signal(family.proceed, 99, dedupe_key="k", connection=slow)
        handle.signal(family.proceed, 0)
        handle.signal(family.proceed, 1)
        eventually(lambda: generations(sql, "c") == ["continued", "running"])
        handle.signal(family.proceed, 2, dedupe_key="k")
        slow.commit()
        eventually(lambda: sql.execute(NOT_ARRIVED).fetchone() == (0,))
        handle.signal(family.proceed, 3)
        assert handle.result(timeout=30) == [0, 1, 2, 3]
    keyed = "select status from durable.signals where dedupe_key = 'k' order by 1"
    assert sql.execute(keyed).fetchall() == [("delivered",), ("duplicate",)]
    assert_sound(sql)


def test_who_and_what_it_is_goes_along(working: Working, client: Client, sql: Sql) -> None:
    with working(*MODULES):
        client.start(
            family.counting_down, 2, id="c", actor="alice", headers={"trace": "1"}, attributes={"city": "Oslo"},
            memo={"note": "n"}, priority=3,
        ).result(timeout=30)  # fmt: skip
    rows = sql.execute("select actor, attributes, memo, priority from durable.runs").fetchall()
    assert rows == [("alice", {"city": "Oslo"}, {"note": "n"}, 3)] * 3
    body = client.handle("c").history()[0].body
    assert (body["headers"], body["continued"]) == ({"trace": "1"}, 2)


def test_a_message_that_came_too_late_for_a_run_reaches_its_successor(
    working: Working, client: Client, sql: Sql
) -> None:
    """A sender may have read the run as running and commit after it continued: housekeeping sends the message on."""
    with working(*MODULES):
        handle = client.start(family.collecting_on, 0, [], 3, 20, id="c")
        for number in range(2):
            handle.signal(family.proceed, number)
        eventually(lambda: generations(sql, "c") == ["continued", "running"])
    with psycopg.connect(sql.info.dsn, password=sql.info.password) as late:
        sent = late.execute(
            "select run_id, shard from durable.runs where status = 'continued'"
        ).fetchone()
        assert sent is not None
        handle.signal(family.proceed, 2)
        for table in ("inbox", "signals"):
            late.execute(
                f"update durable.{table} set run_id = %s where shard = %s".encode()
                + (b" and status = 'buffered'" if table == "signals" else b""),
                sent,
            )
    with working(*MODULES):
        assert handle.result(timeout=30) == [0, 1, 2]
    assert_sound(sql)


def test_a_cancel_reaches_the_newest_run(working: Working, client: Client, sql: Sql) -> None:
    with working(*MODULES):
        handle = client.start(family.collecting_on, 0, [], 9, 20, id="c")
        for number in range(2):
            handle.signal(family.proceed, number)
        eventually(lambda: generations(sql, "c") == ["continued", "running"])
        handle.cancel("stop")
        with pytest.raises(WorkflowCancelled):
            handle.result(timeout=30)
    assert_sound(sql)


def test_a_child_that_continues_answers_its_parent_at_the_end(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(*MODULES):
        assert client.start(family.continuing_child, id="p").result(timeout=30) == "landed"
    assert generations(sql, "rocket") == ["continued"] * 3 + ["completed"]
    assert_sound(sql)


def test_continuing_does_not_end_children(
    working: Working, system_url: str, client: Client, sql: Sql
) -> None:
    """C15; and the successor's children have ids of their own."""
    with working(*MODULES), gate(system_url, 62) as held:
        parent = client.start(family.continues_with_child, 1, 62, id="p")
        held.wait_for(1)
        parent.signal(family.proceed, 1)
        held.wait_for(2)
        assert generations(sql, "p/gated_leaf-1") == ["running"]
        held.open()
        assert parent.result(timeout=30) == "child 0"
        eventually(lambda: generations(sql, "p/gated_leaf-1") == ["completed"])
        assert generations(sql, "p/1/gated_leaf-1") == ["completed"]
    assert_sound(sql)


def test_a_killed_worker_neither_ends_nor_doubles_the_chain(
    fleet: Fleet, system_url: str, client: Client, sql: Sql
) -> None:
    first = fleet.hire(system_url, *MODULES).ready()
    handle = client.start(family.collecting_on, 0, [], 60, 20, id="c")
    for number in range(30):
        handle.signal(family.proceed, number)
    eventually(lambda: len(generations(sql, "c")) > 3)
    first.kill()
    fleet.hire(system_url, *MODULES).ready()
    for number in range(30, 60):
        handle.signal(family.proceed, number)
    assert handle.result(timeout=60) == list(range(60))
    assert generations(sql, "c") == ["continued"] * 20 + ["completed"]
    assert_sound(sql)
