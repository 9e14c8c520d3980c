"""One asynchronous connection that is opened when needed and reopened after a break."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, LiteralString

import psycopg

from durable.errors import DatabaseUnavailable
from durable.payload_codecs import Payloads
from durable.store.wire import Wire

_FIRST_PLANS_S = 0.05
_LONGEST_PLANS_S = 5.0
"""How long a session keeps its plans: at first shortly, then for twice as long each time, up to this. A plan made while a table is empty may use any
index that begins with the shard, and PostgreSQL would keep it until the table is analysed; a plan made a little later finds the primary key."""


class ConnectionLost(Exception):
    """The connection broke while a statement was under way: whether it took effect is unknown."""


class DatabaseRefused(Exception):
    """The database answered with an error; nothing was written.

    `transient`: it is about the server, and the same statement may succeed later. Only errors about data (22, 23), a program limit
    (54), or values that psycopg itself cannot send are about what was written.
    """

    def __init__(self, error: psycopg.Error) -> None:
        super().__init__(error.diag.message_primary or str(error) or type(error).__name__)
        self.sqlstate = error.sqlstate or ""
        self.detail = error.diag.message_detail or ""
        self.transient = self.sqlstate[:2] not in ("22", "23", "54") and self.sqlstate != ""


class Session:
    """A connection in autocommit mode: every statement is a transaction of its own.

    It carries one statement at a time: each busy loop has a session of its own, the others share one under `lock`.
    """

    def __init__(self, url: str, name: str) -> None:
        self._url = url
        self._name = name
        self._connection: psycopg.AsyncConnection[tuple[Any, ...]] | None = None
        self.payloads = Payloads()
        self._wire: Wire | None = None
        self.lock = asyncio.Lock()
        self._plans_s = _FIRST_PLANS_S
        self._replan_at = time.monotonic()

    async def connection(self) -> psycopg.AsyncConnection[tuple[Any, ...]]:
        """Return the open connection, opening one if there is none. Raises DatabaseUnavailable."""
        if self._connection is None or self._connection.closed:
            self._wire = None
            try:
                self._connection = await psycopg.AsyncConnection.connect(
                    self._url,
                    autocommit=True,
                    application_name=self._name,
                    client_encoding="UTF8",  # what we send is Unicode, whatever PGCLIENTENCODING says
                    connect_timeout=10,
                    keepalives_idle=5,  # a silent peer is noticed within the lease, not after the kernel's hours
                    keepalives_interval=2,
                    keepalives_count=3,
                    tcp_user_timeout=10_000,
                    prepare_threshold=0,
                )
            except psycopg.OperationalError as error:
                raise DatabaseUnavailable(f"cannot reach the database: {error}") from error
        return self._connection

    async def fetch(self, query: LiteralString, params: tuple[Any, ...] = ()) -> list[Any]:
        """Run one prepared statement and return its rows.

        Raises DatabaseUnavailable when there is no connection to be had, ConnectionLost when it breaks meanwhile, DatabaseRefused
        when the database answers with an error.
        """
        connection = await self.connection()
        wire = self._wire or Wire(connection)
        self._wire = wire
        try:
            if (now := time.monotonic()) > self._replan_at:
                self._replan_at = now + self._plans_s
                self._plans_s = min(_LONGEST_PLANS_S, self._plans_s * 2)
                await wire.command(b"discard plans")
            return await wire.fetch(query, params)
        except asyncio.CancelledError:  # an answer may be on its way: nobody else must get it
            await self.close()
            raise
        except psycopg.Error as error:
            if not connection.closed and not _breaks(error):
                raise DatabaseRefused(error) from error
            await self.close()
            raise ConnectionLost(str(error)) from error

    async def listen(self, hear: Callable[[str], None]) -> None:
        """Hand the payload of each notification to `hear`, for ever. Raises ConnectionLost when the connection breaks."""
        wire = self._wire
        if wire is None:
            raise ConnectionLost("it was closed before anybody listened")
        try:
            await wire.listen(hear)
        except psycopg.Error as error:
            raise ConnectionLost(str(error)) from error

    async def close(self) -> None:
        """Close the connection if it is open; the next use opens another."""
        connection, self._connection = self._connection, None
        self._wire = None
        if connection is not None:
            await connection.close()


def _breaks(error: psycopg.Error) -> bool:
    """Tell whether the server is going away (class 57: operator intervention) or the connection is (class 08)."""
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return error.sqlstate[:2] in ("57", "08")
