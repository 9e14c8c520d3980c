-- The client's statements. Times leave as microseconds and JSON as text, so that neither depends on settings of the connection,
-- which may be the caller's own.

-- name: start_run
select run_id::text, outcome, status, taken_us, taken_body from durable.start_run(
    %(shard)s::smallint, %(run_id)s::uuid, %(workflow_id)s, %(workflow)s, %(version)s::int, %(queue)s, %(priority)s::smallint,
    %(delay_s)s::float8, %(body)s::jsonb, %(payload)s::json, %(actor)s::jsonb, %(attributes)s::jsonb, %(memo)s::jsonb,
    %(on_running)s, %(on_closed)s, %(on_end)s::json, %(taker)s::uuid)

-- name: send_signal
select run_id::text, status, reason, queue, owner::text from durable.send_signal(
    %(shard)s::smallint, %(workflow_id)s, %(signal_id)s::uuid, %(name)s, %(payload)s::json, %(dedupe_key)s, %(actor)s::jsonb,
    %(headers)s::jsonb)

-- name: request_cancel
select run_id::text, status, queue, owner::text from durable.request_cancel(
    %(shard)s::smallint, %(workflow_id)s, %(reason)s, %(actor)s::jsonb, %(command_id)s::uuid)

-- name: terminate_run
select run_id::text, status, pushes::text from durable.terminate_run(
    %(shard)s::smallint, %(workflow_id)s, %(reason)s, %(actor)s::jsonb, %(command_id)s::uuid)

-- name: move_run
select run_id::text, status, was, served, queue, owner::text from durable.move_run(
    %(shard)s::smallint, %(workflow_id)s, %(build)s, %(reason)s, %(actor)s::jsonb, %(command_id)s::uuid)

-- name: notify
select pg_notify('durable', %(hint)s)

-- name: read_outcome
-- How the run ended, or that it runs. With a run id: that run, or the one that continues it. Without: the newest.
select r.run_id::text, r.workflow, r.version, r.status, h.type, h.body::text, h.payload::text
  from durable.runs r
  left join durable.history h on r.status <> 'running' and h.shard = r.shard and h.run_id = r.run_id and h.seq = r.last_seq
 where r.shard = %(shard)s::smallint and r.workflow_id = %(workflow_id)s
   and (%(run_id)s::uuid is null or r.status <> 'continued' and r.generation >= (
        select f.generation from durable.runs f where f.shard = %(shard)s::smallint and f.run_id = %(run_id)s::uuid))
 order by case when %(run_id)s::uuid is null then -r.generation else r.generation end
 limit 1

-- name: describe_run
select l.workflow_id, l.run_id::text, l.workflow, l.version, l.status, l.operator_status, l.queue, l.priority,
       durable.to_us(l.created_at) as created_at, durable.to_us(l.started_at) as started_at, durable.to_us(l.closed_at) as closed_at,
       durable.to_us(coalesce(r.ready_at, r.delayed_until)) as ready_at, durable.to_us(l.cancel_requested_at) as cancel_requested_at,
       coalesce(l.waiting_on, w.on_activities)::text as waiting_on, l.review::text, l.paused::text, l.attributes::text, r.memo::text, l.actor::text, l.owner::text, l.last_seq, l.generation,
       r.headers::text, r.static_details, r.details, durable.to_us(r.deadline_at) as deadline_at, l.pinned, l.build,
       durable.cause_of_end(l.status, h.type, h.body, l.cancel_requested_at is not null)::text as cause
  from durable.run_list l join durable.runs r on r.shard = l.shard and r.run_id = l.run_id
  left join durable.history h on l.status <> 'running' and h.shard = l.shard and h.run_id = l.run_id and h.seq = l.last_seq
  left join lateral (  -- what its worker began at once is not written into the run's row
        select jsonb_agg(jsonb_build_object('kind', 'activity', 'name', h.body ->> 'name', 'id', h.body ->> 'id', 'seq', h.seq, 'line', h.body ->> 'line') order by h.seq) as on_activities
          from (select j.seq from durable.jobs j where j.shard = l.shard and j.run_id = l.run_id and j.kind = 'activity' order by j.seq limit 20) a
          join durable.history h on h.shard = l.shard and h.run_id = l.run_id and h.seq = a.seq) w on l.status = 'running' and l.waiting_on is null
 where l.shard = %(shard)s::smallint and l.workflow_id = %(workflow_id)s
   and (%(run_id)s::uuid is null or l.run_id = %(run_id)s::uuid)
 order by l.generation desc
 limit 1

-- name: list_runs
-- The newest first: a few heads of each shard along its index, then the newest of those.
select l.workflow_id, l.run_id::text, l.workflow, l.version, l.status, l.operator_status, l.queue, l.priority,
       durable.to_us(l.created_at) as created_at, durable.to_us(l.started_at) as started_at, durable.to_us(l.closed_at) as closed_at,
       durable.to_us(coalesce(r.ready_at, r.delayed_until)) as ready_at, durable.to_us(l.cancel_requested_at) as cancel_requested_at,
       l.waiting_on::text, l.review::text, l.paused::text, l.attributes::text, r.memo::text, l.actor::text, l.owner::text, l.last_seq, l.generation,
       r.headers::text, r.static_details, r.details, durable.to_us(r.deadline_at) as deadline_at, l.pinned, l.build,
       durable.cause_of_end(l.status, h.type, h.body, l.cancel_requested_at is not null)::text as cause
  from unnest(durable.shard_keys()) as k(key)
 cross join lateral (
        select * from durable.run_list c
         where c.shard = k.key
           and (%(status)s::text is null or c.status = %(status)s)
           and (%(operator_status)s::text is null or c.operator_status = %(operator_status)s)
           and (%(workflow)s::text is null or c.workflow = %(workflow)s)
           and (%(queue)s::text is null or c.queue = %(queue)s)
           and (%(where)s::jsonpath is null or c.attributes @@ %(where)s::jsonpath)
           and (%(id_prefix)s::text is null or starts_with(c.workflow_id, %(id_prefix)s))
         order by c.run_id desc limit %(limit)s::int) l  -- UUIDv7: the order of creation, along the primary key
  join durable.runs r on r.shard = l.shard and r.run_id = l.run_id
  left join durable.history h on l.status <> 'running' and h.shard = l.shard and h.run_id = l.run_id and h.seq = l.last_seq
 order by l.created_at desc, l.workflow_id
 limit %(limit)s::int

-- name: read_history
select h.seq, h.type, durable.to_us(h.at) as at, h.body::text, h.turn, h.payload::text
  from durable.history h
 where h.shard = %(shard)s::smallint and h.run_id = (
        select r.run_id from durable.runs r
         where r.shard = %(shard)s::smallint and r.workflow_id = %(workflow_id)s
           and (%(run_id)s::uuid is null or r.run_id = %(run_id)s::uuid)
         order by r.generation desc limit 1)
   and h.seq > %(after)s::int
 order by h.seq

-- name: read_signals
select s.signal_id::text, s.name, s.status, s.reason, s.dedupe_key, s.payload::text, s.actor::text, durable.to_us(s.at) as at, s.seq, coalesce(s.times, 1) as times
  from durable.signals s
 where s.shard = %(shard)s::smallint and s.run_id = (
        select r.run_id from durable.runs r
         where r.shard = %(shard)s::smallint and r.workflow_id = %(workflow_id)s
           and (%(run_id)s::uuid is null or r.run_id = %(run_id)s::uuid)
         order by r.generation desc limit 1)
 order by s.at, s.signal_id

-- name: read_pending
select j.seq, j.kind, j.name, j.queue, j.state, j.attempt, nullif(coalesce((coalesce(j.options, h.body) -> 'retry' ->> 'max_attempts')::int, 5), 0) as max_attempts,
       durable.to_us(j.created_at) as created_at,
       case when j.state not in ('executing', 'waiting') then durable.to_us(j.scheduled_at) end as next_at,
       durable.to_us(j.deadline_at) as deadline_at, j.deadline_kind, durable.to_us(j.cancel_requested_at) as cancel_requested_at,
       j.owner::text, j.errors::text, j.heartbeat::text, j.note::text, j.paused::text
  from durable.jobs j
  left join durable.history h on h.shard = j.shard and h.run_id = j.run_id and h.seq = j.seq
 where j.shard = %(shard)s::smallint and j.kind <> 'job' and j.run_id = (
        select r.run_id from durable.runs r
         where r.shard = %(shard)s::smallint and r.workflow_id = %(workflow_id)s
           and (%(run_id)s::uuid is null or r.run_id = %(run_id)s::uuid)
         order by r.generation desc limit 1)
 order by j.seq

-- name: read_definition
-- One definition: the given version, or the one that a start by name takes.
select d.name, d.version, d.queue, d.schema::text, d.options::text from durable.definitions d
 where d.kind = %(kind)s and d.name = %(name)s
   and d.version = coalesce(%(version)s::int, case when d.kind = 'workflow' then durable.version_to_start(d.name) else d.version end)

-- name: list_versions
select d.version from durable.definitions d where d.kind = 'workflow' and d.name = %(name)s order by d.version

-- name: list_definitions
select distinct d.name from durable.definitions d where d.kind = %(kind)s order by d.name

-- name: read_clock
select current_setting('server_version') as server_version, durable.to_us(clock_timestamp()) as server_us,
       (select c.offset_us from durable.clock c) as offset_us

-- name: list_workers
select w.worker_id::text, w.name, case when w.state in ('alive', 'stopping') and w.lease_until < durable.now() then 'late' else w.state end as state,
       w.build, w.queues::text, w.info::text, durable.to_us(w.started_at) as started_at, durable.to_us(w.beat_at) as beat_at,
       durable.to_us(durable.now()) as now
  from durable.workers w
 where w.state <> 'gone' or w.beat_at > durable.now() - interval '1 hour'
 order by w.started_at

-- name: list_backlog
-- Per queue: what could run now, since when, and how many live workers serve it.
with due as (
    select r.queue, r.ready_at as since, 'runs' as kind from durable.runs r
     where r.shard = any (durable.shard_keys()) and r.owner is null and r.ready_at is not null
    union all
    select j.queue, j.scheduled_at, 'jobs' from durable.jobs j
     where j.shard = any (durable.shard_keys()) and j.phase = 'ready'
    union all
    select j.queue, j.scheduled_at, 'jobs' from durable.jobs j where j.phase = 'keyed'
    union all
    select j.queue, j.scheduled_at, 'jobs' from durable.jobs j
     where j.shard = any (durable.shard_keys()) and j.phase = 'due' and j.scheduled_at <= durable.now()
)
select d.queue, count(*) filter (where d.kind = 'runs') as runs, count(*) filter (where d.kind = 'jobs') as jobs,
       extract(epoch from durable.now() - min(d.since))::float8 as oldest_s,
       (select count(*) from durable.workers w
         where w.state = 'alive' and w.lease_until >= durable.now() and w.queues ? d.queue) as workers
  from due d group by d.queue order by d.queue

-- name: list_builds_without_worker
-- Builds that open runs are pinned to and that no live worker has.
select r.build, count(*) as runs from durable.runs r
 where r.shard = any (durable.shard_keys()) and r.build is not null and r.status = 'running'
   and not exists (select from durable.workers w where w.state = 'alive' and w.lease_until >= durable.now() and w.build = r.build)
 group by r.build order by r.build

-- name: count_reviews
select count(*) filter (where l.operator_status = 'needs_review') as needs_review,
       count(*) filter (where l.operator_status = 'blocked') as blocked
  from durable.run_list l where l.review is not null and l.status = 'running'
