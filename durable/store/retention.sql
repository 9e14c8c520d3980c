-- Pruning and its rules, for the duty's holder (positional) and for clients (by name); see migrations/0008_schedules.sql.

-- name: duty_prune_runs
select last_id::text, pruned, archived from durable.prune_runs(%s::uuid, %s, %s::smallint, %s::uuid, %s, %s, null, false)

-- name: duty_prune_jobs
select last_id::text, pruned, archived from durable.prune_jobs(%s::uuid, %s, %s::smallint, %s::uuid, %s, null, false)

-- name: duty_prune_slots
select durable.prune_slots(%s::uuid, %s, %s, null, false)

-- name: has_rules
select exists (select from durable.retention)

-- name: prune_runs
select last_id::text, pruned, archived from durable.prune_runs(
    null, null, %(shard)s::smallint, %(after)s::uuid, %(scan)s::int, %(rows)s::int, %(rules)s::jsonb, %(dry)s)

-- name: prune_jobs
select last_id::text, pruned, archived from durable.prune_jobs(
    null, null, %(shard)s::smallint, %(after)s::uuid, %(scan)s::int, %(rules)s::jsonb, %(dry)s)

-- name: prune_slots
select durable.prune_slots(null, null, %(limit)s::int, %(rules)s::jsonb, %(dry)s) as pruned

-- name: list_rules
select t.kind, t.queue, t.state, t.keep_s, t.archive from durable.retention t order by t.kind, t.queue, t.state

-- name: set_rule
insert into durable.retention as t (kind, queue, state, keep_s, archive)
values (%(kind)s, %(queue)s, %(state)s, %(keep_s)s::float8, %(archive)s)
on conflict (kind, queue, state) do update set keep_s = excluded.keep_s, archive = excluded.archive

-- name: unset_rule
delete from durable.retention t where t.kind = %(kind)s and t.queue = %(queue)s and t.state = %(state)s returning t.kind

-- name: read_archive
select a.kind, a.id, durable.to_us(a.archived_at) as archived_at, a.record::text from durable.archive a
 where a.shard = %(shard)s::smallint and a.id = %(id)s order by a.archived_at desc
