"""What type checkers say about start, enqueue and handle. Nothing here runs: mypy and pyright check this file with the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import UTC, datetime, timedelta
    from typing import assert_type

    from durable.client_async import AsyncClient
    from durable.client_sync import Client
    from durable.core.schedule_times import Calendar
    from durable.descriptions import BatchProgress, RewindReceipt
    from durable.handles_async import AsyncHandle
    from durable.handles_sync import Handle
    from durable.histories import RecordedHistory
    from durable.jobs_sync import JobHandle
    from durable.operations_sync import PendingActivity
    from durable.scheduling_sync import ScheduleHandle
    from tests.client.shop import (
        ORDER,
        Invoice,
        Payment,
        bill,
        nothing,
        payment_arrived,
        purchase,
    )

    def results_are_typed(client: Client) -> None:
        assert_type(client.start(purchase, ORDER), Handle[Invoice])
        assert_type(client.start(purchase, ORDER, True, id="o-1"), Handle[Invoice])
        assert_type(client.start(purchase, ORDER, gift=True, id="o-1"), Handle[Invoice])
        assert_type(client.start(purchase, order=ORDER), Handle[Invoice])
        assert_type(client.start(nothing), Handle[None])
        assert_type(client.start(purchase, ORDER, version=2, pinned=True), Handle[Invoice])
        assert_type(client.handle("o-1").move("7.2", reason="7.1 is gone").served, bool)
        assert_type(client.handle("o-1").export(), RecordedHistory)
        assert_type(client.start("purchase", {"order": {}}), Handle[Any])
        assert_type(client.start(purchase, ORDER).result(), Invoice)
        assert_type(client.handle("o-1", purchase), Handle[Invoice])
        assert_type(client.handle("o-1"), Handle[Any])
        assert_type(client.enqueue(bill, ORDER), JobHandle[Invoice])
        client.handle("o-1").signal(payment_arrived, Payment(amount=1))

    def schedules_are_typed(client: Client) -> None:
        handle = client.schedule("s", purchase, ORDER, cron="@daily", overlap="buffer_all")
        assert_type(handle, ScheduleHandle)
        client.schedule("s", purchase, cron=["@daily"], arguments={"order": ORDER}, actor="ann")
        client.schedule("s", bill, ORDER, every=timedelta(hours=1), offset=60, jitter=5.0)
        client.schedule(
            "s", "purchase", calendar=[Calendar(day=1), datetime(2030, 1, 1, tzinfo=UTC)]
        )
        client.schedule("s", purchase, 5, cron="@daily")  # type: ignore[arg-type]
        client.schedule("s", purchase, ORDER, cron=5)  # type: ignore[call-overload]
        client.schedule("s", purchase, ORDER, cron="@daily", overlap="maybe")  # type: ignore[call-overload]
        client.schedule("s", print, cron="@daily")  # type: ignore[arg-type]
        handle.update(cron="@daily", catch_up=timedelta(0))
        handle.update(paused=True)  # type: ignore[call-arg]
        client.set_retention("history", 5)  # type: ignore[arg-type]

    async def so_are_asynchronous_ones(client: AsyncClient) -> None:
        assert_type(await client.start(purchase, ORDER), AsyncHandle[Invoice])
        assert_type(await (await client.start(purchase, ORDER)).result(), Invoice)

    def commands_are_typed(client: Client) -> None:
        handle = client.handle("o-1", purchase)
        assert_type(handle.fork("o-2", "why", to_event=3), Handle[Invoice])
        assert_type(handle.retry("why"), RewindReceipt)
        assert_type(handle.reset("why", before_activity="bill", timers="original"), RewindReceipt)
        assert_type(handle.activity(2), PendingActivity)
        assert_type(client.batch("retry", {"status": "failed"}, reason="why"), BatchProgress)
        handle.reset("why", timers="later")  # type: ignore[arg-type]
        handle.reset()  # type: ignore[call-arg]
        client.batch("explode", "workflow=purchase", reason="why")  # type: ignore[arg-type]
        client.batch("cancel", "workflow=purchase")  # type: ignore[call-arg]

    async def so_are_asynchronous_commands(client: AsyncClient) -> None:
        handle = client.handle("o-1", purchase)
        assert_type(await handle.fork("o-2", "why", to_event=3), AsyncHandle[Invoice])
        assert_type(await client.resume_batch("01a1fe44"), BatchProgress)
        await handle.activity(2).set_result({"total": 1}, "why")

    def mistakes_are_seen(client: Client) -> None:
        client.start(purchase, 5)  # type: ignore[arg-type]
        client.start(purchase, ORDER, "yes")  # type: ignore[arg-type]
        client.start(nothing, 5)  # type: ignore[arg-type]
        client.start(purchase, ORDER, id=5)  # type: ignore[call-overload]
        client.start(print, "x")  # type: ignore[arg-type]
        client.enqueue(bill, "tea")  # type: ignore[arg-type]
        client.handle("o-1").signal(payment_arrived, 5)  # type: ignore[misc]
