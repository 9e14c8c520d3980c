"""Many jobs in one COPY: what is sent, row by row, and what comes back.

Plain jobs are copied straight into the queue: no statement a row, no memory for what is on its way. Unique ones are copied beside it and
inserted from there in one order of their keys, because COPY knows no `on conflict`, and two clients that insert in one order cannot lock
each other out.

Rows travel in COPY's binary format, which costs the server less than text. What all jobs of a COPY share is at the end of each row, as the
database itself has put it (`plan_copy`); here is made what differs: shard, id, arguments, and what a job has of its own.

Plain rows are sorted, 64 KiB of what differs at a time (a thousand rows of short arguments), by shard and then by id: neighbours fall on one page of each index, and a claim finds them on few pages. But not the
last ones. A claim looks at a few heads of each shard, and takes what comes first in the table; if the end of a bulk lay shard by shard, its last jobs would
be on few shards, whose heads do not fill a claim, and younger jobs of other shards would overtake them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from durable.descriptions import Conflict, EnqueuedMany
from durable.store.calls import Row
from durable.store.queries import load_queries

SQL = load_queries("jobs.sql")

_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END = b"\xff\xff"
_NULL = b"\xff\xff\xff\xff"
# How many fields; shard and id, each after its length; the length of the arguments.
_HEAD = struct.Struct(">hihi16si")
_QUEUE_FIELDS, _STAGE_FIELDS = 18, 5

Pieces = Callable[[str], Iterator[list[bytes]]]
"""The rows, some at a time, made while they are sent, with text in the given encoding."""


@dataclass(slots=True)
class Bulk:
    """`given`: what all jobs share. `keyed`: they carry unique keys. `own_options`: each its options."""

    given: Mapping[str, Any]
    pieces: Pieces
    keyed: bool
    own_options: bool = False
    count: int = 0

    def plain(self, plan: Row, encoding: str) -> Iterator[bytes]:
        """COPY's input for the queue's own table."""
        shared = [
            value for name, value in plan.items() if not (self.own_options and name == "options")
        ]
        return self._copied(
            _all_but_last_sorted(self.pieces(encoding)), b"".join(map(_field, shared))
        )

    def staged(self, encoding: str) -> Iterator[bytes]:
        """COPY's input for the table beside it."""
        return self._copied(self.pieces(encoding), b"")

    def _copied(self, pieces: Iterator[list[bytes]], tail: bytes) -> Iterator[bytes]:
        yield _SIGNATURE
        for piece in pieces:
            self.count += len(piece)
            piece.append(b"")
            yield tail.join(piece)
        yield _END

    def answer(self, rows: list[Row]) -> EnqueuedMany:
        """What the database says of staged jobs: those that met another one, by their place among the items, and in its last row how many were made."""
        *met, last = rows
        conflicts = [
            Conflict(row["ix"], row["job_id"], row["state"], row["outcome"])
            for row in sorted(met, key=itemgetter("ix"))
        ]
        return EnqueuedMany(last["made"], conflicts)


def _all_but_last_sorted(pieces: Iterator[list[bytes]]) -> Iterator[list[bytes]]:
    """The pieces; the last two (one is full, one is the rest) as they are."""
    before: list[list[bytes]] = []
    for piece in pieces:
        if len(before) == 2:
            full = before.pop(0)
            full.sort()
            yield full
        before.append(piece)
    yield from before


def queue_row(placed: tuple[int, bytes], text: bytes) -> bytes:
    """The beginning of a job's row."""
    shard, id_ = placed
    return _HEAD.pack(_QUEUE_FIELDS, 2, shard, 16, id_, len(text)) + text


def own_row(placed: tuple[int, bytes], text: bytes, options: bytes) -> bytes:
    """The beginning of a job's row, with options of its own."""
    return queue_row(placed, text) + _field(b"\x01" + options)  # jsonb's version


def staged_row(placed: tuple[int, bytes], text: bytes, key: bytes, index: int) -> bytes:
    """A row of the table beside the queue: a unique job with its key, and its place among the items."""
    shard, id_ = placed
    head = _HEAD.pack(_STAGE_FIELDS, 2, shard, 16, id_, len(text)) + text
    return head + _field(key) + _field(struct.pack(">i", index))


def _field(value: bytes | None) -> bytes:
    return _NULL if value is None else struct.pack(">i", len(value)) + value
