-- What is on record about a workflow besides its history, and recoveries. See migrations/0014_evidence.sql.

-- name: read_evidence
-- The newest first; of one run, or of all runs of the id.
select e.run_id::text, durable.to_us(e.at) as at, e.kind, e.status, e.name, e.reason, e.actor::text, e.times, e.detail::text, e.payload::text
  from durable.evidence_list e
 where e.shard = %(shard)s::smallint and e.workflow_id = %(workflow_id)s and (%(run_id)s::uuid is null or e.run_id = %(run_id)s::uuid)
 order by e.at desc, e.kind, e.status limit %(limit)s::int

-- name: read_cancel_requests
select c.run_id::text, c.command_id::text, c.became, c.actor::text, c.reason, durable.to_us(c.at) as at, c.batch_id::text, c.recovery_id::text
  from durable.cancel_list c where c.shard = %(shard)s::smallint and c.workflow_id = %(workflow_id)s
 order by c.at, c.command_id

-- name: note_ambiguous
select durable.note_ambiguous(%(shards)s::smallint[], %(runs)s::uuid[], %(signal_id)s::uuid, %(name)s, %(dedupe_key)s, %(reason)s, %(payload)s::json,
                              %(actor)s::jsonb) as noted

-- name: begin_recovery
insert into durable.recoveries (recovery_id, reason, actor, begun_at) values (%(recovery_id)s::uuid, %(reason)s, %(actor)s::jsonb, durable.now())
on conflict do nothing

-- name: end_recovery
-- Ended once; the answer tells whether there is one.
with ended as (
    update durable.recoveries r set ended_at = durable.now(), note = %(note)s where r.recovery_id = %(recovery_id)s::uuid and r.ended_at is null
)
select r.recovery_id::text from durable.recoveries r where r.recovery_id = %(recovery_id)s::uuid

-- name: read_recoveries
-- The newest first, or the one of that id.
select r.recovery_id::text, r.reason, r.actor::text, durable.to_us(r.begun_at) as begun_at, durable.to_us(r.ended_at) as ended_at, to_jsonb(r.note)::text as note,
       count(o.command_id) filter (where o.accepted)::int as accepted, count(o.command_id) filter (where not o.accepted)::int as refused
  from durable.recoveries r left join durable.operator_commands o on o.shard = any (durable.shard_keys()) and o.recovery_id = r.recovery_id
 where %(recovery_id)s::uuid is null or r.recovery_id = %(recovery_id)s::uuid
 group by r.recovery_id order by r.begun_at desc limit %(limit)s::int

-- name: name_recovery
-- For the transaction that it is in.
select set_config('durable.recovery', %(recovery_id)s, true)
