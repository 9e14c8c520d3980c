-- Jobs as a product of their own: tags and meta, unique jobs, enqueue in sets, commands on one job, the SQL API and a view.

-- A job holds its unique key while its state is one of `unique_states` (null: until it ends): the index says so itself, hence no transition can forget to release it.
-- Jobs without a key are not in the index. A set of states without `executing` is left for good at the first start: whatever brings such a job back
-- to waiting (retry, snooze, put-back, loss of the worker) takes its key away. Every other permitted set is closed under the transitions that
-- happen by themselves (core/job_life.py), so that no worker's write can run into the index; only a retry by hand can, and says so.
-- Its shard is that of the key, not of the id alone: ids of unique jobs are made so that both agree.
alter table durable.jobs
    add column tags          text[],
    add column meta          jsonb,
    add column unique_key    text,
    add column unique_states text[],
    add column unique_until  timestamptz,
    add constraint jobs_unique_are_standalone check (unique_key is null or kind = 'job');
create function durable.held_key(unique_key text, unique_states text[], state text, finished_at timestamptz) returns text language plpgsql immutable parallel safe as $$
begin
    return case when case when unique_states is null then finished_at is null else state = any (unique_states) end then unique_key end;
end $$;
-- A column of its own, and not a condition on the state: an index that names the state would be touched by every update of every job.
alter table durable.jobs
    add column unique_held text collate "C" generated always as (
        case when unique_key is not null then durable.held_key(unique_key, unique_states, state, finished_at) end) stored;
create unique index jobs_unique on durable.jobs (shard, unique_held) where unique_held is not null;

-- What SQL and the command line need to enqueue by name what they cannot import.
alter table durable.definitions add column options jsonb not null default '{}';

-- The options of a job that has snoozed once more: one more attempt is allowed, and the count tells which attempts did not count.
create function durable.with_snooze(p_options jsonb) returns jsonb language sql immutable as $$
    select p_options || jsonb_build_object('snoozes', coalesce((p_options ->> 'snoozes')::int, 0) + 1) || case
        when (p_options -> 'retry' ->> 'max_attempts')::int = 0 then '{}'::jsonb
        else jsonb_build_object('retry', coalesce(p_options -> 'retry', '{}')
             || jsonb_build_object('max_attempts', coalesce((p_options -> 'retry' ->> 'max_attempts')::int, 5) + 1)) end
$$;

-- The earliest deadline of a new job, and which one it is. Waiting for a worker counts from when it may start.
create function durable.new_job_deadline(p_options jsonb, p_now timestamptz, p_at timestamptz)
returns table (at timestamptz, kind text) language sql immutable as $$
    select d.at, case when d.at is not null then d.kind end from (values
        (p_at + (p_options -> 'timeouts' ->> 'schedule_to_start_s')::float8 * interval '1 second', 'schedule_to_start'),
        (p_now + (p_options -> 'timeouts' ->> 'schedule_to_close_s')::float8 * interval '1 second', 'schedule_to_close'),
        (null::timestamptz, null)) as d(at, kind)
     order by d.at nulls last limit 1
$$;

-- ENQUEUE a set of jobs of one activity. `outcome`: created; existing (this id was enqueued before); conflict (another job holds the unique key: its
-- id is returned); replaced (that one waits, and took over what `u_replace` names for its state). The index decides every race, and
-- whoever loses reads who has won. Keys are taken in the order of the arrays, which must be the same for every set (`part_of_key`), or two would wait for each
-- other. `p_taker`: the worker beside the caller, which has a slot free: what may run now begins as its attempt (`taken_us`), unless the queue has limits (keys are limits) or is paused, or the worker is not alive.
create function durable.enqueue_jobs(
    j_shard smallint[], j_id uuid[], j_input json[], p_name text, p_queue text, p_priority smallint, p_at_us bigint, p_delay_s double precision,
    p_options jsonb, p_tags text[], p_meta jsonb, u_key text[] default '{}', u_states text[] default null, u_period_s double precision default null,
    u_replace jsonb default null, p_taker uuid default null, p_now timestamptz default null)
returns table (ix integer, job_id uuid, state text, outcome text, taken_us bigint)
language plpgsql
set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set plan_cache_mode = force_generic_plan
as $$
declare
    v_now timestamptz := coalesce(p_now, durable.now());
    v_at timestamptz := greatest(v_now, coalesce(durable.from_us(p_at_us), v_now + p_delay_s * interval '1 second', v_now));
    v_state text := case when v_at > v_now then 'scheduled' else 'available' end;
    v_unfinished text[] := '{scheduled,available,executing,retryable,waiting}';
    v_hold text[] := case when u_states @> v_unfinished and u_states <@ v_unfinished then null else u_states end;
    v_deadline_at timestamptz;
    v_deadline_kind text;
    v_taker uuid;
    v_count integer;
    v_left integer[];
    v_ids uuid[];
    v_states text[];
    v_outcomes text[];
    v_replaced uuid[] := '{}';
begin
    if p_taker is not null and v_state = 'available' and u_key[1] is null and durable.is_alive(p_taker)
       and not exists (select from durable.queues q where q.name = p_queue and q.special) then
        v_taker := p_taker; v_state := 'executing';
    end if;
    if p_options ? 'timeouts' then
        if v_taker is null then
            select d.at, d.kind into v_deadline_at, v_deadline_kind from durable.new_job_deadline(p_options, v_now, v_at) d;
        else
            select d.at, d.kind into v_deadline_at, v_deadline_kind from durable.execution_deadline(p_options, v_now, v_now) d;
        end if;
    end if;
    for v_try in 1..20 loop
        insert into durable.jobs (shard, run_id, seq, kind, name, queue, priority, state, owner, attempt, scheduled_at, deadline_at, deadline_kind,
                                  input, options, created_at, tags, meta, unique_key, unique_states, unique_until)
        select j.shard, j.id, 0, 'job', p_name, p_queue, p_priority, v_state, v_taker, case when v_taker is null then 0 else 1 end,
               v_at, v_deadline_at, v_deadline_kind, j.input, p_options, v_now, p_tags, p_meta, j.key, case when j.key is not null then v_hold end,
               case when j.key is not null then v_now + u_period_s * interval '1 second' end
          from unnest(j_shard, j_id, j_input, u_key) with ordinality as j(shard, id, input, key, ix)
         where v_left is null or j.ix = any (v_left)
         order by j.ix
        on conflict do nothing;
        get diagnostics v_count = row_count;
        if v_left is null and v_count = cardinality(j_id) then
            return query select j.ix::int, j.id, v_state, 'created', case when v_taker is not null then durable.to_us(v_now) end
                           from unnest(j_id) with ordinality as j(id, ix);
            return;
        end if;
        update durable.jobs j set unique_key = null from unnest(j_shard, u_key) as u(shard, key)
         where j.shard = u.shard and j.unique_held = u.key and j.unique_until <= v_now;
        if u_replace is not null then
            v_replaced := v_replaced || durable.replace_jobs(j_shard, j_id, j_input, p_queue, p_priority, v_now, v_at, p_options,
                                                            p_tags, p_meta, u_key, u_replace);
        end if;
        select array_agg(coalesce(o.run_id, h.run_id) order by j.ix), array_agg(coalesce(o.state, h.state) order by j.ix),
               array_agg(case when o.created_at = v_now then 'created' when o.run_id is not null then 'existing'
                              when h.run_id = any (v_replaced) then 'replaced' else 'conflict' end order by j.ix),
               array_agg(j.ix::int) filter (where o.run_id is null and h.run_id is null)
          into v_ids, v_states, v_outcomes, v_left
          from unnest(j_shard, j_id, u_key) with ordinality as j(shard, id, key, ix)
          left join durable.jobs o on o.shard = j.shard and o.run_id = j.id and o.seq = 0
          left join durable.jobs h on o.run_id is null and h.shard = j.shard and h.unique_held = j.key;
        if v_left is null then
            return query select r.ix::int, r.id, r.state, r.outcome, null::bigint
                           from unnest(v_ids, v_states, v_outcomes) with ordinality as r(id, state, outcome, ix);
            return;
        end if;
    end loop;
    raise exception 'the unique keys of % jobs are being taken and released too often at once', cardinality(v_left) using errcode = 'DU013';
end $$;

-- A waiting job takes over what the one that met its unique key has brought: `p_replace` names the fields for each state. The last of a set wins.
create function durable.replace_jobs(
    j_shard smallint[], j_id uuid[], j_input json[], p_queue text, p_priority smallint, p_now timestamptz, p_at timestamptz,
    p_options jsonb, p_tags text[], p_meta jsonb, u_key text[], p_replace jsonb)
returns uuid[] language plpgsql
set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
    v_replaced uuid[];
begin
    with last as materialized (
        select l.* from (
            select distinct on (j.key) j.shard, j.id, j.input, j.key, j.ix
              from unnest(j_shard, j_id, j_input, u_key) with ordinality as j(shard, id, input, key, ix)
             where j.key is not null order by j.key, j.ix desc) l
         order by l.ix
    ), done as (
        update durable.jobs h
           set input        = case when f.names ? 'arguments' then l.input else h.input end,
               queue        = case when f.names ? 'queue' then p_queue else h.queue end,
               priority     = case when f.names ? 'priority' then p_priority else h.priority end,
               tags         = case when f.names ? 'tags' then p_tags else h.tags end,
               meta         = case when f.names ? 'meta' then p_meta else h.meta end,
               options      = case when f.names ? 'options' then p_options else h.options end,
               scheduled_at = case when f.names ? 'scheduled_at' then p_at else h.scheduled_at end,
               state        = case when not f.names ? 'scheduled_at' or h.state = 'retryable' then h.state
                                   when p_at > p_now then 'scheduled' else 'available' end,
               deadline_at   = case when f.names ?| '{options,scheduled_at}' then d.at else h.deadline_at end,
               deadline_kind = case when f.names ?| '{options,scheduled_at}' then d.kind else h.deadline_kind end
          from last l
         cross join lateral (select t.state, t.options, t.created_at from durable.jobs t
                              where t.shard = l.shard and t.unique_held = l.key
                                and t.run_id <> l.id for update) t
         cross join lateral (select coalesce(p_replace -> t.state, '[]') as names) f
         cross join lateral durable.new_job_deadline(case when f.names ? 'options' then p_options else t.options end, t.created_at, p_at) d
         where h.shard = l.shard and h.unique_held = l.key and h.run_id <> l.id
           and h.state = t.state and h.state in ('scheduled', 'available', 'retryable') and f.names <> '[]'
        returning h.run_id
    )
    select coalesce(array_agg(d.run_id), '{}') into v_replaced from done d;
    return v_replaced;
end $$;

-- The order in which the keys of a set are taken: the same for every set. Half of the keys come first (one bit of a hash says which), then half of the
-- others, and so on, each part by shard: neighbours fall on one page, and the end of the set lies over all shards nevertheless (see durable/store/bulk.py).
create function durable.part_of_key(key text) returns bigint language sql immutable parallel safe as $$
    select hashtext(key)::bigint & -hashtext(key)::bigint
$$;

-- The same from rows that were copied into a temporary table: one statement's worth of unique jobs, however many. Answers what was not created,
-- and in a last row (ix null) how many were. All of them are of one moment: the jobs of a serial key are in the order of their ids then, whatever the order of their
-- unique keys.
create function durable.enqueue_staged(
    p_name text, p_queue text, p_priority smallint, p_at_us bigint, p_delay_s double precision, p_options jsonb, p_tags text[], p_meta jsonb,
    u_states text[], u_period_s double precision, u_replace jsonb, p_each integer default 2000)
returns table (ix integer, job_id uuid, state text, outcome text, made bigint)
language plpgsql as $$
declare
    v_now timestamptz := durable.now();
    v_set record;
    v_made bigint := 0;
    v_row record;
begin
    for v_set in
        select array_agg(c.shard order by c.nr) as shards, array_agg(c.id order by c.nr) as ids, array_agg(c.input order by c.nr) as inputs,
               array_agg(c.key order by c.nr) as keys, array_agg(c.ix order by c.nr) as places
          from (select s.*, row_number() over (order by durable.part_of_key(s.key), s.shard, s.key, s.ix) - 1 as nr from pg_temp.durable_staged s) c
         group by c.nr / p_each order by c.nr / p_each
    loop
        for v_row in
            select e.* from durable.enqueue_jobs(v_set.shards, v_set.ids, v_set.inputs, p_name, p_queue, p_priority, p_at_us, p_delay_s, p_options,
                                                 p_tags, p_meta, v_set.keys, u_states, u_period_s, u_replace, p_now => v_now) e
        loop
            if v_row.outcome = 'created' then
                v_made := v_made + 1;
            else
                ix := v_set.places[v_row.ix]; job_id := v_row.job_id; state := v_row.state; outcome := v_row.outcome;
                return next;
            end if;
        end loop;
    end loop;
    ix := null; job_id := null; state := null; outcome := null; made := v_made;
    return next;
end $$;

-- Each command on a job, accepted or refused; one that was sent again is not written twice.
create function durable.log_job_command(p_shard smallint, p_job uuid, p_command uuid, p_action text, p_code text, p_reason text, p_actor jsonb,
                                        p_batch uuid default null, p_before jsonb default null, p_after jsonb default null)
returns void language sql as $$
    insert into durable.operator_commands (shard, run_id, command_id, workflow_id, subject, action, accepted, reason, refusal, actor, at, code, batch_id, before, after)
    values (p_shard, p_job, p_command, p_job::text, 'job', p_action, p_code = 'accepted', p_reason, nullif(p_code, 'accepted'), p_actor, durable.now(), p_code,
            p_batch, p_before, case when p_code = 'accepted' then p_after end)
    on conflict do nothing
$$;

-- CANCEL a job: one that waits is over now, one that executes is told to stop (its outcome decides), one that has ended stays as it is.
create function durable.cancel_job(p_shard smallint, p_job uuid, p_reason text, p_actor jsonb default null, p_command uuid default gen_random_uuid(),
                                   p_batch uuid default null)
returns table (status text, state text, queue text, owner uuid) language plpgsql as $$
declare
    v_now timestamptz := durable.now();
    v_job durable.jobs;
begin
    select j.* into v_job from durable.jobs j where j.shard = p_shard and j.run_id = p_job and j.seq = 0 for update;
    if not found then
        perform durable.log_stray('job', p_job::text, p_command, 'cancel_job', 'unknown_job', p_reason, p_actor);
        status := 'unknown'; return next; return;
    end if;
    queue := v_job.queue; owner := v_job.owner; state := v_job.state;
    select case when o.code = 'already_requested' then o.code when not o.accepted then 'ended' when v_job.state = 'executing' then 'requested' else 'cancelled' end into status
      from durable.operator_commands o where o.shard = p_shard and o.run_id = p_job and o.command_id = p_command;
    if found then  -- the answer was lost and the same client asks again
        return next; return;
    end if;
    if v_job.finished_at is not null then
        status := 'ended';
    elsif v_job.state = 'executing' then
        status := case when v_job.cancel_requested_at is null then 'requested' else 'already_requested' end;
        update durable.jobs j set cancel_requested_at = v_now, note = jsonb_build_object('kind', 'cancel_requested', 'reason', p_reason)
         where j.shard = p_shard and j.run_id = p_job and j.seq = 0 and j.cancel_requested_at is null;
    else
        status := 'cancelled'; state := 'cancelled';
        update durable.jobs j
           set state = 'cancelled', finished_at = v_now, cancel_requested_at = v_now, deadline_at = null, deadline_kind = null,
               errors = coalesce(j.errors, '[]') || jsonb_build_object('attempt', j.attempt, 'at', v_now, 'failure', durable.cancel_failure(p_reason))
         where j.shard = p_shard and j.run_id = p_job and j.seq = 0;
    end if;
    perform durable.log_job_command(p_shard, p_job, p_command, 'cancel_job', case status when 'ended' then 'job_ended' when 'already_requested' then status
                                    else 'accepted' end, p_reason, p_actor, p_batch, jsonb_build_object('state', v_job.state), jsonb_build_object('state', state));
    return next;
end $$;

create function durable.cancel_failure(p_reason text) returns jsonb language sql immutable as $$
    select jsonb_build_object('type', 'durable.job_errors:JobCancelled', 'message', coalesce(p_reason, 'no reason was given'),
                              'args', jsonb_build_array(coalesce(p_reason, 'no reason was given')))
$$;

-- RETRY a job by hand: one that has ended, or waits for its time, may run now; at least one more attempt is allowed, and the time limit for all
-- attempts together no longer holds. Status: available | executing (nothing to do) | conflict (its unique key is another job's by now).
create function durable.retry_job(p_shard smallint, p_job uuid, p_actor jsonb default null, p_command uuid default gen_random_uuid(),
                                  p_reason text default null, p_batch uuid default null)
returns table (status text, queue text) language plpgsql as $$
declare
    v_now timestamptz := durable.now();
    v_job durable.jobs;
    v_options jsonb;
begin
    select j.* into v_job from durable.jobs j where j.shard = p_shard and j.run_id = p_job and j.seq = 0 for update;
    if not found then
        perform durable.log_stray('job', p_job::text, p_command, 'retry_job', 'unknown_job', p_reason, p_actor);
        status := 'unknown'; return next; return;
    end if;
    queue := v_job.queue; status := 'available';
    if exists (select from durable.operator_commands o where o.shard = p_shard and o.run_id = p_job and o.command_id = p_command and o.accepted) then
        return next; return;  -- the answer was lost and the same client asks again
    elsif v_job.state = 'available' then
        perform durable.log_job_command(p_shard, p_job, p_command, 'retry_job', 'unchanged', p_reason, p_actor, p_batch, jsonb_build_object('state', v_job.state));
        return next; return;
    end if;
    v_options := v_job.options #- '{timeouts,schedule_to_close_s}';
    if coalesce((v_options -> 'retry' ->> 'max_attempts')::int, 5) between 1 and v_job.attempt then
        v_options := v_options || jsonb_build_object('retry', coalesce(v_options -> 'retry', '{}') || jsonb_build_object('max_attempts', v_job.attempt + 1));
    end if;
    if v_job.state = 'executing' then
        status := 'executing';
    else
        begin
            update durable.jobs j set state = 'available', scheduled_at = v_now, finished_at = null, result = null, cancel_requested_at = null,
                   options = v_options, note = null, (deadline_at, deadline_kind) = (select d.at, d.kind from durable.new_job_deadline(v_options, v_now, v_now) d)
             where j.shard = p_shard and j.run_id = p_job and j.seq = 0;
        exception when unique_violation then
            status := 'conflict';
        end;
    end if;
    perform durable.log_job_command(p_shard, p_job, p_command, 'retry_job', case status when 'available' then 'accepted' when 'executing' then 'job_executing'
                                    else 'unique_key_taken' end, p_reason, p_actor, p_batch, jsonb_build_object('state', v_job.state),
                                    jsonb_build_object('state', status));
    return next;
end $$;

-- DELETE a job that does not execute. Status: deleted | executing | unknown.
create function durable.delete_job(p_shard smallint, p_job uuid, p_actor jsonb default null, p_command uuid default gen_random_uuid(),
                                   p_reason text default null, p_batch uuid default null)
returns text language plpgsql as $$
declare
    v_state text;
begin
    select j.state into v_state from durable.jobs j where j.shard = p_shard and j.run_id = p_job and j.seq = 0 for update;
    if not found then
        if exists (select from durable.operator_commands o where o.shard = p_shard and o.run_id = p_job and o.command_id = p_command and o.accepted) then
            return 'deleted';
        end if;
        perform durable.log_stray('job', p_job::text, p_command, 'delete_job', 'unknown_job', p_reason, p_actor);
        return 'unknown';
    end if;
    if v_state <> 'executing' then
        delete from durable.jobs j where j.shard = p_shard and j.run_id = p_job and j.seq = 0;
    end if;
    perform durable.log_job_command(p_shard, p_job, p_command, 'delete_job', case when v_state = 'executing' then 'job_executing' else 'accepted' end, p_reason,
                                    p_actor, p_batch, jsonb_build_object('state', v_state));
    return case when v_state = 'executing' then 'executing' else 'deleted' end;
end $$;

-- The SQL API: enqueue an activity that some worker has registered, from psql, a trigger or any language, inside any transaction. With a
-- `unique_key` the job is enqueued unless one with that key waits or executes; the answer is the id of whichever there is then.
create function durable.enqueue(activity text, args json default '{}', queue text default null, priority integer default null,
                                run_at timestamptz default null, tags text[] default null, meta jsonb default null, unique_key text default null)
returns uuid language plpgsql as $$
declare
    v_known durable.definitions;
    v_queue text;
    v_id uuid := durable.uuid7();
    v_key text := enqueue.activity || ':' || enqueue.unique_key;
    v_made record;
begin
    select d.* into v_known from durable.definitions d where d.kind = 'activity' and d.name = enqueue.activity order by d.version desc limit 1;
    if not found then
        raise exception 'no worker has registered an activity named %', activity
            using errcode = 'DU014', hint = 'start a worker with the module that defines it, then try again';
    end if;
    if v_known.options ? 'unique' and v_key is null then
        raise exception 'jobs of % are unique, and what makes them so is known to Python alone', activity
            using errcode = 'DU015', hint = 'say which jobs are the same: unique_key => ...';
    end if;
    if json_typeof(args) <> 'object' then
        raise exception 'the arguments of % are not a JSON object by parameter name', activity using errcode = 'DU015';
    end if;
    v_queue := coalesce(enqueue.queue, v_known.queue, 'default');
    while v_key is not null and durable.shard_of(v_id::text) <> durable.shard_of(v_key) loop
        v_id := durable.uuid7();
    end loop;
    select * into v_made from durable.enqueue_jobs(
        array[durable.shard_of(v_id::text)], array[v_id], array[args], activity, v_queue,
        coalesce(enqueue.priority, (v_known.options ->> 'priority')::int, 0)::smallint, durable.to_us(run_at), 0,
        v_known.options - 'priority' - 'unique', enqueue.tags, enqueue.meta, array[v_key],
        coalesce((select array_agg(s.name) from jsonb_array_elements_text(v_known.options #> '{unique,states}') as s(name)),
                 '{scheduled,available,executing,retryable,waiting}'), (v_known.options #>> '{unique,period_s}')::float8);
    if v_made.outcome = 'created' then
        perform pg_notify('durable', 'jobs:' || v_queue);
    end if;
    return v_made.job_id;
end $$;

-- A documented, stable view for reading.
create view durable.job_list as
select j.run_id as job_id, j.name as activity, j.queue, j.priority, j.state, j.attempt - coalesce((j.options ->> 'snoozes')::int, 0) as attempt,
       coalesce((j.options ->> 'snoozes')::int, 0) as snoozes, j.tags, j.meta, j.unique_key, j.created_at, j.scheduled_at, j.finished_at,
       j.cancel_requested_at, j.owner, j.errors, j.input, j.result, j.options, j.note, j.shard
  from durable.jobs j where j.kind = 'job';

-- GROUPS. Jobs that belong together, and the jobs that their progress enqueues: first_failure, first_cancelled, first_retryable, all_attempted, all_done,
-- all_succeeded, each at most once, in the transaction that records the outcome which brings it about. The row's lock puts concurrent outcomes in order, so that exactly one of them
-- is the last. `callbacks` is json and not jsonb, because the arguments in it are the author's. A chain is a row of groups of one.
create table durable.job_groups (
    shard       smallint    not null,
    group_id    uuid        not null,
    name        text,
    total       integer     not null,
    open        integer     not null,
    completed   integer     not null default 0,
    discarded   integer     not null default 0,
    cancelled   integer     not null default 0,
    attempted   integer     not null default 0,  -- whose first attempt has ended, or that ended without one
    retried     boolean     not null default false,
    callbacks   json        not null default '{}',
    fired       text[]      not null default '{}',
    created_at  timestamptz not null,
    finished_at timestamptz,
    primary key (shard, group_id),
    constraint job_groups_add_up check (total = open + completed + discarded + cancelled and open >= 0)
) with (fillfactor = 50);
alter table durable.jobs add column group_id uuid;

-- A job from a callback or a chain. Its id was made beforehand, so it is made once. `p_told`: what it is a callback of (`activity_info().callback`).
create function durable.enqueue_described(p_job json, p_id uuid, p_told jsonb) returns void language plpgsql as $$
declare
    v_now timestamptz := durable.now();
    v_options jsonb := (p_job ->> 'options')::jsonb || case when p_told is null then '{}' else jsonb_build_object('callback', p_told) end;
begin
    insert into durable.jobs (shard, run_id, seq, kind, name, queue, priority, state, scheduled_at, deadline_at, deadline_kind, input, options, created_at, group_id)
    select durable.shard_of(p_id::text), p_id, 0, 'job', p_job ->> 'name', p_job ->> 'queue', (p_job ->> 'priority')::smallint,
           'available', v_now, d.at, d.kind, p_job -> 'input', v_options, v_now, (p_job ->> 'group_id')::uuid
      from durable.new_job_deadline(v_options, v_now, v_now) d
    on conflict do nothing;
    if found then
        perform pg_notify('durable', 'jobs:' || (p_job ->> 'queue'));
    end if;
end $$;

-- Enqueue what a group's numbers say now and have not said before.
create function durable.fire_group(p_shard smallint, p_group uuid) returns void language plpgsql as $$
declare
    v_group durable.job_groups;
    v_event text;
begin
    select g.* into v_group from durable.job_groups g where g.shard = p_shard and g.group_id = p_group;
    foreach v_event in array array_remove(array[
        case when v_group.discarded > 0 then 'first_failure' end, case when v_group.cancelled > 0 then 'first_cancelled' end,
        case when v_group.retried then 'first_retryable' end, case when v_group.attempted >= v_group.total then 'all_attempted' end,
        case when v_group.open = 0 then 'all_done' end, case when v_group.open = 0 and v_group.completed = v_group.total then 'all_succeeded' end], null)
    loop
        if v_event <> all (v_group.fired) then
            update durable.job_groups g set fired = g.fired || v_event where g.shard = p_shard and g.group_id = p_group;
            if v_group.callbacks -> v_event is not null then
                perform durable.enqueue_described(v_group.callbacks -> v_event, (v_group.callbacks -> v_event ->> 'job_id')::uuid,
                    jsonb_build_object('version', 1, 'event', 'group.' || v_event, 'group_id', p_group, 'name', v_group.name, 'total', v_group.total,
                        'open', v_group.open, 'completed', v_group.completed, 'discarded', v_group.discarded, 'cancelled', v_group.cancelled));
            end if;
        end if;
    end loop;
end $$;

-- Whether a job's first attempt is over, or none will come: it has ended without one.
create function durable.was_attempted(j durable.jobs) returns boolean language sql immutable as $$
    select j.finished_at is not null or (j.attempt > 0 and not (j.attempt = 1 and j.state in ('executing', 'waiting')))
$$;

-- A trigger, against the rule that hot tables have none: it can be forgotten by no function that ends a job, now or later, and its condition is
-- false for every job without a group, so that those never call it.
create function durable.count_in_group() returns trigger language plpgsql as $$
declare
    v_shard smallint := durable.shard_of(old.group_id::text);
    v_ends text := case when tg_op = 'DELETE' then 'cancelled' when new.finished_at is not null then new.state else old.state end;
    v_by integer := case when tg_op = 'DELETE' then 1 when (old.finished_at is null) = (new.finished_at is null) then 0
                         when new.finished_at is not null then 1 else -1 end;
    v_attempted integer := case when tg_op = 'DELETE' then (not durable.was_attempted(old))::int
                                else durable.was_attempted(new)::int - durable.was_attempted(old)::int end;
    v_retried boolean := tg_op = 'UPDATE' and new.state = 'retryable' and old.state <> 'retryable';
begin
    if v_by = 0 and v_attempted = 0 and not v_retried then
        return null;
    end if;
    update durable.job_groups g
       set open = g.open - v_by, completed = g.completed + case v_ends when 'completed' then v_by else 0 end,
           discarded = g.discarded + case v_ends when 'discarded' then v_by else 0 end,
           cancelled = g.cancelled + case v_ends when 'cancelled' then v_by else 0 end,
           attempted = g.attempted + v_attempted, retried = g.retried or v_retried,
           finished_at = case when g.open = v_by then coalesce(g.finished_at, durable.now()) end
     where g.shard = v_shard and g.group_id = old.group_id;
    perform durable.fire_group(v_shard, old.group_id);
    return null;
end $$;
create trigger jobs_count_in_group after update on durable.jobs for each row
    when (old.group_id is not null and old.state <> new.state) execute function durable.count_in_group();
create trigger jobs_leave_group after delete on durable.jobs for each row
    when (old.group_id is not null and old.finished_at is null) execute function durable.count_in_group();

-- The numbers of a new group, once its jobs are there; one without jobs is done.
create function durable.open_group(p_group uuid, p_name text, p_total integer, p_callbacks json) returns void language plpgsql as $$
declare
    v_shard smallint := durable.shard_of(p_group::text);
begin
    insert into durable.job_groups (shard, group_id, name, total, open, callbacks, created_at, finished_at)
    values (v_shard, p_group, p_name, p_total, p_total, p_callbacks, durable.now(), case when p_total = 0 then durable.now() end);
    perform durable.fire_group(v_shard, p_group);
end $$;

-- A chain: each job enqueues the next one when it has completed, in the same transaction.
create function durable.enqueue_chain(p_jobs json) returns boolean language plpgsql as $$
begin
    for v_at in 0 .. json_array_length(p_jobs) - 2 loop
        if not exists (select from durable.job_groups g where g.shard = durable.shard_of(p_jobs -> v_at ->> 'group_id')
                          and g.group_id = (p_jobs -> v_at ->> 'group_id')::uuid) then  -- else the answer was lost and the same client asks again
            perform durable.open_group((p_jobs -> v_at ->> 'group_id')::uuid, 'chain', 1, json_build_object('all_succeeded', p_jobs -> (v_at + 1)));
        end if;
    end loop;
    perform durable.enqueue_described(p_jobs -> 0, (p_jobs -> 0 ->> 'job_id')::uuid, null);
    return true;
end $$;

-- COMMANDS on waiting jobs, and on all jobs that pass a filter.

-- What a command may have changed of a job, as the log shows it. The arguments are told by a digest: they may be large, or sealed.
create function durable.editable(j durable.jobs) returns jsonb language sql stable as $$
    select jsonb_build_object('state', j.state, 'queue', j.queue, 'priority', j.priority, 'scheduled_at', j.scheduled_at, 'tags', j.tags, 'meta', j.meta,
                              'arguments', md5(j.input::text))
$$;

-- EDIT a job that waits: `p_changes` names what changes (priority, queue, tags, meta, and at_us or delay_s: when it may run), `p_input` are other arguments.
-- Status: edited | ended | executing | waiting (for its completion from elsewhere) | unique_arguments (its unique key was made of the arguments) | keyed_queue (its
-- serial or partition key belongs to its queue) | unknown.
create function durable.edit_job(p_shard smallint, p_job uuid, p_changes jsonb, p_input json default null, p_reason text default null, p_actor jsonb default null,
                                 p_command uuid default gen_random_uuid(), p_batch uuid default null)
returns table (status text, state text, queue text) language plpgsql as $$
declare
    v_now timestamptz := durable.now();
    v_job durable.jobs;
    v_new durable.jobs;
    v_at timestamptz;
begin
    select j.* into v_job from durable.jobs j where j.shard = p_shard and j.run_id = p_job and j.seq = 0 for update;
    if not found then
        perform durable.log_stray('job', p_job::text, p_command, 'edit_job', 'unknown_job', p_reason, p_actor);
        status := 'unknown'; return next; return;
    end if;
    state := v_job.state; queue := v_job.queue;
    if exists (select from durable.operator_commands o where o.shard = p_shard and o.run_id = p_job and o.command_id = p_command and o.accepted) then
        status := 'edited'; return next; return;  -- the answer was lost and the same client asks again
    end if;
    status := case when v_job.finished_at is not null then 'ended' when v_job.state in ('executing', 'waiting') then v_job.state
                   when p_input is not null and v_job.unique_key is not null then 'unique_arguments'
                   when p_changes ? 'queue' and v_job.limit_key is not null and p_changes ->> 'queue' <> v_job.queue then 'keyed_queue' else 'edited' end;
    if status = 'edited' then
        v_at := greatest(v_now, coalesce(durable.from_us((p_changes ->> 'at_us')::bigint), v_now + (p_changes ->> 'delay_s')::float8 * interval '1 second'));
        if not (p_changes ?| '{at_us,delay_s}') then v_at := null; end if;
        update durable.jobs j
           set queue = coalesce(p_changes ->> 'queue', j.queue), priority = coalesce((p_changes ->> 'priority')::smallint, j.priority),
               tags = case when p_changes ? 'tags' then array(select jsonb_array_elements_text(p_changes -> 'tags')) else j.tags end,
               meta = case when p_changes ? 'meta' then p_changes -> 'meta' else j.meta end, input = coalesce(p_input, j.input),
               scheduled_at = coalesce(v_at, j.scheduled_at),
               state = case when v_at is null or j.state = 'retryable' then j.state when v_at > v_now then 'scheduled' else 'available' end,
               deadline_at = case when v_at is null or j.state = 'retryable' then j.deadline_at else d.at end,
               deadline_kind = case when v_at is null or j.state = 'retryable' then j.deadline_kind else d.kind end
          from durable.new_job_deadline(v_job.options, v_job.created_at, coalesce(v_at, v_job.scheduled_at)) d
         where j.shard = p_shard and j.run_id = p_job and j.seq = 0
        returning j.* into v_new;
        state := v_new.state; queue := v_new.queue;
    end if;
    perform durable.log_job_command(p_shard, p_job, p_command, 'edit_job', case status when 'edited' then 'accepted' when 'unique_arguments' then status
                                    when 'keyed_queue' then status else 'job_' || status end, p_reason, p_actor, p_batch,
                                    durable.editable(v_job), case when status = 'edited' then durable.editable(v_new) end);
    return next;
end $$;

-- Whether a job passes every given condition.
create function durable.job_matches(j durable.jobs, p_filter jsonb) returns boolean language sql stable as $$
    select (p_filter -> 'state' is null or (p_filter -> 'state') ? j.state)
       and (p_filter ->> 'activity' is null or j.name = p_filter ->> 'activity')
       and (p_filter ->> 'queue' is null or j.queue = p_filter ->> 'queue')
       and (p_filter -> 'tags' is null or to_jsonb(j.tags) @> (p_filter -> 'tags'))
       and (p_filter -> 'meta' is null or j.meta @> (p_filter -> 'meta'))
       and (p_filter -> 'arguments' is null or j.input::jsonb @> (p_filter -> 'arguments'))
       and (p_filter -> 'group' is null or j.group_id = (p_filter ->> 'group')::uuid)
$$;

create function durable.count_jobs(p_filter jsonb) returns integer language sql stable as $$
    select count(*)::int from unnest(durable.shard_keys()) as k(key) join durable.jobs j on j.shard = k.key
     where j.kind = 'job' and durable.job_matches(j, p_filter)
$$;

-- One pass of a batch over jobs: the next `p_limit`, newest first, of those that were there when it began; each with its row in the log of commands. The pass and
-- how far it came are one transaction, so that who goes on with a batch after a crash does nothing twice. A pass that met a worker's commit in the
-- other order is made again.
create function durable.act_on_jobs(p_batch uuid, p_limit integer) returns table (ended boolean, wake text[])
language plpgsql
set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
    v_batch durable.batches;
    v_next record;
    v_done record;
    v_seen integer;
    v_reached uuid;
begin
    for v_try in 1..5 loop
        begin
            select b.* into v_batch from durable.batches b where b.batch_id = p_batch for update;
            v_seen := 0; wake := '{}'; v_reached := v_batch.reached; ended := v_batch.finished_at is not null;
            exit when ended;
            for v_next in
                select c.shard, c.run_id from unnest(durable.shard_keys()) as k(key)
                 cross join lateral (
                        select j.shard, j.run_id from durable.jobs j
                         where j.shard = k.key and j.run_id <= v_batch.bound and (v_batch.reached is null or j.run_id < v_batch.reached)
                           and j.kind = 'job' and j.created_at <= v_batch.created_at and durable.job_matches(j, v_batch.filter)
                         order by j.run_id desc limit p_limit) c
                 order by c.run_id desc limit p_limit
            loop
                v_seen := v_seen + 1; v_reached := v_next.run_id;
                if v_batch.action = 'cancel_jobs' then
                    select 'worker:' || s.owner as hint into v_done
                      from durable.cancel_job(v_next.shard, v_next.run_id, v_batch.reason, v_batch.actor, gen_random_uuid(), p_batch) s;
                elsif v_batch.action = 'retry_jobs' then
                    select 'jobs:' || s.queue as hint into v_done
                      from durable.retry_job(v_next.shard, v_next.run_id, v_batch.actor, gen_random_uuid(), v_batch.reason, p_batch) s;
                elsif v_batch.action = 'delete_jobs' then
                    select null::text as hint into v_done
                      from durable.delete_job(v_next.shard, v_next.run_id, v_batch.actor, gen_random_uuid(), v_batch.reason, p_batch);
                else
                    select 'jobs:' || s.queue as hint into v_done
                      from durable.edit_job(v_next.shard, v_next.run_id, v_batch.options, null, v_batch.reason, v_batch.actor, gen_random_uuid(), p_batch) s;
                end if;
                if v_done.hint <> all (wake) then wake := wake || v_done.hint; end if;
            end loop;
            ended := v_seen < p_limit;
            update durable.batches b set reached = v_reached, finished_at = case when ended then durable.now() end where b.batch_id = p_batch;
            exit;
        exception when deadlock_detected then
            if v_try = 5 then raise; end if;
        end;
    end loop;
    return next;
end $$;
