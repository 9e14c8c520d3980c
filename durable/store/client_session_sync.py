# Generated from durable/store/client_session_async.py by tests/unasync.py; edit that file.

"""The client's connection: opened when needed, shared by turns, opened once more after a break.

One connection and a lock, not a pool: an operation is one round trip, so threads or tasks that share a client wait for each other about as long
as the database would make them wait anyway, and a client costs the server one connection. Who needs more makes more clients.

A statement whose answer was lost is sent again, once, over a new connection. That is safe because every operation is idempotent: ids are
made before the first attempt (see calls.py). What can still fail is the second attempt; then the caller learns that the outcome is unknown.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

import psycopg
from psycopg.rows import dict_row

from durable.descriptions import EnqueuedMany
from durable.errors import DatabaseUnavailable, DurableError
from durable.payload_codecs import Payloads, default_payloads
from durable.store import bulk, sealed_calls
from durable.store.bulk import Bulk
from durable.store.calls import Call, Row, notify
from durable.store.evidence_calls import name_recovery
from durable.store.failures import domain_error, is_broken, unavailable
from durable.store.joined import HasConnection, joined
from durable.store.migrate import ensure_current
from durable.store.round_trip import RoundTrips

T = TypeVar("T")

Connection = psycopg.Connection[Any]
Transaction = Connection | HasConnection
"""What a caller may have open, and an operation may join: a connection of psycopg, or one of those in store/joined.py."""

HINT_GAP_S = 0.002
"""The same hint goes out at most once in this time (its leading edge); the workers' polling covers the rest (C4)."""

_DEADLOCKS = 5


class ClientSession:
    """Executes calls. `name` is the connection's application_name."""

    def __init__(self, url: str, name: str, *, notify: bool) -> None:
        self._url = url
        self._name = name
        self._notify = notify
        self.payloads: Payloads | None = None
        self.recovery: str | None = None
        self._connection: Connection | None = None
        self._trips: RoundTrips | None = None
        self._lock = threading.Lock()
        self._hinted: dict[str, float] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self.close()

    def execute(self, call: Call[T]) -> T:
        """Execute in a transaction of its own. Raises DatabaseUnavailable, SchemaOutOfDate, and what the call's decoder raises."""
        call = self._sealed(call)
        with self._lock:
            hint = self.along(call)
            if hint is not None and not (self._notify and self._is_due(hint)):
                hint = None
            try:
                rows = self._fetch(call, hint)
            except _Broken:
                rows = self._fetch_again(call, hint)
        return call.decode(self._shown(rows))

    def along(self, call: Call[Any]) -> str | None:
        """The hint that leaves in the round trip of the call. None does within a recovery, whose transaction is several statements."""
        return call.hint if self.recovery is None else None

    def execute_within(self, connection: Transaction, call: Call[T]) -> T:
        """Execute in the caller's transaction: nothing is committed here, and nothing is sent again."""
        call = self._sealed(call)
        theirs = joined(connection)
        try:
            rows = self._rows(theirs, call)
        except psycopg.Error as error:
            raise domain_error(error) from error
        return call.decode(self._shown(rows))

    def sealer(self) -> Callable[[str], str] | None:
        """What seals one text, for those who send more than a call; None: nothing does."""
        payloads = self.payloads or default_payloads()
        return partial(sealed_calls.sealed_text, payloads) if payloads.active else None

    def _sealed(self, call: Call[T]) -> Call[T]:
        payloads = self.payloads or default_payloads()
        if not payloads.active or not sealed_calls.has_payload(call):
            return call
        return sealed_calls.sealed(payloads, call)

    def _shown(self, rows: list[Row]) -> list[Row]:
        if not sealed_calls.any_sealed(rows):
            return rows
        return sealed_calls.shown(self.payloads or default_payloads(), rows)

    def enqueue_many(self, many: Bulk, connection: Transaction | None = None) -> EnqueuedMany:
        """Copy many jobs in one transaction, or within the caller's. Never sent again: the items have been consumed."""
        if connection is not None:
            return self._copy(joined(connection), many)
        with self._lock:
            return self._copy(self._opened(), many)

    def _copy(self, connection: Connection, many: Bulk) -> EnqueuedMany:
        try:
            connection.execute(
                bulk.SQL["read_now"]
            )  # begins the caller's transaction, which a bare block would commit
            with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
                if many.keyed:
                    return _enqueue_staged(cursor, many)
                return _enqueue_plain(cursor, many)
        except psycopg.Error as error:
            if is_broken(error, connection.closed):
                self.close()
                msg = "the connection broke while many jobs were enqueued; either all of them are there or none is"
                raise DatabaseUnavailable(msg) from error
            raise domain_error(error) from error

    def hint(self, hints: tuple[str, ...], connection: Transaction | None = None) -> None:
        """Wake whoever may be asleep. Within a caller's transaction the hint leaves with its commit."""
        if not self._notify:
            return
        for hint in hints:
            if connection is not None:
                self.execute_within(connection, notify(hint))
            elif self._is_due(hint):
                with contextlib.suppress(
                    DatabaseUnavailable
                ):  # what it tells of is committed, and polling finds it
                    self.execute(notify(hint))

    def _is_due(self, hint: str) -> bool:
        now = time.monotonic()
        if now - self._hinted.get(hint, -HINT_GAP_S) < HINT_GAP_S:
            return False
        if len(self._hinted) > 1000:
            self._hinted.clear()
        self._hinted[hint] = now
        return True

    def close(self) -> None:
        """Close the connection if it is open; the next use opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _fetch(self, call: Call[Any], hint: str | None) -> list[Row]:
        connection = self._opened()
        try:
            if self.recovery is not None:
                return self._named(connection, call)
            assert self._trips is not None
            return connection.wait(self._trips.rows(call.statement, call.parameters, hint))
        except psycopg.Error as error:
            if not is_broken(error, connection.closed):
                raise domain_error(error) from error
            self.close()
            raise _Broken from error

    def _rows(self, connection: Connection, call: Call[Any]) -> list[Row]:
        if self.recovery is None:
            return _rows(connection, call)
        return self._named(connection, call)

    def _named(self, connection: Connection, call: Call[Any]) -> list[Row]:
        """Within a recovery its id is named for the transaction alone, so that no pooler hands it to others."""
        assert self.recovery is not None
        with connection.transaction():
            _rows(connection, name_recovery(self.recovery))
            rows = _rows(connection, call)
            _rows(connection, name_recovery(None))
            return rows

    def _opened(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = self._connect()
            self._trips = RoundTrips(self._connection, prepares=self._notify)
        return self._connection

    def _fetch_again(self, call: Call[Any], hint: str | None) -> list[Row]:
        try:
            return self._fetch(call, hint)
        except _Broken as error:
            msg = "the database broke the connection twice during one operation; whether it took effect is unknown"
            raise DatabaseUnavailable(msg) from error.__cause__

    def _connect(self) -> Connection:
        try:
            connection = psycopg.Connection.connect(
                self._url,
                autocommit=True,
                application_name=self._name,
                client_encoding="UTF8",
                connect_timeout=10,
            )
        except psycopg.Error as error:
            raise unavailable(self._url, error) from error
        try:
            ensure_current(connection)
        except BaseException:
            connection.close()
            raise
        return connection


class _Broken(DurableError):
    """The connection broke while a statement was under way; its cause says how."""


def _rows(connection: Connection, call: Call[Any]) -> list[Row]:
    with connection.cursor(row_factory=dict_row) as cursor:
        cursor.execute(call.statement, call.parameters)
        return cursor.fetchall() if cursor.description else []


def _enqueue_plain(cursor: psycopg.Cursor[Row], many: Bulk) -> EnqueuedMany:
    cursor.execute(bulk.SQL["plan_copy"], {"group_id": None, **many.given})
    (plan,) = cursor.fetchall()
    with cursor.copy(bulk.SQL["copy_jobs"]) as copy:
        for piece in many.plain(plan, cursor.connection.info.encoding):
            copy.write(piece)
    if many.given.get("group_id") is not None:
        cursor.execute(bulk.SQL["open_group"], {**many.given, "total": many.count})
    return EnqueuedMany(many.count, [])


def _enqueue_staged(cursor: psycopg.Cursor[Row], many: Bulk) -> EnqueuedMany:
    cursor.execute(bulk.SQL["make_stage"])
    with cursor.copy(bulk.SQL["copy_stage"]) as copy:
        for piece in many.staged(cursor.connection.info.encoding):
            copy.write(piece)
    rows = _insert_staged(cursor, many)
    cursor.execute(bulk.SQL["drop_stage"])
    return many.answer(rows)


def _insert_staged(cursor: psycopg.Cursor[Row], many: Bulk) -> list[Row]:
    """Insert what was staged; again where that met another set which had what it wanted and wanted what it had.

    Keys are inserted in one order by all, but a set that replaces, or ends periods, goes back to keys that it has passed.
    """
    for _ in range(_DEADLOCKS):
        try:
            with cursor.connection.transaction():
                cursor.execute(bulk.SQL["enqueue_staged"], many.given)
                return cursor.fetchall()
        except psycopg.errors.DeadlockDetected:
            continue
    cursor.execute(bulk.SQL["enqueue_staged"], many.given)
    return cursor.fetchall()
