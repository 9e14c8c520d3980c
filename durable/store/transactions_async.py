"""Transactions of activities that write and are recorded in one commit (C5), and the connections that carry them.

The problem. An activity that writes to this very database can be exactly once: its rows and its outcome are either both there or neither. Whoever runs it may be
killed at any statement, frozen for an hour, or taken for dead while another attempt runs.

The solution. The function gets the connection of an open transaction. When it returns, one more statement in that transaction asks whether the attempt still counts (owner, attempt,
not cancelled), removes its job and tells the run; then the commit. If the attempt does not count any more, all is rolled back. A process that dies takes its
transaction along.

What does not work. Taking the fence at the beginning: a lock on the job's row for as long as the function runs would stop whoever has to rescue the attempt.
Recording the outcome in a second transaction: a crash in between repeats the writes.

How it can be misused, and what happens then. `commit()`, `rollback()` and `close()` are psycopg's to refuse inside its transaction block. `commit` sent as SQL cannot be
prevented, but be noticed: a setting local to the transaction is gone afterwards. What was written until then stands; the outcome is a failure that says so.

What can still fail. A process that is frozen with an open transaction keeps its row locks: the server ends a session that has been idle in a
transaction for a minute. Settings of the session that the function leaves behind (`set search_path`) meet the next one; `set local` does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
from psycopg import errors
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row
from psycopg.sql import SQL, Literal

from durable.completion_errors import TransactionMisused
from durable.store.fences import (
    CLOSED,
    ENDED,
    FORBIDDEN,
    SWALLOWED,
    Fence,
    TransactionRefused,
)
from durable.store.queries import load_queries

AsyncConnection = psycopg.AsyncConnection[Any]

_SQL = load_queries("transactions.sql")
_TRIES = 3
"""How often a transaction that lost a conflict (serialization failure, deadlock) is tried again at once: nothing has happened, so it is no attempt's failure."""
_PAUSE_S = 0.02


class AsyncTransactions:
    """At most `limit` connections, opened when needed and kept. `point` is called at each boundary, by name."""

    def __init__(self, url: str, limit: int, point: Callable[[str], None]) -> None:
        self._url = url
        self._idle: list[AsyncConnection] = []
        self._places = asyncio.Semaphore(limit)
        self._point = point

    async def record(
        self,
        fence: Fence,
        body: Callable[[AsyncConnection], Awaitable[str]],
        is_wanted: Callable[[], bool],
    ) -> str | None:
        """Call `body` with the connection of an open transaction, and record what it returns (JSON text) as the attempt's outcome in the same commit.

        Returns the hint to give. Raises what `body` raises (all is rolled back), TransactionRefused when the attempt does not count any more, and
        TransactionMisused when `body` ended the transaction itself.
        """
        for _ in range(_TRIES):
            try:
                return await self._try(fence, body, is_wanted)
            except (errors.SerializationFailure, errors.DeadlockDetected):
                await asyncio.sleep(_PAUSE_S)
        return await self._try(fence, body, is_wanted)

    async def _try(
        self,
        fence: Fence,
        body: Callable[[AsyncConnection], Awaitable[str]],
        is_wanted: Callable[[], bool],
    ) -> str | None:
        async with self._places:
            if not is_wanted():
                raise TransactionRefused("cancelled")
            connection = await self._take()
            try:
                hint = await self._transact(connection, fence, body)
            except BaseException as error:
                try:
                    if isinstance(error, TransactionRefused) and error.verdict == "lost":
                        await self._note(connection, fence)
                finally:
                    await connection.close()  # nobody knows what state the function left it in
                raise
            self._idle.append(connection)
            return hint

    async def _transact(
        self,
        connection: AsyncConnection,
        fence: Fence,
        body: Callable[[AsyncConnection], Awaitable[str]],
    ) -> str | None:
        mark = f"{fence.run_id}/{fence.seq}/{fence.attempt}"
        try:
            async with connection.transaction():
                await connection.execute(SQL(_SQL["mark_attempt"]).format(Literal(mark)))
                payload = await body(connection)
                _check(connection)
                self._point("transaction.before")
                cursor = await connection.execute(
                    _SQL["settle_transaction"], (*fence, mark, payload)
                )
                row = await cursor.fetchone()
                assert row is not None
                if row[0] == "not_ours":
                    raise TransactionMisused(ENDED)
                if row[0] != "completed":
                    raise TransactionRefused(row[0])
                self._point("transaction.settled")
        except psycopg.ProgrammingError as error:
            if "within a Transaction context" in str(error):
                raise TransactionMisused(FORBIDDEN) from error
            raise
        self._point("transaction.committed")
        hint: str | None = row[1]
        return hint

    async def _note(self, connection: AsyncConnection, fence: Fence) -> None:
        values = (fence.shard, fence.run_id, fence.seq, fence.attempt, fence.owner)
        await connection.execute(_SQL["note_refusal"], values)

    async def _take(self) -> AsyncConnection:
        while self._idle:
            connection = self._idle.pop()
            if await self._still_works(connection):
                return connection
        connection = await psycopg.AsyncConnection.connect(
            self._url,
            autocommit=True,
            application_name="durable-transaction",
            client_encoding="UTF8",
            connect_timeout=10,
        )
        await connection.execute(_SQL["bound_idle_transactions"])
        return connection

    async def _still_works(self, connection: AsyncConnection) -> bool:
        """The server may have gone meanwhile; that is no failure of the attempt."""
        connection.row_factory = tuple_row
        try:
            await connection.execute(b"")
        except psycopg.Error:
            await connection.close()
            return False
        return True

    async def close(self) -> None:
        """Close the connections that are not in use."""
        while self._idle:
            await self._idle.pop().close()


def _check(connection: AsyncConnection) -> None:
    """Raises TransactionMisused unless the transaction is still open and sound."""
    if connection.closed:
        raise TransactionMisused(CLOSED)
    status = connection.info.transaction_status
    if status == TransactionStatus.INERROR:
        raise TransactionMisused(SWALLOWED)
    if status != TransactionStatus.INTRANS:
        raise TransactionMisused(ENDED)
