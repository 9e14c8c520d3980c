-- The worker's statements: each calls one set-based function of migrations/0002_engine.sql.

-- name: commit
select now_us, pushes::text from durable.commit(
    %s::uuid,
    %s::smallint[], %s::uuid[], %s::int[], %s::int[], %s::int[], %s::int[], %s::text[], %s::jsonb[], %s::boolean[],
    %s::int[], %s::int[], %s::int[], %s::text[], %s::bigint[], %s::jsonb[], %s::json[],
    %s::int[], %s::int[], %s::text[], %s::text[], %s::text[], %s::smallint[], %s::boolean[], %s::bigint[], %s::float8[], %s::text[],
    %s::int[], %s::int[], %s::int[],
    %s::int[], %s::int[],
    %s::int[], %s::int[],
    %s::int[], %s::uuid[],
    %s::int[], %s::uuid[], %s::int[],
    %s::json)

-- name: claim_runs
select shard, run_id::text, workflow_id, workflow, version, epoch, last_seq, turn, queue, priority, reviewed, has_messages,
       start_us, start_body, start_payload
  from durable.claim_runs(%s::uuid, %s::text[], %s)

-- name: load_history
select run_id::text, seq, turn, type, at_us, body, payload from durable.load_history(%s::smallint[], %s::uuid[])

-- name: read_inbox
select shard, run_id::text, message_id::text, type, at_us, body, payload from durable.read_inbox(%s::uuid, %s::text[], %s)

-- name: release_runs
select durable.release_runs(%s::uuid, %s::smallint[], %s::uuid[], %s::int[], %s::float8[], %s::jsonb[])

-- name: stage_due
select fired, staged, next_due_us from durable.stage_due(%s)

-- name: claim_jobs
select shard, run_id::text, seq, kind, name, queue, attempt, input, options, workflow_id, actor, heartbeat, scheduled_us, created_us, headers
  from durable.claim_jobs(%s::uuid, %s::text[], %s::int[], %s)

-- name: queue_rules
select q.name, q.special, q.slots from durable.queues q where q.name = any (%s::text[])

-- name: settle_jobs
select refused, wake from durable.settle_jobs(
    %s::uuid, %s::smallint[], %s::uuid[], %s::int[], %s::int[], %s::text[], %s::jsonb[], %s::json[])

-- name: complete_jobs
select durable.complete_jobs(%s::uuid, %s::smallint[], %s::uuid[], %s::int[], %s::json[])

-- name: retry_jobs
select durable.retry_jobs(%s::uuid, %s::smallint[], %s::uuid[], %s::int[], %s::int[], %s::float8[], %s::jsonb[])

-- name: put_back_jobs
select durable.put_back_jobs(%s::uuid, %s::smallint[], %s::uuid[], %s::int[], %s::int[], %s::float8[], %s::jsonb[])

-- name: take_tokens
select durable.take_tokens(%s::uuid, %s::smallint[], %s::uuid[], %s::int[], %s::int[], %s::text[])

-- name: park_jobs
select durable.park_jobs(%s::uuid, %s::smallint[], %s::uuid[], %s::int[], %s::int[], %s::float8[], %s::text[])

-- name: heartbeat_jobs
select ix, cancel_requested from durable.heartbeat_jobs(
    %s::uuid, %s::smallint[], %s::uuid[], %s::int[], %s::int[], %s::json[], %s::float8[])

-- name: bury_dead_workers
select workers, runs, jobs from durable.bury_dead_workers(%s)

-- name: expire_deadlines
select durable.expire_deadlines(%s, %s)

-- name: beat
select alive, now_us from durable.beat(%s::uuid, %s, %s, %s::jsonb, %s::jsonb, %s)

-- name: announce
-- What this worker's code is: for runs pinned to a build, and for starts by name.
update durable.workers set build = %s, workflows = %s::jsonb where worker_id = %s::uuid

-- name: owned
-- What the database believes this worker holds: to find what was lost in a broken connection.
select 'run' as what, shard, run_id::text, epoch as number, 0 as seq from durable.runs
 where shard = any (durable.shard_keys()) and owner = %s::uuid
union all
select 'job', shard, run_id::text, attempt, seq from durable.jobs where %s and owner = %s::uuid and state = 'executing'

-- name: leave
-- With anything still held (it may be a claim whose answer was lost) the lease lapses at once, and others take that over.
update durable.workers w set lease_until = durable.now(), state = case
       when %s and not exists (select from durable.runs r where r.shard = any (durable.shard_keys()) and r.owner = w.worker_id)
        and not exists (select from durable.jobs j where j.owner = w.worker_id and j.state = 'executing') then 'gone' else 'stopping' end
 where w.worker_id = %s::uuid

-- name: sweep_orphans
select durable.sweep_orphans(%s)

-- name: notify
select pg_notify('durable', %s)

-- name: listen
listen durable

-- name: register_definitions
insert into durable.definitions (kind, name, version, queue, schema, options, updated_at)
select d.kind, d.name, d.version, d.queue, d.schema, coalesce(d.options, '{}'), durable.now()
  from unnest(%s::text[], %s::text[], %s::int[], %s::text[], %s::jsonb[], %s::jsonb[]) as d(kind, name, version, queue, schema, options)
on conflict (kind, name, version) do update
   set queue = excluded.queue, schema = excluded.schema, options = excluded.options, updated_at = excluded.updated_at
