-- What operators do to runs: pause and resume, mend an activity by hand, reset, retry and fork; one at a time or over a filter. Each command is one
-- short transaction that takes the run's row (or, for an activity, its job) and raises the epoch, so that a live owner's next commit loses its fence
-- (C2). Every command leaves a row of its own, accepted or refused; a command sent again after a lost answer is known by its id.

alter table durable.operator_commands
    add column code   text not null default 'accepted',
    add column seq    integer,
    add column before jsonb,
    add column after  jsonb,
    add column batch_id uuid,
    add column subject text not null default 'workflow',
    add column recovery_id uuid default nullif(current_setting('durable.recovery', true), '')::uuid,  -- see 0014
    add constraint operator_commands_subject_known check (subject in ('workflow', 'job', 'queue', 'schedule')),
    add constraint operator_commands_code_known check (code in (
        'accepted', 'already_requested', 'already_paused', 'not_paused', 'workflow_closed', 'workflow_running', 'workflow_completed', 'workflow_paused',
        'superseded', 'rolled_back', 'no_such_point', 'no_such_activity', 'activity_running', 'activity_cancelled', 'activity_exhausted', 'id_in_use', 'unchanged',
        'job_ended', 'job_executing', 'unique_key_taken', 'job_waiting', 'unique_arguments', 'keyed_queue', 'ambiguous', 'unknown_workflow', 'unknown_job',
        'unknown_schedule', 'schedule_exists', 'schedule_changed', 'not_undoable', 'step_refused')),
    add constraint operator_commands_code_says_accepted check (accepted = (code = 'accepted'));

create index jobs_paused on durable.jobs (shard, run_id) where phase = 'paused';  -- not the state: see durable.jobs

-- What a command changes of a run, for the log.
create function durable.standing(r durable.runs) returns jsonb language sql stable as $$
    select jsonb_strip_nulls(jsonb_build_object('run_id', r.run_id, 'status', r.status, 'last_seq', r.last_seq, 'owner', r.owner, 'build', r.build, 'paused', r.paused,
        'needs_review', r.review -> 'kind', 'cancel_requested', case when r.cancel_requested_at is not null then true end))
$$;

-- The newest run of an id, locked against its owner's commits. Nulls when there is none.
create function durable.take_run(p_shard smallint, p_workflow_id text) returns durable.runs language plpgsql as $$
declare
    v_run durable.runs;
begin
    for v_try in 1..20 loop  -- again, if it continued as new while we waited for it
        select r.* into v_run from durable.runs r
         where r.shard = p_shard and r.workflow_id = p_workflow_id order by r.generation desc limit 1 for update;
        exit when v_run.status is distinct from 'continued';
    end loop;
    return v_run;
end $$;

-- The answer that a command was given before, to whichever run of the id.
create function durable.earlier_answer(p_shard smallint, p_workflow_id text, p_command uuid) returns durable.operator_commands
language sql stable as $$
    select o from durable.runs r join durable.operator_commands o on o.shard = r.shard and o.run_id = r.run_id
     where r.shard = p_shard and r.workflow_id = p_workflow_id and o.command_id = p_command limit 1
$$;

create function durable.log_command(p_run durable.runs, p_command uuid, p_action text, p_code text, p_reason text, p_actor jsonb,
                                    p_batch uuid, p_seq integer, p_before jsonb, p_after jsonb) returns void language sql as $$
    insert into durable.operator_commands (shard, run_id, command_id, workflow_id, action, accepted, reason, refusal, actor, at, code, seq, before, after, batch_id)
    values (p_run.shard, p_run.run_id, p_command, p_run.workflow_id, p_action, p_code = 'accepted', p_reason, nullif(p_code, 'accepted'), p_actor,
            durable.now(), p_code, p_seq, p_before, p_after, p_batch)
$$;

-- Every command, with the signals that clients have sent: each attempt to signal is evidence of its own (C11). And with what was asked of the steps of DAGs, which are
-- updates of their runs: the run itself accepts or refuses them, and what it says is the reason of a refusal.
create view durable.command_list as
select o.workflow_id, o.shard, o.run_id, o.command_id, o.action, o.seq, o.accepted, o.code, o.reason, o.actor, o.at, o.before, o.after, o.batch_id,
       o.subject, o.recovery_id
  from durable.operator_commands o
union all
select r.workflow_id, s.shard, s.run_id, s.signal_id, 'signal', s.seq, s.status in ('buffered', 'delivered'),
       case s.status when 'buffered' then 'accepted' when 'delivered' then 'accepted' when 'duplicate' then 'already_requested' when 'ambiguous' then 'ambiguous'
            else 'workflow_closed' end,
       s.reason, s.actor, s.at, null, jsonb_build_object('signal', s.name, 'status', s.status), null, 'workflow', null
  from durable.signals s join durable.runs r on r.shard = s.shard and r.run_id = s.run_id
 where s.status <> 'replayed'  -- shown with the run that it was sent again to
   and not exists (select from durable.operator_commands o where o.shard = s.shard and o.run_id = s.run_id and o.command_id = s.signal_id)  -- of a batch
union all
select u.workflow_id, u.shard, u.run_id, u.request_id, case when u.name in ('give_up', 'resume') then u.name || '_dag' else u.name end, u.seq, u.status not in ('rejected', 'aborted'),
       case u.status when 'rejected' then 'step_refused' when 'aborted' then 'workflow_closed' else 'accepted' end,
       coalesce(u.failure ->> 'message', u.reason), u.actor, u.requested_at, null, jsonb_build_object('update', u.update_id, 'status', u.status), null, 'workflow', null
  from durable.updates u join durable.runs r on r.shard = u.shard and r.run_id = u.run_id
 where r.workflow = 'durable.dag' and u.name in ('complete_step', 'cancel_step', 'retry_step', 'give_up', 'resume') and u.status <> 'requested';


-- PAUSE ---------------------------------------------------------------------------------------------------------------------------------

-- Nobody can claim a run that shall become ready in the far future, whatever arrives for it: so the claims need not know of pauses. Its waiting jobs
-- and timers are held, and its time limits stand still; attempts under way end, and their outcomes wait in the inbox like everything else.
create function durable.pause_run(p_shard smallint, p_workflow_id text, p_run uuid, p_reason text, p_actor jsonb, p_command uuid, p_batch uuid default null)
returns table (run_id uuid, code text, pushes jsonb) language plpgsql as $$
declare
    v_now timestamptz := durable.now();
    v_run durable.runs := durable.take_run(p_shard, p_workflow_id);
begin
    if v_run.run_id is null then
        perform durable.log_stray('workflow', p_workflow_id, p_command, 'pause', 'unknown_workflow', p_reason, p_actor);
        code := 'unknown'; return next; return;
    end if;
    select o.run_id, o.code into run_id, code from durable.earlier_answer(p_shard, p_workflow_id, p_command) o;
    if code is not null then return next; return; end if;
    run_id := v_run.run_id;
    code := case when p_run <> v_run.run_id then 'superseded' when v_run.status <> 'running' then 'workflow_closed'
                 when v_run.paused is not null then 'already_paused' else 'accepted' end;
    if code = 'accepted' then
        update durable.runs r set owner = null, epoch = r.epoch + 1, ready_at = null, delayed_until = '9999-01-01', deadline_at = null, paused = jsonb_build_object(
                   'actor', p_actor, 'reason', p_reason, 'at', v_now, 'delayed_until', v_run.delayed_until, 'deadline_at', v_run.deadline_at)
         where r.shard = p_shard and r.run_id = v_run.run_id;
        perform from durable.jobs j where j.shard = p_shard and j.run_id = v_run.run_id order by j.seq for update;
        update durable.jobs j set paused = jsonb_build_object('kind', 'run', 'at', v_now),
               state = case when j.state in ('executing', 'waiting') then j.state else 'paused' end,
               deadline_at = case when j.state in ('executing', 'waiting') then j.deadline_at end, deadline_kind = case when j.state in ('executing', 'waiting') then j.deadline_kind end
         where j.shard = p_shard and j.run_id = v_run.run_id and j.paused is null;
        pushes := case when v_run.owner is null then '[]' else jsonb_build_array('worker:' || v_run.owner) end;
    end if;
    perform durable.log_command(v_run, p_command, 'pause', code, p_reason, p_actor, p_batch, null, durable.standing(v_run),
        case when code = 'accepted' then (select durable.standing(r) from durable.runs r where r.shard = p_shard and r.run_id = v_run.run_id) end);
    return next;
end $$;

-- What held a job is gone: it is due when it was, and the time that it was held does not count for its deadlines.
create function durable.let_go(p_shard smallint, p_run uuid, p_seq integer, p_now timestamptz) returns void language sql as $$
    update durable.jobs j
       set paused = null,
           state = case when j.state <> 'paused' then j.state when j.kind = 'timer' then 'scheduled' when j.scheduled_at <= p_now then 'available'
                        when j.attempt > 0 then 'retryable' else 'scheduled' end,
           created_at = h.created_at,
           deadline_at = case when j.state = 'paused' then w.at else j.deadline_at end, deadline_kind = case when j.state = 'paused' then w.kind else j.deadline_kind end
      from (select b.seq, b.created_at + (p_now - (b.paused ->> 'at')::timestamptz) as created_at, coalesce(b.options, e.body) as options
              from durable.jobs b left join durable.history e on e.shard = b.shard and e.run_id = b.run_id and e.seq = b.seq
             where b.shard = p_shard and b.run_id = p_run and b.paused is not null
               and case when p_seq is null then b.paused ->> 'kind' = 'run' else b.seq = p_seq end) h
     cross join lateral durable.waiting_deadline(h.options, h.created_at) w
     where j.shard = p_shard and j.run_id = p_run and j.seq = h.seq
$$;

create function durable.resume_run(p_shard smallint, p_workflow_id text, p_run uuid, p_reason text, p_actor jsonb, p_command uuid, p_batch uuid default null)
returns table (run_id uuid, code text, pushes jsonb) language plpgsql as $$
declare
    v_now timestamptz := durable.now();
    v_run durable.runs := durable.take_run(p_shard, p_workflow_id);
    v_until timestamptz := (v_run.paused ->> 'delayed_until')::timestamptz;
begin
    if v_run.run_id is null then
        perform durable.log_stray('workflow', p_workflow_id, p_command, 'resume', 'unknown_workflow', p_reason, p_actor);
        code := 'unknown'; return next; return;
    end if;
    select o.run_id, o.code into run_id, code from durable.earlier_answer(p_shard, p_workflow_id, p_command) o;
    if code is not null then return next; return; end if;
    run_id := v_run.run_id;
    code := case when p_run <> v_run.run_id then 'superseded' when v_run.status <> 'running' then 'workflow_closed'
                 when v_run.paused is null then 'not_paused' else 'accepted' end;
    if code = 'accepted' then
        update durable.runs r set paused = null, deadline_at = (r.paused ->> 'deadline_at')::timestamptz + (v_now - (r.paused ->> 'at')::timestamptz),
                                  execution_deadline_at = r.execution_deadline_at + (v_now - (r.paused ->> 'at')::timestamptz), ready_at = case when v_until > v_now then null else v_now end,
                                  delayed_until = case when v_until > v_now then v_until end
         where r.shard = p_shard and r.run_id = v_run.run_id;
        perform from durable.jobs j where j.shard = p_shard and j.run_id = v_run.run_id order by j.seq for update;
        perform durable.let_go(p_shard, v_run.run_id, null, v_now);
        pushes := (select jsonb_agg(distinct 'queue:' || q.queue) from (
            select v_run.queue union select j.queue from durable.jobs j where j.shard = p_shard and j.run_id = v_run.run_id) q);
    end if;
    perform durable.log_command(v_run, p_command, 'resume', code, p_reason, p_actor, p_batch, null, durable.standing(v_run),
        case when code = 'accepted' then (select durable.standing(r) from durable.runs r where r.shard = p_shard and r.run_id = v_run.run_id) end);
    return next;
end $$;


-- AN ACTIVITY BY HAND -------------------------------------------------------------------------------------------------------------------

-- The job's row is what decides: who has it writes the outcome, and nobody after (C5). What the run must know goes through its inbox: the outcome,
-- or a mere record of what was done, so that the history shows it. p_action: pause, resume, retry, edit_input, set_result, set_failure.
create function durable.act_on_activity(p_shard smallint, p_workflow_id text, p_run uuid, p_seq integer, p_action text, p_payload json, p_failure jsonb,
                                        p_reason text, p_actor jsonb, p_command uuid, p_batch uuid default null)
returns table (run_id uuid, code text, pushes jsonb) language plpgsql as $$
declare
    v_now timestamptz := durable.now();
    v_run durable.runs;
    v_job durable.jobs;
    v_after durable.jobs;
    v_opening durable.history;
    v_options jsonb;
    v_before jsonb;
    v_by jsonb := jsonb_strip_nulls(jsonb_build_object('actor', p_actor, 'reason', p_reason));
    v_outcome text := case p_action when 'set_result' then 'ActivityCompleted' when 'set_failure' then 'ActivityFailed' end;
begin
    select r.* into v_run from durable.runs r where r.shard = p_shard and r.workflow_id = p_workflow_id order by r.generation desc limit 1;
    if not found then
        perform durable.log_stray('workflow', p_workflow_id, p_command, 'activity_' || p_action, 'unknown_workflow', p_reason, p_actor);
        code := 'unknown'; return next; return;
    end if;
    select * into v_job from durable.jobs j where j.shard = p_shard and j.run_id = v_run.run_id and j.seq = p_seq and j.kind = 'activity' for update;
    select o.run_id, o.code into run_id, code from durable.earlier_answer(p_shard, p_workflow_id, p_command) o;
    if code is not null then return next; return; end if;
    run_id := v_run.run_id;
    code := case when p_run <> v_run.run_id then 'superseded' when v_run.status <> 'running' then 'workflow_closed'
                 when v_job.run_id is null then 'no_such_activity' when v_job.cancel_requested_at is not null then 'activity_cancelled'
                 when p_action = 'pause' and v_job.paused is not null then 'already_paused'
                 when p_action = 'resume' and v_job.paused is null then 'not_paused'
                 when p_action = 'resume' and v_job.paused ->> 'kind' = 'exhausted' then 'activity_exhausted'
                 when p_action in ('resume', 'retry') and v_run.paused is not null then 'workflow_paused'
                 when p_action in ('retry', 'edit_input') and v_job.state = 'executing' then 'activity_running' else 'accepted' end;
    select * into v_opening from durable.history h where h.shard = p_shard and h.run_id = v_run.run_id and h.seq = p_seq;
    v_options := coalesce(v_job.options, v_opening.body);
    v_before := jsonb_strip_nulls(jsonb_build_object('state', v_job.state, 'attempt', v_job.attempt, 'paused', v_job.paused,
        'failure', v_job.errors -> -1 -> 'failure' -> 'message'))
        || case when p_action = 'edit_input' then jsonb_build_object('input', coalesce(v_job.input, v_opening.payload)) else '{}' end;
    if code = 'accepted' and v_outcome is not null then
        delete from durable.jobs j where j.shard = p_shard and j.run_id = v_run.run_id and j.seq = p_seq;
        insert into durable.inbox (shard, run_id, queue, type, at, body, payload)
        values (p_shard, v_run.run_id, v_run.queue, v_outcome, v_now, jsonb_build_object('ref', p_seq, 'attempt', v_job.attempt, 'operator', v_by, 'before', v_before)
                || case when v_outcome = 'ActivityFailed' then jsonb_build_object('failure', p_failure, 'retry_state', 'operator') else '{}' end, p_payload);
    elsif code = 'accepted' and p_action = 'pause' then
        update durable.jobs j set paused = v_by || jsonb_build_object('kind', 'operator', 'at', v_now),
               state = case when j.state in ('executing', 'waiting') then j.state else 'paused' end,
               deadline_at = case when j.state in ('executing', 'waiting') then j.deadline_at end, deadline_kind = case when j.state in ('executing', 'waiting') then j.deadline_kind end
         where j.shard = p_shard and j.run_id = v_run.run_id and j.seq = p_seq;
    elsif code = 'accepted' and p_action = 'resume' then
        perform durable.let_go(p_shard, v_run.run_id, p_seq, v_now);
    elsif code = 'accepted' and p_action = 'edit_input' then
        update durable.jobs j set input = p_payload where j.shard = p_shard and j.run_id = v_run.run_id and j.seq = p_seq;
    elsif code = 'accepted' then
        v_options := durable.with_attempts_left(v_options, v_job.attempt);
        update durable.jobs j set state = 'available', paused = null, scheduled_at = v_now, created_at = v_now, options = v_options, note = null,
               deadline_at = w.at, deadline_kind = w.kind from durable.waiting_deadline(v_options, v_now) w
         where j.shard = p_shard and j.run_id = v_run.run_id and j.seq = p_seq;
    end if;
    if code = 'accepted' and p_action in ('retry', 'edit_input') then
        insert into durable.inbox (shard, run_id, queue, type, at, body, payload)
        values (p_shard, v_run.run_id, v_run.queue, case p_action when 'retry' then 'ActivityRetried' else 'ActivityEdited' end, v_now,
                jsonb_build_object('ref', p_seq, 'operator', v_by, 'before', v_before), p_payload);
    end if;
    select * into v_after from durable.jobs j where j.shard = p_shard and j.run_id = v_run.run_id and j.seq = p_seq;
    pushes := (select coalesce(jsonb_agg(distinct h.hint), '[]') from unnest(array[coalesce('worker:' || v_run.owner, 'queue:' || v_run.queue),
        'worker:' || v_job.owner, case when v_after.state = 'available' then 'jobs:' || v_after.queue end]) as h(hint) where h.hint is not null);
    perform durable.log_command(v_run, p_command, 'activity_' || p_action, code, p_reason, p_actor, p_batch, p_seq, case when v_job.run_id is not null then v_before end,
        case when code <> 'accepted' then null when v_outcome is null then jsonb_strip_nulls(jsonb_build_object('state', v_after.state, 'attempt', v_after.attempt,
            'paused', v_after.paused)) || case when p_action = 'edit_input' then jsonb_build_object('input', p_payload) else '{}' end
            else jsonb_build_object('outcome', v_outcome) || case when p_failure is null then jsonb_build_object('result', p_payload) else jsonb_build_object('failure', p_failure -> 'message') end end);
    return next;
end $$;

-- An activity's options with at least one more attempt than it has had: as many as it was given at first. The attempts' numbers go on, because they are
-- what an earlier attempt's late answer is known by.
create function durable.with_attempts_left(p_options jsonb, p_attempt integer) returns jsonb language sql immutable as $$
    select case when l.most = 0 or p_attempt < l.most then p_options
           else p_options || jsonb_build_object('attempts_given', l.given, 'retry', coalesce(p_options -> 'retry', '{}') || jsonb_build_object('max_attempts', p_attempt + l.given)) end
      from (select coalesce((p_options -> 'retry' ->> 'max_attempts')::int, 5) as most,
                   coalesce((p_options ->> 'attempts_given')::int, (p_options -> 'retry' ->> 'max_attempts')::int, 5) as given) l
$$;


-- RESET, RETRY, FORK --------------------------------------------------------------------------------------------------------------------

-- Another run with the history of this one up to a point. The caller has planned it from the history (durable/core/rewind.py), which never changes up
-- to that point: p_cut is the last event copied, of turn p_turn; p_redeliver are later inbound events that the new run is given as messages; the
-- activities (with their idempotency keys), timers and children are those pending there, and the stopping ones those already told to stop. Signals after
-- event p_event go along unless p_reapply is false. A fork (p_fork_id) leaves the run as it is; else an open one is closed as continued.
-- p_refusal: the plan found that it cannot be done, and why; this only records it. p_ask: an update, under p_ask_id or the id of the command, that the new run is asked
-- right behind what it is given again, so that it comes before the run can end once more. In the same place an undo (p_action) is asked to stop: a DAG undoes what
-- completed when it is cancelled. Only a DAG that completed can be undone, and only once: if the run that undid it has been pruned, its command tells.
create function durable.rewind_run(
    p_shard smallint, p_workflow_id text, p_run uuid, p_action text, p_refusal text, p_next uuid, p_fork_shard smallint, p_fork_id text,
    p_event integer, p_cut integer, p_turn integer, p_redeliver integer[], p_updates integer[], p_activities integer[], p_keys text[], p_timers integer[],
    p_children integer[], p_stopping integer[], p_cancelled boolean, p_origins jsonb, p_discarded jsonb, p_reapply boolean, p_original_due boolean,
    p_reason text, p_actor jsonb, p_command uuid, p_batch uuid default null, p_ask text default null, p_payload json default null, p_ask_id text default null
) returns table (run_id uuid, code text, next_run_id uuid, resent integer, pushes jsonb)
language plpgsql as $$
declare
    v_now timestamptz := durable.now();
    v_run durable.runs := durable.take_run(p_shard, p_workflow_id);
    v_old durable.runs;
    v_new durable.runs;
    v_before jsonb := durable.standing(v_run);
    v_start jsonb;
    v_earlier durable.operator_commands;
begin
    if v_run.run_id is null then
        perform durable.log_stray('workflow', p_workflow_id, p_command, p_action, 'unknown_workflow', p_reason, p_actor);
        code := 'unknown'; return next; return;
    end if;
    v_earlier := durable.earlier_answer(p_shard, p_workflow_id, p_command);
    if v_earlier.code is not null then
        run_id := v_earlier.run_id; code := v_earlier.code;
        next_run_id := (v_earlier.after ->> 'run_id')::uuid; resent := coalesce((v_earlier.after ->> 'signals_sent_again')::int, 0);
        return next; return;
    end if;
    select r.* into v_old from durable.runs r where r.shard = p_shard and r.run_id = p_run and r.workflow_id = p_workflow_id;
    run_id := p_run;
    code := case
        when p_action <> 'fork' and p_run <> v_run.run_id then 'superseded'
        when p_action in ('retry', 'undo') and v_run.status = 'running' then 'workflow_running'
        when p_action = 'undo' and (v_run.status <> 'completed' or v_run.workflow <> 'durable.dag' or v_run.parent_run_id is not null) then 'not_undoable'
        when p_action = 'undo' and exists (select from durable.operator_commands o where o.shard = p_shard and o.run_id = p_run and o.accepted
                                              and o.action in ('undo', 'reset', 'retry')) then 'superseded'
        when p_action = 'undo' and exists (select from jsonb_array_elements(p_origins) t join durable.operator_commands o
                                              on o.shard = p_shard and o.run_id = (t ->> 1)::uuid and o.accepted and o.action = 'undo') then 'not_undoable'
        when p_action = 'retry' and v_run.status = 'completed' then 'workflow_completed'
        when p_fork_id is not null and exists (select from durable.runs r where r.shard = p_fork_shard and r.workflow_id = p_fork_id) then 'id_in_use'
        else coalesce(p_refusal, 'accepted') end;
    if code = 'accepted' then
        pushes := '[]';
        v_new := v_old;
        v_new.run_id := p_next; v_new.status := 'running'; v_new.owner := null; v_new.epoch := 1; v_new.last_seq := p_cut; v_new.turn := p_turn;
        v_new.ready_at := v_now; v_new.delayed_until := null; v_new.losses := 0; v_new.waiting_on := null; v_new.review := null; v_new.paused := null;
        v_new.cancel_requested_at := case when p_cancelled then v_now end; v_new.created_at := v_now; v_new.closed_at := null;
        v_new.started_at := case when p_turn > 0 then v_now end;
        select durable.execution_deadline_of(h.body, v_now), durable.deadline_of(h.body, v_now, durable.execution_deadline_of(h.body, v_now))
          into v_new.execution_deadline_at, v_new.deadline_at  -- time limits begin anew, or what had timed out could never be taken up
          from durable.history h where h.shard = p_shard and h.run_id = v_old.run_id and h.seq = 1;
        if p_fork_id is not null then
            v_new.shard := p_fork_shard; v_new.workflow_id := p_fork_id; v_new.generation := 0; v_new.on_end := null;  -- whoever asked did not ask for the fork
        else
            v_new.generation := v_old.generation + 1;
        end if;
        v_start := (select h.body from durable.history h where h.shard = p_shard and h.run_id = v_old.run_id and h.seq = 1);
        v_new.execution_deadline_at := durable.execution_deadline_of(v_start, v_now);  -- its time begins anew
        v_new.deadline_at := durable.deadline_of(v_start, v_now, v_new.execution_deadline_at);
        if p_fork_id is not null or v_old.status <> 'running' then  -- a parent has been told how the child ended, and goes on with that
            v_new.parent_run_id := null; v_new.parent_shard := null; v_new.parent_seq := null;
        end if;
        if p_fork_id is null and v_old.status = 'running' then
            update durable.runs r set status = 'continued', closed_at = v_now, owner = null, epoch = r.epoch + 1, ready_at = null, delayed_until = null,
                   review = null, paused = null, last_seq = r.last_seq + 1, turn = r.turn + 1
             where r.shard = p_shard and r.run_id = v_old.run_id;
            insert into durable.history (shard, run_id, seq, turn, type, at, body)
            values (p_shard, v_old.run_id, v_old.last_seq + 1, v_old.turn + 1, 'WorkflowReset', v_now, jsonb_build_object(
                    'run_id', p_next, 'event', p_event, 'reason', p_reason, 'actor', p_actor));
            if v_old.owner is not null then
                pushes := jsonb_build_array('worker:' || v_old.owner);
            end if;
        end if;
        insert into durable.runs select (v_new).*;
        insert into durable.history (shard, run_id, seq, turn, type, at, body, payload)
        select v_new.shard, p_next, h.seq, h.turn, h.type, h.at, case when h.seq > 1 then h.body else h.body || jsonb_build_object(
                   'workflow_id', v_new.workflow_id, 'origins', p_origins, 'reset', jsonb_build_object('action', p_action, 'run_id', v_old.run_id,
                   'workflow_id', p_workflow_id, 'event', p_event, 'reason', p_reason, 'actor', p_actor, 'at', v_now)) end, h.payload
          from durable.history h where h.shard = p_shard and h.run_id = v_old.run_id and h.seq <= p_cut;
        resent := durable.carry_messages(v_old, v_new, p_event, p_cut, p_redeliver, p_reapply, p_fork_id is null, v_now);
        perform durable.carry_updates(v_old, v_new, p_event, p_cut, p_updates, p_reapply, p_fork_id is null, v_now);
        if p_ask is not null then
            perform durable.send_update(v_new.shard, v_new.workflow_id, coalesce(p_ask_id, p_command::text), p_command, p_ask, p_payload, p_actor);
            update durable.inbox i set at = v_now - interval '1 second' + (p_event + 1) * interval '1 microsecond'
             where i.shard = v_new.shard and i.run_id = p_next and i.message_id = p_command;
        end if;
        if p_action = 'undo' then
            insert into durable.inbox (shard, run_id, queue, type, at, body)
            values (v_new.shard, p_next, v_new.queue, 'CancelRequested', v_now - interval '1 second' + (p_event + 1) * interval '1 microsecond',
                    jsonb_build_object('reason', p_reason));
        end if;
        perform durable.carry_jobs(v_old, v_new, p_event, p_activities, p_keys, p_timers, p_stopping, p_original_due, v_now);
        pushes := pushes || durable.carry_children(v_old, v_new, p_children, p_stopping, p_fork_id is not null, v_now);
        if p_fork_id is null and v_old.status = 'running' then
            pushes := pushes || coalesce(durable.sweep_closed(array[p_shard], array[v_old.run_id], array['continued'], v_now), '[]')
                || durable.terminate_children(p_shard, v_old.run_id, v_now) || durable.cancel_children(p_shard, v_old.run_id, null, 'its parent was reset', v_now);
        end if;
        next_run_id := p_next;
        pushes := pushes || to_jsonb('queue:' || v_new.queue)
            || (select coalesce(jsonb_agg(distinct 'jobs:' || j.queue), '[]') from durable.jobs j where j.shard = v_new.shard and j.run_id = p_next and j.state = 'available');
    end if;
    perform durable.log_command(v_run, p_command, p_action, code, p_reason, p_actor, p_batch, p_event, v_before, case when code = 'accepted' then
        durable.standing(v_new) || jsonb_build_object('workflow_id', v_new.workflow_id, 'event', p_event, 'signals_sent_again', resent, 'discarded', p_discarded) end);
    return next;
end $$;

-- The messages of the new run, in the order of the old one's history: what the plan delivers again, then the signals after the point. Evidence goes along: of
-- signals that the copied history holds, so that their dedupe keys still hold, and of those sent again. Returns how many signals were sent again.
create function durable.carry_messages(p_old durable.runs, p_new durable.runs, p_event integer, p_cut integer, p_redeliver integer[], p_reapply boolean,
                                       p_moves boolean, p_now timestamptz) returns integer language plpgsql as $$
declare
    v_again uuid[];
    v_count integer;
begin
    insert into durable.inbox (shard, run_id, queue, type, at, body, payload)
    select p_new.shard, p_new.run_id, p_new.queue, h.type, p_now - interval '1 second' + h.seq * interval '1 microsecond', h.body, h.payload
      from durable.history h where h.shard = p_old.shard and h.run_id = p_old.run_id
       and (h.seq = any (p_redeliver) or p_reapply and h.seq > p_event and h.type = 'SignalReceived');
    if p_reapply then
        insert into durable.inbox (shard, run_id, queue, type, at, body, payload)
        select p_new.shard, p_new.run_id, p_new.queue, i.type, i.at, i.body, i.payload
          from durable.inbox i where i.shard = p_old.shard and i.run_id = p_old.run_id and i.type = 'SignalReceived';
    end if;
    v_again := array(select (i.body ->> 'signal_id')::uuid from durable.inbox i
                      where i.shard = p_new.shard and i.run_id = p_new.run_id and i.type = 'SignalReceived');
    insert into durable.signals (shard, run_id, signal_id, name, dedupe_key, status, payload, actor, at, seq)
    select p_new.shard, p_new.run_id, s.signal_id, s.name, s.dedupe_key, case when s.signal_id = any (v_again) then 'buffered' else 'delivered' end,
           s.payload, s.actor, s.at, case when s.signal_id = any (v_again) then null else s.seq end
      from durable.signals s where s.shard = p_old.shard and s.run_id = p_old.run_id
       and (s.signal_id = any (v_again) or s.seq <= p_cut and s.status = 'delivered');
    if p_moves then
        update durable.signals s set status = 'replayed', reason = 'sent again to run ' || p_new.run_id
         where s.shard = p_old.shard and s.run_id = p_old.run_id and s.signal_id = any (v_again);
        get diagnostics v_count = row_count;
        update durable.signals s set status = 'dropped', reason = 'reset to event ' || p_event || ' without it'
         where s.shard = p_old.shard and s.run_id = p_old.run_id and s.status in ('delivered', 'buffered') and (s.seq is null or s.seq > p_event);
        delete from durable.inbox i where i.shard = p_old.shard and i.run_id = p_old.run_id and i.type = 'SignalReceived';
    end if;
    return cardinality(v_again);
end $$;

-- Updates that were accepted after the point, or are on their way, are offered again, as new requests of their ids; so are, always, those of a turn that
-- is decided anew. One that was accepted before the point and has not ended goes on in the new run, where its requester finds it.
create function durable.carry_updates(p_old durable.runs, p_new durable.runs, p_event integer, p_cut integer, p_updates integer[], p_reapply boolean,
                                      p_moves boolean, p_now timestamptz) returns void language plpgsql as $$
begin
    if p_moves then
        update durable.updates u set run_id = p_new.run_id, generation = p_new.generation, status = 'accepted', ended_at = null, reason = null
         where u.shard = p_old.shard and u.workflow_id = p_old.workflow_id and u.run_id = p_old.run_id and u.seq <= p_cut
           and u.status in ('accepted', 'aborted');
    end if;
    with again as materialized (
        select h.body ->> 'update_id' as id, h.body ->> 'name' as name, h.body -> 'actor' as actor, h.payload, gen_random_uuid() as request,
               p_now - interval '1 second' + h.seq * interval '1 microsecond' as at
          from durable.history h where h.shard = p_old.shard and h.run_id = p_old.run_id and h.type = 'UpdateAccepted'
           and (h.seq = any (p_updates) or p_reapply and h.seq > p_event)
        union all
        select i.body ->> 'update_id', i.body ->> 'name', i.body -> 'actor', i.payload, gen_random_uuid(), i.at
          from durable.inbox i where i.shard = p_old.shard and i.run_id = p_old.run_id and i.type = 'UpdateRequested' and p_reapply
    ), known as (
        insert into durable.updates (shard, workflow_id, update_id, generation, run_id, request_id, name, status, actor, requested_at)
        select p_new.shard, p_new.workflow_id, a.id, p_new.generation, p_new.run_id, a.request, a.name, 'requested', a.actor, p_now from again a
            on conflict do nothing
    )
    insert into durable.inbox (shard, run_id, message_id, queue, type, at, body, payload)
    select p_new.shard, p_new.run_id, a.request, p_new.queue, 'UpdateRequested', a.at,
           jsonb_strip_nulls(jsonb_build_object('update_id', a.id, 'name', a.name, 'actor', a.actor)), a.payload from again a;
end $$;

-- Activities pending at the point are scheduled again, with the input that an operator gave them before it; those told to stop have stopped. Timers have as
-- much time left as they had there, or are due when they were.
create function durable.carry_jobs(p_old durable.runs, p_new durable.runs, p_event integer, p_activities integer[], p_keys text[], p_timers integer[],
                                   p_stopping integer[], p_original_due boolean, p_now timestamptz) returns void language plpgsql as $$
declare
    v_point timestamptz := (select h.at from durable.history h where h.shard = p_old.shard and h.run_id = p_old.run_id and h.seq = p_event);
begin
    insert into durable.jobs (shard, run_id, seq, kind, name, queue, priority, state, scheduled_at, deadline_at, deadline_kind, input, options, created_at)
    select p_new.shard, p_new.run_id, h.seq, 'activity', h.body ->> 'name', h.body ->> 'queue', (h.body ->> 'priority')::smallint, 'available', p_now, w.at, w.kind,
           edited.payload, case when a.key is not null then h.body || jsonb_build_object('idempotency_key', a.key) end, p_now
      from unnest(p_activities, p_keys) as a(seq, key)
      join durable.history h on h.shard = p_old.shard and h.run_id = p_old.run_id and h.seq = a.seq
      left join lateral (select e.payload from durable.history e where e.shard = p_old.shard and e.run_id = p_old.run_id and e.type = 'ActivityEdited'
                            and e.seq <= p_event and (e.body ->> 'ref')::int = a.seq order by e.seq desc limit 1) edited on true
     cross join lateral durable.waiting_deadline(h.body, p_now) w;
    insert into durable.jobs (shard, run_id, seq, kind, name, queue, priority, state, scheduled_at, created_at)
    select p_new.shard, p_new.run_id, h.seq, 'timer', coalesce(h.body ->> 'reason', 'sleep'), p_new.queue, 0, 'scheduled',
           case when p_original_due then durable.from_us((h.body ->> 'fire_at_us')::bigint)
                else p_now + greatest(durable.from_us((h.body ->> 'fire_at_us')::bigint) - v_point, interval '0') end, p_now
      from durable.history h where h.shard = p_old.shard and h.run_id = p_old.run_id and h.seq = any (p_timers);
    insert into durable.inbox (shard, run_id, queue, type, at, body)
    select p_new.shard, p_new.run_id, p_new.queue, 'ActivityCancelled', p_now, jsonb_build_object('ref', h.seq, 'started', false)
      from durable.history h where h.shard = p_old.shard and h.run_id = p_old.run_id and h.seq = any (p_stopping) and h.type = 'ActivityScheduled';
end $$;

-- Children pending at the point. One that is open is the new run's from now on. One that has ended by itself tells the new run how. One that was ended because
-- its parent closed is started again, and so are all of a fork, under ids of its own.
create function durable.carry_children(p_old durable.runs, p_new durable.runs, p_children integer[], p_stopping integer[], p_forks boolean, p_now timestamptz)
returns jsonb language plpgsql as $$
declare
    v_asked record;
    v_child durable.runs;
    v_end durable.history;
    v_pushes jsonb := '[]';
begin
    for v_asked in select h.seq, h.body, h.payload, h.seq = any (p_stopping) as stopping from durable.history h
                    where h.shard = p_old.shard and h.run_id = p_old.run_id and h.seq = any (p_children) order by h.seq
    loop
        select c.* into v_child from durable.runs c
         where c.parent_shard = p_old.shard and c.parent_run_id = p_old.run_id and c.parent_seq = v_asked.seq order by c.generation desc limit 1 for update;
        select h.* into v_end from durable.history h where h.shard = v_child.shard and h.run_id = v_child.run_id and h.seq = v_child.last_seq;
        if not p_forks and v_child.status = 'running' then
            update durable.runs c set parent_run_id = p_new.run_id where c.shard = v_child.shard and c.run_id = v_child.run_id;
        elsif not p_forks and v_child.status in ('completed', 'failed', 'cancelled', 'terminated') and v_end.body ->> 'reason' is distinct from 'its parent closed' then
            insert into durable.inbox (shard, run_id, queue, type, at, body, payload)
            values (p_new.shard, p_new.run_id, p_new.queue, 'Child' || initcap(v_child.status), p_now,
                    jsonb_strip_nulls(jsonb_build_object('ref', v_asked.seq, 'run_id', v_child.run_id, 'reason', v_end.body -> 'reason'))
                    || case when v_end.body ? 'failure' then jsonb_build_object('failure', v_end.body -> 'failure') else '{}' end, v_end.payload);
        elsif v_asked.stopping then
            insert into durable.inbox (shard, run_id, queue, type, at, body)
            values (p_new.shard, p_new.run_id, p_new.queue, 'ChildCancelled', p_now, jsonb_build_object('ref', v_asked.seq));
        else
            v_pushes := v_pushes || to_jsonb('queue:' || (v_asked.body ->> 'queue')) || durable.act_on_children(array[p_new.shard], array[p_new.run_id],
                array[1], array[v_asked.seq], array['ChildStarted'], array[v_asked.body || case when p_forks
                    then jsonb_build_object('workflow_id', p_new.workflow_id || '/' || v_asked.seq) else '{}' end], array[v_asked.payload], p_now);
        end if;
    end loop;
    return v_pushes;
end $$;


-- BATCHES -------------------------------------------------------------------------------------------------------------------------------

-- One verb over a filter, in passes of the caller's. A run is done in one transaction with its command's row, whose id follows from the batch and the run: who
-- goes on with a batch after a crash does nothing twice. How many are done is counted from those rows. Runs newer than `bound` are none of its business.
create table durable.batches (
    batch_id    uuid primary key,
    action      text        not null check (action in ('cancel', 'terminate', 'retry', 'reset', 'pause', 'resume', 'signal', 'move',
                                                   'cancel_jobs', 'retry_jobs', 'delete_jobs', 'edit_jobs')),
    filter      jsonb       not null,
    options     jsonb       not null,
    payload     json,  -- a signal's value; apart, because it may be sealed
    reason      text        not null,
    actor       jsonb,
    bound       uuid        not null,
    reached     uuid,
    matched     integer     not null check (matched >= 0),
    created_at  timestamptz not null,
    finished_at timestamptz
);
create index operator_commands_of_batch on durable.operator_commands (shard, batch_id) where batch_id is not null;

-- Whether a run is the newest of its id and passes every given condition.
create function durable.matches(l durable.run_list, p_filter jsonb) returns boolean language sql stable as $$
    select (p_filter ->> 'status' is null or l.status = p_filter ->> 'status')
       and (p_filter ->> 'workflow' is null or l.workflow = p_filter ->> 'workflow')
       and (p_filter ->> 'queue' is null or l.queue = p_filter ->> 'queue')
       and (p_filter ->> 'build' is null or l.build = p_filter ->> 'build')
       and (p_filter ->> 'id_prefix' is null or starts_with(l.workflow_id, p_filter ->> 'id_prefix'))
       and (p_filter ->> 'operator_status' is null or l.operator_status = p_filter ->> 'operator_status')
       and (p_filter -> 'attributes' is null or l.attributes @> (p_filter -> 'attributes'))
       and not exists (select from durable.runs n where n.shard = l.shard and n.workflow_id = l.workflow_id and n.generation > l.generation)
$$;

-- Cancel, terminate or signal exactly this run, as part of a batch.
create function durable.stop_in_batch(p_shard smallint, p_workflow_id text, p_run uuid, p_action text, p_signal text, p_payload json, p_reason text,
                                      p_actor jsonb, p_command uuid, p_batch uuid)
returns table (run_id uuid, code text, pushes jsonb) language plpgsql as $$
declare
    v_run durable.runs := durable.take_run(p_shard, p_workflow_id);
    v_did record;
begin
    if v_run.run_id is null then code := 'unknown'; return next; return; end if;
    select o.run_id, o.code into run_id, code from durable.earlier_answer(p_shard, p_workflow_id, p_command) o;
    if code is not null then return next; return; end if;
    run_id := v_run.run_id;
    pushes := jsonb_build_array(coalesce('worker:' || v_run.owner, 'queue:' || v_run.queue));
    code := case when p_run <> v_run.run_id then 'superseded' when v_run.status <> 'running' then 'workflow_closed' else 'accepted' end;
    if code = 'accepted' and p_action = 'cancel' then
        select case s.status when 'requested' then 'accepted' else 'already_requested' end into code
          from durable.request_cancel(p_shard, p_workflow_id, p_reason, p_actor, p_command) s;
    elsif code = 'accepted' and p_action = 'terminate' then
        select s.pushes into pushes from durable.terminate_run(p_shard, p_workflow_id, p_reason, p_actor, p_command) s;
    else
        if code = 'accepted' then
            perform durable.send_signal(p_shard, p_workflow_id, p_command, p_signal, p_payload, null, p_actor);
        end if;
        perform durable.log_command(v_run, p_command, p_action, code, p_reason, p_actor, p_batch, null, durable.standing(v_run),
            case when code = 'accepted' then jsonb_build_object('signal', p_signal, 'status', 'buffered') end);
    end if;
    update durable.operator_commands o set batch_id = p_batch where o.shard = p_shard and o.run_id = v_run.run_id and o.command_id = p_command;
    return next;
end $$;
