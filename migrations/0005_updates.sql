-- Queries and updates (C14). An update travels as a message to its run; this table is what its requester waits at, and what a second request of its id
-- finds. The history has those that were accepted, and nothing of the others. A query leaves nothing but a row that its asker takes away.

-- status: requested (a message is under way), accepted, completed, failed (the handler raised), rejected (nothing is in the history), aborted (the run
-- closed first: before it was accepted if `accepted_at` is null). An id is good for one workflow id and the runs that continue each other.
create table durable.updates (
    shard        smallint    not null,
    workflow_id  text        not null,
    update_id    text        not null,
    generation   integer     not null,
    run_id       uuid        not null,
    request_id   uuid        not null,
    name         text        not null,
    status       text        not null,
    reason       text,
    result       json,
    failure      jsonb,
    actor        jsonb,
    seq          integer,
    requested_at timestamptz not null,
    accepted_at  timestamptz,
    ended_at     timestamptz,
    primary key (shard, workflow_id, update_id, generation),
    constraint updates_status_known check (status in ('requested', 'accepted', 'completed', 'failed', 'rejected', 'aborted')),
    constraint updates_ended_has_time check ((status in ('requested', 'accepted')) = (ended_at is null)),
    constraint updates_id_length check (length(update_id) between 1 and 1000)
) with (fillfactor = 70);
create index updates_of_run on durable.updates (shard, run_id);
create index updates_rejected on durable.updates (shard, ended_at) where status = 'rejected';

-- Questions under way: lost in a crash of the server, and asked again. `refused_by`: workers whose code does not have the workflow. `takes`: how often one
-- was taken; a question that three workers have not survived is not given to a fourth.
create unlogged table durable.queries (
    shard       smallint    not null,
    query_id    uuid        not null,
    run_id      uuid        not null,
    queue       text        not null,
    name        text        not null,
    payload     json        not null,
    asked_at    timestamptz not null,
    taken_at    timestamptz,
    taken_by    uuid,
    takes       smallint    not null default 0,
    refused_by  uuid[]      not null default '{}',
    answered_at timestamptz,
    result      json,
    failure     jsonb,
    primary key (shard, query_id)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- UPDATE: one per id; a second request gets what became of the first. One that was rejected may be tried again under its id: nothing of it was recorded.
-- status: as in the table, unknown (no run of that workflow id), closed (nothing is written).
create function durable.send_update(p_shard smallint, p_workflow_id text, p_update_id text, p_request uuid, p_name text, p_payload json,
                                    p_actor jsonb default null)
returns table (run_id uuid, status text, name text, run_status text, queue text, owner uuid)
language plpgsql as $$
declare
    v_now timestamptz := durable.now();
    v_run durable.runs;
    v_known durable.updates;
begin
    loop
        loop  -- locked against continue-as-new alone, as a signal
            select r.* into v_run from durable.runs r
             where r.shard = p_shard and r.workflow_id = p_workflow_id order by r.generation desc limit 1 for key share;
            if not found then
                status := 'unknown'; return next; return;
            end if;
            exit when (select r.status from durable.runs r where r.shard = p_shard and r.run_id = v_run.run_id) <> 'continued';
        end loop;
        run_id := v_run.run_id; run_status := v_run.status; queue := v_run.queue; owner := v_run.owner; name := p_name;
        select u.* into v_known from durable.updates u
         where u.shard = p_shard and u.workflow_id = p_workflow_id and u.update_id = p_update_id
           and not exists (select from durable.runs b where b.shard = p_shard and b.workflow_id = p_workflow_id and b.generation >= u.generation
                              and b.generation < v_run.generation and b.status <> 'continued')
         order by u.generation desc limit 1 for update of u;
        if found and (v_known.status <> 'rejected' or v_known.request_id = p_request or v_run.status <> 'running') then
            run_id := v_known.run_id; status := v_known.status; name := v_known.name;
            return next; return;
        end if;
        if v_run.status <> 'running' then
            status := 'closed'; return next; return;
        end if;
        if v_known.update_id is not null then
            delete from durable.updates u where u.shard = p_shard and u.workflow_id = p_workflow_id and u.update_id = p_update_id
               and u.generation = v_known.generation;
        end if;
        insert into durable.updates (shard, workflow_id, update_id, generation, run_id, request_id, name, status, actor, requested_at)
        values (p_shard, p_workflow_id, p_update_id, v_run.generation, v_run.run_id, p_request, p_name, 'requested', p_actor, v_now)
            on conflict do nothing;
        exit when found;  -- else another request of the id was faster
    end loop;
    insert into durable.inbox (shard, run_id, message_id, queue, type, at, body, payload)
    values (p_shard, v_run.run_id, p_request, v_run.queue, 'UpdateRequested', v_now,
            jsonb_build_object('update_id', p_update_id, 'name', p_name)
                || case when p_actor is null then '{}' else jsonb_build_object('actor', p_actor) end, p_payload);
    status := 'requested';
    return next;
end $$;

-- What a start takes along (signal-with-start, update-with-start): to the run that it started or found, in its transaction.
create function durable.send_with_start(
    p_outcome text, p_shard smallint, p_workflow_id text,
    p_signal uuid, p_signal_name text, p_signal_payload json, p_dedupe_key text,
    p_update_id text, p_request uuid, p_update_name text, p_update_payload json, p_actor jsonb, p_headers jsonb
) returns table (signal_status text, signal_reason text, update_status text, update_name text, run_status text, queue text, owner uuid)
language plpgsql as $$
begin
    if p_outcome <> 'refused' and p_signal is not null then
        select s.status, s.reason, s.queue, s.owner into signal_status, signal_reason, queue, owner
          from durable.send_signal(p_shard, p_workflow_id, p_signal, p_signal_name, p_signal_payload, p_dedupe_key, p_actor, p_headers) s;
    end if;
    if p_outcome <> 'refused' and p_request is not null then
        select u.status, u.name, u.run_status, u.queue, u.owner into update_status, update_name, run_status, queue, owner
          from durable.send_update(p_shard, p_workflow_id, p_update_id, p_request, p_update_name, p_update_payload, p_actor) u;
    end if;
    return next;
end $$;

-- What a batch of turns has decided about updates: [{ix, id, name, to, seq, failure, payload}], each update once. The row may be missing, when
-- the run took its history over from another one.
create function durable.settle_updates(r_shard smallint[], r_run uuid[], p_updates json, p_now timestamptz) returns void
language plpgsql
set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set plan_cache_mode = force_generic_plan
as $$
begin
    insert into durable.updates as u (shard, workflow_id, update_id, generation, run_id, request_id, name, status, result, failure, seq,
                                      requested_at, accepted_at, ended_at)
    select r.shard, r.workflow_id, d.x ->> 'id', r.generation, r.run_id, gen_random_uuid(), d.x ->> 'name', d.x ->> 'to', d.x -> 'payload',
           (d.x -> 'failure')::jsonb, (d.x ->> 'seq')::int, p_now,
           case when d.x ->> 'to' <> 'rejected' then p_now end, case when d.x ->> 'to' <> 'accepted' then p_now end
      from json_array_elements(p_updates) as d(x)
      join durable.runs r on r.shard = r_shard[(d.x ->> 'ix')::int] and r.run_id = r_run[(d.x ->> 'ix')::int]
        on conflict (shard, workflow_id, update_id, generation) do update
       set status = excluded.status, result = excluded.result, failure = excluded.failure, seq = coalesce(excluded.seq, u.seq),
           accepted_at = coalesce(u.accepted_at, excluded.accepted_at), ended_at = excluded.ended_at;
end $$;

-- Updates of runs that have closed: those that were not accepted yet, and those whose handlers were still running.
create function durable.abort_updates(r_shard smallint[], r_run uuid[], r_status text[], p_now timestamptz) returns void
language plpgsql
set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set plan_cache_mode = force_generic_plan
as $$
begin
    update durable.updates u
       set status = 'aborted', ended_at = p_now,
           reason = 'the run ' || case b.status when 'continued' then 'continued as new' else 'is ' || b.status end
      from unnest(r_shard, r_run, r_status) as b(shard, run_id, status)
     where b.status <> 'running' and u.shard = b.shard and u.run_id = b.run_id and u.status in ('requested', 'accepted');
end $$;

-- QUERY: put a question to the newest run of an id, or to the given run and what continues it.
create function durable.ask_query(p_shard smallint, p_query uuid, p_workflow_id text, p_run uuid, p_name text, p_payload json)
returns table (run_id uuid, queue text)
language plpgsql as $$
begin
    select r.run_id, r.queue into run_id, queue from durable.runs r
     where r.shard = p_shard and r.workflow_id = p_workflow_id
       and (p_run is null or r.status <> 'continued' and r.generation >= (
            select f.generation from durable.runs f where f.shard = p_shard and f.run_id = p_run))
     order by case when p_run is null then -r.generation else r.generation end limit 1;
    if found then
        insert into durable.queries (shard, query_id, run_id, queue, name, payload, asked_at)
        values (p_shard, p_query, ask_query.run_id, ask_query.queue, p_name, p_payload, durable.now()) on conflict do nothing;
        return next;
    end if;
end $$;

-- TAKE questions that this worker can answer: about runs that it owns; about runs that nobody owns and that have nothing to do, from their history; and
-- about any other run that has not answered for a second (its owner may be dead, or busy). `begun`: whether its code has ever run.
create function durable.take_queries(p_worker uuid, p_queues text[], p_limit integer)
returns table (shard smallint, query_id uuid, run_id uuid, name text, payload text, workflow_id text, workflow text, version integer, begun boolean)
language plpgsql
set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
    v_now timestamptz := durable.now();
    v_build text;
begin
    select w.build into v_build from durable.workers w where w.worker_id = p_worker;
    return query
    with due as materialized (
        select q.shard, q.query_id from durable.queries q join durable.runs r on r.shard = q.shard and r.run_id = q.run_id
         where q.queue = any (p_queues) and q.answered_at is null and q.takes < 3 and (q.taken_at is null or q.taken_at < v_now - interval '3 seconds')
           and p_worker <> all (q.refused_by) and (r.build is null or r.build = v_build or r.status <> 'running')
           and ((r.owner = p_worker and q.taken_by is distinct from p_worker) or r.status <> 'running'
                or (r.owner is null and r.ready_at is null and not exists (
                        select from durable.inbox i where i.shard = r.shard and i.run_id = r.run_id))
                or (q.asked_at < v_now - interval '1 second' and r.started_at is not null and r.owner is distinct from p_worker))
         order by q.asked_at limit p_limit for update of q skip locked
    )
    update durable.queries q set taken_at = v_now, taken_by = p_worker, takes = q.takes + 1 from due d join durable.runs r on r.shard = d.shard
     where q.shard = d.shard and q.query_id = d.query_id and r.run_id = q.run_id
    returning q.shard, q.query_id, q.run_id, q.name, q.payload::text, r.workflow_id, r.workflow, r.version, r.started_at is not null;
end $$;

-- ANSWER. Without an answer (neither result nor failure): this worker does not know the workflow, others may.
create function durable.answer_queries(p_worker uuid, q_shard smallint[], q_id uuid[], q_result json[], q_failure jsonb[]) returns void
language sql as $$
    update durable.queries q
       set result = a.result, failure = a.failure,
           answered_at = case when a.result is not null or a.failure is not null then durable.now() end,
           taken_at = case when a.result is not null or a.failure is not null then q.taken_at end,
           takes = case when a.result is not null or a.failure is not null then q.takes else q.takes - 1 end::smallint,
           refused_by = case when a.result is null and a.failure is null then q.refused_by || p_worker else q.refused_by end
      from unnest(q_shard, q_id, q_result, q_failure) as a(shard, id, result, failure)
     where q.shard = a.shard and q.query_id = a.id and q.answered_at is null
$$;

-- Why nobody answers: what is known about the run and about who serves its queue.
create function durable.explain_silence(p_shard smallint, p_workflow_id text, p_query uuid default null)
returns table (status text, queue text, begun boolean, delayed boolean, review jsonb, workers bigint, refused integer)
language sql stable as $$
    select r.status, r.queue, r.started_at is not null, r.delayed_until is not null, r.review,
           (select count(*) from durable.workers w where w.state = 'alive' and w.lease_until >= durable.now() and w.queues ? r.queue
               and coalesce(w.info ->> 'run_workflows', 'true') = 'true'),
           (select cardinality(q.refused_by) from durable.queries q where q.shard = p_shard and q.query_id = p_query)
      from durable.runs r where r.shard = p_shard and r.workflow_id = p_workflow_id order by r.generation desc limit 1
$$;

-- Questions whose asker is gone, rejections that nobody will ask about any more, and old commands that stand under no run.
create function durable.forget_requests(p_limit integer) returns integer
language plpgsql as $$
declare
    v_now timestamptz := durable.now();
    v_count integer;
begin
    delete from durable.queries q where q.asked_at < v_now - interval '10 minutes';
    with old as (
        select u.shard, u.workflow_id, u.update_id, u.generation from durable.updates u
         where u.shard = any (durable.shard_keys()) and u.status = 'rejected' and u.ended_at < v_now - interval '1 day' limit p_limit
    )
    delete from durable.updates u using old o
     where u.shard = o.shard and u.workflow_id = o.workflow_id and u.update_id = o.update_id and u.generation = o.generation;
    get diagnostics v_count = row_count;
    return v_count + durable.forget_strays(10000, p_limit);
end $$;

-- The SQL API; `arguments` is an object by name, or an array by position. Answers the update's id.
create function durable.update(workflow_id text, name text, arguments json default '{}', update_id text default gen_random_uuid()::text, actor jsonb default null)
returns text language plpgsql as $$
declare
    v_sent record;
begin
    select * into v_sent from durable.send_update(durable.shard_of(workflow_id), workflow_id, update_id, gen_random_uuid(), name, arguments, actor);
    if v_sent.status = 'unknown' then
        raise exception 'no run has the workflow id %', workflow_id using errcode = 'DU012';
    elsif v_sent.status = 'closed' then
        raise exception 'the run of % is % and takes no update', workflow_id, v_sent.run_status using errcode = 'DU014';
    end if;
    perform pg_notify('durable', coalesce('worker:' || v_sent.owner, 'queue:' || v_sent.queue));
    return update_id;
end $$;

create view durable.update_list as
select u.workflow_id, u.update_id, u.name, u.status, u.reason, u.result, u.failure, u.actor, u.seq, u.requested_at, u.accepted_at, u.ended_at,
       u.run_id, u.generation
  from durable.updates u;
