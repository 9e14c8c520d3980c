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


-- COMPLETION FROM OUTSIDE: an attempt ends without an outcome, and whoever has its token gives it later. The job waits without an owner.

-- Each token that was handed out, by its SHA-256; it is good for one attempt and one outcome. Rows outlive the attempt, so that a late answer is told
-- from a forged one. `command_id` is the call that used it.
create table durable.completions (
    shard      smallint    not null,
    run_id     uuid        not null,
    seq        integer     not null,
    attempt    integer     not null,
    token      bytea       not null check (length(token) = 32),
    taken_at   timestamptz not null,
    command_id uuid,
    outcome    text,
    primary key (shard, run_id, seq, attempt),
    constraint completions_used_at_once check ((command_id is null) = (outcome is null))
);

-- An attempt has taken its token. Written at once, so that an answer may come before the attempt has ended.
create function durable.take_tokens(p_owner uuid, o_shard smallint[], o_run uuid[], o_seq integer[], o_attempt integer[], o_token text[])
returns integer language plpgsql
set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
    v_count integer;
begin
    insert into durable.completions as c (shard, run_id, seq, attempt, token, taken_at)
    select j.shard, j.run_id, j.seq, j.attempt, decode(o.token, 'hex'), durable.now()
      from unnest(o_shard, o_run, o_seq, o_attempt, o_token) as o(shard, run_id, seq, attempt, token)
      join durable.jobs j on j.shard = o.shard and j.run_id = o.run_id and j.seq = o.seq
       and j.state = 'executing' and j.owner = p_owner and j.attempt = o.attempt
    on conflict (shard, run_id, seq, attempt) do update set token = excluded.token, taken_at = excluded.taken_at where c.outcome is null;
    get diagnostics v_count = row_count;
    return v_count;
end $$;

-- PARK: the attempts have ended here, and their outcome comes from elsewhere. The limits still hold; without an owner it is expire_deadlines that sees to it,
-- and the note keeps the one that heartbeats cannot move. One that was told to stop meanwhile is over; one that was completed meanwhile is gone.
create function durable.park_jobs(p_owner uuid, o_shard smallint[], o_run uuid[], o_seq integer[], o_attempt integer[], o_elapsed_s double precision[], o_token text[])
returns integer language plpgsql
set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
    v_now timestamptz := durable.now();
    v_count integer;
begin
    perform 1 from durable.jobs j join unnest(o_shard, o_run, o_seq) as o(shard, run_id, seq)
         on j.shard = o.shard and j.run_id = o.run_id and j.seq = o.seq
      order by j.shard, j.run_id, j.seq for update of j;
    perform durable.take_tokens(p_owner, o_shard, o_run, o_seq, o_attempt, o_token);  -- it may overtake the writing of the token itself
    with ended as (
        delete from durable.jobs j using unnest(o_shard, o_run, o_seq, o_attempt) as o(shard, run_id, seq, attempt)
         where j.shard = o.shard and j.run_id = o.run_id and j.seq = o.seq and j.kind = 'activity'
           and j.state = 'executing' and j.owner = p_owner and j.attempt = o.attempt and j.cancel_requested_at is not null
        returning j.shard, j.run_id, j.seq, j.attempt
    )
    insert into durable.inbox (shard, run_id, queue, type, at, body)
    select r.shard, r.run_id, r.queue, 'ActivityCancelled', v_now, jsonb_build_object('ref', e.seq, 'attempt', e.attempt, 'started', true)
      from ended e join durable.runs r on r.shard = e.shard and r.run_id = e.run_id and r.status is not distinct from 'running';
    update durable.jobs j
       set state = case when j.cancel_requested_at is null then 'waiting' else 'cancelled' end, owner = null,
           finished_at = case when j.cancel_requested_at is not null then v_now end,
           deadline_at = case when j.cancel_requested_at is null then least(h.at, v_now + w.silence) end,
           deadline_kind = case when j.cancel_requested_at is null then case when v_now + w.silence < coalesce(h.at, 'infinity') then 'heartbeat' else h.kind end end,
           note = jsonb_build_object('kind', 'completed_elsewhere', 'at', h.at, 'deadline_kind', h.kind)
      from unnest(o_shard, o_run, o_seq, o_attempt, o_elapsed_s) as o(shard, run_id, seq, attempt, elapsed_s)
      join durable.jobs b on b.shard = o.shard and b.run_id = o.run_id and b.seq = o.seq
      left join durable.history e on e.shard = o.shard and e.run_id = o.run_id and e.seq = o.seq and o.seq > 0
     cross join lateral (select coalesce(b.options, e.body) as options, (coalesce(b.options, e.body) -> 'timeouts' ->> 'heartbeat_s')::float8 * interval '1 second' as silence) w
     cross join lateral durable.execution_deadline(w.options #- '{timeouts,heartbeat_s}', v_now - o.elapsed_s * interval '1 second', b.created_at) h
     where j.shard = o.shard and j.run_id = o.run_id and j.seq = o.seq
       and j.state = 'executing' and j.owner = p_owner and j.attempt = o.attempt;
    get diagnostics v_count = row_count;
    return v_count;
end $$;

-- Whether a token counts: accepted | early (an executing attempt whose token is not yet written) | forged | duplicate | late. Both rows are locked by the caller.
create function durable.judge_token(p_job durable.jobs, p_taken durable.completions, p_attempt integer, p_token bytea, p_command uuid)
returns text language sql immutable as $$
    select case when p_taken.token is null and p_job.state = 'executing' and p_job.attempt = p_attempt then 'early'
                when p_taken.token is distinct from p_token then 'forged'
                when p_taken.command_id = p_command then 'repeated'
                when p_taken.outcome is not null then 'duplicate'
                when p_job.attempt is distinct from p_attempt or p_job.state not in ('executing', 'waiting') then 'late'
                else 'accepted' end
$$;

-- SETTLE from outside, once per token (C5). A failure is retried as the activity's policy has it, unless p_final or one of its class names (p_names) says no. What is
-- refused is kept as evidence, if there is such a run or job; p_patient: except what is early, for the caller asks again soon.
create function durable.settle_completion(
    p_shard smallint, p_run uuid, p_seq integer, p_attempt integer, p_token bytea, p_type text, p_payload json, p_failure jsonb,
    p_names text[], p_final boolean, p_actor jsonb, p_command uuid, p_patient boolean
) returns table (verdict text, name text, hint text)
language plpgsql
set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
    v_now timestamptz := durable.now();
    v_job durable.jobs;
    v_taken durable.completions;
    v_run record;
    v_retry jsonb;
begin
    select j.* into v_job from durable.jobs j where j.shard = p_shard and j.run_id = p_run and j.seq = p_seq for update;
    select c.* into v_taken from durable.completions c
     where c.shard = p_shard and c.run_id = p_run and c.seq = p_seq and c.attempt = p_attempt for update;
    select r.status, r.queue, r.owner into v_run from durable.runs r where r.shard = p_shard and r.run_id = p_run;
    name := v_job.name;
    verdict := durable.judge_token(v_job, v_taken, p_attempt, p_token, p_command);
    if verdict = 'repeated' then  -- the answer was lost and the same client asks again
        verdict := 'accepted'; return next; return;
    elsif verdict = 'accepted' and v_job.kind = 'activity' and v_run.status is distinct from 'running' then
        verdict := 'late';
    end if;
    if verdict <> 'accepted' then
        if (v_job.run_id is not null or v_run.status is not null) and not (verdict = 'early' and p_patient) then
            insert into durable.evidence (shard, run_id, at, kind, body)
            values (p_shard, p_run, v_now, 'CompletionRefused', jsonb_build_object('seq', p_seq, 'attempt', p_attempt, 'type', p_type, 'reason', verdict, 'actor', p_actor));
        end if;
        return next; return;
    end if;
    update durable.completions c set command_id = p_command, outcome = p_type
     where c.shard = p_shard and c.run_id = p_run and c.seq = p_seq and c.attempt = p_attempt;
    if p_type = 'ActivityFailed' then
        v_retry := coalesce(v_job.options, (select h.body from durable.history h where h.shard = p_shard and h.run_id = p_run and h.seq = p_seq)) -> 'retry';
        perform durable.lose_attempt_surely(v_job, v_now, 'Failed', p_failure, p_final or coalesce(v_retry -> 'non_retryable' ?| p_names, false));
    elsif v_job.kind = 'job' then
        update durable.jobs j set state = 'completed', owner = null, deadline_at = null, deadline_kind = null, finished_at = v_now, result = p_payload
         where j.shard = p_shard and j.run_id = p_run and j.seq = p_seq;
    else
        delete from durable.jobs j where j.shard = p_shard and j.run_id = p_run and j.seq = p_seq;
        insert into durable.inbox (shard, run_id, queue, type, at, body, payload)
        values (p_shard, p_run, v_run.queue, p_type, v_now,
                jsonb_strip_nulls(jsonb_build_object('ref', p_seq, 'attempt', p_attempt, 'elsewhere', true, 'actor', p_actor)), p_payload);
    end if;
    hint := case when v_job.kind = 'activity' then coalesce('worker:' || v_run.owner, 'queue:' || v_run.queue) else 'queue:' || v_job.queue end;
    return next;
end $$;

-- A sign of life from outside. `cancel_requested`: the run has given the activity up, or has closed.
create function durable.heartbeat_completion(p_shard smallint, p_run uuid, p_seq integer, p_attempt integer, p_token bytea, p_details json, p_patient boolean)
returns table (verdict text, cancel_requested boolean)
language plpgsql
set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
    v_now timestamptz := durable.now();
    v_job durable.jobs;
    v_taken durable.completions;
    v_silence interval;
begin
    select j.* into v_job from durable.jobs j where j.shard = p_shard and j.run_id = p_run and j.seq = p_seq for update;
    select c.* into v_taken from durable.completions c
     where c.shard = p_shard and c.run_id = p_run and c.seq = p_seq and c.attempt = p_attempt;
    verdict := durable.judge_token(v_job, v_taken, p_attempt, p_token, null);
    cancel_requested := v_job.cancel_requested_at is not null;
    if verdict = 'late' and p_seq > 0 and v_job.run_id is null and (
        exists (select from durable.runs r where r.shard = p_shard and r.run_id = p_run and r.status <> 'running')
        or exists (select from durable.history h where h.shard = p_shard and h.run_id = p_run and h.type = 'ActivityCancelRequested' and (h.body ->> 'ref')::int = p_seq))
    then
        verdict := 'accepted'; cancel_requested := true;
    elsif verdict = 'late' and v_job.state = 'cancelled' then
        verdict := 'accepted'; cancel_requested := true;
    elsif verdict = 'accepted' then
        v_silence := (coalesce(v_job.options, (select h.body from durable.history h where h.shard = p_shard and h.run_id = p_run and h.seq = p_seq))
                      -> 'timeouts' ->> 'heartbeat_s')::float8 * interval '1 second';
        update durable.jobs j
           set heartbeat = p_details,
               deadline_at = case when j.state = 'waiting' then least((j.note ->> 'at')::timestamptz, v_now + v_silence) else j.deadline_at end,
               deadline_kind = case when j.state <> 'waiting' then j.deadline_kind
                                    when v_now + v_silence < coalesce((j.note ->> 'at')::timestamptz, 'infinity') then 'heartbeat'
                                    else j.note ->> 'deadline_kind' end
         where j.shard = p_shard and j.run_id = p_run and j.seq = p_seq;
    elsif verdict = 'forged' and v_job.run_id is not null then
        insert into durable.evidence (shard, run_id, at, kind, body)
        values (p_shard, p_run, v_now, 'CompletionRefused', jsonb_build_object('seq', p_seq, 'attempt', p_attempt, 'type', 'heartbeat', 'reason', verdict));
    end if;
    return next;
end $$;

-- The SQL API. Both answer `accepted`, or why not: forged, late, duplicate, early. A token is `dct.<shard>.<run>.<seq>.<attempt>.<secret>`.
create function durable.complete(token text, result json default 'null') returns text language plpgsql as $$
declare
    v_part text[] := string_to_array(token, '.');
    v_done record;
begin
    select * into v_done from durable.settle_completion(v_part[2]::smallint, v_part[3]::uuid, v_part[4]::int, v_part[5]::int,
        sha256(convert_to(token, 'UTF8')), 'ActivityCompleted', result, null, '{}', false, null, gen_random_uuid(), false);
    if v_done.hint is not null then
        perform pg_notify('durable', v_done.hint);
    end if;
    return v_done.verdict;
end $$;

create function durable.fail(token text, message text, retry boolean default true) returns text language plpgsql as $$
declare
    v_part text[] := string_to_array(token, '.');
    v_done record;
begin
    select * into v_done from durable.settle_completion(v_part[2]::smallint, v_part[3]::uuid, v_part[4]::int, v_part[5]::int,
        sha256(convert_to(token, 'UTF8')), 'ActivityFailed', null, jsonb_build_object('type', 'builtins:RuntimeError', 'message', message),
        array['builtins:RuntimeError', 'RuntimeError'], not retry, null, gen_random_uuid(), false);
    if v_done.hint is not null then
        perform pg_notify('durable', v_done.hint);
    end if;
    return v_done.verdict;
end $$;
