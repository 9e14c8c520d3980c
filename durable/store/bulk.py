"""Many jobs in one COPY: what is sent, line by line, and what comes back.

Plain jobs are copied straight into the queue: no statement a row, no memory for what is on its way. Unique ones are copied beside it and
inserted from there in the order of their keys, because COPY knows no `on conflict`, and two clients that insert in one order cannot lock
each other out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from durable.descriptions import Conflict, EnqueuedMany
from durable.store.calls import Row
from durable.store.queries import load_queries

SQL = load_queries("jobs.sql")

_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})


@dataclass(slots=True)
class Bulk:
    """`given`: what all jobs share. `pieces`: the lines, made while they are sent. `keyed`: they carry unique keys. `own_options`: each its options."""

    given: Mapping[str, Any]
    pieces: Iterator[str]
    keyed: bool
    own_options: bool = False
    count: int = 0

    def plain(self, plan: Row) -> Iterator[str]:
        """The lines of the queue's own table: each piece, with what all jobs share at the end of each line."""
        given = self.given
        tags = given["tags"]
        shared = (
            *(() if self.own_options else (given["options"],)), "0", "0", "job", given["name"], given["queue"], str(given["priority"]),
            None if tags is None else _array(tags), given["meta"], plan["state"], plan["scheduled_at"], plan["deadline_at"],
            plan["deadline_kind"], plan["created_at"], given.get("group_id"),
        )  # fmt: skip
        tail = "\t" + "\t".join(_field(value) for value in shared) + "\n"
        for piece in self.pieces:
            self.count += piece.count("\n")
            yield piece.replace("\n", tail)

    def staged(self) -> Iterator[str]:
        return self.pieces

    def answer(self, rows: list[Row]) -> EnqueuedMany:
        """What the database says of staged jobs; their count is in the last row."""
        conflicts = [
            Conflict(row["ix"], row["job_id"], row["state"], row["outcome"])
            for row in rows
            if row["ix"] is not None
        ]
        return EnqueuedMany(rows[-1]["made"], conflicts)


def copy_line(placed: tuple[int, str], text: str, *more: str | int) -> str:
    """A line of COPY's text format. JSON has no raw control characters, so only backslashes need care there. `more`: a job's own options, or
    its unique key and its place.
    """
    shard, id_ = placed
    if "\\" in text:
        text = text.replace("\\", "\\\\")
    if not more:
        return f"{shard}\t{id_}\t{text}\n"
    rest = "\t".join(str(each).translate(_ESCAPES) for each in more)
    return f"{shard}\t{id_}\t{text}\t{rest}\n"


def _field(value: str | None) -> str:
    return "\\N" if value is None else value.translate(_ESCAPES)


def _array(values: list[str]) -> str:
    quoted = ('"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for value in values)
    return "{" + ",".join(quoted) + "}"
