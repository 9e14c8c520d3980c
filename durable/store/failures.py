"""psycopg's errors in the caller's terms: what is wrong with the database, and what to do about it."""

from __future__ import annotations

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict

from durable.errors import (
    DatabaseUnavailable,
    DurableError,
    InternalError,
    InvalidOption,
    SchemaOutOfDate,
    UnknownActivity,
    UnknownWorkflow,
    WorkflowAlreadyExists,
    WorkflowNotFound,
)

_BY_STATE: dict[str, type[DurableError]] = {
    "DU010": WorkflowAlreadyExists,
    "DU011": UnknownWorkflow,
    "DU012": WorkflowNotFound,
    "DU013": DatabaseUnavailable,
    "DU014": UnknownActivity,
    "DU015": InvalidOption,
}
_NO_SCHEMA = (
    errors.UndefinedTable,
    errors.UndefinedFunction,
    errors.UndefinedColumn,
    errors.InvalidSchemaName,
)


def is_broken(error: psycopg.Error, closed: bool) -> bool:
    """Tell whether the connection, not the statement, failed: no SQLSTATE, class 08, or the server going away (57P)."""
    if closed or isinstance(error, psycopg.InterfaceError):
        return True
    state = error.sqlstate
    return isinstance(error, psycopg.OperationalError) and (
        state is None or state[:2] == "08" or state[:3] == "57P"
    )


def domain_error(error: psycopg.Error) -> DurableError:
    """The error to raise for a statement that failed."""
    text = _first_line(error)
    if known := _BY_STATE.get(error.sqlstate or ""):
        return known(text)
    if isinstance(error, _NO_SCHEMA):
        return SchemaOutOfDate(
            f"the database's schema does not fit this release ({text}); run `durable migrate`"
        )
    if isinstance(error, errors.InsufficientPrivilege):
        return DatabaseUnavailable(
            f"the database user may not do this: {text}; grant it usage of the schema durable"
        )
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return DatabaseUnavailable(f"the database did not do this: {text}; try again")
    return InternalError(f"the database refused a statement of ours: {text} ({error.sqlstate})")


def unavailable(url: str, error: psycopg.Error) -> DurableError:
    """The error to raise when no connection could be made. Never shows the password."""
    try:
        parts = conninfo_to_dict(url)
    except psycopg.ProgrammingError as malformed:
        msg = f"the database URL cannot be read ({_first_line(malformed)}); it looks like postgresql://user@host:5432/name"
        return InvalidOption(msg)
    where = f"{parts.get('host') or 'the local socket'}:{parts.get('port') or 5432}/{parts.get('dbname') or ''}"
    return DatabaseUnavailable(
        f"cannot reach PostgreSQL at {where} ({_reason(error)}); start the server, or set DURABLE_DATABASE_URL or --url"
    )


def _reason(error: psycopg.Error) -> str:
    """libpq's last line says why; the lines before it list the addresses that were tried."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rpartition("failed: ")[2] if lines else type(error).__name__


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
