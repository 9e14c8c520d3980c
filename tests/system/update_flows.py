"""Workflows with queries and updates, for the system tests."""

from __future__ import annotations

import asyncio

from pydantic import BaseModel

import durable
from durable import Signal, activity, workflow
from tests.system.flows import gated

finish: Signal[str] = Signal("updates.finish", str)
tick: Signal[int] = Signal("updates.tick", int)


class Item(BaseModel):
    sku: str
    amount: int = 1


class Basket(BaseModel):
    owner: str
    items: list[Item]


def add(item: Item) -> int:
    """Stands for the update of `basket`."""
    raise NotImplementedError


def content() -> Basket:
    """Stands for the query of `basket`."""
    raise NotImplementedError


class Full(Exception):
    pass


@activity(name="updates.price")
def price(sku: str) -> int:
    return len(sku)


@workflow(name="updates.basket")
async def basket(owner: str, capacity: int = 3) -> int:
    """Takes items; the answer to each is the price of all so far."""
    items: list[Item] = []
    total = 0

    @durable.query(name="content")
    def shown() -> Basket:
        return Basket(owner=owner, items=items)

    @durable.query
    def fails() -> None:
        raise Full("as asked")

    @durable.query
    def tempted() -> None:
        durable.sleep(1)

    @durable.update(name="add")
    async def put(item: Item) -> int:
        nonlocal total
        items.append(item)
        total += item.amount * await price(item.sku)
        return total

    @put.validator
    def room(item: Item) -> None:
        if len(items) >= capacity:
            raise Full(f"no room for {item.sku}")

    @durable.update
    async def hold_on(number: int) -> str:
        await gated("held", number)
        return "held"

    @durable.update
    async def breaks() -> None:
        raise Full("the handler's own fault")

    await finish.receive()
    await durable.wait_until(durable.handlers_finished)
    return total


@workflow(name="updates.hasty")
async def hasty() -> str:
    """Returns while a handler is still running."""

    @durable.update
    async def slow() -> None:
        await durable.sleep(3600)

    return await finish.receive()


@workflow(name="updates.counter")
async def counter(total: int = 0) -> int:
    """Counts; goes on as another run after each third update."""
    seen = 0

    @durable.query
    def count() -> int:
        return total

    @durable.update
    async def increase(by: int) -> int:
        nonlocal total, seen
        total += by
        seen += 1
        return total

    @durable.update
    async def never() -> None:
        await durable.sleep(10_000)

    @durable.update
    async def rest() -> str:
        nonlocal seen
        seen = 3
        await durable.sleep(0)
        return "rested"

    over = asyncio.ensure_future(finish.receive())
    await durable.wait_until(lambda: seen >= 3 or over.done())
    if over.done():
        return total
    durable.continue_as_new(total)


@workflow(name="updates.ticking")
async def ticking() -> int:
    """State that signals change."""
    last = 0

    @durable.update
    def bump(by: int) -> int:
        nonlocal last
        last += by
        return last

    @durable.query
    def latest() -> int:
        return last

    async for number in tick:
        if number < 0:
            return last
        last = number
    return last


@workflow(name="updates.wakes")
async def wakes() -> str:
    """A query that does what it must not."""
    woken = asyncio.Event()

    @durable.query
    def wake() -> None:
        woken.set()

    @durable.query
    def is_awake() -> bool:
        return woken.is_set()

    @durable.update
    async def rouse() -> bool:
        woken.set()
        return True

    await woken.wait()
    return "awake"


@workflow(name="updates.elsewhere", queue="nobody-serves-this")
async def elsewhere() -> None: ...


@workflow(name="updates.tempted_validator")
async def tempted_validator() -> str:
    await price("x")
    woken = asyncio.Event()
    waiting = asyncio.ensure_future(woken.wait())

    @durable.update
    async def rouse() -> None: ...

    @rouse.validator
    def wake() -> None:
        woken.set()

    await finish.receive()
    return "awake" if waiting.done() else "asleep"


@workflow(name="updates.relay")
async def relay(generation: int = 0) -> None:
    """Goes on as another run at each tick."""

    @durable.update
    def which() -> int:
        return generation

    await tick.receive()
    relay.continue_as_new(generation + 1)
