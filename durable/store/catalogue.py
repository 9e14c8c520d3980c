"""What the schema consists of, as digests of the server's own descriptions: taken when it is migrated, compared when a doctor looks.

Nobody else can say what is right: the migrations are text, and only a server knows what has become of them. So `migrate` writes down what it
left, and what differs from that later was changed by hand. Storage options (autovacuum, fillfactor) may be tuned by whoever runs the server, and are not
compared; nor is anything after an upgrade to another major version, which may describe the same object in other words.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import tuple_row

from durable.store.queries import load_queries

READ = load_queries("catalogue.sql")["read_catalogue"]
_MAJOR = "server"
_MAY_BE_TUNED = "storage of "


@dataclass(frozen=True, slots=True)
class Drift:
    """By name: what is gone, what is otherwise, and what nobody but somebody here knows."""

    missing: list[str]
    changed: list[str]
    added: list[str]

    def __bool__(self) -> bool:
        return bool(self.missing or self.changed or self.added)


def take(connection: psycopg.Connection[Any]) -> dict[str, str]:
    """What is there, within the caller's transaction: by object a digest of its definition, and the server's major version."""
    connection.execute("set local search_path = pg_catalog")  # names are told in full then
    with connection.cursor(row_factory=tuple_row) as cursor:
        rows = cursor.execute(READ).fetchall()
    found = {
        name: hashlib.sha256((definition or "").encode()).hexdigest()[:16]
        for name, definition in rows
        if not name.startswith(_MAY_BE_TUNED)
    }
    return {**found, _MAJOR: str(connection.info.server_version // 10_000)}


def drift(recorded: Mapping[str, str] | None, now: Mapping[str, str]) -> Drift | None:
    """What has changed; None when that cannot be told."""
    if recorded is None or recorded.get(_MAJOR) != now[_MAJOR]:
        return None
    return Drift(
        sorted(recorded.keys() - now.keys()),
        sorted(name for name in recorded.keys() & now.keys() if recorded[name] != now[name]),
        sorted(now.keys() - recorded.keys()),
    )


def to_json(taken: Mapping[str, str]) -> str:
    return json.dumps(taken, sort_keys=True)


def from_json(text: Any) -> dict[str, str] | None:
    return None if text is None else dict(json.loads(text))
