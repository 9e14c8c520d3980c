-- What is on record beside histories: why runs and jobs have ended, the jobs that follow a run's end, attempts that did not arrive, operators' sessions.

-- WHY IT ENDED. Closed lists, the same as in durable/core/terminal_causes.py; a domain, because no row holds them: they follow from what the rows say.
create domain durable.run_cause as text constraint run_cause_known check (value in (
    'completed', 'completed_after_cancel_request', 'failed', 'step_failed', 'failed_after_cancel_request', 'timed_out', 'cancelled', 'cancelled_before_start',
    'terminated', 'terminated_with_parent', 'replaced', 'continued', 'reset'));

create domain durable.job_cause as text constraint job_cause_known check (value in (
    'completed', 'completed_after_cancel_request', 'cancelled', 'cancelled_by_itself', 'timed_out', 'worker_lost', 'non_retryable', 'attempts_exhausted'));

-- From a run's status, its last event, and whether a cancel was ever delivered to it. Null: it goes on.
create function durable.cause_of_end(p_status text, p_type text, p_body jsonb, p_asked boolean) returns durable.run_cause
language sql immutable as $$
    select case p_status
        when 'completed' then case when p_asked then 'completed_after_cancel_request' else 'completed' end
        when 'cancelled' then case when p_body ? 'before_start' then 'cancelled_before_start' else 'cancelled' end
        when 'continued' then case when p_type = 'WorkflowReset' then 'reset' else 'continued' end
        when 'terminated' then case p_body ->> 'reason' when 'its parent closed' then 'terminated_with_parent'
                                    when 'replaced by a new start' then 'replaced' else 'terminated' end
        when 'failed' then case when p_type = 'WorkflowTimedOut' then 'timed_out' when p_asked then 'failed_after_cancel_request'
                                when p_body -> 'failure' ->> 'type' in ('durable.errors:ActivityError', 'durable.errors:ActivityTimeout',
                                    'durable.errors:ChildWorkflowError') then 'step_failed' else 'failed' end end
$$;

-- From a job's state, whether somebody asked it to stop, and its last failed attempt. Null: it goes on.
create function durable.cause_of_job_end(p_state text, p_asked boolean, p_error jsonb) returns durable.job_cause
language sql immutable as $$
    select case p_state
        when 'completed' then case when p_asked then 'completed_after_cancel_request' else 'completed' end
        when 'cancelled' then case when p_asked then 'cancelled' else 'cancelled_by_itself' end
        when 'discarded' then case when p_error -> 'failure' ->> 'type' = 'durable.errors:WorkerLost' then 'worker_lost'
                                   when p_error ->> 'retry_state' = 'timeout' then 'timed_out'
                                   when not p_error ? 'retry_state' and p_error -> 'failure' ->> 'type' = 'builtins:TimeoutError' then 'timed_out'
                                   when p_error ->> 'retry_state' = 'non_retryable' then 'non_retryable' else 'attempts_exhausted' end end
$$;


-- THE JOB THAT FOLLOWS A RUN'S END. `on_end` is a job as `enqueue_described` takes it, without an id; json, because its arguments are the author's. It is
-- enqueued by the transaction that closes the run, and goes with the run's chain: continue-as-new and a reset of an open run hand it on.
alter table durable.runs add column on_end json;

-- The id of that job follows from the run and its end, so that it can be made only once. A UUIDv7 of the time of the end, as all ids of jobs are.
create function durable.end_job_id(p_run uuid, p_closed timestamptz) returns uuid language sql stable as $$
    select (lpad(to_hex((extract(epoch from p_closed) * 1000)::bigint), 12, '0') || '7' || substr(h, 1, 3) || '8' || substr(h, 4, 15))::uuid
      from md5(p_run || ' on_end') as h
$$;

-- What the job is told beside its arguments: `activity_info().callback`.
create function durable.end_told(r durable.runs) returns jsonb language sql stable as $$
    select jsonb_build_object('version', 1, 'event', 'workflow.closed', 'workflow_id', r.workflow_id, 'run_id', r.run_id, 'workflow', r.workflow,
        'status', r.status, 'cause', durable.cause_of_end(r.status, h.type, h.body, r.cancel_requested_at is not null), 'closed_at_us', durable.to_us(r.closed_at))
      from durable.history h where h.shard = r.shard and h.run_id = r.run_id and h.seq = r.last_seq
$$;

-- Called for closed runs by `close_family`, for those alone that have such a job.
create function durable.tell_ends(r_shard smallint[], r_run uuid[]) returns void language plpgsql
set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
    v_run durable.runs;
begin
    for v_run in
        select r.* from unnest(r_shard, r_run) as b(shard, run_id) join durable.runs r on r.shard = b.shard and r.run_id = b.run_id
         where r.on_end is not null and r.status in ('completed', 'failed', 'cancelled', 'terminated') order by r.shard, r.run_id
    loop
        perform durable.enqueue_described(v_run.on_end, durable.end_job_id(v_run.run_id, v_run.closed_at), durable.end_told(v_run));
    end loop;
end $$;
