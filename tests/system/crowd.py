"""A database with a million rows in its hot tables, and what a statement touches in it.

What is measured is what was read, not what a plan promises: the counters that PostgreSQL keeps of the current transaction. They cover the
statements inside functions, need no extension, and count the blocks of an index that was walked in vain.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import psycopg

Sql = psycopg.Connection[tuple[Any, ...]]

ME = "00000000-0000-7000-8000-00000000000a"
OTHER = "00000000-0000-7000-8000-00000000000b"
HOT = ("runs", "jobs", "inbox", "history", "signals")

PREPARE = """
set synchronous_commit = off;
insert into durable.workers (worker_id, name, queues, started_at, beat_at, lease_until)
select w, 'crowd', '{}', now(), now(), now() + interval '1 day' from unnest(array[%(me)s, %(other)s]::uuid[]) w;
insert into durable.queues (name, global_limit, rate_limit, keyed, created_at, updated_at)
values ('theirs', 1000000, '{"limit": 1e9, "period_s": 60, "kind": "window"}', true, now(), now());
create function pg_temp.id(n bigint) returns uuid language sql immutable as
$$ select (lpad(to_hex(1780000000000 + n / 64), 12, '0') || '7' || substr(md5(n::text), 1, 3) || '8' || substr(md5(n::text), 4, 15))::uuid $$;
"""

FILL = """
-- Per thousand runs: 500 sleep, 150 are ready in a queue of others, 150 in ours, 50 delayed, 100 are another worker's, 25 ours, 25 closed.
insert into durable.runs (shard, run_id, workflow_id, workflow, status, queue, owner, epoch, last_seq, turn, ready_at, delayed_until, created_at, closed_at)
select (durable.shard_keys())[1 + n %% 64], pg_temp.id(n), 'crowd-' || n, 'crowd', case when n %% 1000 >= 975 then 'completed' else 'running' end,
       case when n %% 1000 between 500 and 649 then 'theirs' else 'ours' end,
       case when n %% 1000 between 850 and 949 then %(other)s::uuid when n %% 1000 between 950 and 974 then %(me)s::uuid end, 1, 2, 1,
       case when n %% 1000 between 500 and 799 then now() - interval '1 hour' end,
       case when n %% 1000 between 800 and 849 then now() + (n %% 977) * interval '1 minute' end, now(),
       case when n %% 1000 >= 975 then now() end
  from generate_series(%(first)s, %(last)s) n;
create or replace temporary view added as
    select * from durable.runs where substr(workflow_id, 7)::int between %(first)s and %(last)s;

insert into durable.history (shard, run_id, seq, turn, type, at, body, payload)
select r.shard, r.run_id, s, s - 1, case s when 1 then 'WorkflowStarted' else 'ActivityScheduled' end, r.created_at, '{"name": "crowd", "queue": "ours"}', '{}'
  from pg_temp.added r, generate_series(1, 2) s where r.status = 'running' and (r.queue = 'ours' and r.ready_at is not null or r.owner is not null);

-- The runs asleep have a timer each, due later or (one in 50) now; the others have jobs that wait or execute.
insert into durable.jobs (shard, run_id, seq, kind, name, queue, state, attempt, scheduled_at, deadline_at, deadline_kind, owner, created_at)
select r.shard, r.run_id, 2, 'timer', 'sleep', r.queue, 'scheduled', 0,
       case when n %% 50 = 0 then now() - interval '1 minute' else now() + (n %% 9973) * interval '1 minute' end, null, null, null, now()
  from (select r.*, row_number() over () as n from pg_temp.added r where r.status = 'running' and r.owner is null and r.ready_at is null and r.delayed_until is null) r
union all
select r.shard, r.run_id, 2, 'activity', 'crowd', r.queue, 'executing', 1, now(), now() + interval '1 hour', 'start_to_close', r.owner, now()
  from pg_temp.added r where r.owner is not null
union all
select r.shard, r.run_id, s, 'activity', 'crowd', r.queue, 'available', 0, now() - s * interval '1 second', null, null, null, now()
  from pg_temp.added r, generate_series(2, 4) s where r.ready_at is not null;
insert into durable.jobs (shard, run_id, seq, kind, name, queue, priority, state, scheduled_at, input, options, created_at)
select (durable.shard_keys())[1 + n %% 64], pg_temp.id(1000000 + %(first)s + n), 0, 'job', 'crowd', case when n %% 3 = 0 then 'ours' else 'theirs' end, n %% 10,
       'available', now() - n * interval '1 millisecond', '{}',
       case when n %% 30 = 1 then jsonb_build_object('limit_key', 'k' || n %% 7001) end, now()
  from generate_series(0, %(jobs)s - 1) n;

-- Messages: many for a queue of others, some for runs of ours without an owner, some for another worker's, some for ours.
insert into durable.inbox (shard, run_id, queue, type, at, body)
select shard, run_id, queue, 'SignalReceived', now(), '{}'::jsonb from pg_temp.added, generate_series(1, 2) where queue = 'theirs'
union all
select shard, run_id, queue, 'SignalReceived', now(), '{}'::jsonb from pg_temp.added where owner = %(me)s
union all
(select shard, run_id, queue, 'SignalReceived', now(), '{}'::jsonb from pg_temp.added where owner = %(other)s limit 1000)
union all
(select shard, run_id, queue, 'SignalReceived', now(), '{}'::jsonb from pg_temp.added
  where queue = 'ours' and status = 'running' and owner is null and ready_at is null and delayed_until is null limit 1000);
"""

TOUCHED = """
select c.relname, pg_stat_get_xact_numscans(c.oid), pg_stat_get_xact_tuples_returned(c.oid), pg_stat_get_xact_blocks_fetched(c.oid)
  from pg_class c where c.relnamespace = 'durable'::regnamespace and c.relkind in ('r', 'i')
"""


class Touched(NamedTuple):
    """What a transaction did with one table or index: scans, rows (of an index: entries) that they gave, blocks that it asked for.

    The scans and rows of a table are those of sequential scans; reaching a row through an index counts as a block.
    """

    scans: int
    rows: int
    blocks: int


def prepare(sql: Sql) -> None:
    """The workers, and statistics that stay as they are until a test says `analyze`."""
    execute(sql, PREPARE, me=ME, other=OTHER)
    for table in HOT:
        execute(sql, f"alter table durable.{table} set (autovacuum_enabled = off)")


def fill(sql: Sql, first: int, last: int, *, jobs: int) -> None:
    """Add the runs with these numbers and all that belongs to them, and so many standalone jobs."""
    execute(sql, FILL, me=ME, other=OTHER, first=first, last=last, jobs=jobs)


def execute(sql: Sql, query: str, **params: Any) -> None:
    """Several statements at once, which takes parameters that the client puts in."""
    psycopg.ClientCursor(sql).execute(query.encode(), params)


def touched(
    sql: Sql, query: str, params: Any = ()
) -> tuple[list[tuple[Any, ...]], dict[str, Touched]]:
    """Run a statement in a transaction that is rolled back; its rows, and what it touched of each table and index."""
    with sql.transaction(force_rollback=True):
        before = _counters(sql)
        rows = sql.execute(query.encode(), params).fetchall()
        after = _counters(sql)
    spent = {
        name: Touched(*(a - b for a, b in zip(after[name], before[name], strict=True)))
        for name in after
    }
    return rows, {name: it for name, it in spent.items() if any(it)}


def _counters(sql: Sql) -> dict[str, tuple[int, int, int]]:
    return {
        name: (scans, rows, blocks) for name, scans, rows, blocks in sql.execute(TOUCHED.encode())
    }
