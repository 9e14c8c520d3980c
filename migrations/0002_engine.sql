-- The hot path: set-based functions that take arrays, one round trip each. Planner settings are pinned per function, because a plan made
-- while the tables were small would be kept by the session for ever. Convention: p_ scalar, r_ runs, e_ events, j_ jobs to insert, d_ jobs done by
-- the caller, ...; `ix` is a 1-based position in the arrays of runs.
-- Beside an equality on the primary key a condition is written `is not distinct from`, which no partial index matches: with
-- stale statistics the planner would take such an index, believe it to be tiny, and go through every open run for each row.

-- COMMIT: the turns of a batch, fenced (C2), with all that their events cause (C3). A batch that loses a fence writes nothing and says who lost.
-- What only some types of events cause is asked for by a look at the types.
create function durable.commit(
    p_owner uuid,
    r_shard smallint[], r_run uuid[], r_epoch integer[], r_expect integer[], r_last integer[], r_turn integer[], r_status text[],
    r_waiting jsonb[], r_cancelled boolean[],
    e_ix integer[], e_seq integer[], e_turn integer[], e_type text[], e_at bigint[], e_body jsonb[], e_payload json[],
    j_ix integer[], j_seq integer[], j_kind text[], j_name text[], j_queue text[], j_priority smallint[], j_eager boolean[],
    j_at bigint[], j_deadline_s double precision[], j_deadline_kind text[],
    d_ix integer[], d_seq integer[], d_attempt integer[],
    x_ix integer[], x_seq integer[],
    c_ix integer[], c_seq integer[],
    m_ix integer[], m_id uuid[],
    s_ix integer[], s_signal uuid[], s_seq integer[],
    p_updates json
) returns table (now_us bigint, pushes jsonb)
language plpgsql
set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set plan_cache_mode = force_generic_plan
as $$
declare
    v_now timestamptz := durable.now();
    v_count integer;
    v_lost text;
begin
    update durable.runs r
       set last_seq = b.last, turn = b.turn, status = b.status, waiting_on = b.waiting, review = null, losses = 0,
           started_at = coalesce(r.started_at, v_now),
           closed_at = case when b.status = 'running' then null else v_now end,
           owner = case when b.status = 'running' then r.owner end,
           cancel_requested_at = case when b.cancelled then coalesce(r.cancel_requested_at, v_now) else r.cancel_requested_at end
      from unnest(r_shard, r_run, r_epoch, r_expect, r_last, r_turn, r_status, r_waiting, r_cancelled)
           as b(shard, run_id, epoch, expect, last, turn, status, waiting, cancelled)
     where r.shard = b.shard and r.run_id = b.run_id
       and r.owner is not distinct from p_owner and r.epoch = b.epoch and r.last_seq = b.expect and r.status is not distinct from 'running';
    get diagnostics v_count = row_count;
    if v_count <> cardinality(r_run) then
        select string_agg('r' || b.ix, ',') into v_lost
          from unnest(r_shard, r_run, r_epoch, r_last) with ordinality as b(shard, run_id, epoch, last, ix)
         where not exists (select from durable.runs r
                            where r.shard = b.shard and r.run_id = b.run_id and r.epoch = b.epoch and r.last_seq = b.last
                              and (r.owner = p_owner or r.closed_at = v_now));
        raise exception 'lost the fence of a run' using errcode = 'DU001', detail = coalesce(v_lost, '');
    end if;

    if cardinality(d_ix) > 0 then
        delete from durable.jobs j
         using unnest(d_ix, d_seq, d_attempt) as d(ix, seq, attempt)
         where j.shard = r_shard[d.ix] and j.run_id = r_run[d.ix] and j.seq = d.seq
           and j.owner = p_owner and j.attempt = d.attempt and j.state = 'executing';
        get diagnostics v_count = row_count;
        if v_count <> cardinality(d_ix) then
            raise exception 'lost the fence of a job' using errcode = 'DU002';
        end if;
    end if;

    insert into durable.history (shard, run_id, seq, turn, type, at, body, payload)
    select r_shard[e.ix], r_run[e.ix], e.seq, e.turn, e.type, timestamptz 'epoch' + e.at * interval '1 microsecond', e.body, e.payload
      from unnest(e_ix, e_seq, e_turn, e_type, e_at, e_body, e_payload) as e(ix, seq, turn, type, at, body, payload);

    if cardinality(j_ix) > 0 then
        insert into durable.jobs (shard, run_id, seq, kind, name, queue, priority, state, attempt, scheduled_at,
                                  deadline_at, deadline_kind, owner, created_at)
        select r_shard[j.ix], r_run[j.ix], j.seq, j.kind, j.name, j.queue, j.priority,
               case when j.kind = 'timer' then 'scheduled' when j.eager then 'executing' else 'available' end,
               case when j.eager then 1 else 0 end,
               case when j.at is null then v_now else timestamptz 'epoch' + j.at * interval '1 microsecond' end,
               v_now + j.deadline_s * interval '1 second', j.deadline_kind,
               case when j.eager then p_owner end, v_now
          from unnest(j_ix, j_seq, j_kind, j_name, j_queue, j_priority, j_eager, j_at, j_deadline_s, j_deadline_kind)
               as j(ix, seq, kind, name, queue, priority, eager, at, deadline_s, deadline_kind);
    end if;

    if cardinality(x_ix) > 0 then
        delete from durable.jobs j using unnest(x_ix, x_seq) as x(ix, seq)
         where j.shard = r_shard[x.ix] and j.run_id = r_run[x.ix] and j.seq = x.seq and j.kind = 'timer';
    end if;

    if cardinality(c_ix) > 0 then
        -- locked first: the two statements below must see each job in one and the same state
        perform 1 from durable.jobs j join unnest(c_ix, c_seq) as c(ix, seq)
             on j.shard = r_shard[c.ix] and j.run_id = r_run[c.ix] and j.seq = c.seq
          order by j.shard, j.run_id, j.seq for update of j;
        with gone as (
            delete from durable.jobs j using unnest(c_ix, c_seq) as c(ix, seq)
             where j.shard = r_shard[c.ix] and j.run_id = r_run[c.ix] and j.seq = c.seq and j.state <> 'executing'
            returning c.ix, j.shard, j.run_id, j.seq
        )
        insert into durable.inbox (shard, run_id, queue, type, at, body)
        select g.shard, g.run_id, r.queue, 'ActivityCancelled', v_now, jsonb_build_object('ref', g.seq, 'started', false)
          from gone g join durable.runs r on r.shard = g.shard and r.run_id = g.run_id
         where r_status[g.ix] = 'running';
        with told as (
            update durable.jobs j set cancel_requested_at = v_now from unnest(c_ix, c_seq) as c(ix, seq)
             where j.shard = r_shard[c.ix] and j.run_id = r_run[c.ix] and j.seq = c.seq
               and j.state = 'executing' and j.cancel_requested_at is null
            returning j.owner
        )
        select jsonb_agg(distinct t.owner) into pushes from told t;
    end if;

    if cardinality(m_ix) > 0 then
        delete from durable.inbox i using unnest(m_ix, m_id) as m(ix, id)
         where i.shard = r_shard[m.ix] and i.run_id = r_run[m.ix] and i.message_id = m.id;
        get diagnostics v_count = row_count;
        if v_count <> cardinality(m_ix) then
            raise exception 'a message was consumed before' using errcode = 'DU002';
        end if;
    end if;

    if cardinality(s_ix) > 0 then
        update durable.signals s set status = 'delivered', seq = g.seq from unnest(s_ix, s_signal, s_seq) as g(ix, id, seq)
         where s.shard = r_shard[g.ix] and s.run_id = r_run[g.ix] and s.signal_id = g.id;
    end if;

    if e_type && array['ChildStarted', 'ChildSignalled', 'ChildCancelRequested'] then
        pushes := coalesce(pushes, '[]') || durable.act_on_children(r_shard, r_run, e_ix, e_seq, e_type, e_body, e_payload, v_now);
    end if;
    if p_updates is not null then
        perform durable.settle_updates(r_shard, r_run, p_updates, v_now);
    end if;
    if e_type && array['AttributesSet', 'DetailsSet'] then
        perform durable.note_runs(r_shard, r_run, e_ix, e_seq, e_type, e_body);
    end if;
    if 'WorkflowContinued' = any (e_type) then
        perform durable.continue_runs(r_shard, r_run, e_ix, e_type, e_body, e_payload, v_now);
    end if;
    if not 'running' = all (r_status) then
        pushes := coalesce(pushes, '[]') || durable.sweep_closed(r_shard, r_run, r_status, v_now);
    end if;
    now_us := durable.to_us(v_now);
    return next;
end $$;

-- A closed run leaves nothing behind: waiting jobs and timers go, executing ones are told to stop, unread signals become evidence.
create function durable.sweep_closed(r_shard smallint[], r_run uuid[], r_status text[], p_now timestamptz) returns jsonb
language plpgsql
set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set plan_cache_mode = force_generic_plan
as $$
declare
    v_pushes jsonb;
begin
    perform 1 from durable.jobs j join unnest(r_shard, r_run, r_status) as b(shard, run_id, status)
         on j.shard = b.shard and j.run_id = b.run_id where b.status <> 'running'
      order by j.shard, j.run_id, j.seq for update of j;
    delete from durable.jobs j using unnest(r_shard, r_run, r_status) as b(shard, run_id, status)
     where b.status <> 'running' and j.shard = b.shard and j.run_id = b.run_id and j.state <> 'executing' and j.kind <> 'job';
    with told as (
        update durable.jobs j set cancel_requested_at = p_now from unnest(r_shard, r_run, r_status) as b(shard, run_id, status)
         where b.status <> 'running' and j.shard = b.shard and j.run_id = b.run_id and j.state = 'executing'
           and j.kind <> 'job' and j.cancel_requested_at is null
        returning j.owner
    )
    select jsonb_agg(distinct t.owner) into v_pushes from told t;
    with unread as (
        delete from durable.inbox i using unnest(r_shard, r_run, r_status) as b(shard, run_id, status)
         where b.status <> 'running' and i.shard = b.shard and i.run_id = b.run_id
        returning i.shard, i.run_id, i.type, i.body
    )
    update durable.signals s set status = 'dropped', reason = 'the run closed before it was read'
      from unread u
     where u.type = 'SignalReceived' and s.shard = u.shard and s.run_id = u.run_id and s.signal_id = (u.body ->> 'signal_id')::uuid;
    if exists (
        select from unnest(r_shard, r_run, r_status) as b(shard, run_id, status)
          join durable.updates u on u.shard = b.shard and u.run_id = b.run_id and u.status in ('requested', 'accepted')
         where b.status <> 'running'
    ) then
        perform durable.abort_updates(r_shard, r_run, r_status, p_now);
    end if;
    if exists (
        select from unnest(r_shard, r_run, r_status) as b(shard, run_id, status)
          join durable.runs r on r.shard = b.shard and r.run_id = b.run_id
         where b.status <> 'running' and (r.parent_run_id is not null or r.on_end is not null or exists (
                   select from durable.runs c where c.parent_shard = b.shard and c.parent_run_id = b.run_id))
    ) then
        v_pushes := coalesce(v_pushes, '[]') || durable.close_family(r_shard, r_run, p_now);
    end if;
    return coalesce(v_pushes, '[]');
end $$;

-- A worker that was declared dead must beat before it claims: nobody looks for what a worker takes after it is `gone`.
create function durable.is_alive(p_worker uuid) returns boolean language plpgsql stable as $$
begin
    return exists (select from durable.workers w where w.worker_id = p_worker and w.state in ('alive', 'stopping'));
end $$;

-- CLAIM RUNS: those that are ready, and those without an owner that have a message. Mostly there are few: one look takes them all. Else a few heads
-- of each shard, so that none waits behind another. Then lock what is still free (no stronger than an update needs: a sender's open transaction holds
-- a key share of the run's row, and must not keep it from being claimed). A run whose history is its first event alone comes with it.
create function durable.claim_runs(p_worker uuid, p_queues text[], p_limit integer)
returns table (shard smallint, run_id uuid, workflow_id text, workflow text, version integer, epoch integer, last_seq integer,
               turn integer, queue text, priority smallint, reviewed boolean, has_messages boolean,
               start_us bigint, start_body text, start_payload text)
language plpgsql
set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_bitmapscan = off set plan_cache_mode = force_generic_plan
as $$
declare
    v_now timestamptz := durable.now();
    v_each integer := 2 + p_limit / 16;
    v_build text;
begin
    perform set_config('synchronous_commit', 'off', true);  -- see "What is not flushed" in docs/architecture.md
    select w.build into v_build from durable.workers w where w.worker_id = p_worker and w.state in ('alive', 'stopping');
    if not found then
        return;
    end if;
    return query
    with few as materialized (
        select r.shard, r.run_id, r.priority, r.ready_at from durable.runs r
         where r.shard = any (durable.shard_keys()) and r.queue = any (p_queues) and r.owner is null and r.ready_at is not null
           and (r.build is null or r.build = v_build)
         limit p_limit + 1
    ), heads as materialized (
        select h.shard, h.run_id from (
            select f.shard, f.run_id, f.priority, f.ready_at from few f where (select count(*) from few) <= p_limit
            union all
            select c.shard, c.run_id, c.priority, c.ready_at
              from unnest(durable.shard_keys()) as k(key) cross join unnest(p_queues) as q(name)
             cross join lateral (
                select r.shard, r.run_id, r.priority, r.ready_at from durable.runs r
                 where r.shard = k.key and r.queue = q.name and r.owner is null and r.ready_at is not null
                   and (r.build is null or r.build = v_build)
                 order by r.priority, r.ready_at limit v_each) c
             where (select count(*) from few) > p_limit
            union all
            (select r.shard, r.run_id, r.priority, i.at
               from durable.inbox i
              cross join lateral (  -- `limit` has the planner look up one run for each message, whatever it believes of both tables
                 select t.* from durable.runs t where t.shard = i.shard and t.run_id = i.run_id limit 1) r
              where i.shard = any (durable.shard_keys()) and i.queue = any (p_queues)
                and r.owner is null and r.status = 'running' and r.ready_at is null and r.delayed_until is null
                and (r.build is null or r.build = v_build)
              limit p_limit)
        ) h group by h.shard, h.run_id order by min(h.priority), min(h.ready_at) limit p_limit
    ), locked as materialized (
        select r.shard, r.run_id from heads h join durable.runs r on r.shard = h.shard and r.run_id = h.run_id
         where r.owner is null and r.status is not distinct from 'running' and r.delayed_until is null and (r.build is null or r.build = v_build)
         for no key update of r skip locked
    ), taken as (
        update durable.runs r set owner = p_worker, epoch = r.epoch + 1, ready_at = null,
               build = case when r.pinned then coalesce(r.build, v_build) end
          from locked l where r.shard = l.shard and r.run_id = l.run_id
        returning r.*
    )
    select t.shard, t.run_id, t.workflow_id, t.workflow, t.version, t.epoch, t.last_seq, t.turn, t.queue, t.priority,
           t.review is not null or t.losses > 0,  -- the turn that it takes then, even an empty one, ends the review and the suspicion
           exists (select from durable.inbox i where i.shard = t.shard and i.run_id = t.run_id),
           durable.to_us(e.at), e.body::text, e.payload::text
      from taken t left join lateral (
        select h.at, h.body, h.payload from durable.history h
         where t.last_seq = 1 and h.shard = t.shard and h.run_id = t.run_id and h.seq = 1 limit 1) e on true;
end $$;

create function durable.load_history(p_shard smallint[], p_run uuid[], p_after integer[] default null)
returns table (run_id uuid, seq integer, turn integer, type text, at_us bigint, body text, payload text)
language plpgsql stable
set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set plan_cache_mode = force_generic_plan
as $$
begin
    return query
    select h.run_id, h.seq, h.turn, h.type, durable.to_us(h.at), h.body::text, h.payload::text
      from unnest(p_shard, p_run, coalesce(p_after, array_fill(0, array[cardinality(p_run)]))) with ordinality as b(shard, run_id, after, ix)
      join durable.history h on h.shard = b.shard and h.run_id = b.run_id and h.seq > b.after
     order by b.ix, h.seq;
end $$;

-- Messages for runs that this worker owns. Those already taken but not yet committed come again: the worker knows them by id.
create function durable.read_inbox(p_worker uuid, p_queues text[], p_limit integer)
returns table (shard smallint, run_id uuid, message_id uuid, type text, at_us bigint, body text, payload text)
language plpgsql stable
set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set plan_cache_mode = force_generic_plan
as $$
begin
    return query
    select i.shard, i.run_id, i.message_id, i.type, durable.to_us(i.at), i.body::text, i.payload::text
      from durable.inbox i join durable.runs r on r.shard = i.shard and r.run_id = i.run_id
     where i.shard = any (durable.shard_keys()) and i.queue = any (p_queues) and r.owner is not distinct from p_worker
     order by i.at, i.message_id limit p_limit;
end $$;

-- Give runs back: with a delay and a reason (review) when they could not be run, at once when the worker stops or its cache is full. One whose workflow
-- this worker has not got, and another has (a rolling deployment), waits a moment for that one and is no case for review.
create function durable.release_runs(p_worker uuid, r_shard smallint[], r_run uuid[], r_epoch integer[], r_delay_s double precision[], r_review jsonb[])
returns integer language plpgsql
set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
    v_now timestamptz := durable.now();
    v_count integer;
begin
    update durable.runs r
       set owner = null,
           build = case when r.turn > 0 then r.build end,  -- nothing of it is recorded, so nothing binds it to the build
           ready_at = case when b.delay_s = 0 then v_now end,
           delayed_until = case when b.delay_s > 0 then v_now + b.delay_s * interval '1 second' * case
               when b.review is null then 1
               when b.review ->> 'kind' = 'unknown_workflow' and durable.is_served(r.workflow, r.version, r.queue, case when r.turn > 0 then r.build end) then 0.05
               else power(2, least(coalesce((r.review ->> 'times')::int, 0), case b.review ->> 'kind' when 'unknown_workflow' then 2 else 4 end))
           end end,
           review = case when b.review is null then r.review
                    when b.review ->> 'kind' = 'unknown_workflow' and durable.is_served(r.workflow, r.version, r.queue, case when r.turn > 0 then r.build end) then null
                    else b.review || jsonb_build_object(
                        'since', coalesce(r.review -> 'since', to_jsonb(v_now)),
                        'times', coalesce((r.review ->> 'times')::int, 0) + 1) end
      from unnest(r_shard, r_run, r_epoch, r_delay_s, r_review) as b(shard, run_id, epoch, delay_s, review)
     where r.shard = b.shard and r.run_id = b.run_id and r.owner is not distinct from p_worker and r.epoch = b.epoch and r.status is not distinct from 'running';
    get diagnostics v_count = row_count;
    return v_count;
end $$;

-- STAGE: what has become due. Timers turn into inbox messages (once: the row goes in the same statement); jobs become available, runs ready.
create function durable.stage_due(p_limit integer) returns table (fired integer, staged integer, next_due_us bigint)
language plpgsql
set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set plan_cache_mode = force_generic_plan
as $$
declare
    v_now timestamptz := durable.now();
    v_each integer := 2 + p_limit / 16;
begin
    perform set_config('synchronous_commit', 'off', true);  -- see "What is not flushed" in docs/architecture.md
    with due as materialized (
        select d.shard, d.run_id, d.seq, d.kind from unnest(durable.shard_keys()) as k(key)
         cross join lateral (
            select j.shard, j.run_id, j.seq, j.kind from durable.jobs j
             where j.shard = k.key and j.phase = 'due' and j.scheduled_at <= v_now
             order by j.scheduled_at limit v_each for update skip locked) d
    ), gone as (
        delete from durable.jobs j using due d
         where d.kind = 'timer' and j.shard = d.shard and j.run_id = d.run_id and j.seq = d.seq
        returning j.shard, j.run_id, j.seq, j.queue
    ), told as (
        insert into durable.inbox (shard, run_id, queue, type, at, body)
        select g.shard, g.run_id, g.queue, 'TimerFired', v_now, jsonb_build_object('ref', g.seq) from gone g returning 1
    ), moved as (
        update durable.jobs j set state = 'available' from due d
         where d.kind <> 'timer' and j.shard = d.shard and j.run_id = d.run_id and j.seq = d.seq
        returning 1
    )
    select (select count(*) from told), (select count(*) from moved) into fired, staged;
    with due as materialized (
        select d.shard, d.run_id from unnest(durable.shard_keys()) as k(key)
         cross join lateral (
            select r.shard, r.run_id from durable.runs r where r.shard = k.key and r.delayed_until <= v_now
             order by r.delayed_until limit v_each for no key update skip locked) d
    ), moved as (
        update durable.runs r set ready_at = v_now, delayed_until = null from due d where r.shard = d.shard and r.run_id = d.run_id
        returning 1
    )
    select staged + count(*) into staged from moved;
    select durable.to_us(min(n.at)) into next_due_us from unnest(durable.shard_keys()) as k(key)
     cross join lateral (
        (select j.scheduled_at as at from durable.jobs j
          where j.shard = k.key and j.phase = 'due' order by j.scheduled_at limit 1)
        union all
        (select r.delayed_until from durable.runs r where r.shard = k.key and r.delayed_until is not null order by r.delayed_until limit 1)) n;
    return next;
end $$;

-- An attempt as a claim hands it out.
create type durable.claimed_job as (
    shard smallint, run_id uuid, seq integer, kind text, name text, queue text, attempt integer, input text, options text, workflow_id text, actor text,
    heartbeat text, scheduled_us bigint, created_us bigint, headers text);

-- CLAIM JOBS: per queue up to what is asked for, by priority, then age. Input and options of a run's activity come from its opening event. A few heads of
-- each shard, the best of them locked where they still are (`ctid`), taken in one statement. Queues with limits, and (`p_aged`) jobs that have waited for
-- long, are taken first and otherwise: see 0012_queues.sql.
create function durable.claim_jobs(p_worker uuid, p_queues text[], p_limits integer[], p_aged boolean default false) returns setof durable.claimed_job
language plpgsql
set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set plan_cache_mode = force_generic_plan
as $$
declare
    v_now timestamptz := durable.now();
    v_limits integer[] := p_limits;
    v_special text[];
    v_taken durable.claimed_job;
begin
    if not durable.is_alive(p_worker) then
        return;
    end if;
    v_special := array(select q.name from durable.queues q where q.name = any (p_queues) and q.special);
    if p_aged or v_special <> '{}' then
        if p_aged then
            for v_taken in select * from durable.claim_specially(p_worker, p_queues, p_limits, true) loop
                v_limits[array_position(p_queues, v_taken.queue)] := v_limits[array_position(p_queues, v_taken.queue)] - 1;
                return next v_taken;
            end loop;
        else  -- nothing of ordinary queues, whose rows would have to be counted one by one
            return query select * from durable.claim_specially(p_worker, p_queues, p_limits, false);
        end if;
        select array_agg(case when q.special or l.name = any (v_special) then 0 else l.free end order by l.ix) into v_limits  -- before or since
          from unnest(p_queues, v_limits) with ordinality as l(name, free, ix) left join durable.queues q on q.name = l.name;
    end if;
    return query
    with heads as materialized (
        select h.place from unnest(p_queues, v_limits) as q(name, free)
         cross join lateral (
            select c.place from unnest(durable.shard_keys()) as k(key)
             cross join lateral (
                select j.ctid as place, j.priority, j.scheduled_at from durable.jobs j
                 where j.shard = k.key and j.queue = q.name and j.phase = 'ready'
                 order by j.priority, j.scheduled_at limit 2 + q.free / 24) c
             order by c.priority, c.scheduled_at, c.place limit q.free) h  -- what came in one go: as it lies, on few pages
         where q.free > 0
    ), locked as materialized (
        select j.ctid as place, coalesce(j.options, e.body) as options, coalesce(j.input, e.payload) as input, r.workflow_id, r.actor, r.headers
          from heads h join durable.jobs j on j.ctid = h.place
          left join lateral (  -- a null key finds nothing without looking; `limit` has it looked up by key, whatever the planner believes
            select t.body, t.payload from durable.history t
             where t.shard = case when j.kind = 'activity' then j.shard end and t.run_id = j.run_id and t.seq = j.seq limit 1) e on true
          left join lateral (
            select t.workflow_id, t.actor, t.headers from durable.runs t
             where t.shard = case when j.kind = 'activity' then j.shard end and t.run_id = j.run_id and t.status is not distinct from 'running' limit 1) r on true
         where j.state is not distinct from 'available' and (j.kind = 'job' or r.workflow_id is not null)
         for update of j skip locked
    )
    update durable.jobs j
       set state = 'executing', owner = p_worker, attempt = j.attempt + 1, note = null, limited = false,
           deadline_at = case when l.options ? 'timeouts' then (select d.at from durable.execution_deadline(l.options, v_now, j.created_at) d) end,
           deadline_kind = case when l.options ? 'timeouts' then (select d.kind from durable.execution_deadline(l.options, v_now, j.created_at) d) end
      from locked l
     where j.ctid = l.place
    returning j.shard, j.run_id, j.seq, j.kind, j.name, j.queue, j.attempt, l.input::text, l.options::text, l.workflow_id, l.actor::text,
        j.heartbeat::text, durable.to_us(j.scheduled_at), durable.to_us(j.created_at), l.headers::text;
end $$;

-- The earliest of an executing attempt's deadlines, and which one it is.
create function durable.execution_deadline(p_options jsonb, p_start timestamptz, p_created timestamptz)
returns table (at timestamptz, kind text) language sql immutable
as $$
    select d.at, case when d.at is not null then d.kind end from (values
        (p_start + (p_options -> 'timeouts' ->> 'start_to_close_s')::float8 * interval '1 second', 'start_to_close'),
        (p_created + (p_options -> 'timeouts' ->> 'schedule_to_close_s')::float8 * interval '1 second', 'schedule_to_close'),
        (p_start + (p_options -> 'timeouts' ->> 'heartbeat_s')::float8 * interval '1 second', 'heartbeat'),
        (null::timestamptz, null)) as d(at, kind)
     order by d.at nulls last limit 1
$$;

-- The earliest deadline of a job that waits for a worker, and which one it is.
create function durable.waiting_deadline(p_options jsonb, p_created timestamptz)
returns table (at timestamptz, kind text) language sql immutable
as $$
    select d.at, case when d.at is not null then d.kind end from (values
        (p_created + (p_options -> 'timeouts' ->> 'schedule_to_start_s')::float8 * interval '1 second', 'schedule_to_start'),
        (p_created + (p_options -> 'timeouts' ->> 'schedule_to_close_s')::float8 * interval '1 second', 'schedule_to_close'),
        (null::timestamptz, null)) as d(at, kind)
     order by d.at nulls last limit 1
$$;

-- SETTLE: outcomes of attempts whose run is owned elsewhere, and of standalone jobs. Fenced by attempt and owner (C5); a refused outcome is kept
-- as evidence. Returns the positions refused, and the hints to give.
create function durable.settle_jobs(p_owner uuid, o_shard smallint[], o_run uuid[], o_seq integer[], o_attempt integer[],
                                    o_type text[], o_body jsonb[], o_payload json[])
returns table (refused integer[], wake text[])
language plpgsql
set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set plan_cache_mode = force_generic_plan
as $$
declare
    v_now timestamptz := durable.now();
begin
    with given as (
        select * from unnest(o_shard, o_run, o_seq, o_attempt, o_type, o_body, o_payload) with ordinality
            as o(shard, run_id, seq, attempt, type, body, payload, ix)
    ), gone as (
        delete from durable.jobs j using given o
         where j.shard = o.shard and j.run_id = o.run_id and j.seq = o.seq and j.kind = 'activity'
           and j.state = 'executing' and j.owner = p_owner and j.attempt = o.attempt
        returning o.ix, o.shard, o.run_id, o.seq, o.type, o.body, o.payload
    ), kept as (
        update durable.jobs j
           set state = case o.type when 'ActivityCompleted' then 'completed' when 'ActivityCancelled' then 'cancelled' else 'discarded' end,
               owner = null, deadline_at = null, deadline_kind = null, finished_at = v_now, result = o.payload,
               errors = case when o.body ? 'failure' then coalesce(j.errors, '[]') || jsonb_build_array(
                   jsonb_build_object('attempt', o.attempt, 'at', v_now, 'worker', p_owner, 'failure', o.body -> 'failure',
                                      'retry_state', o.body -> 'retry_state'))
                   when o.type = 'ActivityCancelled' then coalesce(j.errors, '[]') || jsonb_build_object(
                       'attempt', o.attempt, 'at', v_now, 'worker', p_owner, 'failure', durable.cancel_failure(j.note ->> 'reason'))
                   else j.errors end
          from given o
         where j.shard = o.shard and j.run_id = o.run_id and j.seq = o.seq and j.kind = 'job'
           and j.state = 'executing' and j.owner = p_owner and j.attempt = o.attempt
        returning o.ix
    ), routed as (
        select g.*, r.queue, r.owner, r.status from gone g join durable.runs r on r.shard = g.shard and r.run_id = g.run_id
    ), sent as (
        insert into durable.inbox (shard, run_id, queue, type, at, body, payload)
        select t.shard, t.run_id, t.queue, t.type, v_now, t.body, t.payload from routed t where t.status = 'running'
    ), late as (
        select o.ix from given o where not exists (select from gone g where g.ix = o.ix) and not exists (select from kept k where k.ix = o.ix)
    ), noted as (
        insert into durable.evidence (shard, run_id, at, kind, body)
        select o.shard, o.run_id, v_now, case when l.ix is null then 'OutcomeAfterClose' else 'OutcomeRefused' end,
               jsonb_build_object('seq', o.seq, 'attempt', o.attempt, 'type', o.type, 'body', o.body, 'worker', p_owner)
          from given o left join late l on l.ix = o.ix
         where l.ix is not null or exists (select from routed t where t.ix = o.ix and t.status <> 'running')
    )
    select (select array_agg(l.ix::int) from late l),
           (select array_agg(distinct coalesce('worker:' || t.owner, 'queue:' || t.queue)) from routed t where t.status = 'running') into refused, wake;
    return next;
end $$;

-- Why a job waits for an operator whose attempts have run out (on_exhausted = "pause").
create function durable.exhausted(p_now timestamptz, p_error jsonb) returns jsonb language sql immutable as $$
    select jsonb_strip_nulls(jsonb_build_object('kind', 'exhausted', 'at', p_now, 'retry_state', p_error -> 'retry_state', 'timeout', p_error -> 'timeout'))
$$;

-- RETRY: an attempt failed and another is due after a delay; the attempt's error stays on the row (C6: not in the history). Without an error the
-- attempt has snoozed: it does not count, so that one more is allowed. There is no further attempt once the run has asked it to stop, or has closed. A negative delay: none by itself, it
-- waits for an operator.
create function durable.retry_jobs(p_owner uuid, o_shard smallint[], o_run uuid[], o_seq integer[], o_attempt integer[],
                                   o_delay_s double precision[], o_error jsonb[])
returns integer[] language plpgsql
set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set plan_cache_mode = force_generic_plan
as $$
declare
    v_now timestamptz := durable.now();
    v_refused integer[];
begin
    -- locked first: a cancel may be under way, and each statement below must see its outcome
    perform 1 from durable.jobs j join unnest(o_shard, o_run, o_seq) as o(shard, run_id, seq)
        on j.shard = o.shard and j.run_id = o.run_id and j.seq = o.seq
     order by j.shard, j.run_id, j.seq for update of j;
    with given as (
        select * from unnest(o_shard, o_run, o_seq, o_attempt, o_delay_s, o_error) with ordinality
            as o(shard, run_id, seq, attempt, delay_s, error, ix)
    ), moved as (
        update durable.jobs j
           set state = case when o.delay_s < 0 or j.paused is not null then 'paused' when o.error is null then 'scheduled' else 'retryable' end, owner = null,
               scheduled_at = v_now + greatest(o.delay_s, 0) * interval '1 second',
               paused = case when o.delay_s < 0 then durable.exhausted(v_now, o.error) else j.paused end,
               options = case when o.error is null then durable.with_snooze(w.options) else j.options end,
               errors = case when o.error is null then j.errors else coalesce(j.errors, '[]') || jsonb_build_array(
                   o.error || jsonb_build_object('attempt', o.attempt, 'at', v_now, 'worker', p_owner, 'delay_s', o.delay_s)) end,
               unique_key = case when j.unique_states is null or 'executing' = any (j.unique_states) then j.unique_key end,
               deadline_at = w.at, deadline_kind = case when w.at is not null then 'schedule_to_close' end
          from given o
          left join durable.history e on e.shard = o.shard and e.run_id = o.run_id and e.seq = o.seq and o.seq > 0
          cross join lateral (select coalesce(d.options, e.body) as options, case when o.delay_s >= 0 and d.paused is null then
                                     d.created_at + (coalesce(d.options, e.body) -> 'timeouts' ->> 'schedule_to_close_s')::float8 * interval '1 second' end as at
                                from durable.jobs d where d.shard = o.shard and d.run_id = o.run_id and d.seq = o.seq) w
         where j.shard = o.shard and j.run_id = o.run_id and j.seq = o.seq
           and j.state = 'executing' and j.owner = p_owner and j.attempt = o.attempt and j.cancel_requested_at is null
        returning o.ix
    ), ended as (
        delete from durable.jobs j using given o
         where j.shard = o.shard and j.run_id = o.run_id and j.seq = o.seq and j.kind = 'activity'
           and j.state = 'executing' and j.owner = p_owner and j.attempt = o.attempt and j.cancel_requested_at is not null
        returning o.ix, o.shard, o.run_id, o.seq, o.attempt, o.error
    ), cancelled as (
        update durable.jobs j set state = 'cancelled', owner = null, deadline_at = null, deadline_kind = null, finished_at = v_now,
               errors = case when o.error is null then j.errors else coalesce(j.errors, '[]') || jsonb_build_array(
                   o.error || jsonb_build_object('attempt', o.attempt, 'at', v_now, 'worker', p_owner)) end
          from given o
         where j.shard = o.shard and j.run_id = o.run_id and j.seq = o.seq and j.kind = 'job'
           and j.state = 'executing' and j.owner = p_owner and j.attempt = o.attempt and j.cancel_requested_at is not null
        returning o.ix
    ), over as (
        select e.ix from ended e union all select k.ix from cancelled k
    ), told as (
        insert into durable.inbox (shard, run_id, queue, type, at, body)
        select e.shard, e.run_id, r.queue, case when e.error is null then 'ActivityCancelled' else 'ActivityFailed' end, v_now,
               jsonb_build_object('ref', e.seq, 'attempt', e.attempt) || case when e.error is null then jsonb_build_object('started', true)
                   else jsonb_build_object('failure', e.error -> 'failure', 'retry_state', 'cancelled') end
          from ended e join durable.runs r on r.shard = e.shard and r.run_id = e.run_id and r.status is not distinct from 'running'
    ), late as (
        select o.* from given o
         where not exists (select from moved m where m.ix = o.ix) and not exists (select from over v where v.ix = o.ix)
    ), noted as (
        insert into durable.evidence (shard, run_id, at, kind, body)
        select o.shard, o.run_id, v_now, case when o.error is null then 'SnoozeRefused' else 'FailureRefused' end,
               jsonb_build_object('seq', o.seq, 'attempt', o.attempt, 'error', o.error, 'worker', p_owner)
          from late o
    )
    select array_agg(o.ix::int) into v_refused from late o;
    return v_refused;
end $$;

-- PUT BACK: attempts that never started (unknown function here, worker stopping). The attempt is not consumed. One that was told to stop
-- meanwhile is over.
create function durable.put_back_jobs(p_owner uuid, o_shard smallint[], o_run uuid[], o_seq integer[], o_attempt integer[],
                                      o_delay_s double precision[], o_note jsonb[])
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
    with ended as (
        delete from durable.jobs j using unnest(o_shard, o_run, o_seq, o_attempt) as o(shard, run_id, seq, attempt)
         where j.shard = o.shard and j.run_id = o.run_id and j.seq = o.seq and j.kind = 'activity'
           and j.state = 'executing' and j.owner = p_owner and j.attempt = o.attempt and j.cancel_requested_at is not null
        returning j.shard, j.run_id, j.seq
    )
    insert into durable.inbox (shard, run_id, queue, type, at, body)
    select r.shard, r.run_id, r.queue, 'ActivityCancelled', v_now, jsonb_build_object('ref', e.seq, 'started', false)
      from ended e join durable.runs r on r.shard = e.shard and r.run_id = e.run_id and r.status is not distinct from 'running';
    update durable.jobs j
       set state = 'cancelled', owner = null, attempt = j.attempt - 1, finished_at = v_now, deadline_at = null, deadline_kind = null
      from unnest(o_shard, o_run, o_seq, o_attempt) as o(shard, run_id, seq, attempt)
     where j.shard = o.shard and j.run_id = o.run_id and j.seq = o.seq and j.kind = 'job'
       and j.state = 'executing' and j.owner = p_owner and j.attempt = o.attempt and j.cancel_requested_at is not null;
    update durable.jobs j
       set state = case when j.paused is not null then 'paused' when o.delay_s > 0 then 'scheduled' else 'available' end, owner = null, attempt = j.attempt - 1,
           unique_key = case when j.unique_states is null or 'executing' = any (j.unique_states) then j.unique_key end,
           scheduled_at = case when o.delay_s > 0 then v_now + o.delay_s * interval '1 second' else j.scheduled_at end,
           note = o.note, deadline_at = case when j.paused is null then w.at end, deadline_kind = case when j.paused is null then w.kind end
      from unnest(o_shard, o_run, o_seq, o_attempt, o_delay_s, o_note) as o(shard, run_id, seq, attempt, delay_s, note)
      join durable.jobs b on b.shard = o.shard and b.run_id = o.run_id and b.seq = o.seq
      left join durable.history e on e.shard = o.shard and e.run_id = o.run_id and e.seq = o.seq and o.seq > 0
     cross join lateral durable.waiting_deadline(coalesce(b.options, e.body), b.created_at) w
     where j.shard = o.shard and j.run_id = o.run_id and j.seq = o.seq
       and j.state = 'executing' and j.owner = p_owner and j.attempt = o.attempt;
    get diagnostics v_count = row_count;
    return v_count;
end $$;

-- HEARTBEAT of executing attempts: stores details, moves the heartbeat deadline, and answers which of them were told to stop.
-- A position that does not come back has lost its fence: its owner must stop it.
create function durable.heartbeat_jobs(p_owner uuid, o_shard smallint[], o_run uuid[], o_seq integer[], o_attempt integer[],
                                       o_details json[], o_heartbeat_s double precision[])
returns table (ix integer, cancel_requested boolean) language plpgsql
set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
    v_now timestamptz := durable.now();
begin
    update durable.jobs j
       set heartbeat = o.details,
           deadline_at = case when j.deadline_kind = 'heartbeat' then v_now + o.heartbeat_s * interval '1 second' else j.deadline_at end
      from unnest(o_shard, o_run, o_seq, o_attempt, o_details, o_heartbeat_s) as o(shard, run_id, seq, attempt, details, heartbeat_s)
     where o.details is not null and j.shard = o.shard and j.run_id = o.run_id and j.seq = o.seq
       and j.state = 'executing' and j.owner = p_owner and j.attempt = o.attempt;
    return query
    select o.ix::int, j.cancel_requested_at is not null
      from unnest(o_shard, o_run, o_seq, o_attempt) with ordinality as o(shard, run_id, seq, attempt, ix)
      join durable.jobs j on j.shard = o.shard and j.run_id = o.run_id and j.seq = o.seq
       and j.state = 'executing' and j.owner = p_owner and j.attempt = o.attempt;
end $$;

-- An attempt ended without its worker: over if it had been told to stop (by its run, or because that closed), retried while attempts are
-- left, else its outcome goes to the run (or the standalone job is discarded).
create function durable.lose_attempt(j durable.jobs, p_now timestamptz, p_type text, p_failure jsonb, p_final boolean) returns void
language plpgsql as $$
declare
    v_options jsonb := coalesce(j.options, (select h.body from durable.history h where h.shard = j.shard and h.run_id = j.run_id and h.seq = j.seq));
    v_retry jsonb := coalesce(v_options -> 'retry', '{}');
    v_error jsonb := jsonb_build_object('attempt', j.attempt, 'at', p_now, 'worker', j.owner, 'failure', p_failure);
    v_attempts integer := j.attempt - coalesce((v_options ->> 'snoozes')::int, 0);
    v_delay_s float8;
begin
    if j.kind = 'job' and j.cancel_requested_at is not null then
        update durable.jobs t set state = 'cancelled', owner = null, finished_at = p_now, deadline_at = null, deadline_kind = null,
               errors = coalesce(t.errors, '[]') || v_error
         where t.shard = j.shard and t.run_id = j.run_id and t.seq = j.seq;
    elsif j.kind = 'activity' and j.cancel_requested_at is not null then
        delete from durable.jobs t where t.shard = j.shard and t.run_id = j.run_id and t.seq = j.seq;
        insert into durable.inbox (shard, run_id, queue, type, at, body)
        select r.shard, r.run_id, r.queue, 'ActivityCancelled', p_now, jsonb_build_object('ref', j.seq, 'attempt', j.attempt, 'started', true)
          from durable.runs r where r.shard = j.shard and r.run_id = j.run_id and r.status is not distinct from 'running';
    elsif not p_final and j.attempt < coalesce(nullif((v_retry ->> 'max_attempts')::int, 0), case when v_retry ? 'max_attempts' then 2147483647 else 5 end) then
        v_delay_s := case when p_type = 'WorkerLost' then  -- who is lost again parts from the others: one of them may be what kills its workers
            case when v_attempts < 2 then 0 else random() * least(60, power(2, least(v_attempts, 6))) end else
            least(coalesce((v_retry ->> 'max_interval_s')::float8, 60),
                  coalesce((v_retry ->> 'initial_interval_s')::float8, 1)
                  * exp(least(ln(greatest(coalesce((v_retry ->> 'backoff_coefficient')::float8, 2), 1))
                            * (v_attempts - 1), 40))) end;
        update durable.jobs t
           set state = case when j.paused is not null then 'paused' when v_delay_s = 0 then 'available' else 'retryable' end, owner = null,
               scheduled_at = p_now + v_delay_s * interval '1 second', errors = coalesce(t.errors, '[]') || v_error,
               unique_key = case when t.unique_states is null or 'executing' = any (t.unique_states) then t.unique_key end,
               deadline_at = case when j.paused is null then t.created_at + (v_options -> 'timeouts' ->> 'schedule_to_close_s')::float8 * interval '1 second' end,
               deadline_kind = case when j.paused is null and v_options -> 'timeouts' ? 'schedule_to_close_s' then 'schedule_to_close' end
         where t.shard = j.shard and t.run_id = j.run_id and t.seq = j.seq;
    elsif j.kind = 'job' then
        update durable.jobs t set state = 'discarded', owner = null, finished_at = p_now, deadline_at = null, deadline_kind = null,
               errors = coalesce(t.errors, '[]') || v_error
         where t.shard = j.shard and t.run_id = j.run_id and t.seq = j.seq;
    elsif v_options ->> 'on_exhausted' = 'pause' then
        update durable.jobs t set state = 'paused', owner = null, deadline_at = null, deadline_kind = null, errors = coalesce(t.errors, '[]') || v_error,
               paused = durable.exhausted(p_now, jsonb_build_object('failure', p_failure, 'timeout', case when p_type = 'Timeout' then j.deadline_kind end))
         where t.shard = j.shard and t.run_id = j.run_id and t.seq = j.seq;
    else
        delete from durable.jobs t where t.shard = j.shard and t.run_id = j.run_id and t.seq = j.seq;
        insert into durable.inbox (shard, run_id, queue, type, at, body)
        select r.shard, r.run_id, r.queue, case when p_type = 'Timeout' then 'ActivityTimedOut' else 'ActivityFailed' end, p_now,
               jsonb_build_object('ref', j.seq, 'attempt', j.attempt, 'failure', p_failure,
                                  'retry_state', case when not p_final then 'max_attempts' when p_type = 'Timeout' then 'timeout' else 'non_retryable' end)
               || case when p_type = 'Timeout' then jsonb_build_object('timeout', j.deadline_kind) else '{}'::jsonb end
          from durable.runs r where r.shard = j.shard and r.run_id = j.run_id and r.status is not distinct from 'running';
    end if;
end $$;

-- The same for a row whose options cannot be read: it ends instead of stopping every other row's turn.
create function durable.lose_attempt_surely(j durable.jobs, p_now timestamptz, p_type text, p_failure jsonb, p_final boolean) returns void
language plpgsql as $$
begin
    perform durable.lose_attempt(j, p_now, p_type, p_failure, p_final);
exception when data_exception then
    perform durable.lose_attempt(j, p_now, p_type, p_failure, true);
end $$;

-- A run that three workers in a row died with waits for longer and longer, and shows it (C8). One bad row must not stop the others.
-- TAKE OVER from workers whose lease has lapsed, bounded per pass (C2). Their late commits lose: runs get a new epoch, jobs a new attempt.
-- A dead worker is looked at once more after a minute: a claim of its that was under way when it was buried has ended by then. Then it is gone.
create function durable.bury_dead_workers(p_limit integer) returns table (workers integer, runs integer, jobs integer)
language plpgsql as $$
declare
    v_now timestamptz := durable.now();
    v_dead uuid[];
    v_job durable.jobs;
begin
    with lapsed as (
        select w.worker_id from durable.workers w
         where w.state in ('alive', 'stopping') and w.lease_until < v_now for update skip locked
    )
    update durable.workers w set state = 'dead' from lapsed l where w.worker_id = l.worker_id;
    get diagnostics workers = row_count;
    select array_agg(w.worker_id) into v_dead from durable.workers w
     where w.state = 'dead' and (w.buried_at is null or w.buried_at < v_now - interval '1 minute');
    runs := 0; jobs := 0;
    if v_dead is null then return next; return; end if;
    with held as (
        select r.shard, r.run_id from durable.runs r
         where r.shard = any (durable.shard_keys()) and r.owner = any (v_dead) limit p_limit for no key update skip locked
    )
    update durable.runs r
       set owner = null, epoch = r.epoch + 1, losses = r.losses + 1, build = case when r.turn > 0 then r.build end,
           ready_at = case when r.losses < 2 then v_now end,
           delayed_until = case when r.losses >= 2 then v_now + least(power(2, least(r.losses, 9)), 300) * interval '1 second' end,
           review = case when r.losses < 2 then r.review else jsonb_build_object('kind', 'kills_workers', 'since', v_now, 'times', r.losses + 1,
               'message', 'each worker that held this run died before its next commit; look at the workers'' logs') end
      from held h where r.shard = h.shard and r.run_id = h.run_id;
    get diagnostics runs = row_count;
    for v_job in select * from durable.jobs j where j.owner = any (v_dead) and j.state = 'executing' limit p_limit for update skip locked loop
        perform durable.lose_attempt_surely(v_job, v_now, 'WorkerLost', jsonb_build_object('type', 'durable.errors:WorkerLost',
            'message', 'the worker that ran this attempt died: ' || v_job.owner), false);
        jobs := jobs + 1;
    end loop;
    if runs < p_limit and jobs < p_limit then
        update durable.workers w set state = case when w.buried_at is null then 'dead' else 'gone' end, buried_at = v_now
         where w.worker_id = any (v_dead)
           and not exists (select from durable.runs r where r.shard = any (durable.shard_keys()) and r.owner = w.worker_id)
           and not exists (select from durable.jobs j where j.owner = w.worker_id and j.state = 'executing');
    end if;
    return next;
end $$;

-- Messages of runs that are over go; a signal or cancel request that reached a run while it continued as new goes on to its successor.
create function durable.sweep_orphans(p_limit integer) returns integer
language plpgsql
set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
    v_count integer;
begin
    with late as materialized (
        select i.shard, i.run_id, i.message_id, t.twice, case when not t.twice then n.run_id end as next
          from durable.inbox i join durable.runs r on r.shard = i.shard and r.run_id = i.run_id
          left join durable.runs n on r.status = 'continued' and i.type in ('SignalReceived', 'CancelRequested', 'UpdateRequested')
               and n.shard = r.shard and n.workflow_id = r.workflow_id and n.generation = (
                   select min(g.generation) from durable.runs g where g.shard = r.shard and g.workflow_id = r.workflow_id
                      and g.generation > r.generation and g.status <> 'continued')
         cross join lateral (
             select i.type = 'SignalReceived' and exists (
                 select from durable.signals s join durable.signals d on d.shard = s.shard and d.name = s.name and d.dedupe_key = s.dedupe_key
                  where s.shard = i.shard and s.run_id = i.run_id and s.signal_id = (i.body ->> 'signal_id')::uuid
                    and d.run_id = n.run_id and d.status in ('buffered', 'delivered')) as twice) t
         where i.shard = any (durable.shard_keys()) and r.status <> 'running' limit p_limit for update of i skip locked
    ), gone as (
        delete from durable.inbox i using late l
         where l.next is null and i.shard = l.shard and i.run_id = l.run_id and i.message_id = l.message_id
        returning i.shard, i.run_id, i.type, i.body, l.twice
    ), dropped as (
        update durable.signals s
           set status = case when g.twice then 'duplicate' else 'dropped' end,
               reason = case when g.twice then 'the dedupe key was used before' else 'the run closed before it was read' end
          from gone g where g.type = 'SignalReceived' and s.shard = g.shard and s.run_id = g.run_id and s.signal_id = (g.body ->> 'signal_id')::uuid
        returning 1
    ), aborted as (
        update durable.updates u set status = 'aborted', ended_at = durable.now(), reason = 'the run closed before it was read'
          from gone g where g.type = 'UpdateRequested' and u.shard = g.shard and u.run_id = g.run_id and u.update_id = g.body ->> 'update_id'
           and u.status = 'requested'
        returning 1
    ), forwarded as (
        update durable.inbox i set run_id = l.next from late l
         where l.next is not null and i.shard = l.shard and i.run_id = l.run_id and i.message_id = l.message_id
        returning i.shard, l.run_id, l.next, i.type, i.body
    ), moved as (
        update durable.signals s set run_id = f.next from forwarded f
         where f.type = 'SignalReceived' and s.shard = f.shard and s.run_id = f.run_id and s.signal_id = (f.body ->> 'signal_id')::uuid
        returning s.shard, f.run_id, f.next, s.signal_id
    ), noted as (
        insert into durable.evidence (shard, run_id, at, kind, body)
        select m.shard, m.run_id, durable.now(), 'SignalsReplayed', jsonb_build_object('to', m.next, 'count', count(*), 'signals', (array_agg(m.signal_id))[:100])
          from moved m group by m.shard, m.run_id, m.next
    ), carried as (
        update durable.updates u set run_id = f.next, generation = n.generation
          from forwarded f join durable.runs n on n.shard = f.shard and n.run_id = f.next
         where f.type = 'UpdateRequested' and u.shard = f.shard and u.run_id = f.run_id and u.update_id = f.body ->> 'update_id'
           and u.status = 'requested'
        returning 1
    )
    select (select count(*) from gone) + (select count(*) from forwarded) into v_count;
    return v_count;
end $$;

-- DEADLINES that nobody enforced: waiting too long, or an attempt whose worker lives but did not end it within the grace; and those of runs.
create function durable.expire_deadlines(p_grace_s double precision, p_limit integer) returns integer
language plpgsql
set jit = off set enable_seqscan = off
as $$
declare
    v_now timestamptz := durable.now();
    v_job durable.jobs;
    v_count integer := 0;
begin
    for v_job in
        select j.* from durable.jobs j
         where j.shard = any (durable.shard_keys()) and j.deadline_at <= v_now
           and (j.state <> 'executing' or j.deadline_at + p_grace_s * interval '1 second' <= v_now)
         limit p_limit for update skip locked
    loop
        perform durable.lose_attempt_surely(v_job, v_now, 'Timeout', jsonb_build_object('type', 'builtins:TimeoutError',
            'message', v_job.deadline_kind || ' timeout'), v_job.state not in ('executing', 'waiting') or v_job.deadline_kind = 'schedule_to_close');
        v_count := v_count + 1;
    end loop;
    return v_count + durable.expire_runs(p_limit);
end $$;

-- A worker's sign of life. Answers false when it had been declared dead meanwhile: it lives again, and must drop everything that it held.
create function durable.beat(p_worker uuid, p_name text, p_state text, p_queues jsonb, p_info jsonb, p_lease_s double precision)
returns table (alive boolean, now_us bigint) language plpgsql as $$
declare
    v_now timestamptz := durable.now();
    v_before text;
begin
    select w.state into v_before from durable.workers w where w.worker_id = p_worker for update;
    insert into durable.workers as w (worker_id, name, state, queues, info, started_at, beat_at, lease_until)
    values (p_worker, p_name, p_state, p_queues, p_info, v_now, v_now, v_now + p_lease_s * interval '1 second')
    on conflict (worker_id) do update
       set state = excluded.state, buried_at = null, beat_at = excluded.beat_at, lease_until = excluded.lease_until, info = excluded.info;
    alive := coalesce(v_before in ('alive', 'stopping'), true);
    now_us := durable.to_us(v_now);
    return next;
end $$;
