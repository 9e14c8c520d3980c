"""What type checkers say about the author API (DESIGN §2). Nothing here runs: mypy and pyright check this file with the rest.

An expected error carries the code that mypy gives it; `warn_unused_ignores` fails the check when the mistake is no longer seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Generator
    from dataclasses import dataclass
    from datetime import timedelta
    from typing import assert_type

    import psycopg

    import durable
    from durable import (
        ActivityFuture,
        ChildFuture,
        DurableFuture,
        RetryPolicy,
        Signal,
        activity,
        workflow,
    )

    @dataclass
    class Order:
        id: str

    @dataclass
    class Receipt:
        total: int

    paid = Signal("paid", Receipt)
    untyped = Signal("untyped")

    @activity
    def charge(order: Order, cents: int = 0) -> Receipt: ...

    @activity(retry=RetryPolicy(max_attempts=5), timeout=timedelta(seconds=30), queue="payments")
    async def ship(order: Order) -> str: ...

    @workflow(schedule=durable.cron("0 9 * * *", timezone="Europe/Berlin", overlap="skip"))
    async def nightly() -> str: ...

    @activity(schedule=durable.every(timedelta(hours=1), jitter=30))
    def hourly() -> None: ...

    def schedules_keep_types() -> None:
        assert_type(nightly(), ChildFuture[str])
        assert_type(hourly(), ActivityFuture[None])
        durable.cron("@daily", overlap="never")  # type: ignore[arg-type]

    @activity(transactional=True, queue="payments")
    def book(connection: psycopg.Connection[Any], order: Order, cents: int = 0) -> Receipt: ...

    @activity(transactional=True)
    async def book_async(connection: psycopg.AsyncConnection[Any], order: Order) -> str: ...

    @activity(on_exhausted="pause")
    def needs_help(order: Order) -> Receipt: ...

    @workflow(on_exhausted="pause")
    async def is_mended(order: Order) -> Receipt:
        assert_type(await needs_help.options(on_exhausted="fail")(order), Receipt)
        needs_help.options(on_exhausted="explode")  # type: ignore[arg-type]
        return await needs_help(order)

    @workflow
    async def other_ways_to_run(order: Order) -> Receipt:
        assert_type(book(order), ActivityFuture[Receipt])
        assert_type(await book(order, cents=5), Receipt)
        assert_type(await book_async(order), str)
        assert_type(await durable.local(charge)(order, cents=5), Receipt)
        assert_type(await durable.local(ship)(order), str)
        assert_type(await durable.local(ship.options(id="last"))(order), str)
        return durable.local(charge)(order).result()

    @workflow
    async def by_await(order: Order) -> Receipt:
        assert_type(charge(order), ActivityFuture[Receipt])
        assert_type(await charge(order), Receipt)
        assert_type(await ship(order), str)
        assert_type(await charge.options(queue="other", priority=1)(order), Receipt)
        a, b = await asyncio.gather(charge(order, cents=5), ship(order))
        assert_type(a, Receipt)
        assert_type(b, str)
        assert_type(paid.receive(timeout=5), DurableFuture[Receipt])
        assert_type(await paid.receive(), Receipt)
        assert_type(await untyped.receive(), Any)
        assert_type(durable.patched("dearer"), bool)
        durable.deprecate_patch("cheaper")
        durable.checkpoint(order)
        async for receipt in paid:
            assert_type(receipt, Receipt)
        await durable.sleep(timedelta(days=1))
        await durable.wait_until(lambda: True, timeout=timedelta(hours=1))
        async with asyncio.timeout(3):
            await asyncio.shield(ship(order))
        async with durable.saga() as saga:
            saga.compensate(ship, order)
        return a

    @workflow
    def by_result(order: Order) -> Receipt:
        assert_type(ship(order).result(), str)
        assert_type(durable.wait(ship(order)), str)
        return charge(order).result()

    @workflow(version=2)
    def by_yield(order: Order) -> Generator[Any, Any, Receipt]:
        shipped = yield from ship(order)
        assert_type(shipped, str)
        anything = yield ship(order)
        assert_type(anything, Any)
        return (yield from charge(order))

    async def mistakes_are_seen(order: Order) -> None:
        charge(5)  # type: ignore[arg-type]
        charge(order, cents="5")  # type: ignore[arg-type]
        charge()  # type: ignore[call-arg]
        charge(order, euros=5)  # type: ignore[call-arg]
        wrong: int = await ship(order)  # type: ignore[assignment]
        charge.options(queue=5)  # type: ignore[arg-type]
        charge.options(colour="red")  # type: ignore[call-arg]
        activity(retries=5)  # type: ignore[call-overload]
        workflow(version="two")  # type: ignore[call-overload]
        RetryPolicy(max_attempts="five")  # type: ignore[arg-type]
        Signal(5)  # type: ignore[call-overload]
        await durable.sleep("an hour")  # type: ignore[arg-type]
        durable.local(charge)(5)  # type: ignore[arg-type]
        durable.local(print)  # type: ignore[arg-type]
        book(5)  # type: ignore[arg-type]
        book(order, order)  # type: ignore[arg-type]
        activity(transactional=True)(of_the_wrong_kind)  # type: ignore[arg-type]
        assert wrong

    def of_the_wrong_kind(order: Order) -> None: ...
