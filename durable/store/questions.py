"""The worker's verbs about queries (C14): each one round trip."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from pydantic_core import to_json

from durable.core.events import Event
from durable.store.arrays import plain, quoted
from durable.store.queries import load_queries
from durable.store.sealing import opened, opened_texts, sealed_failure, sealed_text
from durable.store.session import Session

_SQL = load_queries("questions.sql")


class Question(NamedTuple):
    """A query that this worker has taken. `begun`: whether the run's code has ever run."""

    shard: int
    query_id: str
    run_id: str
    name: str
    payload: str
    workflow_id: str
    workflow: str
    version: int
    begun: bool


class Answer(NamedTuple):
    """What came of a question: a result as JSON text, or a failure; neither when this worker does not know the workflow."""

    shard: int
    query_id: str
    result: str | None = None
    failure: dict[str, Any] | None = None


async def take_queries(
    session: Session, owner: str, queues: Sequence[str], limit: int
) -> list[Question]:
    """Take questions that this worker can answer, the oldest first."""
    rows = await session.fetch(_SQL["take_queries"], (owner, quoted(queues), limit))
    return [await _opened(session, Question._make(row)) for row in rows]


async def _opened(session: Session, question: Question) -> Question:
    """With its arguments as they were sealed; where that cannot be, with a text that no arguments can be read from and that says why."""
    read = await opened_texts(session.payloads, question.payload)
    payload = f"!{read}" if isinstance(read, Exception) else read[0]
    return question if payload is None else question._replace(payload=payload)


async def answer_queries(session: Session, owner: str, answers: Sequence[Answer]) -> None:
    """Write answers; the first one to a question counts."""
    await session.fetch(
        _SQL["answer_queries"],
        (
            owner,
            plain([it.shard for it in answers]),
            plain([it.query_id for it in answers]),
            quoted([sealed_text(session.payloads, it.result) for it in answers]),
            quoted(
                [
                    None
                    if it.failure is None
                    else to_json(sealed_failure(session.payloads, it.failure)).decode()
                    for it in answers
                ]
            ),
        ),
    )


async def read_history(session: Session, question: Question) -> list[Event] | Exception:
    """The whole history of the run that a question is about; or why it cannot be read here."""
    rows = await session.fetch(
        _SQL["load_history"], (plain([question.shard]), plain([question.run_id]))
    )
    events = [
        Event(seq, turn, kind, at_us, json.loads(body), payload)
        for _, seq, turn, kind, at_us, body, payload in rows
    ]
    return await opened(session.payloads, events)


async def forget_requests(session: Session, limit: int) -> None:
    """Clear away old queries and rejections."""
    await session.fetch(_SQL["forget_requests"], (limit,))
