"""Prepared statements straight over libpq, one at a time: what the worker's hot path pays for a round trip.

The problem. A lone step of a workflow is one round trip, and half of the Python that it took was psycopg's: a cursor, a lock, a query
converted and a result described again for each call, and a generator that waits.

The solution. Every statement of the worker is known beforehand, and every parameter is a short text. So each is parsed once by a connection, sent with its
parameters as they are, and its rows are made by psycopg's own loaders. Connecting, TLS, errors and types stay psycopg's.

What can fail. The await is cancelled while an answer is on its way: the connection is then of no use to anybody and must be closed, which is what
`Session` does. (psycopg would ask the server to cancel the statement, over a second connection that may hang where the network does.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cache
from typing import Any

import psycopg
from psycopg import pq
from psycopg.abc import Transformer as TransformerProtocol
from psycopg.adapt import Transformer

_ANSWERS = (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK)


class Wire:
    """The statements of one open connection. Not for two tasks at once."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._pgconn = connection.pgconn
        self._loader: TransformerProtocol = Transformer(connection)
        self._names: dict[str, bytes] = {}
        self._results: list[pq.abc.PGresult] = []

    async def fetch(self, query: str, params: tuple[Any, ...]) -> list[Any]:
        """Run a statement with `%s` for each parameter; return its rows. Raises psycopg.Error."""
        texts = [None if value is None else _text(value) for value in params]
        name = self._names.get(query)
        if name is None:
            name = await self._prepare(query)
        self._pgconn.send_query_prepared(name, texts)
        return self._rows(await self._receive())

    async def command(self, command: bytes) -> None:
        """Run a command that has neither parameters nor rows. Raises psycopg.Error."""
        self._pgconn.send_query(command)
        self._rows(await self._receive())

    async def listen(self, hear: Callable[[str], None]) -> None:
        """Hand the payload of each notification to `hear`, until the connection breaks: raises psycopg.Error then."""
        loop, socket = asyncio.get_running_loop(), self._pgconn.socket
        broken: asyncio.Future[None] = loop.create_future()
        self._hear(hear, broken, socket)
        try:
            await broken
        finally:
            if broken.cancelled():
                _forget(loop, socket)

    def _hear(self, hear: Callable[[str], None], broken: asyncio.Future[None], socket: int) -> None:
        """As `_readable`: with the socket off the loop's list while libpq reads."""
        if broken.done():
            return
        loop = broken.get_loop()
        loop.remove_reader(socket)
        try:
            self._pgconn.consume_input()
        except psycopg.Error as error:
            broken.set_exception(error)
            return
        loop.add_reader(socket, self._hear, hear, broken, socket)
        while notification := self._pgconn.notifies():
            hear(notification.extra.decode())

    async def _prepare(self, query: str) -> bytes:
        name = b"durable_%d" % len(self._names)
        self._pgconn.send_prepare(name, _numbered(query))
        self._rows(await self._receive())
        self._names[query] = name
        return name

    def _rows(self, result: pq.abc.PGresult) -> list[Any]:
        if result.status not in _ANSWERS:
            raise psycopg.errors.error_from_result(result)
        if not result.ntuples:
            return []
        self._loader.set_pgresult(result)
        return self._loader.load_rows(0, result.ntuples, tuple)

    async def _receive(self) -> pq.abc.PGresult:
        """Wait for the one result of what was just sent."""
        loop, socket = asyncio.get_running_loop(), self._pgconn.socket
        answer: asyncio.Future[None] = loop.create_future()
        self._results = []
        loop.add_reader(socket, self._readable, answer, socket)
        try:
            if self._pgconn.flush():
                loop.add_writer(socket, self._writable, answer, socket)
            await answer
        finally:
            if not answer.done() or answer.cancelled():
                _forget(loop, socket)
        if not self._results:
            raise psycopg.OperationalError("the connection ended without an answer")
        return self._results[0]

    def _readable(self, answer: asyncio.Future[None], socket: int) -> None:
        """Read, with the socket off the loop's list: libpq closes it when the connection has broken, and the next connection gets its number.

        A loop that still has the number on its list does not watch the new one, whose user would wait for ever. Mostly the whole
        answer is there at once, so this costs nothing.
        """
        if answer.done():  # cancelled a moment ago
            return
        loop = answer.get_loop()
        sending = loop.remove_writer(socket)
        loop.remove_reader(socket)
        try:
            self._pgconn.consume_input()
            while not self._pgconn.is_busy():
                result = self._pgconn.get_result()
                if result is None:
                    answer.set_result(None)
                    return
                self._results.append(result)
        except psycopg.Error as error:
            answer.set_exception(error)
            return
        loop.add_reader(socket, self._readable, answer, socket)
        if sending:
            loop.add_writer(socket, self._writable, answer, socket)

    def _writable(self, answer: asyncio.Future[None], socket: int) -> None:
        if answer.done():
            return
        loop = answer.get_loop()
        _forget(loop, socket)
        try:
            unsent = self._pgconn.flush()
        except psycopg.Error as error:
            answer.set_exception(error)
            return
        loop.add_reader(socket, self._readable, answer, socket)
        if unsent:
            loop.add_writer(socket, self._writable, answer, socket)


def _forget(loop: asyncio.AbstractEventLoop, socket: int) -> None:
    loop.remove_reader(socket)
    loop.remove_writer(socket)


def _text(value: Any) -> bytes:
    """A parameter as PostgreSQL reads it. Refuses what it would cut short or could not read."""
    if isinstance(value, str):
        try:
            encoded = value.encode()
        except UnicodeEncodeError as error:
            raise psycopg.DataError(f"a text that is not Unicode cannot be sent: {error}") from None
        if b"\0" in encoded:
            raise psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")
        return encoded
    if isinstance(value, bool | int | float):
        return str(value).encode()
    raise psycopg.ProgrammingError(
        f"our bug: a parameter of type {type(value).__name__}; send it as text and cast it"
    )


@cache
def _numbered(query: str) -> bytes:
    """`%s` as `$1`, `$2`, …: what the server calls them."""
    first, *rest = query.split("%s")
    return (
        (first + "".join(f"${n}{part}" for n, part in enumerate(rest, 1)))
        .replace("%%", "%")
        .encode()
    )
