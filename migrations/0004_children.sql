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
        insert into durable.runs (shard, run_id, workflow_id, generation, workflow, version, semantics, pinned, queue, priority, ready_at, actor, headers,
                                  deadline_at, execution_deadline_at, parent_shard, parent_run_id, parent_seq, created_at)
        select a.shard, a.run_id, a.workflow_id,
               coalesce((select max(g.generation) + 1 from durable.runs g where g.shard = a.shard and g.workflow_id = a.workflow_id), 0),
               a.body ->> 'workflow', (a.body ->> 'version')::int, p.semantics, a.body ? 'pinned', a.body ->> 'queue', (a.body ->> 'priority')::smallint, p_now, p.actor, p.headers,
               durable.deadline_of(a.body, p_now, durable.execution_deadline_of(a.body, p_now)), durable.execution_deadline_of(a.body, p_now),
               a.parent_shard, a.parent, a.seq, p_now
          from asked a join durable.runs p on p.shard = a.parent_shard and p.run_id = a.parent
         order by a.shard, a.workflow_id
            on conflict do nothing
        returning run_id
    ), told as (
        insert into durable.history (shard, run_id, seq, turn, type, at, body, payload)
        select a.shard, a.run_id, 1, 0, 'WorkflowStarted', p_now,
               (a.body - '{digest,line,close_policy}'::text[]) || jsonb_strip_nulls(jsonb_build_object(
                   'semantics', h.body -> 'semantics', 'actor', h.body -> 'actor', 'headers', h.body -> 'headers', 'parent', jsonb_build_object(
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
              join durable.runs p on p.shard = v_asked.parent_shard and p.run_id = v_asked.parent
             cross join lateral durable.send_signal(n.shard, n.workflow_id, gen_random_uuid(), v_asked.body ->> 'name', v_asked.payload,
                                                    null, p.actor, p.headers) s
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
    v_child durable.runs;
    v_asked uuid[] := '{}';
    v_before integer;
    v_new boolean;
    v_pushes jsonb := '[]';
begin
    loop  -- again, because a child that continues as new at this moment shows its successor only to the next look
        v_before := cardinality(v_asked);
        for v_child in
            select c.* from durable.runs c
             where c.parent_shard = p_shard and c.parent_run_id = p_parent and (p_seq is null or c.parent_seq = p_seq)
               and c.status = 'running' and c.run_id <> all (v_asked)
               and (p_seq is not null or 'cancel' = (select h.body ->> 'close_policy' from durable.history h
                                                      where h.shard = p_shard and h.run_id = p_parent and h.seq = c.parent_seq))
             order by c.shard, c.run_id for no key update of c
        loop
            v_asked := v_asked || v_child.run_id;
            v_new := v_child.cancel_requested_at is null and not exists (select from durable.inbox i
                where i.shard = v_child.shard and i.run_id = v_child.run_id and i.type = 'CancelRequested');
            perform durable.log_command(v_child, gen_random_uuid(), 'cancel', case when v_new then 'accepted' else 'already_requested' end, p_reason,
                (select jsonb_build_object('parent', p.workflow_id) from durable.runs p where p.shard = p_shard and p.run_id = p_parent), null, null, null, null);
            if v_child.owner is null and v_child.epoch = 0 then
                update durable.runs r set status = 'cancelled', closed_at = p_now, ready_at = null, delayed_until = null,
                       last_seq = r.last_seq + 2, turn = 1, cancel_requested_at = p_now
                 where r.shard = v_child.shard and r.run_id = v_child.run_id;
                insert into durable.history (shard, run_id, seq, turn, type, at, body) values
                    (v_child.shard, v_child.run_id, v_child.last_seq + 1, 1, 'CancelRequested', p_now, jsonb_build_object('reason', p_reason)),
                    (v_child.shard, v_child.run_id, v_child.last_seq + 2, 1, 'WorkflowCancelled', p_now,
                     jsonb_build_object('reason', p_reason, 'before_start', true));
                v_pushes := v_pushes || durable.sweep_closed(array[v_child.shard], array[v_child.run_id], array['cancelled'], p_now);
            elsif v_new then
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
             order by c.shard, c.run_id for no key update of c
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

-- A run that closes tells its parent how, enqueues the job that was asked for, and applies the close policies to its own children.
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
    perform durable.tell_ends(r_shard, r_run);
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
        insert into durable.runs (shard, run_id, workflow_id, generation, workflow, version, semantics, pinned, queue, priority, ready_at,
                                  actor, headers, attributes, memo, static_details, details, deadline_at, execution_deadline_at,
                                  parent_shard, parent_run_id, parent_seq, on_end, created_at)
        values (v_run.shard, v_next, v_run.workflow_id, v_run.generation + 1, v_run.asked ->> 'workflow', (v_run.asked ->> 'version')::int,
                v_run.semantics, v_run.pinned, v_run.queue, v_run.priority, p_now, v_run.actor, v_run.headers, v_run.attributes, v_run.memo,
                v_run.static_details, v_run.details, durable.deadline_of(v_run.start, p_now, v_run.execution_deadline_at),
                v_run.execution_deadline_at,
                v_run.parent_shard, v_run.parent_run_id, v_run.parent_seq, v_run.on_end, p_now);
        insert into durable.history (shard, run_id, seq, turn, type, at, body, payload)
        values (v_run.shard, v_next, 1, 0, 'WorkflowStarted', p_now,
                (v_run.start - '{origins,reset,attributes}'::text[]) || (v_run.asked - 'unread')
                || case when v_run.attributes is null then '{}' else jsonb_build_object('attributes', v_run.attributes) end || jsonb_build_object(
                    'continued', coalesce((v_run.start ->> 'continued')::int, 0) + 1, 'continued_from', v_run.run_id), v_run.input);
        with moved as (
            update durable.signals s set run_id = v_next, status = 'buffered', seq = null
             where s.shard = v_run.shard and s.run_id = v_run.run_id and (s.status = 'buffered' or s.seq = any (v_unread))
            returning s.signal_id
        )
        insert into durable.evidence (shard, run_id, at, kind, body)
        select v_run.shard, v_run.run_id, p_now, 'SignalsReplayed', jsonb_build_object('to', v_next, 'count', count(*), 'signals', (array_agg(m.signal_id))[:100])
          from moved m having count(*) > 0;
        update durable.inbox i set run_id = v_next
         where i.shard = v_run.shard and i.run_id = v_run.run_id and i.type in ('SignalReceived', 'CancelRequested', 'UpdateRequested');
        update durable.updates u set run_id = v_next, generation = v_run.generation + 1
         where u.shard = v_run.shard and u.run_id = v_run.run_id and u.status = 'requested';
        insert into durable.inbox (shard, run_id, queue, type, at, body, payload)
        select h.shard, v_next, v_run.queue, h.type, v_run.created_at - interval '1 second' + h.seq * interval '1 microsecond', h.body, h.payload
          from durable.history h where h.shard = v_run.shard and h.run_id = v_run.run_id and h.seq = any (v_unread);
    end loop;
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
