"""Schedules as a whole: a worker, the database's clock, and what becomes of each slot."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import psycopg
import pytest

import durable
from durable.client_sync import Client
from durable.scheduling_sync import ScheduleHandle
from tests.system import flows, schedule_flows, versions_old
from tests.system.conftest import Working
from tests.system.invariants import assert_sound
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]

MODULES = ("tests.system.flows", "tests.system.schedule_flows")
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def advance(sql: Sql, by: timedelta) -> None:
    sql.execute("select durable.advance_clock(%s)", (by,))


def set_clock(sql: Sql, at: datetime) -> None:
    """Move the database's clock forward to `at`."""
    sql.execute("select durable.advance_clock(%s - durable.now())", (at,))


def decisions(handle: ScheduleHandle) -> list[tuple[str, str]]:
    """The slots in order, as day and hour, with what was decided."""
    return [
        (each.scheduled_for.strftime("%d %H:%M"), each.decision)
        for each in reversed(handle.slots())
    ]


def decided(handle: ScheduleHandle, count: int) -> list[tuple[str, str]]:
    """Wait until so many slots have their decision."""
    eventually(lambda: len(settled(handle)) >= count, what=f"{count} slots are decided")
    return decisions(handle)


def settled(handle: ScheduleHandle) -> list[Any]:
    return [each for each in handle.slots(limit=10_000) if each.decision != "pending"]


@pytest.fixture
def noon(sql: Sql) -> datetime:
    """The clock stands a little after noon, in a year to come."""
    at = datetime(2031, 3, 10, 12, 0, 5, tzinfo=UTC)
    set_clock(sql, at)
    return at


def test_each_slot_starts_once_and_the_run_knows_its_slot(
    working: Working, client: Client, sql: Sql, noon: datetime
) -> None:
    with working(*MODULES), working(*MODULES), working(*MODULES):
        handle = client.schedule(
            "nightly", schedule_flows.scheduled_report, "books", cron="0 * * * *"
        )
        for hour in (13, 14):
            advance(sql, HOUR)
            run = client.handle(
                f"nightly/2031-03-10T{hour}:00:00Z", schedule_flows.scheduled_report
            )
            eventually(partial(client.list, id_prefix=f"nightly/2031-03-10T{hour}"))
            assert run.result(timeout=10) == ["books", "nightly", f"2031-03-10T{hour}:00:00+00:00"]
        assert decided(handle, 2) == [("10 13:00", "started"), ("10 14:00", "started")]
        assert [each.outcome for each in handle.slots()] == ["completed", "completed"]
    assert len(client.list()) == 2
    assert_sound(sql)


def test_downtime_loses_no_slot_and_the_catch_up_window_is_recorded(
    working: Working, client: Client, sql: Sql, noon: datetime
) -> None:
    handle = client.schedule(
        "late",
        schedule_flows.scheduled_report,
        cron="0 * * * *",
        overlap="allow",
        catch_up=2 * HOUR,
    )
    advance(sql, 5 * HOUR)
    with working(*MODULES):
        assert decided(handle, 5) == [
            ("10 13:00", "missed"),
            ("10 14:00", "missed"),
            ("10 15:00", "missed"),
            ("10 16:00", "started"),
            ("10 17:00", "started"),
        ]
    reason = handle.slots(decision="missed")[0].reason
    assert reason is not None
    assert "catch-up window" in reason


def test_a_job_of_its_own_is_scheduled_like_a_workflow(
    working: Working, client: Client, sql: Sql, noon: datetime
) -> None:
    """Issue 4: cron for plain jobs uses the same schedules."""
    handle = client.schedule("mail", schedule_flows.scheduled_job, "x", every=HOUR, offset=60)
    with working(*MODULES):
        advance(sql, HOUR)
        (slot,) = eventually(
            lambda: [each for each in handle.slots() if each.outcome == "completed"]
        )
        assert slot.kind == "job"
        ((result,),) = sql.execute("select result from durable.jobs").fetchall()
        assert result == ["x", "mail", "2031-03-10T12:01:00+00:00"]


@pytest.fixture
def open_one(working: Working, client: Client, sql: Sql, noon: datetime) -> Iterator[Any]:
    """Makes a schedule with an overlap policy, whose run of 13:00 is open."""
    with working(*MODULES):

        def make(overlap: Any) -> ScheduleHandle:
            handle = client.schedule(
                "o", schedule_flows.scheduled_wait, cron="0 * * * *", overlap=overlap
            )
            advance(sql, HOUR)
            decided(handle, 1)
            eventually(lambda: client.list(operator_status="waiting"))
            return handle

        yield make


def run_of(client: Client, hour: int) -> Any:
    return client.handle(f"o/2031-03-10T{hour}:00:00Z", schedule_flows.scheduled_wait)


def end(client: Client, hour: int) -> None:
    run_of(client, hour).signal(flows.go, 1)
    assert run_of(client, hour).result(timeout=10) == 1


def test_skip(open_one: Any, client: Client, sql: Sql) -> None:
    handle = open_one("skip")
    advance(sql, HOUR)
    assert decided(handle, 2) == [("10 13:00", "started"), ("10 14:00", "skipped")]
    assert handle.slots()[0].reason == "the run before it is open"
    end(client, 13)
    advance(sql, HOUR)
    assert decided(handle, 3)[-1] == ("10 15:00", "started")


def test_buffer_one(open_one: Any, client: Client, sql: Sql) -> None:
    handle = open_one("buffer_one")
    advance(sql, 2 * HOUR)
    assert decided(handle, 3)[1:] == [("10 14:00", "buffered"), ("10 15:00", "skipped")]
    end(client, 13)
    eventually(lambda: decisions(handle)[1] == ("10 14:00", "started"))
    end(client, 14)
    assert decisions(handle)[2] == ("10 15:00", "skipped")


def test_buffer_all(open_one: Any, client: Client, sql: Sql) -> None:
    handle = open_one("buffer_all")
    advance(sql, 2 * HOUR)
    assert decided(handle, 3)[1:] == [("10 14:00", "buffered"), ("10 15:00", "buffered")]
    for hour in (13, 14, 15):
        eventually(partial(client.list, id_prefix=f"o/2031-03-10T{hour}"))
        assert len(client.list(status="running")) == 1
        end(client, hour)
    assert [each for _, each in decisions(handle)] == ["started"] * 3


def test_cancel_stops_the_open_run_then_starts(open_one: Any, client: Client, sql: Sql) -> None:
    handle = open_one("cancel")
    advance(sql, HOUR)
    eventually(lambda: decisions(handle)[-1] == ("10 14:00", "started"))
    assert run_of(client, 13).describe().status == "cancelled"
    end(client, 14)


def test_terminate_ends_the_open_run_by_force(open_one: Any, client: Client, sql: Sql) -> None:
    handle = open_one("terminate")
    advance(sql, HOUR)
    assert decided(handle, 2)[-1] == ("10 14:00", "started")
    assert run_of(client, 13).describe().status == "terminated"
    end(client, 14)
    assert_sound(sql)


def test_allow_runs_both(open_one: Any, client: Client, sql: Sql) -> None:
    handle = open_one("allow")
    advance(sql, HOUR)
    decided(handle, 2)
    assert len(client.list(status="running")) == 2


def test_pause_resume_and_what_passed_by(
    working: Working, client: Client, sql: Sql, noon: datetime
) -> None:
    handle = client.schedule("p", schedule_flows.scheduled_report, cron="0 * * * *")
    handle.pause("the books are closed")
    shown = handle.describe()
    assert (shown.paused, shown.note) == (True, "the books are closed")
    advance(sql, 2 * HOUR)
    handle.resume("open again")  # no worker has looked meanwhile: the slots passed by nevertheless
    advance(sql, HOUR)
    with working(*MODULES):
        assert decided(handle, 3) == [
            ("10 13:00", "skipped"),
            ("10 14:00", "skipped"),
            ("10 15:00", "started"),
        ]
        assert handle.slots()[-1].reason == "the schedule was paused"


def test_trigger_works_also_while_it_is_paused(
    working: Working, client: Client, sql: Sql, noon: datetime
) -> None:
    with working(*MODULES):
        handle = client.schedule(
            "t", schedule_flows.scheduled_report, cron="0 0 1 1 *", paused=True
        )
        slot = handle.trigger()
        assert noon <= slot < noon + timedelta(minutes=1)
        (seen,) = eventually(lambda: [s for s in handle.slots() if s.outcome == "completed"])
        assert (seen.scheduled_for, seen.origin, seen.decision) == (slot, "trigger", "started")


def test_backfill_runs_what_was_not_started_and_nothing_twice(
    working: Working, client: Client, sql: Sql, noon: datetime
) -> None:
    handle = client.schedule("b", schedule_flows.scheduled_report, cron="0 * * * *")
    with working(*MODULES):
        advance(sql, HOUR)
        assert decided(handle, 1) == [("10 13:00", "started")]
        began = noon.replace(hour=10, minute=0, second=0)
        assert handle.backfill(began, began + 3 * HOUR, overlap="allow") == 3
        assert handle.backfill(began, began + 3 * HOUR, overlap="allow") == 0
        assert decided(handle, 4) == [(f"10 {hour}:00", "started") for hour in (10, 11, 12, 13)]
        eventually(lambda: len(client.list(status="completed")) == 4)
        assert len(client.list()) == 4


def test_a_failure_pauses_the_schedule_that_asks_for_it(
    working: Working, client: Client, sql: Sql, noon: datetime
) -> None:
    handle = client.schedule(
        "f", schedule_flows.scheduled_failure, cron="0 * * * *", pause_on_failure=True
    )
    with working(*MODULES):
        advance(sql, HOUR)
        eventually(lambda: handle.describe().paused)
        assert handle.describe().note == "paused because the run of a slot failed"
        advance(sql, HOUR)
        assert decided(handle, 2)[-1] == ("10 14:00", "skipped")


def test_update_in_place_keeps_what_was_due_before(
    working: Working, client: Client, sql: Sql, noon: datetime
) -> None:
    handle = client.schedule(
        "u", schedule_flows.scheduled_report, "old", cron="0 * * * *", overlap="allow"
    )
    advance(sql, 2 * HOUR)
    handle.update(cron="30 * * * *")
    handle.update("scheduled_report", arguments={"label": "new"})
    advance(sql, HOUR)
    with working(*MODULES):
        assert decided(handle, 3) == [
            ("10 13:00", "started"),
            ("10 14:00", "started"),
            ("10 14:30", "started"),
        ]
        last = client.handle("u/2031-03-10T14:30:00Z", schedule_flows.scheduled_report)
        assert last.result(timeout=10)[0] == "new"


def test_a_deleted_schedule_starts_nothing(
    working: Working, client: Client, sql: Sql, noon: datetime
) -> None:
    handle = client.schedule("d", schedule_flows.scheduled_report, cron="0 * * * *")
    other = client.schedule("e", schedule_flows.scheduled_report, cron="0 * * * *")
    handle.delete()
    with working(*MODULES):
        advance(sql, HOUR)
        decided(other, 1)
        assert handle.slots() == []
    with pytest.raises(durable.ScheduleNotFound):
        handle.describe()


def job_states(sql: Sql) -> list[str]:
    return [
        state
        for (state,) in sql.execute("select state from durable.jobs order by created_at").fetchall()
    ]


@pytest.mark.parametrize("overlap", ["cancel", "terminate"])
def test_an_open_job_is_stopped_like_a_run(
    working: Working, client: Client, sql: Sql, noon: datetime, overlap: Any
) -> None:
    handle = client.schedule(
        "j", schedule_flows.scheduled_long_job, cron="0 * * * *", overlap=overlap
    )
    with working(*MODULES):
        advance(sql, HOUR)
        eventually(lambda: job_states(sql) == ["executing"])
        advance(sql, HOUR)
        eventually(lambda: job_states(sql) == ["cancelled", "executing"])
        assert [each for _, each in decided(handle, 2)] == ["started", "started"]


def test_a_run_that_continues_as_new_is_still_the_slot_s(
    open_one: Any, client: Client, sql: Sql
) -> None:
    handle = open_one("skip")
    handle.update("scheduled_rounds")
    end(client, 13)
    advance(sql, HOUR)
    decided(handle, 2)
    eventually(lambda: client.list(status="running", workflow="scheduled_rounds"))
    run_of(client, 14).signal(flows.go, 1)
    eventually(lambda: client.list(status="continued"))
    advance(sql, HOUR)
    assert decided(handle, 3)[-1] == ("10 15:00", "skipped")


def test_a_schedule_that_cannot_be_started_is_parked_and_harms_no_other(
    working: Working, client: Client, sql: Sql, noon: datetime
) -> None:
    """C8: one whose row is damaged is paused, or left for later, with a note; its neighbours go on."""
    for name in ("bad-data", "bad-spec", "good"):
        client.schedule(name, schedule_flows.scheduled_report, cron="0 * * * *")
    sql.execute(
        "update durable.schedules set action = action || '{\"priority\": 99}' where schedule_id = 'bad-data'"
    )
    sql.execute(
        "update durable.schedules set spec = spec || '{\"timezone\": \"Atlantis\"}' where schedule_id = 'bad-spec'"
    )
    with working(*MODULES):
        advance(sql, HOUR)
        decided(client.schedule_handle("good"), 1)
        bad = client.schedule_handle("bad-data")
        eventually(lambda: bad.describe().paused)
        assert "runs_priority_range" in str(bad.describe().note)
        assert bad.slots() == []
        sql.execute(
            "update durable.schedules set action = action || '{\"priority\": 1}' where schedule_id = 'bad-data'"
        )
        sql.execute(
            "update durable.schedules set spec = spec || '{\"timezone\": \"UTC\"}' where schedule_id = 'bad-spec'"
        )
        bad.resume()
        advance(sql, HOUR)
        decided(client.schedule_handle("bad-spec"), 2)
        assert decided(bad, 2)[-1] == ("10 14:00", "started")


def test_a_pass_that_read_an_older_state_writes_nothing(
    working: Working, client: Client, sql: Sql, noon: datetime
) -> None:
    handle = client.schedule("s", schedule_flows.scheduled_report, cron="0 * * * *", paused=True)
    with working(*MODULES) as background:
        eventually(lambda: "schedules" in background.worker.duties.held)
        duty = background.worker.duties.held["schedules"]
        ((cursor,),) = sql.execute(
            "select durable.to_us(cursor_at) from durable.schedules"
        ).fetchall()
        call = (
            "select applied from durable.decide_slots(%s, %s, 's', %s, %s, %s, null, null,"
            " array[%s], '{time}', '{started}', '{null}', '{null}', '{x}', '{0}', '{}', '{}', '{}', '{}')"
        )
        slot = cursor + 1
        for revision, before in (
            (handle.describe().revision + 1, cursor),
            (handle.describe().revision, cursor - 1),
        ):
            given = (background.worker.worker_id, duty.epoch, revision, before, slot, slot)
            assert sql.execute(call.encode(), given).fetchall() == [(False,)]
        assert handle.slots() == []
        assert client.list() == []


def test_the_version_is_the_one_that_a_start_by_name_takes(
    working: Working, client: Client, sql: Sql, noon: datetime
) -> None:
    """Created with the first version; the slot takes the newest that a worker serves by then."""
    with working("tests.system.flows", "tests.system.versions_old"):
        handle = client.schedule(
            "s", versions_old.versioned, "k", cron="0 * * * *", overlap="allow"
        )
        advance(sql, HOUR)
        decided(handle, 1)
    with working("tests.system.flows", "tests.system.versions_both"):
        advance(sql, HOUR)
        decided(handle, 2)
    assert [run.version for run in client.list()] == [2, 1]


def test_jitter_is_the_same_for_every_worker(
    client: Client, working: Working, sql: Sql, noon: datetime
) -> None:
    from durable.core.schedule_times import Times, jitter_us

    handle = client.schedule(
        "j", schedule_flows.scheduled_report, cron="0 * * * *", jitter=HOUR / 2
    )
    slot = datetime(2031, 3, 10, 13, tzinfo=UTC)
    times = Times(cron=("0 * * * *",), jitter_us=1_800_000_000)
    us = int(slot.timestamp()) * 1_000_000
    late = timedelta(microseconds=jitter_us(times, "j", us, us + 3_600_000_000))
    with working(*MODULES), working(*MODULES):
        set_clock(sql, slot + late)
        decided(handle, 1)
    ((started,),) = sql.execute("select created_at from durable.runs").fetchall()
    assert timedelta(0) <= started - slot - late < timedelta(seconds=30)
