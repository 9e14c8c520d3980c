"""Maintenance without a leader to lose: duties are held under a lease, handed over within it, and fenced."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from durable.client_sync import Client
from tests.system import flows, schedule_flows
from tests.system.conftest import Working
from tests.system.invariants import assert_sound
from tests.system.processes import Fleet
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]

MODULES = ("tests.system.flows", "tests.system.schedule_flows")
DUTIES = {"rescue", "schedules", "retention"}
HOUR = timedelta(hours=1)


def holders(sql: Sql) -> dict[str, Any]:
    """By duty, the process that holds it."""
    rows = sql.execute(
        "select d.name, (w.info ->> 'pid')::int from durable.duties d left join durable.workers w on w.worker_id = d.holder"
    ).fetchall()
    return dict(rows)


def held_by(sql: Sql, pid: int) -> bool:
    return holders(sql) == dict.fromkeys(DUTIES, pid)


def advance(sql: Sql, by: timedelta) -> None:
    sql.execute("select durable.advance_clock(%s)", (by,))


def slots(sql: Sql) -> list[tuple[Any, ...]]:
    return sql.execute(
        "select slot_at, decision, target from durable.schedule_slots order by slot_at"
    ).fetchall()


def test_the_holder_is_killed_and_no_slot_is_lost_or_doubled(
    fleet: Fleet, system_url: str, client: Client, sql: Sql
) -> None:
    """Two processes, hour after hour; whoever holds the duties is killed with SIGKILL, three times."""
    sql.execute(
        "select durable.advance_clock(%s - durable.now())",
        (datetime(2031, 1, 1, 0, 0, 5, tzinfo=UTC),),
    )
    client.schedule("hourly", schedule_flows.scheduled_report, cron="0 * * * *", overlap="allow")
    workers = [fleet.hire(system_url, *MODULES, lease_s=1.5).ready() for _ in range(2)]
    for _ in range(3):
        pids = {worker.pid: worker for worker in workers}
        eventually(lambda: holders(sql).get("schedules") in pids)  # noqa: B023
        advance(sql, HOUR)
        victim = pids[holders(sql)["schedules"]]
        victim.kill()
        advance(sql, HOUR)
        survivor = next(worker for worker in workers if worker is not victim)
        eventually(lambda: held_by(sql, survivor.pid), 15.0, what="the other one has taken over")  # noqa: B023
        workers = [survivor, fleet.hire(system_url, *MODULES, lease_s=1.5).ready()]
    eventually(lambda: len(slots(sql)) == 6, what="every slot has its decision")
    assert [at.hour for at, _, _ in slots(sql)] == [1, 2, 3, 4, 5, 6]
    assert {decision for _, decision, _ in slots(sql)} == {"started"}
    eventually(lambda: len(client.list(status="completed")) == 6)
    assert len(client.list()) == 6
    assert_sound(sql)


def test_a_dead_worker_s_runs_come_back_though_it_held_the_rescue(
    fleet: Fleet, system_url: str, client: Client, sql: Sql
) -> None:
    victim = fleet.hire(system_url, *MODULES, lease_s=1.0).ready()
    eventually(lambda: held_by(sql, victim.pid))
    handle = client.start(schedule_flows.scheduled_wait, id="w")
    eventually(lambda: handle.describe().operator_status == "waiting")
    other = fleet.hire(system_url, *MODULES, lease_s=1.0).ready()
    victim.kill()
    handle.signal(flows.go, 7)
    assert handle.result(timeout=15) == 7
    assert held_by(sql, other.pid)


def test_a_worker_that_stops_leaves_its_duties_at_once(
    fleet: Fleet, system_url: str, sql: Sql
) -> None:
    """With a lease of a minute: nobody waits for it."""
    first = fleet.hire(system_url, *MODULES, lease_s=60.0).ready()
    eventually(lambda: held_by(sql, first.pid))
    second = fleet.hire(system_url, *MODULES, lease_s=60.0).ready()
    assert first.stop() == 0
    eventually(lambda: held_by(sql, second.pid), 10.0)


def test_a_frozen_holder_that_wakes_up_writes_nothing(
    fleet: Fleet, system_url: str, client: Client, sql: Sql
) -> None:
    """C2: it believes that it still holds the duty; the epoch says otherwise, and it finds out."""
    frozen = fleet.hire(system_url, *MODULES, lease_s=1.0).ready()
    eventually(lambda: held_by(sql, frozen.pid))
    client.schedule("s", schedule_flows.scheduled_report, every=HOUR, overlap="allow")
    frozen.freeze()
    other = fleet.hire(system_url, *MODULES, lease_s=1.0).ready()
    eventually(lambda: held_by(sql, other.pid))
    advance(sql, 3 * HOUR)
    frozen.thaw()
    eventually(lambda: len(slots(sql)) == 3)
    eventually(lambda: len(client.list(status="completed")) == 3)
    assert len(slots(sql)) == len(client.list()) == 3
    ((epoch,),) = sql.execute(
        "select epoch from durable.duties where name = 'schedules'"
    ).fetchall()
    assert epoch >= 2


def test_the_fence_refuses_an_old_epoch(working: Working, client: Client, sql: Sql) -> None:
    client.schedule("s", schedule_flows.scheduled_report, every=HOUR)
    with working(*MODULES) as background:
        eventually(lambda: background.worker.duties.held.keys() == DUTIES)
        owner = background.worker.worker_id
        empty = "'{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}'"
        for holder, epoch in ((owner, 0), ("00000000-0000-0000-0000-000000000000", 1)):
            with pytest.raises(psycopg.DatabaseError, match="another holder"):
                sql.execute(
                    f"select durable.decide_slots(%s, %s, 's', 1, 0, 0, 0, null, {empty})",
                    (holder, epoch),
                )
            with pytest.raises(psycopg.DatabaseError, match="another holder"):
                sql.execute(
                    "select durable.prune_runs(%s, %s, 0::smallint, null, 1, 1, null, false)",
                    (holder, epoch),
                )


def test_only_one_of_many_holds_a_duty(working: Working, sql: Sql) -> None:
    with working(*MODULES) as one, working(*MODULES) as two, working(*MODULES) as three:
        workers = [each.worker for each in (one, two, three)]
        eventually(lambda: sum(len(worker.duties.held) for worker in workers) == 3)
        ((epochs,),) = sql.execute("select array_agg(epoch) from durable.duties").fetchall()
        assert epochs == [1, 1, 1]


def test_the_holder_prunes_by_the_rules(working: Working, client: Client, sql: Sql) -> None:
    with working(*MODULES, retention_gap_s=0.1):
        old = [client.start(flows.quick_steps, 1, id=f"old-{n}") for n in range(5)]
        for handle in old:
            handle.result(timeout=10)
        waits = client.start(schedule_flows.scheduled_wait, id="open")
        advance(sql, 48 * HOUR)
        client.start(flows.quick_steps, 1, id="young").result(timeout=10)
        client.set_retention("run", 24 * HOUR, archive=True)
        eventually(lambda: {run.workflow_id for run in client.list()} == {"open", "young"})
        assert [each.kind for each in client.archived("old-3")] == ["run"]
        waits.signal(flows.go, 1)
        assert waits.result(timeout=10) == 1
    assert_sound(sql)
