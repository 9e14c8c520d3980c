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


-- SIGNALS THAT DID NOT SIMPLY ARRIVE. Each attempt is a row of durable.signals, up to a thousand of a run: whoever sends one key a million times makes no
-- million rows. Beyond that, attempts are counted with the newest of their kind. Accepted signals touch neither the index nor the column.
alter table durable.signals add column times integer;
create index signals_refused on durable.signals (shard, run_id, status) where status in ('duplicate', 'late', 'ambiguous');

-- Answers false when this very attempt is on record already: the answer was lost and the same client asks again.
create function durable.note_signal(p_shard smallint, p_run uuid, p_signal uuid, p_name text, p_key text, p_status text, p_reason text, p_payload json,
                                    p_actor jsonb, p_now timestamptz) returns boolean language plpgsql as $$
declare
    v_fellow uuid;
begin
    if exists (select from durable.signals s where s.shard = p_shard and s.run_id = p_run and s.signal_id = p_signal) then
        return false;
    end if;
    if (select count(*) from (select from durable.signals s where s.shard = p_shard and s.run_id = p_run
                                 and s.status in ('duplicate', 'late', 'ambiguous') limit 1000) n) >= 1000 then
        select s.signal_id into v_fellow from durable.signals s
         where s.shard = p_shard and s.run_id = p_run and s.status = p_status and s.status in ('duplicate', 'late', 'ambiguous')
         order by s.at desc limit 1 for update;
        if found then
            update durable.signals s set times = coalesce(s.times, 1) + 1 where s.shard = p_shard and s.run_id = p_run and s.signal_id = v_fellow;
            return true;
        end if;
    end if;
    insert into durable.signals (shard, run_id, signal_id, name, dedupe_key, status, reason, payload, actor, at)
    values (p_shard, p_run, p_signal, p_name, p_key, p_status, p_reason, p_payload, p_actor, p_now) on conflict do nothing;
    return found;
end $$;

-- A signal for the one workflow that a filter means, when it means several: noted with each of those given, and delivered to none.
create function durable.note_ambiguous(r_shard smallint[], r_run uuid[], p_signal uuid, p_name text, p_key text, p_reason text, p_payload json, p_actor jsonb)
returns integer language plpgsql as $$
declare
    v_run record;
    v_count integer := 0;
begin
    for v_run in select r.shard, r.run_id from unnest(r_shard, r_run) as b(shard, run_id) join durable.runs r on r.shard = b.shard and r.run_id = b.run_id
                  order by r.shard, r.run_id for key share of r loop
        perform durable.note_signal(v_run.shard, v_run.run_id, p_signal, p_name, p_key, 'ambiguous', p_reason, p_payload, p_actor, durable.now());
        v_count := v_count + 1;
    end loop;
    return v_count;
end $$;


-- COMMANDS about what has no run: queues, schedules, and ids that name nothing. They stand under no run, so no run's retention takes them away:
-- `forget_requests` keeps the newest ten thousand.
create function durable.log_stray(p_subject text, p_name text, p_command uuid, p_action text, p_code text, p_reason text, p_actor jsonb,
                                  p_before jsonb default null, p_after jsonb default null) returns void language sql as $$
    insert into durable.operator_commands (shard, run_id, command_id, workflow_id, subject, action, accepted, reason, refusal, actor, at, code, before, after)
    values (0, '00000000-0000-0000-0000-000000000000', p_command, p_name, p_subject, p_action, p_code = 'accepted', p_reason, nullif(p_code, 'accepted'), p_actor,
            durable.now(), p_code, p_before, p_after)
    on conflict do nothing
$$;
create index operator_commands_strays on durable.operator_commands (shard, at) where run_id = '00000000-0000-0000-0000-000000000000';

create function durable.forget_strays(p_keep integer, p_limit integer) returns integer language plpgsql as $$
declare
    v_count integer;
begin
    delete from durable.operator_commands o
     where o.shard = 0 and o.run_id = '00000000-0000-0000-0000-000000000000' and o.command_id in (
        select s.command_id from durable.operator_commands s where s.shard = 0 and s.run_id = '00000000-0000-0000-0000-000000000000'
         order by s.at desc offset p_keep limit p_limit);
    get diagnostics v_count = row_count;
    return v_count;
end $$;


-- RECOVERIES: commands that belong together, with why. A command belongs to the recovery that its transaction names (`durable.recovery`, a setting); the
-- log's column takes it from there, so that no command needs to know of recoveries.
create table durable.recoveries (
    recovery_id uuid primary key,
    reason      text        not null,
    actor       jsonb,
    begun_at    timestamptz not null,
    ended_at    timestamptz,
    note        text
);
create index operator_commands_of_recovery on durable.operator_commands (shard, recovery_id) where recovery_id is not null;


-- CANCEL REQUESTS, apart from how the run ended (C9). `became`: delivered (its code saw it), pending (it lies in the inbox), overtaken (the run ended first),
-- dropped (a reset took the run back to before it), repeated (an earlier one stands), late (the run had ended).
create view durable.cancel_list as
select o.workflow_id, o.shard, o.run_id, o.command_id, o.actor, o.reason, o.at, o.batch_id, o.recovery_id,
       case when o.code = 'already_requested' then 'repeated' when o.code = 'workflow_closed' then 'late'
            when exists (select from durable.runs d where d.shard = r.shard and d.workflow_id = r.workflow_id and d.cancel_requested_at is not null
                            and d.generation between r.generation and e.generation) then 'delivered'
            when exists (select from durable.inbox i where i.shard = r.shard and i.run_id in (r.run_id, e.run_id) and i.type = 'CancelRequested') then 'pending'
            when e.status = 'running' then 'dropped' else 'overtaken' end as became
  from durable.operator_commands o join durable.runs r on r.shard = o.shard and r.run_id = o.run_id
 cross join lateral (  -- the end of what continues it
        select g.run_id, g.generation, g.status from durable.runs g where g.shard = r.shard and g.workflow_id = r.workflow_id and g.generation >= r.generation
         order by (g.status = 'continued'), g.generation * case when g.status = 'continued' then -1 else 1 end limit 1) e
 where o.action = 'cancel' and o.subject = 'workflow';

-- EVIDENCE: everything about a workflow id (or a job, under its id) that did not simply happen. A documented, stable view for reading. `kind`: signal (duplicate, late, ambiguous,
-- dropped, replayed), cancel (see cancel_list), command (refused: its code), update (rejected, aborted), outcome (of an attempt, refused or after the
-- close), callback (the job that follows the end: its state, or gone).
create view durable.evidence_list as
select r.workflow_id, r.shard, r.run_id, s.at, 'signal' as kind, s.status, s.name, s.reason, s.actor, coalesce(s.times, 1) as times,
       jsonb_strip_nulls(jsonb_build_object('signal_id', s.signal_id, 'dedupe_key', s.dedupe_key, 'seq', s.seq)) as detail, s.payload
  from durable.runs r join durable.signals s on s.shard = r.shard and s.run_id = r.run_id where s.status not in ('buffered', 'delivered')
union all
select r.workflow_id, r.shard, r.run_id, v.at, case v.kind when 'SignalsReplayed' then 'signal' else 'outcome' end,
       case v.kind when 'SignalsReplayed' then 'replayed' else v.kind end, null, null, null,
       coalesce(case v.kind when 'SignalsReplayed' then (v.body ->> 'count')::int end, 1), v.body, null
  from durable.runs r join durable.evidence v on v.shard = r.shard and v.run_id = r.run_id
union all
select j.run_id::text, j.shard, j.run_id, v.at, 'outcome', v.kind, null, null, null, 1, v.body, null
  from durable.jobs j join durable.evidence v on v.shard = j.shard and v.run_id = j.run_id where j.kind = 'job'
union all
select c.workflow_id, c.shard, c.run_id, c.at, 'cancel', c.became, null, c.reason, c.actor, 1, jsonb_build_object('command_id', c.command_id), null
  from durable.cancel_list c
union all
select o.workflow_id, o.shard, o.run_id, o.at, 'command', o.code, o.action, o.reason, o.actor, 1,
       jsonb_strip_nulls(jsonb_build_object('command_id', o.command_id, 'seq', o.seq, 'before', o.before)), null
  from durable.operator_commands o where not o.accepted and o.action <> 'cancel'
union all
select u.workflow_id, u.shard, u.run_id, coalesce(u.ended_at, u.requested_at), 'update', u.status, u.name, u.reason, u.actor, 1,
       jsonb_build_object('update_id', u.update_id), null
  from durable.updates u where u.status in ('rejected', 'aborted')
union all
select r.workflow_id, r.shard, r.run_id, r.closed_at, 'callback', coalesce(j.state, 'gone'), r.on_end ->> 'name', null, null, 1,
       jsonb_build_object('job_id', i.id), null
  from durable.runs r cross join lateral durable.end_job_id(r.run_id, r.closed_at) as i(id)
  left join durable.jobs j on j.shard = durable.shard_of(i.id::text) and j.run_id = i.id and j.seq = 0
 where r.on_end is not null and r.status in ('completed', 'failed', 'cancelled', 'terminated');
