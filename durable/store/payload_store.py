"""A payload store in PostgreSQL: a table beside the others, or in a database of its own."""

from __future__ import annotations

import threading

import psycopg

from durable.store.queries import load_queries

_SQL = load_queries("payloads.sql")


class PostgresStore:
    """Keeps large payloads in the table durable.payloads of a migrated database: out of the hot tables, each content once.

    `url` is that database's, usually the one of the workflows. One connection, opened when needed; threads take turns.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: psycopg.Connection[tuple[object, ...]] | None = None
        self._lock = threading.Lock()

    def put(self, key: str, data: bytes) -> None:
        self._execute("put_payload", {"key": key, "data": data})

    def get(self, key: str) -> bytes:
        rows = self._execute("get_payload", {"key": key})
        if not rows:
            raise KeyError(key)
        return bytes(rows[0][0])  # type: ignore[call-overload, no-any-return]

    def delete_unused(self, used: frozenset[str], older_than_s: float) -> int:
        rows = self._execute("delete_payloads", {"used": list(used), "older_than_s": older_than_s})
        return int(str(rows[0][0]))

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _execute(self, name: str, parameters: dict[str, object]) -> list[tuple[object, ...]]:
        with self._lock:
            if self._connection is None or self._connection.closed:
                self._connection = psycopg.connect(
                    self._url,
                    autocommit=True,
                    application_name="durable payloads",
                    client_encoding="UTF8",
                    connect_timeout=10,
                )
            cursor = self._connection.execute(_SQL[name], parameters, binary=True)
            return cursor.fetchall() if cursor.description else []
