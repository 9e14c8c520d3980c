"""The psycopg connection behind what callers have in hand: SQLAlchemy's sessions and connections, Django's connection.

Nothing is imported from those libraries; what they offer is recognised by its attributes. Their transaction is the connection's own, so
what is executed on it commits and rolls back with them. A driver other than psycopg 3 is refused: another one would need its own statements.
"""

from __future__ import annotations

from typing import Any, Protocol

import psycopg

from durable.errors import InvalidOption


class HasConnection(Protocol):
    """A SQLAlchemy Session or Connection, or Django's `django.db.connection`."""

    @property
    def connection(self) -> Any: ...


def joined(given: Any) -> psycopg.Connection[Any]:
    """The connection whose transaction `given` has open. Raises InvalidOption for anything else than those named above, over psycopg."""
    found = given
    if hasattr(found, "get_bind") and callable(getattr(found, "connection", None)):
        found = found.connection()  # a Session: begins its transaction if there is none
    if hasattr(found, "ensure_connection"):
        found.ensure_connection()  # Django
        found = found.connection
    elif hasattr(found, "exec_driver_sql"):
        found = found.connection.driver_connection
    if not isinstance(found, psycopg.Connection):
        raise _refused(
            given,
            "a psycopg.Connection, a SQLAlchemy Session or Connection, or Django's connection",
        )
    return found


async def joined_async(given: Any) -> psycopg.AsyncConnection[Any]:
    """The same for an AsyncConnection of psycopg, or an AsyncSession or AsyncConnection of SQLAlchemy."""
    found = given
    if hasattr(found, "sync_session"):
        found = await found.connection()
    if hasattr(found, "get_raw_connection"):
        found = (await found.get_raw_connection()).driver_connection
    if not isinstance(found, psycopg.AsyncConnection):
        raise _refused(
            given, "a psycopg.AsyncConnection, or an AsyncSession or AsyncConnection of SQLAlchemy"
        )
    return found


def _refused(given: Any, wanted: str) -> InvalidOption:
    return InvalidOption(
        f"connection is {type(given).__module__}.{type(given).__qualname__}; give {wanted}, over the driver psycopg 3 "
        "(postgresql+psycopg://)"
    )
