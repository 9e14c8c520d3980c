"""What a client says of schedules: checked before anything is written, idempotent, the same for both clients."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

import durable
from durable import InvalidOption, PayloadError, UnknownWorkflow
from durable.client_async import AsyncClient
from durable.client_sync import Client
from durable.store import schedule_calls
from tests.client.database import Database
from tests.client.shop import ORDER, bill, nothing, purchase

HOUR = timedelta(hours=1)


def count(database: Database) -> int:
    ((schedules,),) = database.rows("select count(*) from durable.schedules")
    return int(schedules)


def test_what_is_described_is_what_was_asked_for(client: Client) -> None:
    handle = client.schedule(
        "s", purchase, ORDER, cron=["0 9 * * MON-FRI", "0 12 * * SAT"], timezone="Europe/Berlin", exclude=[date(2031, 12, 25)],
        jitter=timedelta(minutes=5), overlap="buffer_all", catch_up=HOUR, pause_on_failure=True, queue="vip", priority=1,
        paused=True, note="soon",
    )  # fmt: skip
    shown = handle.describe(next=3)
    assert (shown.kind, shown.name, shown.queue, shown.priority) == (
        "workflow",
        "purchase",
        "vip",
        1,
    )
    assert shown.arguments == {"order": {"sku": "tea", "amount": 7}}
    assert (shown.overlap, shown.catch_up_s, shown.jitter_s, shown.pause_on_failure) == (
        "buffer_all",
        3600.0,
        300.0,
        True,
    )
    assert (shown.paused, shown.note, shown.declared, shown.revision) == (True, "soon", False, 1)
    assert shown.times == "cron 0 9 * * MON-FRI and cron 0 12 * * SAT, Europe/Berlin, 1 excluded"
    assert len(shown.next) == 3
    assert shown.next == sorted(shown.next)


def test_creating_it_again_changes_it_in_place_and_leaves_a_pause(client: Client) -> None:
    handle = client.schedule("s", nothing, cron="0 9 * * *")
    handle.pause("later")
    before = handle.describe().revision
    client.schedule("s", nothing, cron="0 9 * * *")
    assert handle.describe().revision == before  # nothing to change
    client.schedule("s", bill, ORDER, cron="0 8 * * *")
    shown = handle.describe()
    assert (shown.kind, shown.spec["cron"], shown.paused) == ("job", ["0 8 * * *"], True)


def test_an_id_in_use_may_be_kept_or_refused(client: Client) -> None:
    client.schedule("s", nothing, cron="0 9 * * *")
    client.schedule("s", nothing, cron="0 8 * * *", on_existing="keep")
    assert client.schedule_handle("s").describe().spec["cron"] == ["0 9 * * *"]
    with pytest.raises(durable.ScheduleAlreadyExists):
        client.schedule("s", nothing, cron="0 8 * * *", on_existing="fail")


@pytest.mark.parametrize(
    ("target", "arguments", "options", "error"),
    [
        (purchase, (), {"cron": "@daily"}, PayloadError),
        (purchase, ("tea",), {"cron": "@daily"}, PayloadError),
        (
            bill,
            (),
            {"cron": "@daily", "arguments": {"order": {"sku": "tea", "amount": "many"}}},
            PayloadError,
        ),
        ("purchase", (), {"cron": "@daily", "arguments": {"order": 7}}, PayloadError),
        ("purchas", (), {"cron": "@daily"}, UnknownWorkflow),
        (print, (), {"cron": "@daily"}, UnknownWorkflow),
        (nothing, (), {}, InvalidOption),
        (nothing, (), {"cron": "61 * * * *"}, InvalidOption),
        (nothing, (), {"cron": "@daily", "overlap": "sometimes"}, InvalidOption),
        (nothing, (), {"cron": "@daily", "catch_up": -1}, InvalidOption),
        (nothing, (), {"cron": "@daily", "queue": ""}, InvalidOption),
        (nothing, (), {"cron": "@daily", "priority": 10}, InvalidOption),
        (nothing, (), {"cron": "@daily", "actor": 7}, PayloadError),
        (nothing, (), {"cron": "@daily", "on_existing": "maybe"}, InvalidOption),
        (nothing, (), {"cron": "@daily", "note": "\0"}, InvalidOption),
        (nothing, (), {"cron": "@daily", "crno": "x"}, InvalidOption),
        (nothing, (), {"calendar": datetime(2001, 1, 1, tzinfo=UTC)}, InvalidOption),
        (nothing, (), {"every": 60, "end": datetime(2001, 1, 1, tzinfo=UTC)}, InvalidOption),
        (bill, (ORDER,), {"cron": "@daily", "memo": {"a": 1}}, InvalidOption),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    client: Client,
    database: Database,
    target: Any,
    arguments: tuple[Any, ...],
    options: Any,
    error: type[Exception],
) -> None:
    with pytest.raises(error):
        client.schedule("s", target, *arguments, **options)
    assert count(database) == 0


@pytest.mark.parametrize("schedule_id", ["", "x" * 201, "a\nb", 7])
def test_hostile_ids_are_refused(client: Client, schedule_id: Any) -> None:
    with pytest.raises(InvalidOption):
        client.schedule(schedule_id, nothing, cron="@daily")
    with pytest.raises(InvalidOption):
        client.schedule_handle(schedule_id)


def test_a_name_that_only_a_worker_knows(client: Client, database: Database) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    database.define("workflow", "remote_flow", schema, "far")
    database.define("activity", "remote_job", schema, "far")
    for name, kind in (("remote_flow", "workflow"), ("remote_job", "job")):
        shown = client.schedule(name, name, cron="@daily", arguments={"n": 1}).describe()
        assert (shown.kind, shown.name, shown.queue, shown.arguments) == (
            kind,
            name,
            "far",
            {"n": 1},
        )
        with pytest.raises(PayloadError):
            client.schedule(name, name, cron="@daily", arguments={"n": "x"})


def test_every_verb_says_when_there_is_no_such_schedule(client: Client) -> None:
    handle = client.schedule_handle("nobody")
    now = datetime.now(UTC)
    verbs = (
        handle.describe, handle.pause, handle.resume, handle.trigger, handle.delete,
        lambda: handle.update(cron="@daily"), lambda: handle.backfill(now, now),
    )  # fmt: skip
    for verb in verbs:
        with pytest.raises(durable.ScheduleNotFound, match="nobody"):
            verb()


def test_an_update_changes_what_it_names(client: Client) -> None:
    handle = client.schedule(
        "s", purchase, ORDER, cron="0 9 * * *", timezone="Europe/Berlin", overlap="allow", jitter=5
    )
    handle.update(pause_on_failure=True, queue="slow", priority=2)
    shown = handle.describe()
    assert (shown.overlap, shown.pause_on_failure, shown.queue, shown.priority) == (
        "allow",
        True,
        "slow",
        2,
    )
    assert (shown.timezone, shown.jitter_s) == ("Europe/Berlin", 5.0)
    handle.update(every=HOUR)
    shown = handle.describe()
    assert (shown.times, shown.jitter_s) == (
        "every 1:00:00, UTC",
        0.0,
    )  # the times are replaced as a whole
    with pytest.raises(InvalidOption, match="target"):
        handle.update(arguments={"order": {"sku": "cake", "amount": 1}})
    handle.update("purchase", arguments={"order": {"sku": "cake", "amount": 1}})
    assert handle.describe().arguments["order"]["sku"] == "cake"


def test_two_updates_at_once_do_not_overwrite_each_other(
    client: Client, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    from durable import schedule_requests

    handle = client.schedule("s", nothing, cron="0 9 * * *")
    changed = schedule_requests.changed

    def slowly(*args: Any) -> Any:
        database.rows(
            "update durable.schedules set revision = revision + 1"
        )  # somebody else is faster
        return changed(*args)

    monkeypatch.setattr(schedule_requests, "changed", slowly)
    with pytest.raises(durable.ScheduleChanged):
        handle.update(cron="0 8 * * *")
    assert handle.describe().spec["cron"] == ["0 9 * * *"]


def test_a_backfill_is_bounded_and_ends_now(client: Client) -> None:
    handle = client.schedule("s", nothing, every=60)
    now = datetime.now(UTC)
    with pytest.raises(InvalidOption, match=r"10000|10,000"):
        handle.backfill(now - timedelta(days=30), now)
    with pytest.raises(InvalidOption, match="before its start"):
        handle.backfill(now, now - HOUR)
    assert handle.backfill(now - HOUR, now + HOUR) in (60, 61)
    assert {slot.decision for slot in handle.slots()} == {"pending"}
    assert handle.describe().waiting in (60, 61)


def test_a_lost_answer_does_nothing_twice(client: Client, database: Database) -> None:
    """The session sends a statement again when its answer was lost: each recognises its own request."""
    handle = client.schedule("s", nothing, every=HOUR)
    begin = int(datetime.now(UTC).timestamp() // 3600 - 5) * 3_600_000_000
    trigger = schedule_calls.command_schedule("s", "trigger")
    backfill = schedule_calls.command_schedule(
        "s", "backfill", slots=[begin, begin + 3_600_000_000]
    )
    for call in (trigger, backfill):
        first, again = client._execute(call).answer, client._execute(call).answer
        assert first == again
    assert len(handle.slots()) == 3
    given = {"spec": "{}", "policy": "{}", "action": "{}", "input": None}
    put = schedule_calls.put_schedule("n", "fail", given)
    assert [client._execute(put), client._execute(put)] == ["created", "created"]
    revise = schedule_calls.put_schedule("n", "revise", given, revision=1)
    assert [client._execute(revise), client._execute(revise)] == ["updated", "updated"]
    delete = schedule_calls.command_schedule("s", "delete")
    client._execute(delete)
    client._execute(delete)
    assert count(database) == 2


def test_what_waits_when_a_schedule_is_deleted_is_recorded(client: Client) -> None:
    handle = client.schedule("s", nothing, every=HOUR)
    handle.trigger()
    handle.delete()
    (slot,) = handle.slots()
    assert (slot.decision, slot.reason) == ("skipped", "the schedule was deleted")


def test_the_list_is_in_the_order_of_ids(client: Client) -> None:
    for schedule_id in ("b", "a", "c-1"):
        client.schedule(schedule_id, nothing, cron="@daily")
    assert [each.schedule_id for each in client.schedules()] == ["a", "b", "c-1"]
    assert [each.schedule_id for each in client.schedules(id_prefix="c")] == ["c-1"]
    assert [len(each.next) for each in client.schedules()] == [1, 1, 1]


def test_the_asynchronous_client_says_the_same(database_url: str) -> None:
    async def all_of_it() -> None:
        async with AsyncClient(database_url) as client:
            handle = await client.schedule("s", bill, ORDER, every=HOUR, offset=60)
            await handle.pause("why")
            assert (await handle.describe()).note == "why"
            await handle.resume()
            slot = await handle.trigger(overlap="allow")
            assert [each.scheduled_for for each in await handle.slots()] == [slot]
            await handle.update(every=2 * HOUR)
            assert len(await client.schedules()) == 1
            await handle.delete()
            assert await client.schedules() == []
            await client.set_retention("run", timedelta(days=30))
            assert (await client.prune()).runs == 0

    asyncio.run(all_of_it())
