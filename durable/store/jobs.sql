-- Standalone jobs: the client's statements. Times leave as microseconds and JSON as text, as in client.sql.

-- name: enqueue_jobs
select job_id::text, state, outcome, taken_us from durable.enqueue_jobs(
    array[%(shard)s::smallint], array[%(job_id)s::uuid], array[%(input)s::json], %(name)s, %(queue)s, %(priority)s::smallint,
    %(at_us)s::bigint, %(delay_s)s::float8, %(options)s::jsonb, %(tags)s::text[], %(meta)s::jsonb,
    array[%(key)s::text], %(states)s::text[], %(period_s)s::float8, %(replace)s::jsonb, %(taker)s::uuid)

-- name: read_now
select durable.to_us(durable.now()) as now_us

-- name: copy_jobs
-- One row a job: what differs first.
copy durable.jobs (shard, run_id, input, options, seq, attempt, kind, name, queue, priority, tags, meta, state, scheduled_at,
                   deadline_at, deadline_kind, created_at, group_id) from stdin with (format binary)

-- name: plan_copy
-- What is the same for all jobs of one COPY, as the bytes of its columns from `options` on.
select jsonb_send(%(options)s::jsonb) as options, int4send(0) as seq, int4send(0) as attempt, textsend('job') as kind, textsend(%(name)s::text) as name,
       textsend(%(queue)s::text) as queue, int2send(%(priority)s::smallint) as priority, array_send(%(tags)s::text[]) as tags,
       jsonb_send(%(meta)s::jsonb) as meta, textsend(case when t.at > n.now then 'scheduled' else 'available' end) as state,
       timestamptz_send(t.at) as scheduled_at, timestamptz_send(d.at) as deadline_at, textsend(d.kind) as deadline_kind,
       timestamptz_send(n.now) as created_at, uuid_send(%(group_id)s::uuid) as group_id
  from (select durable.now() as now) n
 cross join lateral (select greatest(n.now, coalesce(durable.from_us(%(at_us)s::bigint), n.now + %(delay_s)s::float8 * interval '1 second')) as at) t
 cross join lateral durable.new_job_deadline(%(options)s::jsonb, n.now, t.at) d

-- name: make_stage
create temporary table durable_staged (shard smallint, id uuid, input json, key text, ix integer) on commit drop

-- name: copy_stage
copy pg_temp.durable_staged (shard, id, input, key, ix) from stdin with (format binary)

-- name: enqueue_staged
select ix, job_id::text, state, outcome, made from durable.enqueue_staged(
    %(name)s, %(queue)s, %(priority)s::smallint, %(at_us)s::bigint, %(delay_s)s::float8, %(options)s::jsonb, %(tags)s::text[], %(meta)s::jsonb,
    %(states)s::text[], %(period_s)s::float8, %(replace)s::jsonb)

-- name: drop_stage
drop table pg_temp.durable_staged

-- name: read_job_outcome
select j.state, j.name, j.attempt - coalesce((j.options ->> 'snoozes')::int, 0) as attempt, j.result::text as result_text, j.errors::text from durable.jobs j
 where j.shard = %(shard)s::smallint and j.run_id = %(job_id)s::uuid and j.seq = 0

-- name: describe_job
select l.job_id::text, l.activity as name, l.queue, l.priority, l.state, l.attempt, (l.options -> 'retry' ->> 'max_attempts')::int as max_attempts,
       l.snoozes, durable.to_us(l.created_at) as created_at, durable.to_us(l.scheduled_at) as scheduled_at,
       durable.to_us(l.finished_at) as finished_at, durable.to_us(l.cancel_requested_at) as cancel_requested_at, l.owner::text, l.errors::text,
       l.tags, l.meta::text, l.unique_key, l.input::text as arguments, l.result::text, l.note::text,
       durable.cause_of_job_end(l.state, l.cancel_requested_at is not null, l.errors -> -1)::text as cause
  from durable.job_list l
 where l.shard = %(shard)s::smallint and l.job_id = %(job_id)s::uuid

-- name: list_jobs
-- The newest first: a few heads of each shard along the primary key (ids are UUIDv7), then the newest of those.
select l.job_id::text, l.activity as name, l.queue, l.priority, l.state, l.attempt, (l.options -> 'retry' ->> 'max_attempts')::int as max_attempts,
       l.snoozes, durable.to_us(l.created_at) as created_at, durable.to_us(l.scheduled_at) as scheduled_at,
       durable.to_us(l.finished_at) as finished_at, durable.to_us(l.cancel_requested_at) as cancel_requested_at, l.owner::text, l.errors::text,
       l.tags, l.meta::text, l.unique_key, l.input::text as arguments, l.result::text, l.note::text,
       durable.cause_of_job_end(l.state, l.cancel_requested_at is not null, l.errors -> -1)::text as cause
  from unnest(durable.shard_keys()) as k(key)
 cross join lateral (
        select * from durable.job_list c
         where c.shard = k.key
           and (%(states)s::text[] is null or c.state = any (%(states)s::text[]))
           and (%(name)s::text is null or c.activity = %(name)s)
           and (%(queue)s::text is null or c.queue = %(queue)s)
           and (%(tags)s::text[] is null or c.tags @> %(tags)s::text[])
           and (%(meta)s::jsonb is null or c.meta @> %(meta)s::jsonb)
           and (%(arguments)s::jsonb is null or c.input::jsonb @> %(arguments)s::jsonb)
         order by c.job_id desc limit %(limit)s::int) l
 order by l.created_at desc, l.job_id desc
 limit %(limit)s::int

-- name: cancel_job
select status, state, queue, owner::text from durable.cancel_job(
    %(shard)s::smallint, %(job_id)s::uuid, %(reason)s, %(actor)s::jsonb, %(command_id)s::uuid)

-- name: retry_job
select status, queue from durable.retry_job(%(shard)s::smallint, %(job_id)s::uuid, %(actor)s::jsonb, %(command_id)s::uuid)

-- name: delete_job
select durable.delete_job(%(shard)s::smallint, %(job_id)s::uuid, %(actor)s::jsonb, %(command_id)s::uuid) as status

-- name: edit_job
select status, state, queue from durable.edit_job(
    %(shard)s::smallint, %(job_id)s::uuid, %(changes)s::jsonb, %(input)s::json, %(reason)s, %(actor)s::jsonb, %(command_id)s::uuid)

-- name: count_jobs
select durable.count_jobs(%(filter)s::jsonb) as matching

-- name: act_on_jobs
select ended, wake from durable.act_on_jobs(%(batch_id)s::uuid, %(limit)s::int)

-- name: open_group
select durable.open_group(%(group_id)s::uuid, %(group_name)s, %(total)s::int, %(callbacks)s::json)

-- name: enqueue_chain
select durable.enqueue_chain(%(jobs)s::json)

-- name: describe_group
select g.group_id::text, g.name, g.total, g.open, g.completed, g.discarded, g.cancelled, g.attempted, g.fired, durable.to_us(g.created_at) as created_at,
       durable.to_us(g.finished_at) as finished_at
  from durable.job_groups g where g.shard = %(shard)s::smallint and g.group_id = %(group_id)s::uuid
