"""The doctor's eyes: a connection that can only read, and two questions that need more than one connection."""

from __future__ import annotations

import time
from typing import Any, Literal, TypeVar
from uuid import uuid4

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from durable.store import catalogue
from durable.store.calls import Call, Row
from durable.store.catalogue import Drift
from durable.store.failures import domain_error
from durable.store.queries import load_queries
from durable.store.read_only import ReadOnly, connected

T = TypeVar("T")
Pooling = Literal["none", "session", "transaction"]

_SQL = load_queries("health.sql")
_NAME = "durable doctor"

PATIENCE_S = 10
"""For each statement: a check that hangs is itself a finding."""

HEARD_WITHIN_S = 2.0


class HealthReader(ReadOnly[Row]):
    """Raises DatabaseUnavailable and SchemaOutOfDate, here and in every call."""

    def __init__(self, url: str) -> None:
        super().__init__(url, _NAME, dict_row)
        self._url = url

    def read(self, call: Call[T]) -> T:
        """Execute one of the client's calls; the server refuses it if it writes."""
        return call.decode(self._rows(call.statement, call.parameters))

    def rows(self, name: str, **given: Any) -> list[Row]:
        """The answer to a statement of health.sql."""
        return self._rows(_SQL[name], given)

    def drift(self) -> Drift | None:
        """What was changed by hand since the schema was migrated; None when nothing was written down then."""
        recorded = self.rows("read_recorded_catalogue")[0]["catalogue"]
        try:
            with self._connection.transaction():
                self._be_patient()
                now = catalogue.take(self._connection)
        except psycopg.Error as error:
            raise domain_error(error) from error
        return catalogue.drift(catalogue.from_json(recorded), now)

    def _rows(self, statement: Any, given: Any) -> list[Row]:
        try:
            with self._connection.transaction(), self._connection.cursor() as cursor:
                self._be_patient()
                cursor.execute(statement, given)
                return cursor.fetchall()
        except psycopg.Error as error:
            raise domain_error(error) from error

    def _be_patient(self) -> None:
        self._connection.execute(_SQL["be_patient"], {"for": f"{PATIENCE_S}s"})

    # -- what needs connections of its own --------------------------------------------------------------------------------

    def hears_notifications(self) -> bool:
        """Whether a notification reaches a connection that listens, over the way that workers come."""
        channel = sql.Identifier(f"durable_doctor_{uuid4().hex[:12]}")
        with (
            connected(self._url, _NAME, dict_row) as listener,
            connected(self._url, _NAME, dict_row) as sender,
        ):
            listener.autocommit = sender.autocommit = True
            listener.execute(sql.SQL("listen {}").format(channel))
            sender.execute(sql.SQL("notify {}").format(channel))
            return any(True for _ in listener.notifies(timeout=HEARD_WITHIN_S, stop_after=1))

    def pooling(self) -> Pooling:
        """What stands between a client and its session of the server.

        The server tells each client the process that serves it; a pooler tells another number. Two clients that are served by one process one after
        the other have no sessions of their own.
        """
        with (
            connected(self._url, _NAME, dict_row) as one,
            connected(self._url, _NAME, dict_row) as other,
        ):
            one.autocommit = other.autocommit = True
            served = [_process(one), _process(other), _process(one)]
            if served[0] == served[1] or served[0] != served[2]:
                return "transaction"
            direct = served[:2] == [one.info.backend_pid, other.info.backend_pid]
        return "none" if direct else "session"


def round_trip(reader: HealthReader, call: Call[T]) -> tuple[T, float, float]:
    """The answer, when it was asked and how long it took, in seconds of this machine's clock."""
    before, begun = time.time(), time.perf_counter()
    answer = reader.read(call)
    return answer, before, time.perf_counter() - begun


def _process(connection: psycopg.Connection[Row]) -> int:
    row = connection.execute(_SQL["read_session"]).fetchone()
    assert row is not None
    return int(row["pid"])
