"""PostgreSQL array literals, written as text.

psycopg can adapt Python lists, but does it element by element in Python; a hot commit sends hundreds of elements. Joining strings costs a
tenth of that, and the server parses the literal in C. Every literal is sent as a *parameter* and cast in the statement, never spliced into SQL.
"""

from __future__ import annotations

from collections.abc import Iterable


def plain(values: Iterable[object]) -> str:
    """Return a literal of numbers, booleans or UUIDs; None is NULL."""
    return "{" + ",".join(["NULL" if value is None else str(value) for value in values]) + "}"


def quoted(values: Iterable[str | None]) -> str:
    """Return a literal of texts (names, JSON documents); None is NULL."""
    return (
        "{"
        + ",".join(
            [
                "NULL"
                if value is None
                else '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
                for value in values
            ]
        )
        + "}"
    )
