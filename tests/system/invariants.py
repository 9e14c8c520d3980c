"""What must hold of every database, whatever happened to the workers."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import groupby
from typing import Any

import psycopg

from durable.core.events import Event
from durable.core.execution import Execution
from durable.definitions import registered_workflows
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]

NOT_CONTIGUOUS = """
select r.workflow_id, r.last_seq, count(h.seq), min(h.seq), max(h.seq)
  from durable.runs r left join durable.history h using (shard, run_id) group by r.shard, r.run_id
having count(h.seq) <> r.last_seq or min(h.seq) <> 1 or max(h.seq) <> r.last_seq
"""
CLOSED_TWICE = """
select run_id, body ->> 'ref', array_agg(type) from durable.history
 where type in ('ActivityCompleted', 'ActivityFailed', 'ActivityTimedOut', 'ActivityCancelled', 'TimerFired')
 group by 1, 2 having count(*) > 1
"""
SIGNALLED_TWICE = """
select run_id, body ->> 'signal_id' from durable.history where type = 'SignalReceived' group by 1, 2 having count(*) > 1
"""
TURNS_OUT_OF_ORDER = """
select run_id, seq from (select run_id, seq, turn - lag(turn) over (partition by run_id order by seq) as step from durable.history) t
 where step not in (0, 1)
"""
NOT_LAST = """
select h.run_id, h.seq, h.type from durable.history h join durable.runs r using (shard, run_id)
 where h.type in ('WorkflowCompleted', 'WorkflowFailed', 'WorkflowCancelled', 'WorkflowTerminated', 'WorkflowTimedOut') and h.seq <> r.last_seq
"""
LEFTOVERS = """
select 'job', j.run_id, j.seq, j.state from durable.jobs j join durable.runs r using (shard, run_id) where r.status <> 'running'
union all
select 'message', i.run_id, 0, i.type from durable.inbox i join durable.runs r using (shard, run_id) where r.status <> 'running'
"""
HISTORIES = """
select r.workflow_id, r.workflow, r.version, h.run_id::text, h.seq, h.turn, h.type, durable.to_us(h.at), h.body::text, h.payload::text
  from durable.history h join durable.runs r using (shard, run_id)
 order by h.run_id, h.seq
"""


def assert_sound(sql: Sql, *, closed: bool = True) -> None:
    """Histories contiguous, in order, each thing closed once, nothing left of closed runs; and all of them replay.

    `closed`: every run must have ended.
    """
    for rule in (NOT_CONTIGUOUS, CLOSED_TWICE, SIGNALLED_TWICE, TURNS_OUT_OF_ORDER, NOT_LAST):
        assert sql.execute(rule.encode()).fetchall() == [], rule
    if closed:
        open_runs = sql.execute("select workflow_id from durable.runs where status = 'running'")
        assert open_runs.fetchall() == []
    eventually(lambda: not leftovers(sql), what=f"nothing is left of closed runs: {leftovers(sql)}")
    assert_replays(sql)


def leftovers(sql: Sql) -> list[tuple[Any, ...]]:
    return sql.execute(LEFTOVERS.encode()).fetchall()


def assert_replays(sql: Sql) -> int:
    """Every history replays with the code that is imported here. Returns how many events that were."""
    known = {(it.name, it.version): it for it in registered_workflows()}
    events = 0
    for (workflow_id, name, version, run_id), rows in groupby(
        sql.execute(HISTORIES.encode()), lambda row: row[:4]
    ):
        history = list(read(rows))
        execution = Execution(known[name, version], _uuid(run_id), workflow_id)
        execution.replay(history)
        execution.evict()
        events += len(history)
    return events


def read(rows: Iterable[tuple[Any, ...]]) -> Iterable[Event]:
    for row in rows:
        seq, turn, kind, at_us, body, payload = row[4:]
        yield Event(seq, turn, kind, at_us, json.loads(body), payload)


def _uuid(text: str) -> Any:
    from uuid import UUID

    return UUID(text)
