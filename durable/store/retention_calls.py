"""The client's operations on retention, each described once, as those of calls.py."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple

from durable.store.calls import Call, from_us
from durable.store.queries import load_queries
from durable.store.shards import shard_of

_SQL = load_queries("retention.sql")

Kind = Literal["run", "job", "slot"]

SCAN = 500
ROWS = 20_000
"""How many rows one pass looks at, and how many events it deletes at most (a single run may have more)."""


@dataclass(frozen=True, slots=True)
class RetentionRule:
    """How long what is over is kept; `queue` and `state` "*" mean any. `keep_s` None: for ever. See `Client.set_retention`."""

    kind: Kind
    queue: str
    state: str
    keep_s: float | None
    archive: bool


@dataclass(frozen=True, slots=True)
class ArchivedRecord:
    """A run or job as it was when it was pruned. `record` has its row and those of everything that belonged to it."""

    kind: str
    id: str
    archived_at: datetime
    record: dict[str, Any]


class Pruned(NamedTuple):
    """What a pass did, and where to go on (None: it is done with this shard)."""

    last_id: str | None
    pruned: int
    archived: int


def prune(
    kind: Literal["run", "job"], shard: int, after: str | None, rules: str | None, *, dry: bool
) -> Call[Pruned]:
    """One bounded pass over a shard's runs or jobs. `rules`: JSON instead of the stored ones."""
    name = "prune_runs" if kind == "run" else "prune_jobs"
    parameters = {
        "shard": shard,
        "after": after,
        "scan": SCAN,
        "rows": ROWS,
        "rules": rules,
        "dry": dry,
    }
    return Call(
        _SQL[name],
        parameters,
        lambda rows: Pruned(rows[0]["last_id"], rows[0]["pruned"], rows[0]["archived"]),
    )


def prune_slots(rules: str | None, *, dry: bool) -> Call[int]:
    """One bounded pass over the slots of schedules; how many."""
    parameters = {"limit": 100_000 if dry else SCAN, "rules": rules, "dry": dry}
    return Call(_SQL["prune_slots"], parameters, lambda rows: int(rows[0]["pruned"]))


def list_rules() -> Call[list[RetentionRule]]:
    return Call(_SQL["list_rules"], {}, lambda rows: [RetentionRule(**row) for row in rows])


def set_rule(rule: RetentionRule) -> Call[None]:
    parameters = {
        "kind": rule.kind,
        "queue": rule.queue,
        "state": rule.state,
        "keep_s": rule.keep_s,
        "archive": rule.archive,
    }
    return Call(_SQL["set_rule"], parameters, lambda _: None)


def unset_rule(kind: Kind, queue: str, state: str) -> Call[bool]:
    """Whether there was one."""
    return Call(_SQL["unset_rule"], {"kind": kind, "queue": queue, "state": state}, bool)


def read_archive(id: str) -> Call[list[ArchivedRecord]]:
    """What was archived under a workflow's or job's id, the newest first."""

    def decode(rows: list[dict[str, Any]]) -> list[ArchivedRecord]:
        return [
            ArchivedRecord(row["kind"], row["id"], at, json.loads(row["record"]))
            for row in rows
            if (at := from_us(row["archived_at"])) is not None
        ]

    return Call(_SQL["read_archive"], {"shard": shard_of(id), "id": id}, decode)
