"""Exit codes, and errors as one line on stderr.

0  it was done
1  it was refused or failed: the workflow is closed, the id is taken, an update was rejected, a query or an update's handler raised, a migration failed
2  the command or its input is wrong: usage, malformed JSON, a payload of the wrong type, a DAG that is not valid
3  not found: no such workflow id, or workflow, signal, query or update name
4  the database cannot be reached, or its schema does not fit
5  `result` and `start --wait`: the workflow failed, was cancelled or was terminated
6  `result`, `start --wait`, `query` and `update`: the timeout passed and the workflow goes on
7  `verify` and `replay`: the code does not do what a history says
8  `verify`: nothing was checked
130  interrupted with Ctrl-C

`doctor` has its own: 0 healthy, 1 attention, 2 problem; `lint` too: 0 nothing found, 1 something found, 2 could not read.
"""

from __future__ import annotations

import json
import sys
from typing import Any, NoReturn

from durable.dag_errors import InvalidDag
from durable.errors import (
    BlockingCall,
    DatabaseUnavailable,
    DurableError,
    EmbeddedPostgresError,
    InvalidOption,
    NotInWorkflow,
    PayloadError,
    ScheduleNotFound,
    SchemaOutOfDate,
    UnknownActivity,
    UnknownQuery,
    UnknownQueue,
    UnknownSignal,
    UnknownUpdate,
    UnknownWorkflow,
    UnsafeWorkflow,
    WorkflowNotFound,
    WorkflowOutcome,
)

DONE = 0
REFUSED = 1
BAD_INPUT = 2
NOT_FOUND = 3
NO_DATABASE = 4
RUN_FAILED = 5
TIMED_OUT = 6
INCOMPATIBLE = 7
NOTHING_CHECKED = 8
INTERRUPTED = 130

_CODES: tuple[tuple[tuple[type[BaseException], ...], int], ...] = (
    (
        (PayloadError, InvalidDag, InvalidOption, NotInWorkflow, BlockingCall, UnsafeWorkflow),
        BAD_INPUT,
    ),
    (
        (
            WorkflowNotFound,
            ScheduleNotFound,
            UnknownWorkflow,
            UnknownActivity,
            UnknownSignal,
            UnknownQueue,
            UnknownQuery,
            UnknownUpdate,
        ),
        NOT_FOUND,
    ),
    ((DatabaseUnavailable, SchemaOutOfDate, EmbeddedPostgresError), NO_DATABASE),
    ((WorkflowOutcome,), RUN_FAILED),
    ((TimeoutError,), TIMED_OUT),
    ((DurableError,), REFUSED),
)


class BadInput(DurableError):
    """What was typed cannot be used; the message says how to type it."""


def code_of(error: BaseException) -> int:
    """The exit code for an expected error."""
    if isinstance(error, BadInput):
        return BAD_INPUT
    return next((code for kinds, code in _CODES if isinstance(error, kinds)), REFUSED)


def fail(error: BaseException, *, in_json: bool) -> NoReturn:
    """Print the error as one line on stderr and leave with its code."""
    message = " ".join(str(error).split())
    if in_json:
        told: dict[str, Any] = {"type": type(error).__name__, "message": message}
        if code := getattr(error, "code", None):  # of a refusal; see durable/refusals.py
            told |= {"code": code, "next_steps": list(getattr(error, "next_steps", ()))}
        if isinstance(error, InvalidDag):
            told["problems"] = error.problems
        said = json.dumps({"error": told}, ensure_ascii=False)
    else:
        said = f"durable: {message}"
    print(said, file=sys.stderr)
    raise SystemExit(code_of(error))
