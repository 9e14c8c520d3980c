-- What explanations are made from: each statement reads all facts of one thing, in one snapshot. See migrations/0013_explain.sql.

-- name: read_run_facts
-- The newest run of the id, or that run.
select durable.run_facts(r.shard, r.run_id, 1, %(calls)s::text[])::text as facts from (
    select n.shard, n.run_id from durable.runs n
     where n.shard = %(shard)s::smallint and n.workflow_id = %(workflow_id)s and (%(run_id)s::uuid is null or n.run_id = %(run_id)s::uuid)
     order by n.generation desc limit 1) r

-- name: read_job_facts
select durable.job_facts(%(shard)s::smallint, %(job_id)s::uuid, 0)::text as facts, durable.to_us(durable.now()) as now_us

-- name: read_schedule_facts
select durable.schedule_facts(%(schedule_id)s)::text as facts
