# Generated from durable/store/transactions_async.py by tests/unasync.py; edit that file.

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

import threading
import time
from collections.abc import Callable
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

Connection = psycopg.Connection[Any]

_SQL = load_queries("transactions.sql")
_TRIES = 3
"""How often a transaction that lost a conflict (serialization failure, deadlock) is tried again at once: nothing has happened, so it is no attempt's failure."""
_PAUSE_S = 0.02


class Transactions:
    """At most `limit` connections, opened when needed and kept. `point` is called at each boundary, by name."""

    def __init__(self, url: str, limit: int, point: Callable[[str], None]) -> None:
        self._url = url
        self._idle: list[Connection] = []
        self._places = threading.Semaphore(limit)
        self._point = point

    def record(
        self,
        fence: Fence,
        body: Callable[[Connection], str],
        is_wanted: Callable[[], bool],
    ) -> str | None:
        """Call `body` with the connection of an open transaction, and record what it returns (JSON text) as the attempt's outcome in the same commit.

        Returns the hint to give. Raises what `body` raises (all is rolled back), TransactionRefused when the attempt does not count any more, and
        TransactionMisused when `body` ended the transaction itself.
        """
        for _ in range(_TRIES):
            try:
                return self._try(fence, body, is_wanted)
            except (errors.SerializationFailure, errors.DeadlockDetected):
                time.sleep(_PAUSE_S)
        return self._try(fence, body, is_wanted)

    def _try(
        self,
        fence: Fence,
        body: Callable[[Connection], str],
        is_wanted: Callable[[], bool],
    ) -> str | None:
        with self._places:
            if not is_wanted():
                raise TransactionRefused("cancelled")
            connection = self._take()
            try:
                hint = self._transact(connection, fence, body)
            except BaseException as error:
                try:
                    if isinstance(error, TransactionRefused) and error.verdict == "lost":
                        self._note(connection, fence)
                finally:
                    connection.close()  # nobody knows what state the function left it in
                raise
            self._idle.append(connection)
            return hint

    def _transact(
        self,
        connection: Connection,
        fence: Fence,
        body: Callable[[Connection], str],
    ) -> str | None:
        mark = f"{fence.run_id}/{fence.seq}/{fence.attempt}"
        try:
            with connection.transaction():
                connection.execute(SQL(_SQL["mark_attempt"]).format(Literal(mark)))
                payload = body(connection)
                _check(connection)
                self._point("transaction.before")
                cursor = connection.execute(_SQL["settle_transaction"], (*fence, mark, payload))
                row = cursor.fetchone()
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

    def _note(self, connection: Connection, fence: Fence) -> None:
        values = (fence.shard, fence.run_id, fence.seq, fence.attempt, fence.owner)
        connection.execute(_SQL["note_refusal"], values)

    def _take(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if self._still_works(connection):
                return connection
        connection = psycopg.Connection.connect(
            self._url,
            autocommit=True,
            application_name="durable-transaction",
            client_encoding="UTF8",
            connect_timeout=10,
        )
        connection.execute(_SQL["bound_idle_transactions"])
        return connection

    def _still_works(self, connection: Connection) -> bool:
        """The server may have gone meanwhile; that is no failure of the attempt."""
        connection.row_factory = tuple_row
        try:
            connection.execute(b"")
        except psycopg.Error:
            connection.close()
            return False
        return True

    def close(self) -> None:
        """Close the connections that are not in use."""
        while self._idle:
            self._idle.pop().close()


def _check(connection: Connection) -> None:
    """Raises TransactionMisused unless the transaction is still open and sound."""
    if connection.closed:
        raise TransactionMisused(CLOSED)
    status = connection.info.transaction_status
    if status == TransactionStatus.INERROR:
        raise TransactionMisused(SWALLOWED)
    if status != TransactionStatus.INTRANS:
        raise TransactionMisused(ENDED)
