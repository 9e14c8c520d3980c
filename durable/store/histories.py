"""Reading histories for replay tools: a session that can only read, pages of runs, batches of events.

Each read is one short transaction, declared READ ONLY to the server; a long verification holds no snapshot, so it does not keep
the vacuum from its work. A run that goes on meanwhile is seen as of the moment when its history was read: whole turns, always.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, LiteralString, NamedTuple

import psycopg
from psycopg.rows import tuple_row

from durable.core.events import Event
from durable.histories import RecordedHistory
from durable.store.calls import Call, Row, not_found
from durable.store.failures import domain_error
from durable.store.queries import load_queries
from durable.store.read_only import ReadOnly
from durable.store.shards import shard_of

_SQL = load_queries("histories.sql")

PAGE = 1_000
"""Runs in one statement."""

BATCH_EVENTS = 20_000
BATCH_RUNS = 200
"""What one statement reads of histories; a run with more events makes a batch of its own."""


class StoredRun(NamedTuple):
    """A run whose history may be read."""

    shard: int
    run_id: str
    workflow_id: str
    workflow: str
    version: int
    status: str
    build: str | None
    last_seq: int


class HistoryReader(ReadOnly[tuple[Any, ...]]):
    """Reads histories as they are stored. Raises DatabaseUnavailable and SchemaOutOfDate, here and in every call."""

    def __init__(self, url: str) -> None:
        super().__init__(url, "durable replay", tuple_row)

    def count(self, *, workflow: str | None, closed: bool) -> int:
        """How many runs `runs` will give, about."""
        rows = self._rows(_SQL["count_all" if closed else "count_open"], {"workflow": workflow})
        count: int = rows[0][0]
        return count

    def runs(self, *, workflow: str | None, closed: bool) -> Iterator[StoredRun]:
        """All open runs, or with `closed` all runs there are, a page at a time."""
        statement = _SQL["page_all" if closed else "page_open"]
        shard, after = -1, "00000000-0000-0000-0000-000000000000" if closed else ""
        while True:
            place = {"shard": shard, "after": after, "workflow": workflow, "limit": PAGE}
            page = [StoredRun._make(row) for row in self._rows(statement, place)]
            yield from page
            if len(page) < PAGE:
                return
            shard, after = page[-1].shard, page[-1].run_id if closed else page[-1].workflow_id

    def find(self, workflow_id: str, run_id: str | None = None) -> StoredRun:
        """The newest run of an id, or that one. Raises WorkflowNotFound."""
        given = {"shard": shard_of(workflow_id), "workflow_id": workflow_id, "run_id": run_id}
        rows = self._rows(_SQL["find_run"], given)
        if not rows:
            raise not_found(workflow_id)
        return StoredRun._make(rows[0])

    def histories(self, runs: Iterable[StoredRun]) -> Iterator[RecordedHistory]:
        """The runs with their events, in batches of bounded size."""
        batch: list[StoredRun] = []
        events = 0
        for run in runs:
            if batch and (events + run.last_seq > BATCH_EVENTS or len(batch) == BATCH_RUNS):
                yield from self._load(batch)
                batch, events = [], 0
            batch.append(run)
            events += run.last_seq
        yield from self._load(batch)

    def _load(self, runs: Sequence[StoredRun]) -> Iterator[RecordedHistory]:
        if not runs:
            return
        given = {"shards": [it.shard for it in runs], "runs": [it.run_id for it in runs]}
        events: dict[str, list[Event]] = {run.run_id: [] for run in runs}
        for run_id, seq, turn, kind, at_us, body, payload in self._rows(_SQL["load_events"], given):
            events[run_id].append(Event(seq, turn, kind, at_us, json.loads(body), payload))
        for run in runs:
            yield RecordedHistory(
                run.workflow, run.version, run.workflow_id, run.run_id, run.status,
                tuple(events[run.run_id]),
            )  # fmt: skip

    def _rows(self, statement: LiteralString, given: dict[str, Any]) -> list[tuple[Any, ...]]:
        try:
            with self._connection.transaction():
                return self._connection.execute(statement, given).fetchall()
        except psycopg.Error as error:
            raise domain_error(error) from error


def read_recorded(workflow_id: str, run_id: str | None) -> Call[RecordedHistory]:
    """A run's whole history, undecoded. Raises WorkflowNotFound."""

    def decode(rows: list[Row]) -> RecordedHistory:
        if not rows:
            raise not_found(workflow_id)
        head = rows[0]
        events = tuple(map(_event, rows))
        return RecordedHistory(
            head["workflow"], head["version"], head["workflow_id"], head["run_id"], head["status"],
            events,
        )  # fmt: skip

    parameters = {"shard": shard_of(workflow_id), "workflow_id": workflow_id, "run_id": run_id}
    return Call(_SQL["read_recorded"], parameters, decode)


def _event(row: Row) -> Event:
    body, payload = json.loads(row["body_bytes"]), row["payload_bytes"]
    text = None if payload is None else payload.decode()
    return Event(row["seq"], row["turn"], row["type"], row["at_us"], body, text)
