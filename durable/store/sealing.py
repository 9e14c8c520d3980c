"""The worker's records, sealed on their way into the database and opened on their way out (see durable/payload_codecs.py).

Nothing is changed in place: the worker goes on with the plain records, which its eager attempts read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from durable.core.events import Event, Message
from durable.errors import PayloadError
from durable.payload_codecs import MARK, PREFIX, Payloads, PayloadStoreUnavailable
from durable.store.batch import Completion, Outcome, PutBack, Release, Retry, RunCommit
from durable.store.session import ConnectionLost

R = TypeVar("R")
M = TypeVar("M", Event, Message)


def sealed(payloads: Payloads, record: Any) -> Any:
    """One record as the database gets it."""
    return _SEALS[type(record)](payloads, record)


async def sealed_all(payloads: Payloads, records: Sequence[R]) -> Sequence[R]:
    """All records as the database gets them. Raises ConnectionLost when the payload store does not answer: to be tried again."""
    if not payloads.active:
        return records
    try:
        if payloads.store is None:
            return [sealed(payloads, record) for record in records]
        return await asyncio.to_thread(lambda: [sealed(payloads, record) for record in records])
    except PayloadStoreUnavailable as error:
        raise ConnectionLost(str(error)) from error


def _commit(payloads: Payloads, commit: RunCommit) -> RunCommit:
    updates = commit.updates and {
        key: _update(payloads, said) for key, said in commit.updates.items()
    }
    events = [_event(payloads, event) for event in commit.events]
    return replace(commit, events=events, updates=updates)


def _update(payloads: Payloads, said: dict[str, Any]) -> dict[str, Any]:
    """What the table of updates is to say."""
    covered = payloads.sealed_body(said)
    payload = said.get("payload")
    return covered if payload is None else {**covered, "payload": payloads.sealed(payload)}


def _event(payloads: Payloads, event: Event) -> Event:
    return event._replace(
        body=payloads.sealed_body(event.body), payload=sealed_text(payloads, event.payload)
    )


def sealed_text(payloads: Payloads, text: str | None) -> str | None:
    return text if text is None or not payloads.active else payloads.sealed(text)


_SEALS: dict[type[Any], Callable[[Payloads, Any], Any]] = {
    RunCommit: _commit,
    Outcome: lambda p, it: it._replace(
        body=p.sealed_body(it.body), payload=sealed_text(p, it.payload)
    ),
    Completion: lambda p, it: it._replace(result=sealed_text(p, it.result)),
    Retry: lambda p, it: it._replace(error=p.sealed_body(it.error)),
    PutBack: lambda _, it: it,
    Release: lambda p, it: it._replace(review=it.review and p.sealed_body(it.review)),
}


def is_sealed(body: dict[str, Any], payload: str | None) -> bool:
    """Quick: nearly nothing is, in nearly all databases."""
    return (payload is not None and payload.startswith(PREFIX)) or MARK in body.get("failure", ())


def sealed_failure(payloads: Payloads, failure: dict[str, Any] | None) -> dict[str, Any] | None:
    covered: dict[str, Any] = payloads.sealed_body({"failure": failure})["failure"]
    return covered


async def opened(payloads: Payloads, rows: list[M]) -> list[M] | Exception:
    """Events or messages as the worker reads them; or why they cannot be read, for whoever has to put their run aside."""
    if not any(is_sealed(row.body, row.payload) for row in rows):
        return rows
    try:
        if payloads.store is None:
            return [_opened(payloads, row) for row in rows]
        return await asyncio.to_thread(lambda: [_opened(payloads, row) for row in rows])
    except (PayloadError, PayloadStoreUnavailable) as error:
        return error


def _opened(payloads: Payloads, row: M) -> M:
    body, payload = row.body, row.payload
    if "failure" in body and (plain := payloads.opened_body(body)) is not body:
        row = row._replace(body=plain)
    if payload is not None and (text := payloads.opened(payload)) is not payload:
        row = row._replace(payload=text)
    return row


async def opened_texts(payloads: Payloads, *texts: str | None) -> list[str | None] | Exception:
    """The texts as they were sealed, or why they cannot be read."""
    if not any(text is not None and text.startswith(PREFIX) for text in texts):
        return list(texts)

    def open_all() -> list[str | None]:
        return [None if text is None else payloads.opened(text) for text in texts]

    try:
        return open_all() if payloads.store is None else await asyncio.to_thread(open_all)
    except (PayloadError, PayloadStoreUnavailable) as error:
        return error
