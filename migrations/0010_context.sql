-- What travels with a run besides its arguments. The actor has its column from the beginning; the headers lie beside it, so that a worker that
-- claims one of the run's activities need not read the run's first event.

alter table durable.runs add column headers jsonb;

-- Limits on a run's life. `deadline_at` is when this run must have ended: the earlier of its own time limit and of `execution_deadline_at`, which holds
-- for the whole chain of continue-as-new. Both begin when the run may first run (after its start delay), and neither changes later.
alter table durable.runs add column deadline_at timestamptz;
alter table durable.runs add column execution_deadline_at timestamptz;
create index runs_deadlines on durable.runs (shard, deadline_at) where status = 'running' and deadline_at is not null;

-- What people read: what the run is for, said at its start, and what it is about just now, said by its code.
alter table durable.runs add column static_details text;
alter table durable.runs add column details text;
alter table durable.runs add constraint runs_details_length check (length(static_details) <= 8192 and length(details) <= 8192);

-- For `list --where`. Runs without attributes are not in it.
create index runs_attributes on durable.runs using gin (attributes jsonb_path_ops) where attributes is not null;

create function durable.execution_deadline_of(p_body jsonb, p_from timestamptz) returns timestamptz language sql immutable as
$$ select p_from + (p_body ->> 'execution_timeout_s')::float8 * interval '1 second' $$;

create function durable.deadline_of(p_body jsonb, p_from timestamptz, p_execution timestamptz) returns timestamptz language sql immutable as
$$ select least(p_from + (p_body ->> 'run_timeout_s')::float8 * interval '1 second', p_execution) $$;

-- TIME OUT the runs whose deadline has passed: closed by force, as a termination is, with a typed failure. No worker has to hold them, or to be
-- alive for their queue: any worker's housekeeping does it. Their children end by their close policies, their attempts are told to stop.
create function durable.expire_runs(p_limit integer) returns integer
language plpgsql
set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
    v_now timestamptz := durable.now();
    v_each integer := 2 + p_limit / 16;
    v_run record;
    v_kind text;
    v_count integer := 0;
begin
    for v_run in
        select e.* from unnest(durable.shard_keys()) as k(key)
         cross join lateral (
            select r.shard, r.run_id, r.workflow_id, r.last_seq, r.turn, r.deadline_at, r.execution_deadline_at from durable.runs r
             where r.shard = k.key and r.status = 'running' and r.deadline_at <= v_now
             order by r.deadline_at limit v_each for no key update skip locked) e
    loop
        v_kind := case when v_run.execution_deadline_at = v_run.deadline_at then 'execution' else 'run' end;
        update durable.runs r set status = 'failed', closed_at = v_now, owner = null, epoch = r.epoch + 1, ready_at = null, delayed_until = null,
               review = null, paused = null, last_seq = r.last_seq + 1, turn = r.turn + 1
         where r.shard = v_run.shard and r.run_id = v_run.run_id;
        insert into durable.history (shard, run_id, seq, turn, type, at, body)
        values (v_run.shard, v_run.run_id, v_run.last_seq + 1, v_run.turn + 1, 'WorkflowTimedOut', v_now, jsonb_build_object(
                'timeout', v_kind, 'failure', jsonb_build_object('type', 'durable.errors:WorkflowTimedOut',
                'message', format('workflow ''%s'' exceeded its %s timeout', v_run.workflow_id, v_kind),
                'state', jsonb_build_object('workflow_id', v_run.workflow_id, 'run_id', v_run.run_id, 'reason', null, 'kind', v_kind))));
        perform durable.sweep_closed(array[v_run.shard], array[v_run.run_id], array['failed'], v_now);
        v_count := v_count + 1;
    end loop;
    return v_count;
end $$;

-- What a batch of turns says about its runs: attributes (null removes one) and details.
create function durable.note_runs(r_shard smallint[], r_run uuid[], e_ix integer[], e_seq integer[], e_type text[], e_body jsonb[]) returns void
language plpgsql
set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set plan_cache_mode = force_generic_plan
as $$
declare
    v_said record;
begin
    for v_said in
        select r_shard[e.ix] as shard, r_run[e.ix] as run_id, e.type, e.body from unnest(e_ix, e_seq, e_type, e_body) as e(ix, seq, type, body)
         where e.type in ('AttributesSet', 'DetailsSet') order by e.ix, e.seq
    loop
        if v_said.type = 'DetailsSet' then
            update durable.runs r set details = v_said.body ->> 'details' where r.shard = v_said.shard and r.run_id = v_said.run_id;
        else
            update durable.runs r
               set attributes = nullif((coalesce(r.attributes, '{}') || (v_said.body -> 'attributes')) - array(
                       select a.key from jsonb_each(v_said.body -> 'attributes') a where a.value = 'null'), '{}')
             where r.shard = v_said.shard and r.run_id = v_said.run_id;
        end if;
    end loop;
end $$;

-- Large payloads (claim check), each content once, by the SHA-256 of its bytes. Rows elsewhere refer to them in their envelopes; what no row refers to
-- is deleted on request, a while after it was last put.
create table durable.payloads (
    key    text        primary key,
    data   bytea       not null,
    put_at timestamptz not null,
    constraint payloads_key_is_sha256 check (key ~ '^[0-9a-f]{64}$')
);
alter table durable.payloads alter column data set storage external;  -- compressed before, where that pays

-- All references to large payloads. Reads every table that holds payloads, from end to end: not for everyday.
create function durable.payload_refs() returns setof text language plpgsql stable as $$
begin
    return query
    select e.payload ->> 'ref' from (
        select payload from durable.history union all select payload from durable.inbox union all select payload from durable.signals
        union all select result from durable.updates union all select payload from durable.queries union all select result from durable.queries
        union all select on_end -> 'input' from durable.runs union all select c.value -> 'input' from durable.job_groups g cross join lateral json_each(g.callbacks) c
        union all select input from durable.schedules union all select input from durable.jobs union all select result from durable.jobs union all select heartbeat from durable.jobs
        union all select payload from durable.batches where finished_at is null
    ) e where e.payload::text like '{"durable:encoded":%' and json_typeof(e.payload -> 'ref') = 'string'
    union all
    select m[1] from durable.archive a cross join lateral regexp_matches(a.record::text, '"ref" *: *"([0-9a-f]{64})"', 'g') m;
end $$;
