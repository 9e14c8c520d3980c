"""The client's operations on queues, each described once, as those of calls.py."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from durable.ids import uuid7
from durable.queue_limits import QueueDescription, RateLimit, Reason, reason
from durable.store.calls import Call, Row, Sent, from_us
from durable.store.queries import load_queries
from durable.store.shards import shard_of

_SQL = load_queries("queues.sql")


def configure_queue(
    name: str, changes: Mapping[str, Any], why: str | None, actor: str | None
) -> Call[Sent[None]]:
    """Change what `changes` names. Workers are told."""
    given = {
        "name": name,
        "changes": json.dumps(changes),
        "reason": why,
        "actor": actor,
        "command_id": str(uuid7()),
    }
    return Call(_SQL["configure_queue"], given, lambda _: Sent(None, ("queues", f"jobs:{name}")))


def expect_keys(name: str) -> Call[None]:
    """Have the claims of a queue look for jobs with a key."""
    return Call(_SQL["expect_keys"], {"name": name}, lambda _: None)


def list_queues(name: str | None = None) -> Call[list[QueueDescription]]:
    """All queues that have a row or a worker, or the one of that name."""
    return Call(_SQL["list_queues"], {"name": name}, lambda rows: [_queue(row) for row in rows])


def explain_job(job_id: str) -> Call[list[Reason]]:
    """Empty: there is no such job."""
    given = {"shard": shard_of(job_id), "job_id": job_id, "seq": 0}
    return Call(_SQL["explain_job"], given, lambda rows: [_reason(row) for row in rows])


def _reason(row: Row) -> Reason:
    return reason(row["reason"], from_us(row["until"]), json.loads(row["facts"]))


def _queue(row: Row) -> QueueDescription:
    rates = {name: _rate(row[name]) for name in ("rate_limit", "key_rate_limit")}
    return QueueDescription(**{**row, **rates, "paused_at": from_us(row["paused_at"])})


def _rate(text: str | None) -> RateLimit | None:
    return None if text is None else RateLimit.from_body(json.loads(text))
