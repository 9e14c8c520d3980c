-- Which code may run a run: versions of a workflow, builds of a worker, versions of the engine's rules. The columns are in 0001.
--
-- A worker announces what it has: its build (`durable-worker --build`) and the versions of each workflow. A run that is declared pinned stays with
-- the build that took its first recorded turn (`runs.build`); `claim_runs` passes by the runs of other builds. Nothing else in a claim
-- knows of builds, and a worker is told of a version that it has not got only when it has claimed it: then it puts the run back (`release_runs`).

-- The semantics version of runs that the SQL API starts; the same number as durable.core.semantics.CURRENT (C16).
create function durable.semantics() returns smallint language sql immutable as $$ select 1::smallint $$;

-- The open runs of a build: for people who retire it. A run that is not pinned costs nothing here.
create index runs_pinned on durable.runs (shard, build) where build is not null and status = 'running';

-- Whether some live worker could run this: it serves the queue, has the version and is of the build (null: any).
create function durable.is_served(p_workflow text, p_version integer, p_queue text, p_build text) returns boolean language sql stable as $$
    select exists (select from durable.workers w
                    where w.state = 'alive' and w.lease_until >= durable.now() and w.queues ? p_queue
                      and w.workflows -> p_workflow @> to_jsonb(p_version) and (p_build is null or w.build = p_build))
$$;

-- The version that a start by name takes: the newest that a live worker has, so that one which was rolled back gets no new runs; with no
-- live worker the newest that any has ever registered. Null: the name is unknown.
create function durable.version_to_start(p_workflow text) returns integer language sql stable as $$
    select coalesce(
        (select max(v.version::int) from durable.workers w cross join lateral jsonb_array_elements_text(w.workflows -> p_workflow) as v(version)
          where w.state = 'alive' and w.lease_until >= durable.now()),
        (select max(d.version) from durable.definitions d where d.kind = 'workflow' and d.name = p_workflow))
$$;

-- MOVE a run to another build, or free it from any (null). A live owner of another build loses it: its next commit loses the fence (C2).
-- status: moved | unchanged | closed | unknown.
create function durable.move_run(p_shard smallint, p_workflow_id text, p_build text, p_reason text, p_actor jsonb default null,
                                 p_command uuid default gen_random_uuid())
returns table (run_id uuid, status text, was text, served boolean, queue text, owner uuid)
language plpgsql as $$
declare
    v_now timestamptz := durable.now();
    v_run durable.runs;
    v_leaves boolean;
begin
    v_run := durable.take_run(p_shard, p_workflow_id);
    if v_run.run_id is null then
        perform durable.log_stray('workflow', p_workflow_id, p_command, 'move', 'unknown_workflow', p_reason, p_actor);
        status := 'unknown'; return next; return;
    end if;
    run_id := v_run.run_id; queue := v_run.queue; owner := v_run.owner; was := v_run.build;
    served := durable.is_served(v_run.workflow, v_run.version, v_run.queue, p_build);
    select case o.code when 'accepted' then 'moved' when 'workflow_closed' then 'closed' else o.code end into status from durable.operator_commands o
     where o.shard = p_shard and o.run_id = v_run.run_id and o.command_id = p_command;
    if found then  -- the answer was lost and the same client asks again
        return next; return;
    end if;
    if v_run.status <> 'running' then
        status := 'closed';
    elsif v_run.build is not distinct from p_build and v_run.pinned = (p_build is not null) then
        status := 'unchanged';
    else
        status := 'moved';
        v_leaves := v_run.owner is not null and p_build is not null and not exists (
            select from durable.workers w where w.worker_id = v_run.owner and w.build = p_build);
        update durable.runs r
           set pinned = p_build is not null, build = p_build, owner = case when not v_leaves then r.owner end,
               epoch = r.epoch + v_leaves::int, ready_at = case when v_leaves then v_now else r.ready_at end
         where r.shard = p_shard and r.run_id = v_run.run_id;
    end if;
    perform durable.log_command(v_run, p_command, 'move', case status when 'moved' then 'accepted' when 'closed' then 'workflow_closed' else status end,
        p_reason, p_actor, null, null, durable.standing(v_run),
        case when status = 'moved' then (select durable.standing(r) from durable.runs r where r.shard = p_shard and r.run_id = v_run.run_id) end);
    return next;
end $$;

-- Move exactly this run, as part of a batch.
create function durable.move_in_batch(p_shard smallint, p_workflow_id text, p_run uuid, p_build text, p_reason text, p_actor jsonb, p_command uuid, p_batch uuid)
returns table (run_id uuid, code text, pushes jsonb) language plpgsql as $$
declare
    v_run durable.runs := durable.take_run(p_shard, p_workflow_id);
    v_moved record;
begin
    if v_run.run_id is null then code := 'unknown'; return next; return; end if;
    select o.run_id, o.code into run_id, code from durable.earlier_answer(p_shard, p_workflow_id, p_command) o;
    if code is not null then return next; return; end if;
    run_id := v_run.run_id;
    if p_run <> v_run.run_id then
        code := 'superseded';
        perform durable.log_command(v_run, p_command, 'move', code, p_reason, p_actor, p_batch, null, durable.standing(v_run), null);
        return next; return;
    end if;
    select * into v_moved from durable.move_run(p_shard, p_workflow_id, p_build, p_reason, p_actor, p_command);
    code := case v_moved.status when 'moved' then 'accepted' when 'closed' then 'workflow_closed' else v_moved.status end;
    pushes := to_jsonb(array_remove(array['worker:' || v_moved.owner, 'queue:' || v_moved.queue], null));
    update durable.operator_commands o set batch_id = p_batch where o.shard = p_shard and o.run_id = v_run.run_id and o.command_id = p_command;
    return next;
end $$;
