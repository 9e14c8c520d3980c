-- COMPLETE: standalone jobs that returned. The short way through `settle_jobs`: one update by key that touches no index. Fenced by attempt and owner (C5);
-- a refused outcome is kept as evidence. Returns the positions refused.
create function durable.complete_jobs(p_owner uuid, o_shard smallint[], o_job uuid[], o_attempt integer[], o_result json[])
returns integer[]
language plpgsql
set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set plan_cache_mode = force_generic_plan
as $$
declare
    v_now timestamptz := durable.now();
    v_done uuid[];
    v_refused integer[];
begin
    with done as (
        update durable.jobs j
           set state = 'completed', owner = null, deadline_at = null, deadline_kind = null, finished_at = v_now, result = o.result
          from unnest(o_shard, o_job, o_attempt, o_result) as o(shard, job_id, attempt, result)
         where j.shard = o.shard and j.run_id = o.job_id and j.seq = 0
           and j.state is not distinct from 'executing' and j.owner is not distinct from p_owner and j.attempt = o.attempt
        returning j.run_id
    )
    select array_agg(d.run_id) into v_done from done d;
    if coalesce(cardinality(v_done), 0) = cardinality(o_job) then
        return null;
    end if;
    with late as (
        select * from unnest(o_shard, o_job, o_attempt, o_result) with ordinality as o(shard, job_id, attempt, result, ix)
         where o.job_id <> all (coalesce(v_done, '{}'))
    ), noted as (
        insert into durable.evidence (shard, run_id, at, kind, body)
        select l.shard, l.job_id, v_now, 'OutcomeRefused',
               jsonb_build_object('seq', 0, 'attempt', l.attempt, 'type', 'ActivityCompleted', 'worker', p_owner) from late l
    )
    select array_agg(l.ix::int) into v_refused from late l;
    return v_refused;
end $$;
