-- Operators' commands on runs and activities, and what is recorded of them. See migrations/0009_operations.sql.

-- name: pause_run
select run_id::text, code, pushes::text from durable.pause_run(
    %(shard)s::smallint, %(workflow_id)s, %(run_id)s::uuid, %(reason)s, %(actor)s::jsonb, %(command_id)s::uuid, %(batch_id)s::uuid)

-- name: resume_run
select run_id::text, code, pushes::text from durable.resume_run(
    %(shard)s::smallint, %(workflow_id)s, %(run_id)s::uuid, %(reason)s, %(actor)s::jsonb, %(command_id)s::uuid, %(batch_id)s::uuid)

-- name: act_on_activity
select run_id::text, code, pushes::text from durable.act_on_activity(
    %(shard)s::smallint, %(workflow_id)s, %(run_id)s::uuid, %(seq)s::int, %(action)s, %(payload)s::json, %(failure)s::jsonb, %(reason)s,
    %(actor)s::jsonb, %(command_id)s::uuid, %(batch_id)s::uuid)

-- name: rewind_run
select run_id::text, code, next_run_id::text, resent, pushes::text from durable.rewind_run(
    %(shard)s::smallint, %(workflow_id)s, %(run_id)s::uuid, %(action)s, %(refusal)s, %(next)s::uuid, %(fork_shard)s::smallint, %(fork_id)s,
    %(event)s::int, %(cut)s::int, %(turn)s::int, %(redeliver)s::int[], %(updates)s::int[], %(activities)s::int[], %(keys)s::text[], %(timers)s::int[], %(children)s::int[],
    %(stopping)s::int[], %(cancelled)s::boolean, %(origins)s::jsonb, %(discarded)s::jsonb, %(reapply)s::boolean, %(original_due)s::boolean,
    %(reason)s, %(actor)s::jsonb, %(command_id)s::uuid, %(batch_id)s::uuid, %(ask)s, %(payload)s::json, %(ask_id)s)

-- name: move_in_batch
select run_id::text, code, pushes::text from durable.move_in_batch(
    %(shard)s::smallint, %(workflow_id)s, %(run_id)s::uuid, %(build)s, %(reason)s, %(actor)s::jsonb, %(command_id)s::uuid, %(batch_id)s::uuid)

-- name: stop_in_batch
select run_id::text, code, pushes::text from durable.stop_in_batch(
    %(shard)s::smallint, %(workflow_id)s, %(run_id)s::uuid, %(action)s, %(signal)s, %(payload)s::json, %(reason)s, %(actor)s::jsonb,
    %(command_id)s::uuid, %(batch_id)s::uuid)

-- name: read_scheduled_activity
-- The activity that an event has scheduled, with what a worker has registered of it.
select h.body ->> 'name' as name, d.schema::text
  from durable.runs r join durable.history h on h.shard = r.shard and h.run_id = r.run_id and h.seq = %(seq)s::int and h.type = 'ActivityScheduled'
  left join durable.definitions d on d.kind = 'activity' and d.name = h.body ->> 'name'
 where r.shard = %(shard)s::smallint and r.workflow_id = %(workflow_id)s
 order by r.generation desc, d.version desc limit 1

-- name: list_commands
-- Newest first; of one workflow id, or of all.
select l.workflow_id, l.run_id::text, l.command_id::text, l.action, l.seq, l.accepted, l.code, l.reason, l.actor::text, durable.to_us(l.at) as at,
       l.before::text, l.after::text, l.batch_id::text, l.subject, l.recovery_id::text
  from durable.command_list l
 where l.shard = any (%(shards)s::smallint[]) and (%(workflow_id)s::text is null or l.workflow_id = %(workflow_id)s)
   and (%(batch_id)s::uuid is null or l.batch_id = %(batch_id)s::uuid) and (%(subject)s::text is null or l.subject = %(subject)s)
   and (%(recovery_id)s::uuid is null or l.recovery_id = %(recovery_id)s::uuid) and (%(accepted)s::boolean is null or l.accepted = %(accepted)s)
 order by l.at desc, l.command_id limit %(limit)s::int

-- name: count_matching
select count(*)::int as matching from durable.run_list l
 where durable.matches(l, %(filter)s::jsonb) and l.run_id <= %(bound)s::uuid and l.shard = any (durable.shard_keys())

-- name: list_matching
-- The next runs of a batch: newest first, below those that were done.
select l.run_id::text, l.workflow_id from unnest(durable.shard_keys()) as k(key)
 cross join lateral (
        select c.run_id, c.workflow_id from durable.run_list c
         where c.shard = k.key and c.run_id <= %(bound)s::uuid and (%(reached)s::uuid is null or c.run_id < %(reached)s::uuid)
           and durable.matches(c, %(filter)s::jsonb)
         order by c.run_id desc limit %(limit)s::int) l
 order by l.run_id desc limit %(limit)s::int

-- name: begin_batch
insert into durable.batches (batch_id, action, filter, options, payload, reason, actor, bound, matched, created_at)
values (%(batch_id)s::uuid, %(action)s, %(filter)s::jsonb, %(options)s::jsonb, %(payload)s::json, %(reason)s, %(actor)s::jsonb, %(bound)s::uuid, %(matched)s::int, durable.now())
on conflict do nothing

-- name: advance_batch
update durable.batches b set reached = least(b.reached, %(reached)s::uuid), finished_at = case when %(finished)s then coalesce(b.finished_at, durable.now()) end
 where b.batch_id = %(batch_id)s::uuid

-- name: read_batches
-- How far batches are: the newest, or one.
select b.batch_id::text, b.action, b.filter::text, b.options::text, b.payload::text, b.reason, b.actor::text, b.bound::text, b.reached::text, b.matched,
       coalesce(c.accepted, 0)::int as accepted, coalesce(c.refused, 0)::int as refused, durable.to_us(b.created_at) as created_at,
       durable.to_us(b.finished_at) as finished_at
  from durable.batches b
 cross join lateral (
        select count(*) filter (where o.accepted) as accepted, count(*) filter (where not o.accepted) as refused
          from durable.operator_commands o where o.shard = any (durable.shard_keys()) and o.batch_id = b.batch_id) c
 where %(batch_id)s::uuid is null or b.batch_id = %(batch_id)s::uuid
 order by b.created_at desc limit %(limit)s::int
