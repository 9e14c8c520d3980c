"""The client's calls, sealed on their way into the database, and their rows, opened on the way out (see durable/payload_codecs.py)."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, TypeVar

from durable.errors import DatabaseUnavailable
from durable.payload_codecs import MARK, Payloads, PayloadStoreUnavailable
from durable.store.calls import Call, Row
from durable.store.queries import load_queries

T = TypeVar("T")

CARRIERS = ("payload", "input", "with_signal_payload", "with_update_payload", "heartbeat")
"""The parameters that carry an author's values as JSON text."""

FAILURE = "failure"
"""The parameter that carries an exception, as JSON text of its document."""


def has_payload(call: Call[Any]) -> bool:
    return any(isinstance(call.parameters.get(name), str) for name in (*CARRIERS, FAILURE))


def sealed(payloads: Payloads, call: Call[T]) -> Call[T]:
    """The call as the database gets it. Raises DatabaseUnavailable when the payload store does not answer."""
    given = {name: text for name in CARRIERS if isinstance(text := call.parameters.get(name), str)}
    covered = {name: sealed_text(payloads, text) for name, text in given.items()}
    if isinstance(failure := call.parameters.get(FAILURE), str):
        covered[FAILURE] = _sealed_failure(payloads, failure)
    return replace(call, parameters={**call.parameters, **covered})


def _sealed_failure(payloads: Payloads, failure: str) -> str:
    try:
        return json.dumps(payloads.sealed_body({FAILURE: json.loads(failure)})[FAILURE])
    except PayloadStoreUnavailable as error:
        raise DatabaseUnavailable(f"{error}; nothing was written") from error


def sealed_text(payloads: Payloads, text: str) -> str:
    """Raises DatabaseUnavailable when the payload store does not answer."""
    try:
        return payloads.sealed(text)
    except PayloadStoreUnavailable as error:
        raise DatabaseUnavailable(f"{error}; nothing was written") from error


def any_sealed(rows: list[Row]) -> bool:
    return any(isinstance(value, str) and MARK in value for row in rows for value in row.values())


def shown(payloads: Payloads, rows: list[Row]) -> list[Row]:
    """The rows with what is sealed in them opened, or replaced by a placeholder."""
    return [{name: _shown(payloads, value) for name, value in row.items()} for row in rows]


def _shown(payloads: Payloads, value: Any) -> Any:
    """Only JSON is looked at; other texts (a workflow's id) may hold anything."""
    if not isinstance(value, str) or MARK not in value or value[:1] not in "{[":
        return value
    try:
        return payloads.shown(value)
    except ValueError:
        return value


def payload_refs() -> Call[frozenset[str]]:
    """What the database refers to in a payload store. Reads every table that holds payloads, from end to end."""
    sql = load_queries("payloads.sql")["payload_refs"]
    return Call(sql, {}, lambda rows: frozenset(row["ref"] for row in rows))
