-- Transactional activities (C5): the last statement of an activity's own transaction. It records the outcome if, and only if, the attempt still counts; the caller
-- rolls everything back on any other verdict. `ours`: the transaction is the one that was begun for the attempt (its author has neither committed nor
-- rolled back in between). The job's row is locked last and shortly, so that a rescue is never kept waiting by a long transaction.
create function durable.settle_transaction(p_owner uuid, p_shard smallint, p_run uuid, p_seq integer, p_attempt integer, p_mark text, p_payload json)
returns table (verdict text, hint text)
language plpgsql
set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
    v_now timestamptz := durable.now();
    v_job durable.jobs;
    v_run record;
begin
    if current_setting('durable.attempt', true) is distinct from p_mark then
        verdict := 'not_ours'; return next; return;
    end if;
    select j.* into v_job from durable.jobs j
     where j.shard = p_shard and j.run_id = p_run and j.seq = p_seq for update;
    if not found or v_job.state <> 'executing' or v_job.owner <> p_owner or v_job.attempt <> p_attempt then
        verdict := 'lost'; return next; return;
    end if;
    if v_job.cancel_requested_at is not null then
        verdict := 'cancelled'; return next; return;
    end if;
    verdict := 'completed';
    if v_job.kind = 'job' then
        update durable.jobs j
           set state = 'completed', owner = null, deadline_at = null, deadline_kind = null, finished_at = v_now, result = p_payload
         where j.shard = p_shard and j.run_id = p_run and j.seq = p_seq;
        return next; return;
    end if;
    select r.status, r.queue, r.owner into v_run from durable.runs r where r.shard = p_shard and r.run_id = p_run;
    if v_run.status is distinct from 'running' then
        verdict := 'cancelled'; return next; return;
    end if;
    delete from durable.jobs j where j.shard = p_shard and j.run_id = p_run and j.seq = p_seq;
    insert into durable.inbox (shard, run_id, queue, type, at, body, payload)
    values (p_shard, p_run, v_run.queue, 'ActivityCompleted', v_now, jsonb_build_object('ref', p_seq, 'attempt', p_attempt), p_payload);
    hint := coalesce('worker:' || v_run.owner, 'queue:' || v_run.queue);
    return next;
end $$;
