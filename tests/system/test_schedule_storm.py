"""Many schedules, several workers, a clock that leaps: every slot once, whatever the pace."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from durable.client_sync import Client
from durable.core.schedule_policy import OVERLAPS
from durable.core.schedule_times import Times, slots
from tests.system import schedule_flows
from tests.system.conftest import Working
from tests.system.invariants import assert_sound
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]

MODULES = ("tests.system.flows", "tests.system.schedule_flows")
ALL_DECIDED = (
    "select count(*) from durable.schedules where next_at <= durable.now() or before <> '[]'"
)
WITHOUT_RUN = """
select count(*) from durable.schedule_slots s where s.decision = 'started' and not exists (
    select from durable.runs r where r.shard = s.target_shard and r.workflow_id = s.target)
"""
TIMES = ["*/7 * * * *", "30 * * * *", "0 */2 * * *", "15 3 * * *", "*/11 1-3 * * *", "5,35 * * * *"]


def one(sql: Sql, query: str) -> int:
    row = sql.execute(query.encode()).fetchone()
    assert row is not None
    return int(row[0])


def test_no_slot_is_lost_and_none_doubled(working: Working, client: Client, sql: Sql) -> None:
    """Over the night in which Berlin's clock goes back, in leaps of some minutes to some hours, while schedules are paused, resumed,
    triggered, changed, and the duty's holder is told that it is dead."""
    rng = random.Random(7)
    begin = datetime(2031, 10, 25, 22, 0, 3, tzinfo=UTC)
    sql.execute("select durable.advance_clock(%s - durable.now())", (begin,))
    handles = [
        client.schedule(
            f"s{n}",
            schedule_flows.scheduled_report,
            cron=TIMES[n],
            timezone="Europe/Berlin",
            overlap=OVERLAPS[n],
        )
        for n in range(6)
    ]
    ((begin_us,),) = sql.execute(
        "select max(durable.to_us(cursor_at)) from durable.schedules"
    ).fetchall()
    with working(*MODULES), working(*MODULES), working(*MODULES):
        for _ in range(12):
            sql.execute(
                "select durable.advance_clock(%s)",
                (timedelta(minutes=rng.choice([3, 20, 61, 200])),),
            )
            rng.choice(handles).trigger(overlap="allow")
            changed = rng.choice(handles)
            changed.pause()
            changed.resume()
            sql.execute("update durable.duties set holder = null where name = 'schedules'")
        eventually(lambda: one(sql, ALL_DECIDED) == 0)
        eventually(
            lambda: one(sql, "select count(*) from durable.runs where status = 'running'") == 0
        )
    ((now_us,),) = sql.execute("select durable.to_us(durable.now())").fetchall()
    for n, handle in enumerate(handles):
        decided = [each for each in handle.slots(limit=10_000) if each.origin == "time"]
        seen = sorted(int(each.scheduled_for.timestamp()) * 1_000_000 for each in decided)
        expected = []
        for slot in slots(Times(cron=(TIMES[n],), timezone="Europe/Berlin"), begin_us):
            if slot > max(seen, default=0) or slot > now_us:
                break
            expected.append(slot)
        assert seen == expected
        assert now_us - max(seen, default=begin_us) < 26 * 3_600_000_000
    assert one(sql, WITHOUT_RUN) == 0
    started = "select count(*) from durable.schedule_slots where decision = 'started'"
    assert one(sql, started) == one(sql, "select count(*) from durable.runs")
    assert_sound(sql)
