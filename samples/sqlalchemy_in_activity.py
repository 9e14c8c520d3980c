"""SQLAlchemy inside a transactional activity: the session works on the worker's connection, and the worker commits.

    pip install sqlalchemy

What a session writes is there if, and only if, the activity's outcome is recorded. To SQLAlchemy its transaction is a savepoint within the worker's:
`session.commit()` keeps what it wrote for the worker to commit, `session.rollback()` undoes it.
"""

from __future__ import annotations

from typing import Any, LiteralString

import psycopg
from sqlalchemy import Engine, ForeignKey, create_engine, event
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import StaticPool

from durable import RetryPolicy, activity, workflow


class Joined:
    """psycopg's connection as SQLAlchemy may have it: its transactions are savepoints."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._begun = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def begin(self) -> None:
        self._connection.execute("savepoint joined")
        self._begun = True

    def commit(self) -> None:
        self._end("release savepoint joined")

    def rollback(self) -> None:
        self._end("rollback to savepoint joined")

    def close(self) -> None:
        """It is the worker's."""

    def _end(self, statement: LiteralString) -> None:
        if self._begun:
            self._begun = False
            self._connection.execute(statement)


def engine_on(connection: psycopg.Connection[Any]) -> Engine:
    """An engine whose only connection is this one."""
    joined = Joined(connection)
    engine = create_engine(
        "postgresql+psycopg://",
        creator=lambda: joined,
        poolclass=StaticPool,
        pool_reset_on_return=None,
        use_native_hstore=False,
    )
    event.listen(engine, "begin", lambda _: joined.begin())
    return engine


class Base(DeclarativeBase):
    pass


class Account(Base):
    __tablename__ = "accounts"
    __table_args__ = {"schema": "bank"}  # noqa: RUF012 - SQLAlchemy wants it so

    name: Mapped[str] = mapped_column(primary_key=True)
    cents: Mapped[int]


class Entry(Base):
    __tablename__ = "entries"
    __table_args__ = {"schema": "bank"}  # noqa: RUF012

    id: Mapped[int] = mapped_column(primary_key=True)
    account: Mapped[str] = mapped_column(ForeignKey("bank.accounts.name"))
    cents: Mapped[int]


class NotEnough(Exception):
    """There is less than that in the account."""


@activity(transactional=True, retry=RetryPolicy(non_retryable=(NotEnough,)))
def move_money(connection: psycopg.Connection[Any], source: str, target: str, cents: int) -> int:
    """Exactly once. Returns what is left in the source."""
    with Session(engine_on(connection)) as session:
        giver, taker = session.get_one(Account, source), session.get_one(Account, target)
        if giver.cents < cents:
            raise NotEnough(f"{source} has only {giver.cents}")
        giver.cents -= cents
        taker.cents += cents
        session.add_all([Entry(account=source, cents=-cents), Entry(account=target, cents=cents)])
        session.commit()
        return giver.cents


@workflow
async def pay_back(source: str, target: str, cents: int, times: int) -> int:
    left = 0
    for _ in range(times):
        left = await move_money(source, target, cents)
    return left
