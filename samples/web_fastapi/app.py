"""A web shop with FastAPI: a request writes its order and enqueues the letter in one transaction, and a worker runs in the same process.

    export DURABLE_DATABASE_URL=postgresql://...
    durable migrate && uvicorn samples.web_fastapi.app:app

    curl -X POST localhost:8000/orders -H 'content-type: application/json' -d '{"customer": "ann", "cents": 700}'
    curl localhost:8000/orders/1

The worker lives as long as the application (its lifespan); on shutdown it lets what it runs end and gives the rest back. More workers may run
elsewhere (`durable-worker samples.web_fastapi.app`), or all of them: leave the `async with Worker(...)` out then.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request
from pydantic import BaseModel
from sqlalchemy import Column, Integer, MetaData, Table, Text, insert, select, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from durable import AsyncClient, activity, activity_info
from durable_worker import Worker

metadata = MetaData()
orders = Table(
    "web_orders",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("customer", Text, nullable=False),
    Column("cents", Integer, nullable=False),
    Column("confirmation", Text),
)


class NewOrder(BaseModel):
    customer: str
    cents: int


def make_engine() -> AsyncEngine:
    url = os.environ["DURABLE_DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://", 1)
    return create_async_engine(url)


@activity(queue="letters")
async def confirm_order(order_id: int, customer: str) -> None:
    """Runs after the request's commit, at least once: writing the same text twice is harmless."""
    engine = make_engine()
    async with engine.begin() as connection:
        text = f"thank you, {customer} ({activity_info().name})"
        await connection.execute(
            update(orders).where(orders.c.id == order_id).values(confirmation=text)
        )
    await engine.dispose()


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.engine = make_engine()
    async with app.state.engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    async with (
        AsyncClient() as app.state.client,
        Worker(activities=[confirm_order], queues={"letters": 10}),
    ):
        yield
    await app.state.engine.dispose()


app = FastAPI(lifespan=lifespan)


async def transaction(request: Request) -> AsyncIterator[AsyncSession]:
    """One transaction a request: it commits when the handler returns, and rolls back when it raises."""
    async with AsyncSession(request.app.state.engine) as session, session.begin():
        yield session


Transaction = Annotated[AsyncSession, Depends(transaction, scope="function")]


@app.post("/orders", status_code=201)
async def create_order(order: NewOrder, session: Transaction, request: Request) -> dict[str, int]:
    made = await session.execute(insert(orders).values(**order.model_dump()).returning(orders.c.id))
    order_id: int = made.scalar_one()
    client: AsyncClient = request.app.state.client
    await client.enqueue(confirm_order, order_id, order.customer, connection=session)
    if order.cents > 100_000:  # too late a check, on purpose: the order and the job go together
        raise HTTPException(409, "we do not sell for that much")
    return {"id": order_id}


@app.get("/orders/{order_id}")
async def read_order(order_id: int, session: Transaction) -> dict[str, str | int | None]:
    row = (await session.execute(select(orders).where(orders.c.id == order_id))).one_or_none()
    if row is None:
        raise HTTPException(404, "no such order")
    return dict(row._mapping)
