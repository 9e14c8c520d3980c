-- Child workflows (C15) and continue-as-new. A child is a run like any other, with a link to the event of its parent's history that started it. Nothing here
-- costs a run without children more than two look-ups when it closes.

create index runs_children on durable.runs (parent_shard, parent_run_id, parent_seq) where parent_run_id is not null;

-- What a batch of turns asks of children: to start, to receive a signal, to stop. An id that a running workflow has is an answer to the parent,
-- never an error of the batch. Returns the workers and queues to tell.
create function durable.act_on_children(
    r_shard smallint[], r_run uuid[], e_ix integer[], e_seq integer[], e_type text[], e_body jsonb[], e_payload json[], p_now timestamptz
) returns jsonb
language plpgsql
set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set plan_cache_mode = force_generic_plan
as $$
declare
    v_asked record;
    v_sent record;
    v_pushes jsonb := '[]';
begin
    with asked as materialized (
        select r_shard[e.ix] as parent_shard, r_run[e.ix] as parent, e.seq, e.body, e.payload,
               durable.shard_of(e.body ->> 'workflow_id') as shard, e.body ->> 'workflow_id' as workflow_id, durable.uuid7() as run_id
          from unnest(e_ix, e_seq, e_type, e_body, e_payload) as e(ix, seq, type, body, payload)
         where e.type = 'ChildStarted'
    ), started as (
        insert into durable.runs (shard, run_id, workflow_id, generation, workflow, version, queue, priority, ready_at, actor,
                                  parent_shard, parent_run_id, parent_seq, created_at)
        select a.shard, a.run_id, a.workflow_id,
               coalesce((select max(g.generation) + 1 from durable.runs g where g.shard = a.shard and g.workflow_id = a.workflow_id), 0),
               a.body ->> 'workflow', (a.body ->> 'version')::int, a.body ->> 'queue', (a.body ->> 'priority')::smallint, p_now, p.actor,
               a.parent_shard, a.parent, a.seq, p_now
          from asked a join durable.runs p on p.shard = a.parent_shard and p.run_id = a.parent
         order by a.shard, a.workflow_id
            on conflict do nothing
        returning run_id
    ), told as (
        insert into durable.history (shard, run_id, seq, turn, type, at, body, payload)
        select a.shard, a.run_id, 1, 0, 'WorkflowStarted', p_now,
               (a.body - '{digest,line,close_policy}'::text[]) || jsonb_strip_nulls(jsonb_build_object(
                   'semantics', 1, 'actor', h.body -> 'actor', 'headers', h.body -> 'headers', 'parent', jsonb_build_object(
                       'workflow_id', h.body -> 'workflow_id', 'run_id', a.parent, 'seq', a.seq))), a.payload
          from started s join asked a on a.run_id = s.run_id
          join durable.history h on h.shard = a.parent_shard and h.run_id = a.parent and h.seq = 1
    )
    insert into durable.inbox (shard, run_id, queue, type, at, body)
    select p.shard, p.run_id, p.queue, 'ChildRejected', p_now, jsonb_build_object('ref', a.seq, 'reason', 'a running workflow has this id')
      from asked a join durable.runs p on p.shard = a.parent_shard and p.run_id = a.parent and p.status is not distinct from 'running'
     where not exists (select from started s where s.run_id = a.run_id);

    for v_asked in
        select r_shard[e.ix] as parent_shard, r_run[e.ix] as parent, e.type, e.body, e.payload
          from unnest(e_ix, e_seq, e_type, e_body, e_payload) as e(ix, seq, type, body, payload)
         where e.type in ('ChildSignalled', 'ChildCancelRequested') order by e.ix, e.seq
    loop
        if v_asked.type = 'ChildSignalled' then
            select s.owner, s.queue into v_sent
              from (select c.shard, c.workflow_id, c.parent_shard, c.parent_run_id from durable.runs c
                     where c.shard = durable.shard_of(v_asked.body ->> 'workflow_id') and c.workflow_id = v_asked.body ->> 'workflow_id'
                     order by c.generation desc limit 1) n
             cross join lateral durable.send_signal(n.shard, n.workflow_id, gen_random_uuid(), v_asked.body ->> 'name', v_asked.payload) s
             where n.parent_shard = v_asked.parent_shard and n.parent_run_id = v_asked.parent;
            if found then
                v_pushes := v_pushes || to_jsonb(coalesce('worker:' || v_sent.owner, 'queue:' || v_sent.queue));
            end if;
        else
            v_pushes := v_pushes || durable.cancel_children(v_asked.parent_shard, v_asked.parent, (v_asked.body ->> 'ref')::int,
                                                            'the parent gave it up', p_now);
        end if;
    end loop;
    return v_pushes;
end $$;

-- Ask one child (or, without a number, all that are told to by their close policy) to stop. One that nobody has claimed yet is closed here
-- and now: it may be on a queue that has no worker.
create function durable.cancel_children(p_shard smallint, p_parent uuid, p_seq integer, p_reason text, p_now timestamptz) returns jsonb
language plpgsql
set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set plan_cache_mode = force_generic_plan
as $$
declare
    v_child record;
    v_asked uuid[] := '{}';
    v_before integer;
    v_pushes jsonb := '[]';
begin
    loop  -- again, because a child that continues as new at this moment shows its successor only to the next look
        v_before := cardinality(v_asked);
        for v_child in
            select c.shard, c.run_id, c.queue, c.owner, c.epoch, c.last_seq, c.cancel_requested_at from durable.runs c
             where c.parent_shard = p_shard and c.parent_run_id = p_parent and (p_seq is null or c.parent_seq = p_seq)
               and c.status = 'running' and c.run_id <> all (v_asked)
               and (p_seq is not null or 'cancel' = (select h.body ->> 'close_policy' from durable.history h
                                                      where h.shard = p_shard and h.run_id = p_parent and h.seq = c.parent_seq))
             order by c.shard, c.run_id for update of c
        loop
            v_asked := v_asked || v_child.run_id;
            if v_child.owner is null and v_child.epoch = 0 then
                update durable.runs r set status = 'cancelled', closed_at = p_now, ready_at = null, delayed_until = null,
                       last_seq = r.last_seq + 2, turn = 1, cancel_requested_at = p_now
                 where r.shard = v_child.shard and r.run_id = v_child.run_id;
                insert into durable.history (shard, run_id, seq, turn, type, at, body) values
                    (v_child.shard, v_child.run_id, v_child.last_seq + 1, 1, 'CancelRequested', p_now, jsonb_build_object('reason', p_reason)),
                    (v_child.shard, v_child.run_id, v_child.last_seq + 2, 1, 'WorkflowCancelled', p_now,
                     jsonb_build_object('reason', p_reason, 'before_start', true));
                v_pushes := v_pushes || durable.sweep_closed(array[v_child.shard], array[v_child.run_id], array['cancelled'], p_now);
            elsif v_child.cancel_requested_at is null and not exists (select from durable.inbox i
                    where i.shard = v_child.shard and i.run_id = v_child.run_id and i.type = 'CancelRequested') then
                insert into durable.inbox (shard, run_id, queue, type, at, body)
                values (v_child.shard, v_child.run_id, v_child.queue, 'CancelRequested', p_now, jsonb_build_object('reason', p_reason));
                v_pushes := v_pushes || to_jsonb(coalesce('worker:' || v_child.owner, 'queue:' || v_child.queue));
            end if;
        end loop;
        exit when cardinality(v_asked) = v_before;
    end loop;
    return v_pushes;
end $$;

-- End by force the children whose close policy says so, and by their policies what they have started.
create function durable.terminate_children(p_shard smallint, p_parent uuid, p_now timestamptz) returns jsonb
language plpgsql
set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set plan_cache_mode = force_generic_plan
as $$
declare
    v_shards smallint[];
    v_runs uuid[];
    v_owners jsonb;
    v_pushes jsonb := '[]';
begin
    loop
        with due as materialized (
            select c.shard, c.run_id, c.owner from durable.runs c
             where c.parent_shard = p_shard and c.parent_run_id = p_parent and c.status = 'running'
               and 'terminate' = (select h.body ->> 'close_policy' from durable.history h
                                   where h.shard = p_shard and h.run_id = p_parent and h.seq = c.parent_seq)
             order by c.shard, c.run_id for update of c
        ), ended as (
            update durable.runs r set status = 'terminated', closed_at = p_now, owner = null, epoch = r.epoch + 1, ready_at = null,
                   delayed_until = null, review = null, last_seq = r.last_seq + 1, turn = r.turn + 1
              from due d where r.shard = d.shard and r.run_id = d.run_id
            returning r.shard, r.run_id, r.last_seq, r.turn, d.owner
        ), told as (
            insert into durable.history (shard, run_id, seq, turn, type, at, body)
            select e.shard, e.run_id, e.last_seq, e.turn, 'WorkflowTerminated', p_now, jsonb_build_object('reason', 'its parent closed')
              from ended e
        )
        select array_agg(e.shard), array_agg(e.run_id), jsonb_agg(distinct 'worker:' || e.owner) filter (where e.owner is not null)
          into v_shards, v_runs, v_owners from ended e;
        exit when v_runs is null;
        v_pushes := v_pushes || coalesce(v_owners, '[]')
            || durable.sweep_closed(v_shards, v_runs, array_fill('terminated'::text, array[cardinality(v_runs)]), p_now);
    end loop;
    return v_pushes;
end $$;

-- A run that closes tells its parent how, and applies the close policies to its own children.
create function durable.close_family(r_shard smallint[], r_run uuid[], p_now timestamptz) returns jsonb
language plpgsql
set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set plan_cache_mode = force_generic_plan
as $$
declare
    v_run record;
    v_pushes jsonb;
begin
    with closed as materialized (
        select r.shard, r.run_id, r.status, r.last_seq, r.parent_shard, r.parent_run_id, r.parent_seq
          from unnest(r_shard, r_run) as b(shard, run_id) join durable.runs r on r.shard = b.shard and r.run_id = b.run_id
         where r.status in ('completed', 'failed', 'cancelled', 'terminated')
    ), told as (
        insert into durable.inbox (shard, run_id, queue, type, at, body, payload)
        select p.shard, p.run_id, p.queue, 'Child' || initcap(c.status), p_now,
               jsonb_strip_nulls(jsonb_build_object('ref', c.parent_seq, 'run_id', c.run_id, 'reason', h.body -> 'reason'))
               || case when h.body ? 'failure' then jsonb_build_object('failure', h.body -> 'failure') else '{}' end, h.payload
          from closed c join durable.runs p on p.shard = c.parent_shard and p.run_id = c.parent_run_id and p.status is not distinct from 'running'
          join durable.history h on h.shard = c.shard and h.run_id = c.run_id and h.seq = c.last_seq
    )
    select coalesce(jsonb_agg(distinct coalesce('worker:' || p.owner, 'queue:' || p.queue)), '[]') into v_pushes
      from closed c join durable.runs p on p.shard = c.parent_shard and p.run_id = c.parent_run_id and p.status is not distinct from 'running';
    for v_run in
        select b.shard, b.run_id from unnest(r_shard, r_run) as b(shard, run_id)
          join durable.runs r on r.shard = b.shard and r.run_id = b.run_id and r.status in ('completed', 'failed', 'cancelled', 'terminated')
         where exists (select from durable.runs c where c.parent_shard = b.shard and c.parent_run_id = b.run_id and c.status = 'running')
    loop
        v_pushes := v_pushes || durable.terminate_children(v_run.shard, v_run.run_id, p_now)
            || durable.cancel_children(v_run.shard, v_run.run_id, null, 'its parent closed', p_now);
    end loop;
    return v_pushes;
end $$;

-- CONTINUE AS NEW: the successor of a run that ends that way, with what the run has not read: messages still in the inbox, and signals that
-- were delivered to it and that its code never received. Those come first, in their order. The link to a parent goes along.
create function durable.continue_runs(
    r_shard smallint[], r_run uuid[], e_ix integer[], e_type text[], e_body jsonb[], e_payload json[], p_now timestamptz
) returns void
language plpgsql
set lock_timeout = '200ms' set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set plan_cache_mode = force_generic_plan
as $$
declare
    v_run record;
    v_next uuid;
    v_unread integer[];
begin
    for v_run in
        select r.*, e.body as asked, e.payload as input, h.body as start
          from unnest(e_ix, e_type, e_body, e_payload) as e(ix, type, body, payload)
          join durable.runs r on r.shard = r_shard[e.ix] and r.run_id = r_run[e.ix]
          join durable.history h on h.shard = r.shard and h.run_id = r.run_id and h.seq = 1
         where e.type = 'WorkflowContinued'
    loop
        begin  -- senders at this very moment first; one that takes its time is for sweep_orphans
            perform from durable.runs r where r.shard = v_run.shard and r.run_id = v_run.run_id for update;
        exception when lock_not_available then null;
        end;
        v_next := durable.uuid7();
        v_unread := array(select n::int from jsonb_array_elements_text(coalesce(v_run.asked -> 'unread', '[]')) as n);
        insert into durable.runs (shard, run_id, workflow_id, generation, workflow, version, semantics, queue, priority, ready_at,
                                  actor, attributes, memo, parent_shard, parent_run_id, parent_seq, created_at)
        values (v_run.shard, v_next, v_run.workflow_id, v_run.generation + 1, v_run.asked ->> 'workflow', (v_run.asked ->> 'version')::int,
                v_run.semantics, v_run.queue, v_run.priority, p_now, v_run.actor, v_run.attributes, v_run.memo,
                v_run.parent_shard, v_run.parent_run_id, v_run.parent_seq, p_now);
        insert into durable.history (shard, run_id, seq, turn, type, at, body, payload)
        values (v_run.shard, v_next, 1, 0, 'WorkflowStarted', p_now,
                v_run.start || (v_run.asked - 'unread') || jsonb_build_object(
                    'continued', coalesce((v_run.start ->> 'continued')::int, 0) + 1, 'continued_from', v_run.run_id), v_run.input);
        update durable.signals s set run_id = v_next, status = 'buffered', seq = null
         where s.shard = v_run.shard and s.run_id = v_run.run_id and (s.status = 'buffered' or s.seq = any (v_unread));
        update durable.inbox i set run_id = v_next
         where i.shard = v_run.shard and i.run_id = v_run.run_id and i.type in ('SignalReceived', 'CancelRequested');
        insert into durable.inbox (shard, run_id, queue, type, at, body, payload)
        select h.shard, v_next, v_run.queue, h.type, v_run.created_at - interval '1 second' + h.seq * interval '1 microsecond', h.body, h.payload
          from durable.history h where h.shard = v_run.shard and h.run_id = v_run.run_id and h.seq = any (v_unread);
    end loop;
end $$;

-- As in 0002; a signal or cancel request that reached a run while it continued as new goes on to its successor.
create or replace function durable.sweep_orphans(p_limit integer) returns integer
language plpgsql
set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
    v_count integer;
begin
    with late as materialized (
        select i.shard, i.run_id, i.message_id, n.run_id as next
          from durable.inbox i join durable.runs r on r.shard = i.shard and r.run_id = i.run_id
          left join durable.runs n on r.status = 'continued' and i.type in ('SignalReceived', 'CancelRequested')
               and n.shard = r.shard and n.workflow_id = r.workflow_id and n.generation = (
                   select min(g.generation) from durable.runs g where g.shard = r.shard and g.workflow_id = r.workflow_id
                      and g.generation > r.generation and g.status <> 'continued')
         where i.shard = any (durable.shard_keys()) and r.status <> 'running' limit p_limit for update of i skip locked
    ), gone as (
        delete from durable.inbox i using late l
         where l.next is null and i.shard = l.shard and i.run_id = l.run_id and i.message_id = l.message_id
        returning i.shard, i.run_id, i.type, i.body
    ), dropped as (
        update durable.signals s set status = 'dropped', reason = 'the run closed before it was read'
          from gone g where g.type = 'SignalReceived' and s.shard = g.shard and s.run_id = g.run_id and s.signal_id = (g.body ->> 'signal_id')::uuid
        returning 1
    ), forwarded as (
        update durable.inbox i set run_id = l.next from late l
         where l.next is not null and i.shard = l.shard and i.run_id = l.run_id and i.message_id = l.message_id
        returning i.shard, l.run_id, l.next, i.type, i.body
    ), moved as (
        update durable.signals s set run_id = f.next from forwarded f
         where f.type = 'SignalReceived' and s.shard = f.shard and s.run_id = f.run_id and s.signal_id = (f.body ->> 'signal_id')::uuid
           and not exists (select from durable.signals d where d.shard = f.shard and d.run_id = f.next and d.name = s.name
                              and d.dedupe_key = s.dedupe_key and d.status in ('buffered', 'delivered'))
        returning 1
    )
    select (select count(*) from gone) + (select count(*) from forwarded) into v_count;
    return v_count;
end $$;

-- As in 0002, with a look at the types of the events.
create or replace function durable.commit(
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
    s_ix integer[], s_signal uuid[], s_seq integer[]
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
    if 'WorkflowContinued' = any (e_type) then
        perform durable.continue_runs(r_shard, r_run, e_ix, e_type, e_body, e_payload, v_now);
    end if;
    if exists (select from unnest(r_status) as t(status) where t.status <> 'running') then
        pushes := coalesce(pushes, '[]') || durable.sweep_closed(r_shard, r_run, r_status, v_now);
    end if;
    now_us := durable.to_us(v_now);
    return next;
end $$;

-- As in 0002, but for the two last statements of `commit` and the last one of `sweep_closed`.
-- A closed run leaves nothing behind: waiting jobs and timers go, executing ones are told to stop, unread signals become evidence.
create or replace function durable.sweep_closed(r_shard smallint[], r_run uuid[], r_status text[], p_now timestamptz) returns jsonb
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
          join durable.runs r on r.shard = b.shard and r.run_id = b.run_id
         where b.status <> 'running' and (r.parent_run_id is not null or exists (
                   select from durable.runs c where c.parent_shard = b.shard and c.parent_run_id = b.run_id))
    ) then
        v_pushes := coalesce(v_pushes, '[]') || durable.close_family(r_shard, r_run, p_now);
    end if;
    return coalesce(v_pushes, '[]');
end $$;

-- Whether a run that the given one continues has taken a signal of this name and key.
create function durable.was_signalled_before(p_shard smallint, p_workflow_id text, p_generation integer, p_name text, p_key text) returns boolean
language sql stable as $$
    select p_generation > 0 and exists (
        select from durable.runs r join durable.signals s on s.shard = r.shard and s.run_id = r.run_id
         where r.shard = p_shard and r.workflow_id = p_workflow_id and r.generation < p_generation
           and s.name = p_name and s.dedupe_key = p_key and s.status in ('buffered', 'delivered')
           and not exists (select from durable.runs b where b.shard = p_shard and b.workflow_id = p_workflow_id
                              and b.generation >= r.generation and b.generation < p_generation and b.status <> 'continued'))
$$;

-- As in 0003, but that a dedupe key also holds for the runs that continue this one. SIGNAL: never lost (C11). Evidence row always; inbox row when the run is open and the key is new.
-- status: buffered | duplicate | dropped (closed) | unknown (no run of that id: nothing is written).
create or replace function durable.send_signal(p_shard smallint, p_workflow_id text, p_signal uuid, p_name text, p_payload json,
                                    p_dedupe_key text default null, p_actor jsonb default null)
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
            status := 'unknown'; return next; return;
        end if;
        exit when (select r.status from durable.runs r where r.shard = p_shard and r.run_id = v_run.run_id) <> 'continued';  -- after the lock
    end loop;
    run_id := v_run.run_id; queue := v_run.queue; owner := v_run.owner;
    select s.run_id, s.status into v_before from durable.runs r join durable.signals s on s.shard = r.shard and s.run_id = r.run_id
     where r.shard = p_shard and r.workflow_id = p_workflow_id and r.generation < v_run.generation and s.signal_id = p_signal;
    if found then  -- the answer was lost, and another run of that id has started meanwhile: the signal was for the one before
        run_id := v_before.run_id;
        status := case v_before.status when 'delivered' then 'buffered' else v_before.status end;
        return next; return;
    end if;
    if v_run.status <> 'running' then
        status := 'dropped'; reason := 'the run is ' || v_run.status;
        insert into durable.signals (shard, run_id, signal_id, name, dedupe_key, status, reason, payload, actor, at)
        values (p_shard, run_id, p_signal, p_name, p_dedupe_key, status, reason, p_payload, p_actor, v_now)
        on conflict do nothing;
        if not found then  -- the answer was lost and the same client asks again: the run took it before it closed, or dropped it
            select case when s.status = 'dropped' and s.seq is null then 'dropped' else 'buffered' end into status
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
        insert into durable.signals (shard, run_id, signal_id, name, dedupe_key, status, reason, payload, actor, at)
        values (p_shard, run_id, p_signal, p_name, p_dedupe_key, status, reason, p_payload, p_actor, v_now)
        on conflict do nothing;
        return next; return;
    end if;
    insert into durable.inbox (shard, run_id, message_id, queue, type, at, body, payload)
    values (p_shard, run_id, p_signal, queue, 'SignalReceived', v_now,
            jsonb_build_object('name', p_name, 'signal_id', p_signal), p_payload);
    status := 'buffered';
    return next;
end $$;
