-- What explanations are made from: each statement reads all facts of one thing, in one snapshot. See migrations/0014_explain.sql.

-- name: read_run_facts
-- The newest run of the id, or that run.
select durable.run_facts(r.shard, r.run_id, 1, %(step)s)::text as facts from (
    select n.shard, n.run_id from durable.runs n
     where n.shard = %(shard)s::smallint and n.workflow_id = %(workflow_id)s and (%(run_id)s::uuid is null or n.run_id = %(run_id)s::uuid)
     order by n.generation desc limit 1) r

-- name: read_job_facts
select durable.job_facts(%(shard)s::smallint, %(job_id)s::uuid, 0)::text as facts, durable.to_us(durable.now()) as now_us

-- name: read_schedule_facts
select durable.schedule_facts(%(schedule_id)s)::text as facts

-- name: count_held
-- What waits for an operator's decision: activities whose attempts ran out, activities that somebody paused, and runs that somebody paused.
select count(*) filter (where h.kind = 'exhausted') as exhausted, count(*) filter (where h.kind = 'operator') as activities, count(*) filter (where h.kind = 'paused run') as runs
  from (select j.paused ->> 'kind' as kind from durable.jobs j where j.shard = any (durable.shard_keys()) and j.phase = 'paused'
        union all
        select 'paused run' from durable.runs r where r.shard = any (durable.shard_keys()) and r.delayed_until >= '9999-01-01' and r.paused is not null) h
