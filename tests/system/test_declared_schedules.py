"""`@workflow(schedule=...)`: workers create and change what code declares, and leave alone what people have decided."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

import durable
from durable import InvalidOption, activity, workflow
from durable.client_sync import Client
from tests.system import schedule_flows
from tests.system.conftest import Working
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]

V1, V2 = "tests.system.declared_v1", "tests.system.declared_v2"
ID = "declared_report"


def spec(client: Client) -> list[str]:
    found: list[str] = client.schedule_handle(ID).describe().spec["cron"]
    return found


def test_a_worker_creates_what_its_code_declares_and_runs_it(
    working: Working, client: Client, sql: Sql
) -> None:
    sql.execute(
        "select durable.advance_clock(%s - durable.now())",
        (datetime(2031, 1, 10, 7, 0, 5, tzinfo=UTC),),
    )
    with working(V1), working(V1):
        assert [each.schedule_id for each in client.schedules()] == ["declared-clean-up", ID]
        shown = client.schedule_handle(ID).describe()
        assert (shown.declared, shown.kind, shown.arguments) == (
            True,
            "workflow",
            {"label": "code"},
        )
        assert client.schedule_handle("declared-clean-up").describe().kind == "job"
        sql.execute("select durable.advance_clock('6 hours')")
        run = client.handle(f"{ID}/2031-01-10T08:00:00Z")
        eventually(lambda: client.list(id_prefix=ID))
        assert run.result(timeout=10) == f"code for 08:00 by {ID}"
        eventually(
            lambda: sql.execute("select state from durable.jobs").fetchall() == [("completed",)]
        )


def test_a_restart_changes_nothing_and_a_release_does(working: Working, client: Client) -> None:
    with working(V1):
        revision = client.schedule_handle(ID).describe().revision
    with working(V1):
        assert client.schedule_handle(ID).describe().revision == revision
    with working(V2):
        assert spec(client) == ["0 7 * * *"]
        assert client.schedule_handle(ID).describe().arguments == {"label": "new"}


def test_an_operator_s_pause_change_and_deletion_stand(working: Working, client: Client) -> None:
    handle = client.schedule_handle(ID)
    with working(V1):
        handle.update(cron="30 4 * * *")
        handle.pause("not now")
    with working(V1):  # a restart does not undo it
        assert spec(client) == ["30 4 * * *"]
    with working(V2):  # a release that says something else is heard; the pause stands
        assert spec(client) == ["0 7 * * *"]
        assert (handle.describe().paused, handle.describe().note) == (True, "not now")
        handle.delete()
    with working(V1):
        with pytest.raises(durable.ScheduleNotFound):
            handle.describe()
        client.schedule(
            ID, schedule_flows.scheduled_report, cron="0 1 * * *"
        )  # by hand it comes back
        assert not handle.describe().paused


def test_an_id_that_was_made_by_hand_stays_whose_it_is(working: Working, client: Client) -> None:
    client.schedule(ID, schedule_flows.scheduled_report, every=timedelta(days=1))
    with working(V1):
        shown = client.schedule_handle(ID).describe()
        assert (shown.name, shown.declared) == ("scheduled_report", False)


def test_what_cannot_be_called_is_refused_at_decoration() -> None:
    with pytest.raises(InvalidOption, match="missing a required argument"):

        @workflow(schedule=durable.cron("@daily"))
        async def wants_arguments(order: str) -> None: ...

    decorate: Any = activity
    with pytest.raises(InvalidOption, match="durable.cron"):
        decorate(schedule="0 9 * * *")(print)

    with pytest.raises(InvalidOption, match="requires an actor"):

        @workflow(schedule=durable.cron("@daily"), require_actor=True)
        async def wants_an_actor() -> None: ...


def test_a_release_after_a_downtime_loses_no_slot_of_the_old_times(
    working: Working, client: Client, sql: Sql
) -> None:
    """09:00 in Berlin came due on two days while nobody was there; the new code says 07:00."""
    sql.execute(
        "select durable.advance_clock(%s - durable.now())",
        (datetime(2031, 1, 10, 12, 0, 5, tzinfo=UTC),),
    )
    with working(V1):
        handle = client.schedule_handle(ID)
        handle.update(overlap="allow")
    sql.execute("select durable.advance_clock('2 days')")
    with working(V2):
        eventually(lambda: len(handle.slots()) == 2)
        sql.execute("select durable.advance_clock('20 hours')")
        eventually(lambda: len(handle.slots()) == 3)
        assert [each.scheduled_for.strftime("%d %H") for each in handle.slots()] == [
            "13 06",
            "12 08",
            "11 08",
        ]
    assert sql.execute(
        "select before from durable.schedules where schedule_id = %s", (ID,)
    ).fetchall() == [([],)]
