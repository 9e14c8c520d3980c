"""The worker's part, played with SQL, and looks at what was written."""

from __future__ import annotations

import json
from typing import Any

import psycopg

from durable.failure import encode_failure

TABLES = ("runs", "history", "inbox", "jobs", "signals", "evidence", "operator_commands")
EVENTS = {
    "completed": "WorkflowCompleted",
    "failed": "WorkflowFailed",
    "cancelled": "WorkflowCancelled",
}


class Database:
    """A connection in autocommit mode."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.connection = psycopg.connect(url, autocommit=True)

    def rows(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        cursor = self.connection.execute(query.encode(), parameters)
        return cursor.fetchall() if cursor.description else []

    def counts(self) -> dict[str, int]:
        """How many rows each table has that a client may write."""
        return {table: self.rows(f"select count(*) from durable.{table}")[0][0] for table in TABLES}

    def append(self, workflow_id: str, type_: str, body: Any, payload: Any = None) -> None:
        """Append an event to the newest run of an id."""
        self.rows(
            "with r as (update durable.runs set last_seq = last_seq + 1, turn = turn + 1 where run_id = ("
            " select run_id from durable.runs where workflow_id = %s order by generation desc limit 1) returning *)"
            " insert into durable.history select shard, run_id, last_seq, turn, %s, durable.now(), %s::jsonb, %s::json from r",
            workflow_id, type_, json.dumps(body), None if payload is None else json.dumps(payload),
        )  # fmt: skip

    def end(self, workflow_id: str, status: str, body: Any = None, payload: Any = None) -> None:
        """Close the newest run of an id."""
        self.append(workflow_id, EVENTS.get(status, "WorkflowContinued"), body or {}, payload)
        self.rows(
            "update durable.runs set status = %s, closed_at = durable.now(), ready_at = null"
            " where workflow_id = %s and status = 'running'", status, workflow_id,
        )  # fmt: skip

    def fail(self, workflow_id: str, error: BaseException) -> None:
        self.end(workflow_id, "failed", {"failure": encode_failure(error)})

    def claim(self, workflow_id: str) -> None:
        """As a worker does: the run has an owner, and may no longer be closed by a mere cancel request."""
        self.rows(
            "update durable.runs set owner = gen_random_uuid(), epoch = 1, ready_at = null where workflow_id = %s",
            workflow_id,
        )

    def define(self, kind: str, name: str, schema: Any, queue: str | None = None) -> None:
        """Register a definition, as a worker does."""
        self.rows(
            "insert into durable.definitions (kind, name, queue, schema, updated_at) values (%s, %s, %s, %s::jsonb, now())",
            kind, name, queue, json.dumps(schema),
        )  # fmt: skip
