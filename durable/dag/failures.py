"""Failures as the table of steps shows them."""

from __future__ import annotations

from typing import Any

from durable.errors import ActivityError, DurableError, RemoteError


def described(error: BaseException) -> dict[str, Any]:
    """A failure as a row of the table; the same in every process, whether or not it has the exception's class."""
    cause = error.__cause__ if isinstance(error, DurableError) and error.__cause__ else error
    if isinstance(cause, RemoteError):
        kind, message = cause.type_name.rpartition(":")[2], cause.message
    else:
        kind, message = type(cause).__qualname__, str(cause)
    more = {"attempt": error.attempt} if isinstance(error, ActivityError) else {}
    return {"type": kind, "message": message, **more}
