-- Duties of maintenance, schedules with a row for each slot, and retention. None of it is on the way of a step: nothing here is read or written by the
-- functions of the hot path, and no hot table gets an index.

-- DUTIES: what one worker shall do for all. Each has a holder under a lease; `epoch` rises when the holder changes, and what the duty writes is
-- fenced by both (C2). Any worker takes over a duty whose lease has lapsed or whose holder is dead: there is no leader to lose.
create table durable.duties (
    name        text primary key,
    holder      uuid,
    epoch       integer     not null default 0,
    lease_until timestamptz
) with (fillfactor = 50);
insert into durable.duties (name) values ('rescue'), ('schedules'), ('retention');

-- Renew what this worker holds, once a third of the lease has passed, and take what nobody alive does.
create function durable.take_duties(p_worker uuid, p_lease_s double precision) returns table (name text, epoch integer)
language plpgsql as $$
declare
    v_now timestamptz := durable.now();
begin
    if not durable.is_alive(p_worker) then
        return;
    end if;
    return query
    with free as (
        select d.name from durable.duties d
         where d.holder is null or d.lease_until < v_now + case when d.holder = p_worker then p_lease_s * 2 / 3 else 0 end * interval '1 second'
            or not exists (select from durable.workers w
                            where w.worker_id = d.holder and w.state in ('alive', 'stopping') and w.lease_until >= v_now)
         order by d.name for update of d skip locked
    ), taken as (
        update durable.duties d
           set epoch = d.epoch + case when d.holder is not distinct from p_worker then 0 else 1 end,
               holder = p_worker, lease_until = v_now + p_lease_s * interval '1 second'
          from free f where d.name = f.name
        returning d.name, d.epoch
    )
    select t.name, t.epoch from taken t
    union all
    select d.name, d.epoch from durable.duties d where d.holder = p_worker and not exists (select from taken t where t.name = d.name);
end $$;

create function durable.hold_duty(p_worker uuid, p_duty text, p_epoch integer) returns void language plpgsql as $$
begin
    perform from durable.duties d where d.name = p_duty and d.holder = p_worker and d.epoch = p_epoch for share;
    if not found then
        raise exception 'the duty % has another holder now', p_duty using errcode = 'DU003';
    end if;
end $$;


-- SCHEDULES. `cursor_at`: every slot up to it has its decision. `before`: the times that held until they were changed, as long as slots of theirs may
-- be undecided: [{spec, until_us}]. `passed_over_at`: undecided slots up to it went by while the schedule was paused.
-- `next_at`: when it is to be looked at next; null: not until somebody changes it. `revision` rises with every change from outside, so that a pass
-- that read an older state writes nothing. `declared`: the digest of what code has declared (`@workflow(schedule=...)`). A deleted one stays as
-- a row: code does not bring it back, and slots that it has started are not started again.
create table durable.schedules (
    schedule_id    text primary key,
    revision       integer     not null default 1,
    spec           jsonb       not null,
    policy         jsonb       not null,
    action         jsonb       not null,
    input          json,
    paused         boolean     not null default false,
    note           text,
    declared       text,
    request_id     uuid        not null,
    before         jsonb       not null default '[]',
    cursor_at      timestamptz not null,
    passed_over_at timestamptz,
    next_at        timestamptz,
    created_at     timestamptz not null,
    updated_at     timestamptz not null,
    deleted_at     timestamptz,
    constraint schedules_id_length check (length(schedule_id) between 1 and 200),
    constraint schedules_deleted_rests check (deleted_at is null or next_at is null)
);
create index schedules_due on durable.schedules (next_at) where next_at is not null;

-- One row a slot: what was decided about it and why, and what it started. Its key is what makes a slot start once.
create table durable.schedule_slots (
    schedule_id  text        not null,
    slot_at      timestamptz not null,
    origin       text        not null check (origin in ('time', 'trigger', 'backfill')),
    overlap      text,
    decision     text        not null check (decision in ('pending', 'started', 'buffered', 'skipped', 'missed')),
    reason       text,
    kind         text        check (kind in ('workflow', 'job')),
    target_shard smallint,
    target       text,
    outcome      text,
    decided_at   timestamptz not null,
    primary key (schedule_id, slot_at),
    constraint schedule_slots_started_something check (decision <> 'started' or (kind is not null and target is not null and target_shard is not null))
);
create index schedule_slots_live on durable.schedule_slots (schedule_id, decision, slot_at)
    where decision in ('pending', 'buffered') or (decision = 'started' and outcome is null);

-- How the run or job of a started slot stands; `gone` when it was pruned.
create function durable.slot_status(p_kind text, p_shard smallint, p_target text) returns text language sql stable as $$
    select coalesce(case p_kind
        when 'workflow' then (select r.status from durable.runs r where r.shard = p_shard and r.workflow_id = p_target
                               order by r.generation desc limit 1)
        else (select j.state from durable.jobs j where j.shard = p_shard and j.run_id = p_target::uuid and j.seq = 0) end, 'gone')
$$;

create function durable.slot_is_open(p_kind text, p_shard smallint, p_target text) returns boolean language sql stable as
$$ select durable.slot_status(p_kind, p_shard, p_target) not in ('completed', 'failed', 'cancelled', 'terminated', 'discarded', 'gone') $$;

-- CREATE or change a schedule. p_mode, for an id that is in use: update | keep | fail | revise (an update that knows the revision it is based on) |
-- declare (what code says). Slots of the old times that nobody has decided yet will be. outcome: created | updated | unchanged | refused | deleted | changed.
create function durable.put_schedule(
    p_id text, p_request uuid, p_mode text, p_revision integer, p_declared text, p_spec jsonb, p_policy jsonb, p_action jsonb, p_input json,
    p_paused boolean, p_note text, p_actor jsonb default null
) returns table (outcome text, revision integer)
language plpgsql as $$
declare
    v_now timestamptz := durable.now();
    v_old durable.schedules;
begin
    insert into durable.schedules (schedule_id, spec, policy, action, input, paused, note, declared, request_id, cursor_at, next_at, created_at, updated_at)
    select p_id, p_spec, p_policy, p_action, p_input, p_paused, p_note, p_declared, p_request, v_now, v_now, v_now, v_now
     where p_mode <> 'revise'
    on conflict do nothing;
    if found then
        outcome := 'created'; revision := 1;
        perform durable.log_put(p_id, p_request, p_mode, outcome, null, p_actor);
        return next; return;
    end if;
    select s.* into v_old from durable.schedules s where s.schedule_id = p_id for update;
    if not found then
        outcome := 'deleted';
        perform durable.log_put(p_id, p_request, p_mode, outcome, null, p_actor);
        return next; return;
    end if;
    revision := v_old.revision;
    outcome := case
        when v_old.request_id = p_request then case when v_old.revision = 1 then 'created' else 'updated' end  -- the answer was lost, and the same client asks again
        when v_old.deleted_at is not null then case when p_mode in ('declare', 'revise') then 'deleted' else 'created' end
        when p_mode = 'declare' then case when v_old.declared is null then 'refused' when v_old.declared = p_declared then 'unchanged' else 'updated' end
        when p_mode = 'revise' then case when v_old.revision = p_revision then 'updated' else 'changed' end
        when p_mode = 'update' then 'updated'
        when p_mode = 'keep' then 'unchanged'
        else 'refused' end;
    if outcome not in ('created', 'updated') or v_old.request_id = p_request then
        perform durable.log_put(p_id, p_request, p_mode, outcome, v_old, p_actor);
        return next; return;
    end if;
    if outcome = 'updated' and p_mode = 'update' and (v_old.spec, v_old.policy, v_old.action, v_old.input::text) is not distinct from (p_spec, p_policy, p_action, p_input::text) then
        outcome := 'unchanged'; return next; return;
    end if;
    update durable.schedules s
       set revision = s.revision + 1, spec = p_spec, policy = p_policy, action = p_action, input = p_input, request_id = p_request,
           declared = case when p_mode = 'declare' then p_declared else s.declared end, updated_at = v_now, deleted_at = null, next_at = v_now,
           cursor_at = case when s.deleted_at is null then s.cursor_at else greatest(s.cursor_at, v_now) end,
           before = case when s.deleted_at is not null then '[]' when s.spec = p_spec then s.before
                         else s.before || jsonb_build_object('spec', s.spec, 'until_us', durable.to_us(v_now)) end,
           paused = case when s.deleted_at is null then s.paused else p_paused end,
           note = case when s.deleted_at is null then s.note else p_note end
     where s.schedule_id = p_id
    returning s.revision into revision;
    perform durable.log_put(p_id, p_request, p_mode, outcome, v_old, p_actor);
    return next;
end $$;

-- What a command changes of a schedule, for the log of commands.
create function durable.schedule_standing(s durable.schedules) returns jsonb language sql stable as $$
    select case when s.schedule_id is not null and s.deleted_at is null then jsonb_strip_nulls(jsonb_build_object('revision', s.revision, 'spec', s.spec,
        'policy', s.policy, 'action', s.action, 'input', s.input, 'paused', case when s.paused then true end, 'note', s.note)) end
$$;

-- What became of a put: nothing is logged of one that changed nothing, or every start of a worker would leave a row for each schedule that code declares.
create function durable.log_put(p_id text, p_request uuid, p_mode text, p_outcome text, p_old durable.schedules, p_actor jsonb) returns void
language plpgsql as $$
begin
    if p_outcome = 'unchanged' or (p_mode = 'declare' and p_outcome in ('refused', 'deleted')) then
        return;
    end if;
    perform durable.log_stray('schedule', p_id, p_request, case when p_outcome = 'created' or p_mode = 'fail' then 'create_schedule' else 'update_schedule' end,
        case p_outcome when 'refused' then 'schedule_exists' when 'deleted' then 'unknown_schedule' when 'changed' then 'schedule_changed' else 'accepted' end,
        case p_mode when 'declare' then 'declared by code' end, p_actor, durable.schedule_standing(p_old),
        case when p_outcome in ('created', 'updated') then (select durable.schedule_standing(s) from durable.schedules s where s.schedule_id = p_id) end);
end $$;


-- Slots that wait for a decision. One that was skipped or missed gets another chance, one that was started never does.
create function durable.ask_slots(p_id text, p_slots bigint[], p_origin text, p_overlap text, p_now timestamptz) returns integer
language plpgsql as $$
declare
    v_count integer;
begin
    insert into durable.schedule_slots as t (schedule_id, slot_at, origin, overlap, decision, decided_at)
    select p_id, durable.from_us(s.us), p_origin, p_overlap, 'pending', p_now from unnest(p_slots) as s(us)
    on conflict (schedule_id, slot_at) do update set origin = excluded.origin, overlap = excluded.overlap, decision = 'pending', reason = null,
           decided_at = excluded.decided_at
     where t.decision in ('skipped', 'missed') and excluded.origin = 'backfill';
    get diagnostics v_count = row_count;
    return v_count;
end $$;

-- PAUSE, RESUME, DELETE, TRIGGER, BACKFILL. status: done | unknown. A trigger is a slot of its own, at this moment; its request makes it once.
create function durable.command_schedule(p_id text, p_command text, p_note text, p_overlap text, p_slots bigint[], p_request uuid,
                                         p_actor jsonb default null)
returns table (status text, slot_us bigint, asked integer)
language plpgsql as $$
declare
    v_now timestamptz := durable.now();
    v_at timestamptz := date_trunc('microseconds', v_now);
    v_old durable.schedules;
begin
    select s.* into v_old from durable.schedules s where s.schedule_id = p_id and s.deleted_at is null for update;
    if not found then
        status := case when p_command = 'delete' and exists (
            select from durable.schedules s where s.schedule_id = p_id and s.request_id = p_request) then 'done' else 'unknown' end;
        perform durable.log_stray('schedule', p_id, p_request, p_command || '_schedule', 'unknown_schedule', p_note, p_actor);
        return next; return;
    end if;
    status := 'done';
    if p_command = 'trigger' then
        select durable.to_us(t.slot_at) into slot_us from durable.schedule_slots t
         where t.schedule_id = p_id and t.origin = 'trigger' and v_old.request_id = p_request order by t.slot_at desc limit 1;
        if found then  -- the answer was lost, and the same client asks again
            asked := 1; return next; return;
        end if;
        while exists (select from durable.schedule_slots t where t.schedule_id = p_id and t.slot_at = v_at) loop
            v_at := v_at + interval '1 microsecond';
        end loop;
        slot_us := durable.to_us(v_at);
        asked := durable.ask_slots(p_id, array[slot_us], 'trigger', p_overlap, v_now);
    elsif p_command = 'backfill' and v_old.request_id = p_request then  -- again
        select count(*) into asked from durable.schedule_slots t
         where t.schedule_id = p_id and t.origin = 'backfill' and t.slot_at = any (select durable.from_us(u) from unnest(p_slots) u)
           and t.decided_at >= v_old.updated_at;
        return next; return;
    elsif p_command = 'backfill' then
        asked := durable.ask_slots(p_id, p_slots, 'backfill', p_overlap, v_now);
    end if;
    update durable.schedules s
       set revision = s.revision + 1, request_id = p_request, updated_at = v_now,
           next_at = case when p_command <> 'delete' then v_now end,
           paused = case p_command when 'pause' then true when 'resume' then false else s.paused end,
           note = case when p_command in ('pause', 'resume') then p_note else s.note end,
           passed_over_at = case when p_command = 'resume' and s.paused then v_now else s.passed_over_at end,
           deleted_at = case when p_command = 'delete' then v_now end
     where s.schedule_id = p_id;
    if p_command = 'delete' then
        update durable.schedule_slots t set decision = 'skipped', reason = 'the schedule was deleted', decided_at = v_now
         where t.schedule_id = p_id and t.decision in ('pending', 'buffered');
    end if;
    perform durable.log_stray('schedule', p_id, p_request, p_command || '_schedule', 'accepted', p_note, p_actor, durable.schedule_standing(v_old),
        coalesce((select durable.schedule_standing(s) from durable.schedules s where s.schedule_id = p_id), '{}')
            || jsonb_strip_nulls(jsonb_build_object('slot_us', slot_us, 'asked', asked)));
    return next;
end $$;

-- What is to be looked at now, with what is needed to decide.
create function durable.due_schedules(p_limit integer, p_slots integer)
returns table (schedule_id text, revision integer, spec text, before text, policy text, action_kind text, cursor_us bigint, passed_over_us bigint, paused boolean,
               started text, pending text, buffered text, now_us bigint)
language plpgsql as $$
declare
    v_now timestamptz := durable.now();
begin
    return query
    select s.schedule_id, s.revision, s.spec::text, s.before::text, s.policy::text, s.action ->> 'kind', durable.to_us(s.cursor_at),
           coalesce(durable.to_us(s.passed_over_at), 0), s.paused,
           (select json_agg(json_build_array(durable.to_us(o.slot_at), durable.slot_status(o.kind, o.target_shard, o.target)) order by o.slot_at)
              from (select t.* from durable.schedule_slots t where t.schedule_id = s.schedule_id and t.decision = 'started' and t.outcome is null
                     order by t.slot_at limit p_slots) o)::text,
           (select json_agg(json_build_array(durable.to_us(o.slot_at), o.origin, o.overlap) order by o.slot_at)
              from (select t.* from durable.schedule_slots t where t.schedule_id = s.schedule_id and t.decision = 'pending'
                     order by t.slot_at limit p_slots) o)::text,
           (select json_agg(json_build_array(durable.to_us(t.slot_at), t.origin, t.overlap) order by t.slot_at)
              from durable.schedule_slots t where t.schedule_id = s.schedule_id and t.decision = 'buffered')::text,
           durable.to_us(v_now)
      from durable.schedules s where s.next_at <= v_now order by s.next_at limit p_limit;
end $$;

-- When the next schedule is due.
create function durable.next_schedule_us() returns table (next_us bigint, now_us bigint) language sql as
$$ select (select durable.to_us(min(s.next_at)) from durable.schedules s), durable.to_us(durable.now()) $$;

-- DECIDE: one pass over one schedule, in one transaction: the slots with their decisions, what they start and stop, and the cursor. Fenced by the duty;
-- a pass that read what is not so any more writes nothing (applied = false) and is made again. s_: slots decided, e_: runs that have ended,
-- x_: open slots whose runs to stop.
create function durable.decide_slots(
    p_worker uuid, p_epoch integer, p_id text, p_revision integer, p_cursor_before bigint, p_cursor bigint, p_next bigint, p_pause_note text,
    s_slot bigint[], s_origin text[], s_decision text[], s_reason text[], s_overlap text[], s_target text[], s_shard smallint[],
    e_slot bigint[], e_outcome text[], x_slot bigint[], x_how text[]
) returns table (applied boolean, pushes jsonb)
language plpgsql as $$
declare
    v_now timestamptz := durable.now();
    v_it durable.schedules;
    v_slot record;
begin
    perform durable.hold_duty(p_worker, 'schedules', p_epoch);
    pushes := '[]';
    select s.* into v_it from durable.schedules s where s.schedule_id = p_id and s.revision = p_revision and s.deleted_at is null for update;
    applied := found and durable.to_us(v_it.cursor_at) = p_cursor_before;
    if not applied then
        return next; return;
    end if;
    update durable.schedule_slots t set outcome = e.outcome from unnest(e_slot, e_outcome) as e(us, outcome)
     where t.schedule_id = p_id and t.slot_at = durable.from_us(e.us) and t.decision = 'started' and t.outcome is null;
    for v_slot in
        select t.*, x.how from unnest(x_slot, x_how) as x(us, how) join durable.schedule_slots t
            on t.schedule_id = p_id and t.slot_at = durable.from_us(x.us) and t.decision = 'started' and t.outcome is null order by x.us
    loop
        pushes := pushes || durable.stop_slot(v_slot.kind, v_slot.target_shard, v_slot.target, v_slot.how, p_id);
        update durable.schedule_slots t set outcome = 'terminated'
         where v_slot.how = 'terminate' and t.schedule_id = p_id and t.slot_at = v_slot.slot_at;
    end loop;
    for v_slot in
        insert into durable.schedule_slots as t (schedule_id, slot_at, origin, overlap, decision, reason, kind, target_shard, target, decided_at)
        select p_id, durable.from_us(d.us), d.origin, d.overlap, d.decision, d.reason,
               case when d.decision = 'started' then v_it.action ->> 'kind' end, case when d.decision = 'started' then d.shard end,
               case when d.decision = 'started' then d.target end, v_now
          from unnest(s_slot, s_origin, s_decision, s_reason, s_overlap, s_target, s_shard) as d(us, origin, decision, reason, overlap, target, shard)
         order by d.us
        on conflict (schedule_id, slot_at) do update set decision = excluded.decision, reason = excluded.reason, kind = excluded.kind,
               target_shard = excluded.target_shard, target = excluded.target, decided_at = excluded.decided_at
         where t.decision in ('pending', 'buffered')
        returning t.*
    loop
        if v_slot.decision = 'started' then
            pushes := pushes || durable.start_slot(v_it.action, v_it.input, v_slot.target_shard, v_slot.target, p_id, durable.to_us(v_slot.slot_at));
        end if;
    end loop;
    update durable.schedules s set cursor_at = durable.from_us(p_cursor), next_at = durable.from_us(p_next),
           before = coalesce((select jsonb_agg(b order by b -> 'until_us') from jsonb_array_elements(s.before) b
                               where (b ->> 'until_us')::bigint > p_cursor), '[]'),
           paused = s.paused or p_pause_note is not null, note = coalesce(p_pause_note, s.note)
     where s.schedule_id = p_id;
    return next;
end $$;

-- Start what a slot starts. A workflow takes the version that a start by name takes (0006). A run or job that has the slot's id is the slot's: it is made once.
create function durable.start_slot(p_action jsonb, p_input json, p_shard smallint, p_target text, p_schedule text, p_slot_us bigint) returns jsonb
language plpgsql as $$
declare
    v_origin jsonb := jsonb_build_object('schedule', jsonb_build_object('id', p_schedule, 'slot_us', p_slot_us));
    v_version integer;
begin
    if p_action ->> 'kind' = 'workflow' then
        v_version := coalesce(durable.version_to_start(p_action ->> 'name'),
                              (p_action ->> 'version')::int);
        perform durable.start_run(
            p_shard => p_shard, p_run => durable.uuid7(), p_workflow_id => p_target, p_workflow => p_action ->> 'name', p_version => v_version,
            p_queue => p_action ->> 'queue', p_priority => (p_action ->> 'priority')::smallint, p_delay_s => 0,
            p_body => (p_action -> 'body') || jsonb_build_object('workflow_id', p_target, 'version', v_version) || v_origin, p_payload => p_input,
            p_actor => nullif(p_action -> 'actor', 'null'), p_attributes => nullif(p_action -> 'attributes', 'null'),
            p_memo => nullif(p_action -> 'memo', 'null'));
    else
        perform durable.enqueue_jobs(
            j_shard => array[p_shard], j_id => array[p_target::uuid], j_input => array[p_input], p_name => p_action ->> 'name',
            p_queue => p_action ->> 'queue', p_priority => (p_action ->> 'priority')::smallint, p_at_us => null, p_delay_s => 0,
            p_options => (p_action -> 'options') || v_origin, p_tags => null, p_meta => null);
    end if;
    return jsonb_build_array('queue:' || (p_action ->> 'queue'));
end $$;

-- Stop the run or job of an earlier slot. A job that is executing is told to stop; by force, what it does counts no more.
create function durable.stop_slot(p_kind text, p_shard smallint, p_target text, p_how text, p_schedule text) returns jsonb
language plpgsql as $$
declare
    v_now timestamptz := durable.now();
    v_reason text := 'the schedule ' || p_schedule || ' starts anew';
    v_pushes jsonb := '[]';
    v_owner uuid;
begin
    if p_kind = 'workflow' and p_how = 'cancel' then
        select jsonb_build_array(coalesce('worker:' || c.owner, 'queue:' || c.queue)) into v_pushes
          from durable.request_cancel(p_shard, p_target, v_reason) c where c.queue is not null;
    elsif p_kind = 'workflow' then
        select jsonb_agg(case when p #>> '{}' like '%:%' then p #>> '{}' else 'worker:' || (p #>> '{}') end) into v_pushes
          from durable.terminate_run(p_shard, p_target, v_reason) t cross join lateral jsonb_array_elements(coalesce(t.pushes, '[]')) p;
    else
        select j.owner into v_owner from durable.jobs j where j.shard = p_shard and j.run_id = p_target::uuid and j.seq = 0 for update;
        update durable.jobs j set state = 'cancelled', owner = null, finished_at = v_now, deadline_at = null, deadline_kind = null,
               cancel_requested_at = v_now
         where j.shard = p_shard and j.run_id = p_target::uuid and j.seq = 0
           and j.finished_at is null and (p_how = 'terminate' or j.state <> 'executing');
        update durable.jobs j set cancel_requested_at = coalesce(j.cancel_requested_at, v_now)
         where j.shard = p_shard and j.run_id = p_target::uuid and j.seq = 0 and j.state = 'executing';
        v_pushes := case when v_owner is null then '[]' else jsonb_build_array('worker:' || v_owner) end;
    end if;
    return coalesce(v_pushes, '[]');
end $$;


-- RETENTION: how long what is over is kept. Without a row nothing is ever pruned. The most exact rule counts: queue and state, queue, state, neither.
-- kind: run (closed runs with all that belongs to them), job (finished jobs of their own), slot (decided slots of schedules; state: the decision).
-- keep_s null: for ever.
create table durable.retention (
    kind    text    not null check (kind in ('run', 'job', 'slot')),
    queue   text    not null default '*',
    state   text    not null default '*',
    keep_s  double precision check (keep_s >= 0),
    archive boolean not null default false,
    primary key (kind, queue, state)
);

-- What was archived before it was pruned: one document each, the text of every payload as it was.
create table durable.archive (
    shard       smallint    not null,
    record_id   uuid        not null,
    kind        text        not null,
    id          text        not null,
    archived_at timestamptz not null,
    record      json        not null,
    primary key (shard, record_id)
);
create index archive_by_id on durable.archive (shard, id);

create function durable.retention_rules() returns jsonb language sql stable as
$$ select coalesce(jsonb_agg(to_jsonb(t)), '[]') from durable.retention t $$;

create function durable.rule_for(p_rules jsonb, p_kind text, p_queue text, p_state text)
returns table (keep interval, archive boolean, state text) language sql immutable as $$
    select (r ->> 'keep_s')::float8 * interval '1 second', (r ->> 'archive')::boolean, r ->> 'state' from jsonb_array_elements(p_rules) r
     where r ->> 'kind' = p_kind and r ->> 'queue' in (p_queue, '*') and r ->> 'state' in (p_state, '*')
     order by (r ->> 'queue' = '*'), (r ->> 'state' = '*') limit 1
$$;

-- The tables that hold what belongs to a run: all whose rows are named by shard and run_id. They are looked up, so that none is forgotten.
create function durable.tables_of_runs() returns text[] language sql stable as $$
    select array_agg(c.relname::text order by c.relname) from pg_class c
     where c.relnamespace = 'durable'::regnamespace and c.relkind in ('r', 'p') and c.relname not in ('runs', 'jobs')
       and 2 = (select count(*) from pg_attribute a where a.attrelid = c.oid and a.attname in ('shard', 'run_id') and not a.attisdropped)
$$;

-- PRUNE RUNS of one shard: looks at the next p_scan runs after p_after, in the order of their ids (which is about that of their creation), and deletes
-- those whose time has passed, with at most about p_rows events. An open run is never touched; nor is one that an open run of the same
-- workflow id continues, unless a rule names the state `continued`. `last_id`: where to go on; null: this shard has nothing further. With p_worker
-- it is the duty's work, fenced by it. p_rules null: those of the table.
create function durable.prune_runs(p_worker uuid, p_epoch integer, p_shard smallint, p_after uuid, p_scan integer, p_rows integer, p_rules jsonb, p_dry boolean)
returns table (last_id uuid, pruned integer, archived integer)
language plpgsql
set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
    v_now timestamptz := durable.now();
    v_rules jsonb := coalesce(p_rules, durable.retention_rules());
    v_shortest interval;
    v_walked integer;
    v_young boolean;
    v_ids uuid[];
    v_kept uuid[];
    v_table text;
    v_members text;
    v_more boolean;
begin
    if p_worker is not null then
        perform durable.hold_duty(p_worker, 'retention', p_epoch);
    end if;
    pruned := 0; archived := 0;
    select min((r ->> 'keep_s')::float8) * interval '1 second' into v_shortest from jsonb_array_elements(v_rules) r where r ->> 'kind' = 'run';
    if v_shortest is null then
        return next; return;
    end if;
    with walked as materialized (
        select r.run_id, r.workflow_id, r.generation, r.status, r.queue, r.closed_at, r.created_at, r.last_seq from durable.runs r
         where r.shard = p_shard and (p_after is null or r.run_id > p_after) order by r.run_id limit p_scan
    ), due as materialized (
        select w.run_id, u.archive, sum(w.last_seq) over (order by w.run_id) - w.last_seq as before
          from walked w cross join lateral durable.rule_for(v_rules, 'run', w.queue, w.status) u
         where w.status <> 'running' and w.closed_at < v_now - u.keep
           and not exists (select from durable.jobs j where j.shard = p_shard and j.run_id = w.run_id)
           and (w.status <> 'continued' or u.state = 'continued' or not exists (
                select from durable.runs n where n.shard = p_shard and n.workflow_id = w.workflow_id and n.status = 'running' and n.generation > w.generation))
    )
    select (select count(*) from walked), (select min(w.created_at) > v_now - v_shortest from walked w),
           (select array_agg(w.run_id order by w.run_id desc) from walked w)[1],
           (select array_agg(d.run_id order by d.run_id) from due d where d.before < p_rows),
           (select array_agg(d.run_id) from due d where d.before < p_rows and d.archive),
           exists (select from due d where d.before >= p_rows)
      into v_walked, v_young, last_id, v_ids, v_kept, v_more;
    if v_more then  -- not all that is due was taken: go on behind the last one that was
        last_id := v_ids[cardinality(v_ids)];
    elsif v_walked < p_scan or v_young then
        last_id := null;
    end if;
    pruned := coalesce(cardinality(v_ids), 0);
    archived := coalesce(cardinality(v_kept), 0);
    if pruned = 0 or p_dry then
        return next; return;
    end if;
    select array_agg(l.run_id) into v_ids from (
        select r.run_id from durable.runs r where r.shard = p_shard and r.run_id = any (v_ids) and r.status <> 'running' for update skip locked) l;
    pruned := coalesce(cardinality(v_ids), 0);
    if v_kept is not null and v_ids is not null then
        v_kept := array(select unnest(v_kept) intersect select unnest(v_ids));
        archived := cardinality(v_kept);
        select string_agg(format('%L, (select json_agg(t) from durable.%I t where t.shard = r.shard and t.run_id = r.run_id)', n, n), ', ')
          into v_members from unnest(durable.tables_of_runs()) n;
        execute format('insert into durable.archive (shard, record_id, kind, id, archived_at, record)
            select r.shard, r.run_id, ''run'', r.workflow_id, $3, json_build_object(''run'', row_to_json(r), %s)
              from durable.runs r where r.shard = $1 and r.run_id = any ($2) on conflict do nothing', v_members) using p_shard, v_kept, v_now;
    end if;
    foreach v_table in array durable.tables_of_runs() loop
        execute format('delete from durable.%I t where t.shard = $1 and t.run_id = any ($2)', v_table) using p_shard, v_ids;
    end loop;
    delete from durable.runs r where r.shard = p_shard and r.run_id = any (v_ids);
    return next;
end $$;

-- PRUNE JOBS of their own, in the same way, with what late answers and tokens have left.
create function durable.prune_jobs(p_worker uuid, p_epoch integer, p_shard smallint, p_after uuid, p_scan integer, p_rules jsonb, p_dry boolean)
returns table (last_id uuid, pruned integer, archived integer)
language plpgsql
set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
    v_now timestamptz := durable.now();
    v_rules jsonb := coalesce(p_rules, durable.retention_rules());
    v_walked integer;
    v_ids uuid[];
    v_kept uuid[];
    v_table text;
begin
    if p_worker is not null then
        perform durable.hold_duty(p_worker, 'retention', p_epoch);
    end if;
    pruned := 0; archived := 0;
    if not exists (select from jsonb_array_elements(v_rules) r where r ->> 'kind' = 'job') then
        return next; return;
    end if;
    with walked as materialized (
        select j.run_id, j.kind, j.state, j.queue, j.finished_at from durable.jobs j
         where j.shard = p_shard and (p_after is null or j.run_id > p_after) order by j.run_id limit p_scan
    ), due as (
        select w.run_id, u.archive from walked w cross join lateral durable.rule_for(v_rules, 'job', w.queue, w.state) u
         where w.kind = 'job' and w.finished_at < v_now - u.keep
    )
    select (select count(*) from walked), (select array_agg(w.run_id order by w.run_id desc) from walked w)[1],
           (select array_agg(d.run_id) from due d), (select array_agg(d.run_id) from due d where d.archive)
      into v_walked, last_id, v_ids, v_kept;
    if v_walked < p_scan then
        last_id := null;
    end if;
    pruned := coalesce(cardinality(v_ids), 0);
    archived := coalesce(cardinality(v_kept), 0);
    if pruned = 0 or p_dry then
        return next; return;
    end if;
    select array_agg(l.run_id) into v_ids from (
        select j.run_id from durable.jobs j where j.shard = p_shard and j.run_id = any (v_ids) and j.seq = 0 and j.finished_at is not null
           for update skip locked) l;
    pruned := coalesce(cardinality(v_ids), 0);
    insert into durable.archive (shard, record_id, kind, id, archived_at, record)
    select j.shard, j.run_id, 'job', j.run_id::text, v_now, json_build_object('job', row_to_json(j))
      from durable.jobs j where j.shard = p_shard and j.run_id = any (v_kept) and j.run_id = any (v_ids) and j.seq = 0
    on conflict do nothing;
    get diagnostics archived = row_count;
    foreach v_table in array durable.tables_of_runs() loop
        execute format('delete from durable.%I t where t.shard = $1 and t.run_id = any ($2)', v_table) using p_shard, v_ids;
    end loop;
    delete from durable.completions c where c.shard = p_shard and c.run_id = any (v_ids);
    delete from durable.jobs j where j.shard = p_shard and j.run_id = any (v_ids) and j.seq = 0 and j.finished_at is not null;
    return next;
end $$;

-- PRUNE SLOTS that are decided and over. Not those at the cursor: a slot that nobody remembers could be started again by a backfill alone.
create function durable.prune_slots(p_worker uuid, p_epoch integer, p_limit integer, p_rules jsonb, p_dry boolean) returns integer
language plpgsql as $$
declare
    v_now timestamptz := durable.now();
    v_rules jsonb := coalesce(p_rules, durable.retention_rules());
    v_count integer;
begin
    if p_worker is not null then
        perform durable.hold_duty(p_worker, 'retention', p_epoch);
    end if;
    if not exists (select from jsonb_array_elements(v_rules) r where r ->> 'kind' = 'slot') then
        return 0;
    end if;
    with due as (
        select t.schedule_id, t.slot_at from durable.schedule_slots t join durable.schedules s on s.schedule_id = t.schedule_id
         cross join lateral durable.rule_for(v_rules, 'slot', '*', t.decision) u
         where t.slot_at <= s.cursor_at and t.decided_at < v_now - u.keep
           and (t.decision in ('skipped', 'missed') or (t.decision = 'started' and (t.outcome is not null
                or not durable.slot_is_open(t.kind, t.target_shard, t.target))))
         limit p_limit for update of t skip locked
    ), gone as (
        delete from durable.schedule_slots t using due d where not p_dry and t.schedule_id = d.schedule_id and t.slot_at = d.slot_at
    )
    select count(*) into v_count from due;
    return v_count;
end $$;
