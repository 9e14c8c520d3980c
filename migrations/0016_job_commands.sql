-- Commands on waiting jobs, and on all jobs that pass a filter.

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
