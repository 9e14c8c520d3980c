"""The client's operations on queries and updates, as `durable.store.calls` describes them. Nothing here does I/O."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from durable.descriptions import UpdateEvidence
from durable.errors import InvalidOption, WorkflowClosed
from durable.ids import uuid7
from durable.store.calls import Call, Row, Sent, Started, from_us, not_found
from durable.store.queries import load_queries
from durable.store.shards import shard_of

_SQL = load_queries("updates.sql")
_ENDED_ALIKE = frozenset({"completed", "failed", "rejected", "aborted"})


@dataclass(frozen=True, slots=True)
class UpdateState:
    """How an update stands. `result` is JSON text; `accepted`: whether it ever was; `run_status` that of its run."""

    name: str
    status: str
    reason: str | None
    result: str | None
    failure: dict[str, Any] | None
    accepted: bool
    run_status: str | None

    @property
    def has_ended(self) -> bool:
        return self.status in _ENDED_ALIKE


@dataclass(frozen=True, slots=True)
class Answered:
    """What a query gave: JSON text, or a failure."""

    result: str | None
    failure: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Silence:
    """What is known when nobody answers: the run's state, and how many live workers serve its queue."""

    status: str
    queue: str
    begun: bool
    delayed: bool
    review: dict[str, Any] | None
    workers: int
    refused: int | None


def send_update(
    workflow_id: str, update_id: str, name: str, payload: str, actor: str | None
) -> Call[Sent[str]]:
    """Request an update of the newest run of an id; answers the update's status, which may be an older request's.

    Raises WorkflowNotFound, WorkflowClosed, and InvalidOption when the id is another update's.
    """

    def decode(rows: list[Row]) -> Sent[str]:
        row = rows[0]
        status = _checked(workflow_id, update_id, name, row)
        told = f"worker:{row['owner']}" if row["owner"] else f"queue:{row['queue']}"
        return Sent(status, (told,) if status == "requested" else ())

    parameters = {
        "shard": shard_of(workflow_id),
        "workflow_id": workflow_id,
        "update_id": update_id,
        "request_id": str(uuid7()),
        "name": name,
        "payload": payload,
        "actor": actor,
    }
    return Call(_SQL["send_update"], parameters, decode)


def _checked(workflow_id: str, update_id: str, name: str, row: Mapping[str, Any]) -> str:
    status: str = row["status"]
    if status == "unknown":
        raise not_found(workflow_id)
    if status == "closed":
        raise WorkflowClosed(
            f"workflow {workflow_id!r} takes no update {name!r} any more: it is {row['run_status']}; nothing was written"
        )
    if row["name"] != name:
        raise InvalidOption(
            f"id is {update_id!r}; that is the id of another update of workflow {workflow_id!r}, {row['name']!r}; give one of its own"
        )
    return status


def read_update(workflow_id: str, update_id: str) -> Call[UpdateState | None]:
    """How an update stands; None when nobody requested it."""

    def decode(rows: list[Row]) -> UpdateState | None:
        return UpdateState(**{**rows[0], "failure": _json(rows[0]["failure"])}) if rows else None

    parameters = {
        "shard": shard_of(workflow_id),
        "workflow_id": workflow_id,
        "update_id": update_id,
    }
    return Call(_SQL["read_update"], parameters, decode)


def list_updates(workflow_id: str, run_id: str | None) -> Call[list[UpdateEvidence]]:
    """What was requested of a workflow, the oldest first."""

    def decode(rows: list[Row]) -> list[UpdateEvidence]:
        return [_evidence(row) for row in rows]

    parameters = {"shard": shard_of(workflow_id), "workflow_id": workflow_id, "run_id": run_id}
    return Call(_SQL["list_updates"], parameters, decode)


def _evidence(row: Row) -> UpdateEvidence:
    times = {name: from_us(row[name]) for name in ("at", "accepted_at", "ended_at")}
    documents = {name: _json(row[name]) for name in ("payload", "failure", "actor")}
    return UpdateEvidence(**{**row, **times, **documents})


def start_with(
    start: Call[Sent[Started]],
    workflow_id: str,
    signal: Call[Any] | None,
    update: Call[Any] | None,
) -> Call[Sent[Started]]:
    """A start together with a signal and an update to the run that it starts or finds, all in one statement.

    Raises what the three do; WorkflowClosed then means that nothing was started.
    """
    sent = {} if signal is None else signal.parameters
    asked = {} if update is None else update.parameters

    def decode(rows: list[Row]) -> Sent[Started]:
        started, row = start.decode(rows), rows[0]
        if row["signal_status"] in ("dropped", "late"):
            raise WorkflowClosed(
                f"workflow {workflow_id!r} takes no signal {sent['name']!r} any more: {row['signal_reason']}; nothing was started"
            )
        if row["update_status"] is not None:
            outcome = {**row, "status": row["update_status"], "name": row["update_name"]}
            _checked(workflow_id, asked["update_id"], asked["name"], outcome)
        told = f"worker:{row['owner']}" if row["owner"] else f"queue:{row['queue']}"
        return Sent(started.answer, started.hints or (told,))

    parameters = {
        **start.parameters,
        "with_signal_id": sent.get("signal_id"),
        "with_signal_name": sent.get("name"),
        "with_signal_payload": sent.get("payload"),
        "with_dedupe_key": sent.get("dedupe_key"),
        "with_update_id": asked.get("update_id"),
        "with_request_id": asked.get("request_id"),
        "with_update_name": asked.get("name"),
        "with_update_payload": asked.get("payload"),
        "with_actor": start.parameters.get("actor"),
        "with_headers": sent.get("headers"),
    }
    statement = "with started as materialized (" + start.statement + ") " + _SQL["with_start"]
    return Call(cast("Any", statement), parameters, decode)


# -- queries ----------------------------------------------------------------------------------------------------------


def ask_query(
    query_id: str, workflow_id: str, run_id: str | None, name: str, payload: str
) -> Call[Sent[None]]:
    """Put a question to the newest run of an id, or to `run_id` and what continues it. Raises WorkflowNotFound."""

    def decode(rows: list[Row]) -> Sent[None]:
        if not rows:
            raise not_found(workflow_id)
        return Sent(None, (f"queries:{rows[0]['queue']}",))

    parameters = {
        **_question(workflow_id, query_id),
        "workflow_id": workflow_id,
        "run_id": run_id,
        "name": name,
        "payload": payload,
    }
    return Call(_SQL["ask_query"], parameters, decode)


def take_answer(workflow_id: str, query_id: str) -> Call[Answered | bool]:
    """The answer; or whether the question is still there."""

    def decode(rows: list[Row]) -> Answered | bool:
        if not rows:
            return False
        row = rows[0]
        return Answered(row["result"], _json(row["failure"])) if row["answered"] else True

    return Call(_SQL["take_answer"], _question(workflow_id, query_id), decode)


def drop_query(workflow_id: str, query_id: str) -> Call[None]:
    """Nobody waits for the answer any more."""
    return Call(_SQL["drop_query"], _question(workflow_id, query_id), lambda _: None)


def explain_silence(workflow_id: str, query_id: str | None) -> Call[Silence | None]:
    """Why nobody may be answering; None when there is no such workflow."""

    def decode(rows: list[Row]) -> Silence | None:
        return Silence(**{**rows[0], "review": _json(rows[0]["review"])}) if rows else None

    parameters = {**_question(workflow_id, query_id), "workflow_id": workflow_id}
    return Call(_SQL["explain_silence"], parameters, decode)


def _question(workflow_id: str, query_id: str | None) -> dict[str, Any]:
    return {"shard": shard_of(workflow_id), "query_id": query_id}


def _json(text: str | None) -> Any:
    return None if text is None else json.loads(text)
