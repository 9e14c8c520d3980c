-- What clients call: start, signal, cancel, terminate, enqueue. Each is one function, so that it joins whatever transaction the caller has open.

-- START is idempotent by workflow id (C20). p_on_running: existing | fail | terminate. p_on_closed: existing | new | new_if_failed | fail.
-- The index on (shard, workflow_id, generation) decides every race; the loop only reads again. `p_taker`: the worker beside the caller; what may run now is
-- its own from the beginning, as if it had claimed it (`taken_us`, and the first event's body as it is stored).
create function durable.start_run(
    p_shard smallint, p_run uuid, p_workflow_id text, p_workflow text, p_version integer, p_queue text, p_priority smallint,
    p_delay_s double precision, p_body jsonb, p_payload json, p_actor jsonb, p_attributes jsonb, p_memo jsonb,
    p_on_running text default 'existing', p_on_closed text default 'existing', p_on_end json default null, p_taker uuid default null
) returns table (run_id uuid, outcome text, status text, taken_us bigint, taken_body text)
language plpgsql as $$
declare
    v_now timestamptz := durable.now();
    v_from timestamptz := v_now + greatest(coalesce(p_delay_s, 0), 0) * interval '1 second';
    v_execution timestamptz := durable.execution_deadline_of(p_body, v_from);
    v_last durable.runs;
    v_generation integer;
    v_replaced boolean := false;
    v_taker uuid;
    v_build text;
    v_pinned boolean := coalesce((p_body ->> 'pinned')::boolean, false);
begin
    if p_taker is not null and coalesce(p_delay_s, 0) <= 0 then
        select w.worker_id, w.build into v_taker, v_build from durable.workers w where w.worker_id = p_taker and w.state in ('alive', 'stopping');
    end if;
    select r.run_id, 'started', r.status into run_id, outcome, status from durable.runs r where r.shard = p_shard and r.run_id = p_run;
    if found then  -- the answer was lost and the same client asks again
        return next; return;
    end if;
    for v_try in 1..20 loop
        select r.* into v_last from durable.runs r
         where r.shard = p_shard and r.workflow_id = p_workflow_id order by r.generation desc limit 1;
        v_generation := 0;
        if found then
            run_id := v_last.run_id; status := v_last.status;
            if run_id = p_run then  -- sent again while the first one was under way, and it has come through now
                outcome := 'started';
                return next; return;
            elsif v_last.status = 'running' and p_on_running = 'terminate' then
                perform durable.terminate_run(p_shard, p_workflow_id, 'replaced by a new start', p_actor);
                v_replaced := true;
                continue;
            elsif v_last.status = 'running' then
                outcome := case p_on_running when 'existing' then 'existing' else 'refused' end;
                return next; return;
            elsif not (v_replaced or p_on_closed = 'new' or (p_on_closed = 'new_if_failed' and v_last.status <> 'completed')) then
                outcome := case p_on_closed when 'fail' then 'refused' else 'existing' end;
                return next; return;
            end if;
            v_generation := v_last.generation + 1;
        end if;
        insert into durable.runs (shard, run_id, workflow_id, generation, workflow, version, semantics, pinned, build, owner, epoch, queue, priority,
                                  ready_at, delayed_until, actor, headers, attributes, memo, static_details, deadline_at, execution_deadline_at, on_end, created_at)
        values (p_shard, p_run, p_workflow_id, v_generation, p_workflow, p_version, coalesce((p_body ->> 'semantics')::smallint, 1),
                v_pinned, case when v_pinned then v_build end, v_taker, case when v_taker is null then 0 else 1 end, p_queue, p_priority,
                case when v_taker is null and coalesce(p_delay_s, 0) <= 0 then v_now end, case when p_delay_s > 0 then v_from end, p_actor,
                p_body -> 'headers', p_attributes, p_memo, p_body ->> 'details', durable.deadline_of(p_body, v_from, v_execution), v_execution,
                p_on_end, v_now)
        on conflict do nothing;
        if found then
            insert into durable.history (shard, run_id, seq, turn, type, at, body, payload)
            values (p_shard, p_run, 1, 0, 'WorkflowStarted', v_now, p_body, p_payload);
            run_id := p_run; outcome := 'started'; status := 'running';
            if v_taker is not null then
                taken_us := durable.to_us(v_now); taken_body := p_body::text;
            end if;
            return next; return;
        end if;
    end loop;
    raise exception 'the workflow id % is being started too often at once', p_workflow_id using errcode = 'DU010';
end $$;

-- SIGNAL: never lost (C11). Evidence row always; inbox row when the run is open and the key is new; a key also holds for the runs that continue this one.
-- status: buffered | duplicate | late (closed) | dropped (it was buffered, and the run closed before it was read) | unknown (no run of that id).
create function durable.send_signal(p_shard smallint, p_workflow_id text, p_signal uuid, p_name text, p_payload json,
                                    p_dedupe_key text default null, p_actor jsonb default null, p_headers jsonb default null)
returns table (run_id uuid, status text, reason text, queue text, owner uuid)
language plpgsql as $$
declare
    v_now timestamptz := durable.now();
    v_before record;
    v_new boolean := false;
    v_run durable.runs;
begin
    loop  -- locked against continue-as-new alone: what it does not see it could not carry over. Again, if it was faster.
        select r.* into v_run from durable.runs r
         where r.shard = p_shard and r.workflow_id = p_workflow_id order by r.generation desc limit 1 for key share;
        if not found then
            perform durable.log_stray('workflow', p_workflow_id, p_signal, 'signal', 'unknown_workflow', 'signal ' || p_name, p_actor);
            status := 'unknown'; return next; return;
        end if;
        exit when (select r.status from durable.runs r where r.shard = p_shard and r.run_id = v_run.run_id) <> 'continued';  -- after the lock
    end loop;
    run_id := v_run.run_id; queue := v_run.queue; owner := v_run.owner;
    select s.run_id, s.status into v_before from durable.runs r join durable.signals s on s.shard = r.shard and s.run_id = r.run_id
     where r.shard = p_shard and r.workflow_id = p_workflow_id and r.generation < v_run.generation and s.signal_id = p_signal and s.status <> 'replayed';
    if found then  -- the answer was lost, and another run of that id has started meanwhile: the signal was for the one before
        run_id := v_before.run_id;
        status := case v_before.status when 'delivered' then 'buffered' else v_before.status end;
        return next; return;
    end if;
    if v_run.status <> 'running' then
        status := 'late'; reason := 'the run is ' || v_run.status;
        if not durable.note_signal(p_shard, run_id, p_signal, p_name, p_dedupe_key, status, reason, p_payload, p_actor, v_now) then
            -- the answer was lost and the same client asks again: the run took it before it closed, or did not
            select case when s.status in ('delivered', 'replayed') or s.status = 'dropped' and s.seq is not null then 'buffered' else s.status end into status
              from durable.signals s where s.shard = p_shard and s.run_id = v_run.run_id and s.signal_id = p_signal;
        end if;
        return next; return;
    end if;
    if p_dedupe_key is null or not durable.was_signalled_before(p_shard, p_workflow_id, v_run.generation, p_name, p_dedupe_key) then
        insert into durable.signals (shard, run_id, signal_id, name, dedupe_key, status, payload, actor, at)
        values (p_shard, run_id, p_signal, p_name, p_dedupe_key, 'buffered', p_payload, p_actor, v_now)
        on conflict do nothing;
        v_new := found;
    end if;
    if not v_new then
        select s.status into status from durable.signals s
         where s.shard = p_shard and s.run_id = v_run.run_id and s.signal_id = p_signal;
        if found then  -- the answer was lost and the same client asks again
            return next; return;
        end if;
        status := 'duplicate'; reason := 'the dedupe key was used before';
        perform durable.note_signal(p_shard, run_id, p_signal, p_name, p_dedupe_key, status, reason, p_payload, p_actor, v_now);
        return next; return;
    end if;
    insert into durable.inbox (shard, run_id, message_id, queue, type, at, body, payload)
    values (p_shard, run_id, p_signal, queue, 'SignalReceived', v_now,
            jsonb_build_object('name', p_name, 'signal_id', p_signal)
                || case when p_actor is null then '{}' else jsonb_build_object('actor', p_actor) end
                || case when p_headers is null then '{}' else jsonb_build_object('headers', p_headers) end, p_payload);
    status := 'buffered';
    return next;
end $$;

-- CANCEL is a request (C9): recorded once, later ones are evidence. A run that nobody has claimed yet is closed here and now.
create function durable.request_cancel(p_shard smallint, p_workflow_id text, p_reason text, p_actor jsonb default null,
                                     p_command uuid default gen_random_uuid())
returns table (run_id uuid, status text, queue text, owner uuid)
language plpgsql as $$
declare
    v_now timestamptz := durable.now();
    v_run durable.runs;
begin
    select r.* into v_run from durable.runs r
     where r.shard = p_shard and r.workflow_id = p_workflow_id order by r.generation desc limit 1;
    if not found then
        perform durable.log_stray('workflow', p_workflow_id, p_command, 'cancel', 'unknown_workflow', p_reason, p_actor);
        status := 'unknown'; return next; return;
    end if;
    run_id := v_run.run_id; queue := v_run.queue; owner := v_run.owner;
    select case when o.accepted then 'requested' else o.refusal end into status from durable.operator_commands o
     where o.shard = p_shard and o.run_id = v_run.run_id and o.command_id = p_command;
    if found then  -- the answer was lost and the same client asks again
        return next; return;
    end if;
    if v_run.status <> 'running' then
        status := 'closed';
    elsif v_run.cancel_requested_at is not null or exists (
            select from durable.inbox i where i.shard = p_shard and i.run_id = v_run.run_id and i.type = 'CancelRequested') then
        status := 'already_requested';
    else
        status := 'requested';
        update durable.runs r set status = 'cancelled', closed_at = v_now, ready_at = null, delayed_until = null, last_seq = r.last_seq + 2, turn = 1,
               cancel_requested_at = v_now
         where r.shard = p_shard and r.run_id = v_run.run_id and r.status is not distinct from 'running' and r.owner is null and r.epoch = 0;
        if found then
            insert into durable.history (shard, run_id, seq, turn, type, at, body) values
                (p_shard, v_run.run_id, v_run.last_seq + 1, 1, 'CancelRequested', v_now, jsonb_build_object('reason', p_reason)),
                (p_shard, v_run.run_id, v_run.last_seq + 2, 1, 'WorkflowCancelled', v_now,
                 jsonb_build_object('reason', p_reason, 'before_start', true));
            perform durable.sweep_closed(array[p_shard], array[v_run.run_id], array['cancelled'], v_now);
        else
            insert into durable.inbox (shard, run_id, queue, type, at, body)
            values (p_shard, run_id, queue, 'CancelRequested', v_now, jsonb_build_object('reason', p_reason));
        end if;
    end if;
    insert into durable.operator_commands (shard, run_id, command_id, workflow_id, action, accepted, reason, refusal, actor, at, code, before, after)
    select p_shard, v_run.run_id, p_command, p_workflow_id, 'cancel', request_cancel.status = 'requested', p_reason, nullif(request_cancel.status, 'requested'), p_actor, v_now,
           case request_cancel.status when 'requested' then 'accepted' when 'closed' then 'workflow_closed' else 'already_requested' end,
           durable.standing(v_run), case when request_cancel.status = 'requested' then durable.standing(r) || '{"cancel_requested": true}' end
      from durable.runs r where r.shard = p_shard and r.run_id = v_run.run_id;
    return next;
end $$;

-- TERMINATE ends a run by force: no compensation runs. The owner's next commit loses the fence.
create function durable.terminate_run(p_shard smallint, p_workflow_id text, p_reason text, p_actor jsonb default null,
                                     p_command uuid default gen_random_uuid())
returns table (run_id uuid, status text, pushes jsonb)
language plpgsql as $$
declare
    v_now timestamptz := durable.now();
    v_run durable.runs;
begin
    select r.* into v_run from durable.runs r
     where r.shard = p_shard and r.workflow_id = p_workflow_id order by r.generation desc limit 1 for no key update;
    if not found then
        perform durable.log_stray('workflow', p_workflow_id, p_command, 'terminate', 'unknown_workflow', p_reason, p_actor);
        status := 'unknown'; return next; return;
    end if;
    run_id := v_run.run_id;
    select case when o.accepted then 'terminated' else o.refusal end into status from durable.operator_commands o
     where o.shard = p_shard and o.run_id = v_run.run_id and o.command_id = p_command;
    if found then  -- the answer was lost and the same client asks again
        return next; return;
    end if;
    if v_run.status <> 'running' then
        status := 'closed';
    else
        status := 'terminated';
        update durable.runs r set status = 'terminated', closed_at = v_now, owner = null, epoch = r.epoch + 1, ready_at = null, delayed_until = null,
               last_seq = r.last_seq + 1, turn = r.turn + 1, paused = null
         where r.shard = p_shard and r.run_id = v_run.run_id;
        insert into durable.history (shard, run_id, seq, turn, type, at, body)
        values (p_shard, v_run.run_id, v_run.last_seq + 1, v_run.turn + 1, 'WorkflowTerminated', v_now,
                jsonb_build_object('reason', p_reason));
        pushes := durable.sweep_closed(array[p_shard], array[v_run.run_id], array['terminated'], v_now);
        if v_run.owner is not null then
            pushes := coalesce(pushes, '[]') || to_jsonb(v_run.owner);
        end if;
    end if;
    insert into durable.operator_commands (shard, run_id, command_id, workflow_id, action, accepted, reason, refusal, actor, at, code, before, after)
    select p_shard, v_run.run_id, p_command, p_workflow_id, 'terminate', terminate_run.status = 'terminated', p_reason, nullif(terminate_run.status, 'terminated'), p_actor, v_now,
           case terminate_run.status when 'terminated' then 'accepted' else 'workflow_closed' end,
           durable.standing(v_run), case when terminate_run.status = 'terminated' then durable.standing(r) end
      from durable.runs r where r.shard = p_shard and r.run_id = v_run.run_id;
    return next;
end $$;

-- A UUIDv7 (RFC 9562): 48 bits of milliseconds, then random bits. Its order is only used to list the newest first.
create function durable.uuid7() returns uuid language sql volatile as $$
    select encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid()) placing
               substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3) from 1 for 6), 52, 1), 53, 1), 'hex')::uuid
$$;

-- The SQL API: usable from psql, a trigger or any language, inside any transaction.
create function durable.start(workflow text, args json default '{}', id text default gen_random_uuid()::text, queue text default null,
                              priority integer default 0, actor jsonb default null, version integer default null)
returns uuid language plpgsql as $$
declare
    v_queue text;
    v_version integer;
    v_defaults jsonb;
    v_started record;
begin
    select d.queue, d.version, coalesce(d.schema -> 'x-durable', '{}') into v_queue, v_version, v_defaults from durable.definitions d
     where d.kind = 'workflow' and d.name = start.workflow and d.version = coalesce(start.version, durable.version_to_start(start.workflow));
    if not found then
        raise exception 'no worker has registered a workflow named %', workflow || coalesce(' of version ' || start.version, '')
            using errcode = 'DU011', hint = 'start a worker with the module that defines it, then try again';
    end if;
    if actor is null and v_defaults ? 'require_actor' then
        raise exception 'workflow % requires an actor', workflow using errcode = 'DU013', hint = 'pass who acts as actor';
    end if;
    v_queue := coalesce(start.queue, v_queue, 'default');
    select * into v_started from durable.start_run(durable.shard_of(id), durable.uuid7(), id, workflow, v_version, v_queue,
        start.priority::smallint, 0, jsonb_build_object('workflow', workflow, 'version', v_version, 'semantics', durable.semantics(), 'workflow_id', id,
        'queue', v_queue, 'priority', start.priority, 'actor', actor) || (v_defaults - 'require_actor'), args, actor, null, null);
    if v_started.outcome = 'started' then
        perform pg_notify('durable', 'runs:' || v_queue);
    end if;
    return v_started.run_id;
end $$;

create function durable.signal(workflow_id text, name text, payload json default 'null', dedupe_key text default null,
                               actor jsonb default null)
returns text language plpgsql as $$
declare
    v_sent record;
begin
    if actor is null and exists (select from durable.definitions d
            where d.kind = 'signal' and d.name = signal.name and d.schema -> 'x-durable' ? 'require_actor') then
        raise exception 'signal % requires an actor', name using errcode = 'DU013', hint = 'pass who acts as actor';
    end if;
    select * into v_sent from durable.send_signal(durable.shard_of(workflow_id), workflow_id, gen_random_uuid(), name, payload, dedupe_key, actor);
    if v_sent.status = 'unknown' then
        raise exception 'no run has the workflow id %', workflow_id using errcode = 'DU012';
    end if;
    perform pg_notify('durable', coalesce('worker:' || v_sent.owner, 'queue:' || v_sent.queue));
    return v_sent.status;
end $$;

create function durable.cancel(workflow_id text, reason text default null) returns text language plpgsql as $$
declare
    v_asked record;
begin
    select * into v_asked from durable.request_cancel(durable.shard_of(workflow_id), workflow_id, reason);
    if v_asked.status = 'unknown' then
        raise exception 'no run has the workflow id %', workflow_id using errcode = 'DU012';
    end if;
    perform pg_notify('durable', coalesce('worker:' || v_asked.owner, 'queue:' || v_asked.queue));
    return v_asked.status;
end $$;

-- Documented, stable views for reading.
create view durable.run_list as
select r.workflow_id, r.run_id, r.workflow, r.version, r.status, r.queue, r.priority, r.created_at, r.started_at, r.closed_at,
       r.cancel_requested_at, r.attributes, r.actor, r.waiting_on, r.review, r.owner, r.last_seq, r.generation, r.shard,
       r.paused,
       case when r.status <> 'running' then 'done'
            when exists (select from durable.jobs j where j.shard = r.shard and j.run_id = r.run_id and j.phase = 'paused'
                            and j.paused ->> 'kind' = 'exhausted') then 'needs_review'
            when r.paused is not null then 'blocked'
            when r.review is not null and r.review ->> 'kind' <> 'unknown_workflow' then 'needs_review'
            when r.review is not null then 'blocked'
            when r.build is not null and r.owner is null and not exists (select from durable.workers w where w.state = 'alive'
                 and w.lease_until >= durable.now() and w.build = r.build and w.queues ? r.queue) then 'blocked'
            when r.delayed_until is not null then 'waiting'
            when r.ready_at is not null then 'runnable'
            when r.waiting_on @> '[{"kind": "operator"}]' or r.waiting_on @> '[{"kind": "halt"}]' then 'needs_review'
            when r.waiting_on is not null then 'waiting'
            else 'runnable' end as operator_status,
       r.pinned, r.build
  from durable.runs r;

create view durable.event_list as
select r.workflow_id, h.run_id, h.seq, h.turn, h.type, h.at, h.body, h.payload
  from durable.history h join durable.runs r on r.shard = h.shard and r.run_id = h.run_id;
