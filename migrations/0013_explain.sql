-- Why something does not go on: its facts, as one document, read by one statement and so at one moment. Nothing here decides; durable/core/diagnosis.py puts the
-- facts into words. Everything is looked up by key and bounded: the first fifty jobs of a run (ten of a child), twenty children, twenty messages.

create function durable.worker_facts(p_worker uuid) returns json language sql stable as $$
    select json_build_object('name', w.name, 'state', w.state, 'beat_us', durable.to_us(w.beat_at), 'lease_us', durable.to_us(w.lease_until))
      from durable.workers w where w.worker_id = p_worker
$$;

create function durable.job_facts(p_shard smallint, p_run uuid, p_seq integer) returns json
language plpgsql stable set jit = off set enable_seqscan = off
as $$
begin
    return (select json_build_object(
        'job_id', j.run_id, 'seq', j.seq, 'kind', j.kind, 'name', j.name, 'queue', j.queue, 'state', j.state, 'attempt', j.attempt,
        'max_attempts', nullif(coalesce((o.options -> 'retry' ->> 'max_attempts')::int, 5), 0),
        'created_us', durable.to_us(j.created_at), 'scheduled_us', durable.to_us(j.scheduled_at), 'finished_us', durable.to_us(j.finished_at),
        'deadline_us', durable.to_us(j.deadline_at), 'deadline_kind', j.deadline_kind, 'timeouts', coalesce(o.options -> 'timeouts', '{}'),
        'worker', durable.worker_facts(j.owner), 'failure', j.errors -> -1 -> 'failure', 'heartbeat', j.heartbeat, 'note', j.note,
        'paused', j.paused || jsonb_build_object('at_us', durable.to_us((j.paused ->> 'at')::timestamptz)),
        'cancel_us', durable.to_us(j.cancel_requested_at), 'call_id', h.body ->> 'id', 'line', h.body ->> 'line',
        'reasons', coalesce((select json_agg(e) from durable.explain_job(p_shard, p_run, p_seq) e where j.kind <> 'timer'), '[]'),
        'cause', durable.cause_of_job_end(j.state, j.cancel_requested_at is not null, j.errors -> -1))
      from durable.jobs j
      left join durable.history h on j.kind <> 'job' and h.shard = j.shard and h.run_id = j.run_id and h.seq = j.seq
     cross join lateral (select coalesce(j.options, h.body) as options) o
     where j.shard = p_shard and j.run_id = p_run and j.seq = p_seq);
end $$;

-- Whether it is one of these calls, an element of its map (`name[3]`), or a later try (`name#2`).
create function durable.is_call(p_id text, p_calls text[]) returns boolean language sql immutable as
$$ select exists (select from unnest(p_calls) as c(name) where p_id = c.name or starts_with(p_id, c.name || '[') or starts_with(p_id, c.name || '#')) $$;

-- p_depth: how many levels of children come along. p_calls: only the jobs and children of these calls, by their ids, or by the
-- numbers of their events.
create function durable.run_facts(p_shard smallint, p_run uuid, p_depth integer, p_calls text[] default null) returns json
language plpgsql stable set jit = off set enable_seqscan = off
as $$
declare
    v_now timestamptz := durable.now();
    r durable.runs;
begin
    select t.* into r from durable.runs t where t.shard = p_shard and t.run_id = p_run;
    return (select json_build_object(
        'now_us', durable.to_us(v_now), 'workflow_id', r.workflow_id, 'run_id', r.run_id, 'workflow', r.workflow, 'version', r.version, 'status', r.status,
        'queue', r.queue, 'build', r.build, 'last_seq', r.last_seq, 'created_us', durable.to_us(r.created_at), 'closed_us', durable.to_us(r.closed_at),
        'ready_us', durable.to_us(r.ready_at), 'delayed_us', durable.to_us(r.delayed_until), 'cancel_us', durable.to_us(r.cancel_requested_at),
        'review', r.review, 'review_us', durable.to_us((r.review ->> 'since')::timestamptz), 'paused', r.paused,
        'paused_us', durable.to_us((r.paused ->> 'at')::timestamptz), 'waiting_on', r.waiting_on, 'parent_seq', r.parent_seq,
        'owner', durable.worker_facts(r.owner),
        'service', (select json_build_object('queue', count(*) > 0,
                           'workflow', count(*) filter (where w.workflows -> r.workflow @> to_jsonb(r.version)) > 0,
                           'build', count(*) filter (where w.workflows -> r.workflow @> to_jsonb(r.version) and (r.build is null or w.build = r.build)) > 0)
                      from durable.workers w
                     where w.state = 'alive' and w.lease_until >= v_now and w.queues ? r.queue and w.worker_id is distinct from r.owner),
        'cancel', (select json_build_object('at_us', durable.to_us(o.at), 'reason', o.reason, 'actor', o.actor) from durable.operator_commands o
                    where o.shard = p_shard and o.run_id = p_run and o.action = 'cancel' and o.accepted order by o.at limit 1),
        'messages', coalesce((select json_agg(m) from (
            select i.type, i.body ->> 'name' as name, durable.to_us(i.at) as at_us, i.body ->> 'reason' as reason from durable.inbox i
             where i.shard = p_shard and i.run_id = p_run order by i.at limit 20) m), '[]'),
        'message_count', (select count(*) from (select from durable.inbox i where i.shard = p_shard and i.run_id = p_run limit 1000) m),
        'updates', coalesce((select json_agg(u) from (
            select u.update_id, u.name, u.status, durable.to_us(coalesce(u.accepted_at, u.requested_at)) as at_us from durable.updates u
             where u.shard = p_shard and u.run_id = p_run and u.status in ('requested', 'accepted') order by u.requested_at limit 20) u), '[]'),
        'jobs', coalesce((select json_agg(durable.job_facts(p_shard, p_run, n.seq)) from (
            select j.seq from durable.jobs j
             where j.shard = p_shard and j.run_id = p_run and j.kind <> 'job' and (p_calls is null or j.seq::text = any (p_calls) or exists (
                       select from durable.history h where h.shard = p_shard and h.run_id = p_run and h.seq = j.seq and durable.is_call(h.body ->> 'id', p_calls)))
             order by j.state <> 'paused', j.seq limit case when p_depth > 0 then 50 else 10 end) n), '[]'),
        'job_count', (select count(*) from durable.jobs j where j.shard = p_shard and j.run_id = p_run and j.kind <> 'job'),
        'children', coalesce((select json_agg(durable.run_facts(c.shard, c.run_id, p_depth - 1)) from (
            select t.shard, t.run_id from durable.runs t
             where p_depth > 0 and t.parent_shard = p_shard and t.parent_run_id = p_run and t.status = 'running'
               and (p_calls is null or durable.is_call(substr(t.workflow_id, length(r.workflow_id) + 2), p_calls))
             order by t.parent_seq limit 20) c), '[]'),
        'child_count', (select count(*) from durable.runs t
                         where p_depth > 0 and t.parent_shard = p_shard and t.parent_run_id = p_run and t.status = 'running'),
        'last', e.body, 'cause', durable.cause_of_end(r.status, e.type, e.body, r.cancel_requested_at is not null))
      from (select 1) one left join durable.history e on r.status <> 'running' and e.shard = p_shard and e.run_id = p_run and e.seq = r.last_seq);
end $$;

create function durable.schedule_facts(p_id text) returns json language sql stable as $$
    select json_build_object(
        'now_us', durable.to_us(durable.now()), 'schedule_id', s.schedule_id, 'target', s.action ->> 'name', 'paused', s.paused, 'note', s.note,
        'spec', s.spec, 'before', s.before, 'overlap', s.policy ->> 'overlap', 'cursor_us', durable.to_us(s.cursor_at),
        'slots', coalesce((select json_agg(json_build_array(durable.to_us(t.slot_at), t.decision, t.reason, t.target, durable.slot_status(t.kind, t.target_shard, t.target))) from (
            select l.* from durable.schedule_slots l where l.schedule_id = s.schedule_id order by l.slot_at desc limit 5) t), '[]'),
        'open', coalesce((select json_agg(t.target) from (
            select l.target from durable.schedule_slots l
             where l.schedule_id = s.schedule_id and l.decision = 'started' and l.outcome is null and durable.slot_is_open(l.kind, l.target_shard, l.target)
             order by l.slot_at limit 5) t), '[]'),
        'worker', (select durable.worker_facts(d.holder) from durable.duties d where d.name = 'schedules'))
      from durable.schedules s where s.schedule_id = p_id and s.deleted_at is null
$$;
