"""A connection that can only look: for the commands that must not change what they are about."""

from __future__ import annotations

from types import TracebackType
from typing import Generic, Self, TypeVar

import psycopg
from psycopg.rows import RowFactory

from durable.store.failures import unavailable
from durable.store.migrate import ensure_current

R = TypeVar("R")


class ReadOnly(Generic[R]):
    """Its transactions are read-only. Raises DatabaseUnavailable and SchemaOutOfDate, here and in every call."""

    def __init__(self, url: str, name: str, rows: RowFactory[R]) -> None:
        self._connection: psycopg.Connection[R] = connected(url, name, rows)
        self._connection.read_only = True
        try:
            ensure_current(self._connection)
            self._connection.rollback()
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self._connection.close()


def connected(url: str, name: str, rows: RowFactory[R]) -> psycopg.Connection[R]:
    """A connection that prepares nothing, for it may go through a pooler. Raises DatabaseUnavailable."""
    try:
        return psycopg.Connection[R].connect(
            url,
            application_name=name,
            client_encoding="UTF8",
            connect_timeout=10,
            row_factory=rows,
            prepare_threshold=None,
        )
    except psycopg.Error as error:
        raise unavailable(url, error) from error
