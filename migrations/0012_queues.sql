-- COMPLETE: standalone jobs that returned. The short way through `settle_jobs`: one update by key that touches no index. Fenced by attempt and owner (C5);
-- a refused outcome is kept as evidence. Returns the positions refused.
create function durable.complete_jobs(p_owner uuid, o_shard smallint[], o_job uuid[], o_attempt integer[], o_result json[])
returns integer[]
language plpgsql
set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set plan_cache_mode = force_generic_plan
as $$
declare
    v_now timestamptz := durable.now();
    v_done uuid[];
    v_refused integer[];
begin
    with done as (
        update durable.jobs j
           set state = 'completed', owner = null, deadline_at = null, deadline_kind = null, finished_at = v_now, result = o.result
          from unnest(o_shard, o_job, o_attempt, o_result) as o(shard, job_id, attempt, result)
         where j.shard = o.shard and j.run_id = o.job_id and j.seq = 0
           and j.state is not distinct from 'executing' and j.owner is not distinct from p_owner and j.attempt = o.attempt
        returning j.run_id
    )
    select array_agg(d.run_id) into v_done from done d;
    if coalesce(cardinality(v_done), 0) = cardinality(o_job) then
        return null;
    end if;
    with late as (
        select * from unnest(o_shard, o_job, o_attempt, o_result) with ordinality as o(shard, job_id, attempt, result, ix)
         where o.job_id <> all (coalesce(v_done, '{}'))
    ), noted as (
        insert into durable.evidence (shard, run_id, at, kind, body)
        select l.shard, l.job_id, v_now, 'OutcomeRefused',
               jsonb_build_object('seq', 0, 'attempt', l.attempt, 'type', 'ActivityCompleted', 'worker', p_owner) from late l
    )
    select array_agg(l.ix::int) into v_refused from late l;
    return v_refused;
end $$;

-- LIMITS. A queue that nobody has configured has no row here, and its claims cost one look at this small table. A queue with a row that limits something is
-- `special`: its claims are made one after the other, under a lock of its row, so that what they count cannot change meanwhile. The lock is held by
-- a worker's claim alone, for the time of one statement; nothing that clients do in transactions of their own takes it.
--
-- What is counted is what the jobs' rows say: `phase = 'limited'` is an attempt under way that a limit counts. However it ends (outcome, retry, put back, its
-- worker's death), its row leaves that phase by itself, and so does the count: there is no counter that could drift.
create table durable.queues (
    name         text primary key,
    paused_at    timestamptz,
    pause_reason text,
    slots        integer,     -- per worker; null: as many as the worker was started with
    global_limit integer,     -- in all workers together
    key_limit  integer,
    rate_limit   jsonb,       -- {"limit": 100, "period_s": 60, "kind": "window" | "bucket", "burst": 20}
    key_rate_limit jsonb,     -- the same for each key
    keyed        boolean      not null default false,  -- there are, or were, jobs with a key
    last_key     text collate "C",                     -- the key that was looked at last: keys take turns
    created_at   timestamptz  not null,
    updated_at   timestamptz  not null,
    special      boolean generated always as (paused_at is not null or global_limit is not null or key_limit is not null
                                              or rate_limit is not null or key_rate_limit is not null or keyed) stored,
    constraint queues_limits_positive check (slots >= 0 and global_limit >= 1 and key_limit >= 1),
    constraint queues_rates_known check ((rate_limit ->> 'limit')::float8 > 0 and (rate_limit ->> 'period_s')::float8 > 0
                                         and (key_rate_limit ->> 'limit')::float8 > 0 and (key_rate_limit ->> 'period_s')::float8 > 0)
) with (fillfactor = 50);

-- What a rate has used up. Window: the weight started in each fiftieth of the period. Bucket: slot 0, and how full the bucket was (`used` is what is left).
create table durable.queue_meters (
    queue text             not null,
    key   text collate "C" not null,  -- '' for the queue's own rate, '=' and the key for a key's
    slot  bigint           not null,
    used  double precision not null,
    at    timestamptz      not null,
    primary key (queue, key, slot)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- These do not begin with the shard: a limit is the whole queue's, so its index is read across shards anyway. Jobs without limits are in none of them.
create index jobs_keyed on durable.jobs (queue, limit_key, priority, scheduled_at) where phase = 'keyed';
create index jobs_limited on durable.jobs (queue, limit_key) where phase = 'limited';
create index jobs_serial on durable.jobs (queue, limit_key, created_at, run_id) where serial and phase is not null;

-- How much weight a rate lets start now. A window counts a start until the fiftieth in which it fell is wholly out of the window: never too
-- late, at most a fiftieth of the period too long.
create function durable.rate_room(p_queue text, p_key text, p_rate jsonb, p_now timestamptz) returns double precision language sql stable as $$
    select case
        when p_rate is null then 'infinity'::float8
        when p_rate ->> 'kind' = 'bucket' then coalesce((
            select least(b.burst, m.used + extract(epoch from p_now - m.at)::float8 * b.per_s) from durable.queue_meters m
             where m.queue = p_queue and m.key = p_key and m.slot = 0), b.burst)
        else (p_rate ->> 'limit')::float8 - coalesce((
            select sum(m.used) from durable.queue_meters m
             where m.queue = p_queue and m.key = p_key
               and m.slot >= floor(extract(epoch from p_now)::float8 * 50 / (p_rate ->> 'period_s')::float8)::bigint - 50), 0) end
      from (select coalesce((p_rate ->> 'burst')::float8, (p_rate ->> 'limit')::float8) as burst,
                   (p_rate ->> 'limit')::float8 / (p_rate ->> 'period_s')::float8 as per_s) b
$$;

-- Use up so much of a rate.
create function durable.rate_take(p_queue text, p_key text, p_rate jsonb, p_now timestamptz, p_weight double precision) returns void
language plpgsql as $$
declare
    v_slot bigint := 0;
    v_left double precision := p_weight;
begin
    if p_rate ->> 'kind' = 'bucket' then
        v_left := durable.rate_room(p_queue, p_key, p_rate, p_now) - p_weight;
    else
        v_slot := floor(extract(epoch from p_now)::float8 * 50 / (p_rate ->> 'period_s')::float8)::bigint;
    end if;
    insert into durable.queue_meters as m (queue, key, slot, used, at) values (p_queue, p_key, v_slot, v_left, p_now)
    on conflict (queue, key, slot) do update
       set used = case when v_slot = 0 then excluded.used else m.used + excluded.used end, at = excluded.at;
    if v_slot > 0 then
        delete from durable.queue_meters m where m.queue = p_queue and m.key = p_key and m.slot < v_slot - 51;
    end if;
end $$;

-- When a rate will let so much start, if nothing else starts before; null: now.
create function durable.rate_free_at(p_queue text, p_key text, p_rate jsonb, p_now timestamptz, p_weight double precision) returns timestamptz
language plpgsql stable as $$
declare
    v_room double precision := durable.rate_room(p_queue, p_key, p_rate, p_now);
    v_need double precision := durable.rate_most(p_rate, p_weight) - v_room;
    v_step double precision := (p_rate ->> 'period_s')::float8 / 50;
begin
    if p_rate is null or v_need <= 0 then
        return null;
    elsif p_rate ->> 'kind' = 'bucket' then
        return p_now + v_need * (p_rate ->> 'period_s')::float8 / (p_rate ->> 'limit')::float8 * interval '1 second';
    end if;
    return (
        select timestamptz 'epoch' + (min(t.slot) + 51) * v_step * interval '1 second' from (
            select m.slot, sum(m.used) over (order by m.slot) as freed from durable.queue_meters m
             where m.queue = p_queue and m.key = p_key and m.slot >= floor(extract(epoch from p_now)::float8 / v_step)::bigint - 50) t
         where t.freed >= v_need);
end $$;

-- A job heavier than the rate itself takes all of it, or it would wait for ever.
create function durable.rate_most(p_rate jsonb, p_weight double precision) returns double precision language sql immutable as
$$ select least(p_weight, coalesce((p_rate ->> 'burst')::float8, (p_rate ->> 'limit')::float8)) $$;

-- The keys of a queue that have jobs waiting: the next ones after the one looked at last, in a circle.
create function durable.next_keys(p_queue text, p_after text, p_limit integer) returns text[]
language plpgsql stable
set jit = off set enable_seqscan = off set enable_sort = off set enable_bitmapscan = off set plan_cache_mode = force_generic_plan
as $$
declare
    v_keys text[] := '{}';
    v_key text := p_after;
    v_wrapped boolean := p_after is null;
begin
    while cardinality(v_keys) < p_limit loop
        if v_key is null then
            select j.limit_key into v_key from durable.jobs j where j.phase = 'keyed' and j.queue = p_queue
             order by j.queue, j.limit_key limit 1;
        else
            select j.limit_key into v_key from durable.jobs j where j.phase = 'keyed' and j.queue = p_queue and j.limit_key > v_key
             order by j.queue, j.limit_key limit 1;
        end if;
        if not found then
            exit when v_wrapped;
            v_wrapped := true; v_key := null;
            continue;
        end if;
        exit when v_wrapped and p_after is not null and v_key > p_after;
        v_keys := v_keys || v_key;
        exit when v_wrapped and v_key = p_after;
    end loop;
    return v_keys;
end $$;

create type durable.chosen_jobs as (
    shards smallint[], runs uuid[], seqs integer[], weights real[], keys text[], places bigint[], limited boolean[]);

-- What of a special queue may start now, in the order in which it shall: by priority; then keys take turns; then by age.
create function durable.startable(p_queue durable.queues, p_room integer, p_now timestamptz, p_aged boolean)
returns table (shard smallint, run_id uuid, seq integer, weight real, key text, serial boolean, place bigint)
language plpgsql
set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_sort = off set enable_bitmapscan = off set plan_cache_mode = force_generic_plan
as $$
declare
    v_keys text[] := '{}';
    v_others bigint;  -- where the jobs without a key stand in the circle of keys
begin
    if p_queue.keyed then
        v_keys := durable.next_keys(p_queue.name, p_queue.last_key, 64 + p_room);
    end if;
    v_others := floor(random() * (cardinality(v_keys) + 1));
    return query
    with waiting as (
        select j.shard, j.run_id, j.seq, j.priority, j.scheduled_at, j.weight, null::text as key, false as serial, v_others as place from (
            select c.place from unnest(durable.shard_keys()) as k(key)
             cross join lateral (
                select j.ctid as place, j.priority, j.scheduled_at from durable.jobs j
                 where j.shard = k.key and j.queue = p_queue.name and j.phase = 'ready'
                 order by j.priority, j.scheduled_at limit 2 + p_room / 24) c
             order by c.priority, c.scheduled_at, c.place limit p_room) c join durable.jobs j on j.ctid = c.place
        union all
        select o.shard, o.run_id, o.seq, -1::smallint, o.scheduled_at, o.weight, null, false, 0 from durable.longest_waiting(p_queue.name, p_now, 1) o where p_aged
        union all
        select f.shard, f.run_id, f.seq, f.priority, f.scheduled_at, f.weight, f.key, f.serial, k.place
          from unnest(v_keys) with ordinality as k(key, place)
         cross join lateral (select count(*) as running from durable.jobs r where r.phase = 'limited' and r.queue = p_queue.name and r.limit_key = k.key) r
         cross join lateral durable.rate_room(p_queue.name, '=' || k.key, p_queue.key_rate_limit, p_now) room
         cross join lateral (
            select h.*, k.key, false as serial, sum(durable.rate_most(p_queue.key_rate_limit, h.weight)) over (order by h.priority, h.scheduled_at, h.run_id, h.seq) as total from (
                select j.shard, j.run_id, j.seq, j.priority, j.scheduled_at, j.weight from durable.jobs j
                 where j.phase = 'keyed' and j.queue = p_queue.name and j.limit_key = k.key and not j.serial
                 order by j.priority, j.scheduled_at limit greatest(0, least(p_room, coalesce(p_queue.key_limit - r.running, p_room)))) h
            union all
            select s.shard, s.run_id, s.seq, s.priority, s.scheduled_at, s.weight, k.key, true, durable.rate_most(p_queue.key_rate_limit, s.weight) from (
                select j.* from durable.jobs j where j.serial and j.phase is not null and j.queue = p_queue.name and j.limit_key = k.key
                 order by j.created_at, j.run_id limit 1) s
             where s.phase = 'keyed' and r.running = 0) f
         where f.total <= room
    ), ranked as (
        select distinct on (w.shard, w.run_id, w.seq) w.*, row_number() over (partition by w.key, w.priority order by w.scheduled_at, w.run_id, w.seq) as turn
          from waiting w order by w.shard, w.run_id, w.seq, w.priority
    )
    select r.shard, r.run_id, r.seq, r.weight, r.key, r.serial, r.place from ranked r order by r.priority, r.turn, r.place, r.scheduled_at limit p_room;
end $$;

-- What has waited for longer than a minute, the longest first, whatever its priority.
create function durable.longest_waiting(p_queue text, p_now timestamptz, p_limit integer)
returns table (shard smallint, run_id uuid, seq integer, scheduled_at timestamptz, weight real)
language sql
set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
    select c.shard, c.run_id, c.seq, c.scheduled_at, c.weight from unnest(durable.shard_keys()) as k(key) cross join generate_series(0, 9) as p(priority)
     cross join lateral (
        select j.shard, j.run_id, j.seq, j.scheduled_at, j.weight from durable.jobs j
         where j.shard = k.key and j.queue = p_queue and j.phase = 'ready' and j.priority = p.priority and j.scheduled_at < p_now - interval '1 minute'
         order by j.scheduled_at limit 1) c
     order by c.scheduled_at limit p_limit
$$;

-- Take these jobs if they are still available: what `claim_jobs` does in one statement with finding them. `p_limited`: which of them a limit counts.
create function durable.take_jobs(p_worker uuid, p_queue text, j_shard smallint[], j_run uuid[], j_seq integer[], j_limited boolean[], p_now timestamptz)
returns setof durable.claimed_job
language plpgsql
set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set plan_cache_mode = force_generic_plan
as $$
begin
    return query
    with locked as materialized (
        select j.ctid as place, c.limited, coalesce(j.options, e.body) as options, coalesce(j.input, e.payload) as input, r.workflow_id, r.actor, r.headers
          from unnest(j_shard, j_run, j_seq, j_limited) as c(shard, run_id, seq, limited)
          join durable.jobs j on j.shard = c.shard and j.run_id = c.run_id and j.seq = c.seq
          left join lateral (
            select t.body, t.payload from durable.history t
             where t.shard = case when j.kind = 'activity' then j.shard end and t.run_id = j.run_id and t.seq = j.seq limit 1) e on true
          left join lateral (
            select t.workflow_id, t.actor, t.headers from durable.runs t
             where t.shard = case when j.kind = 'activity' then j.shard end and t.run_id = j.run_id and t.status is not distinct from 'running' limit 1) r on true
         where j.state is not distinct from 'available' and j.queue is not distinct from p_queue and (j.kind = 'job' or r.workflow_id is not null)
         for update of j skip locked
    )
    update durable.jobs j
       set state = 'executing', owner = p_worker, attempt = j.attempt + 1, note = null, limited = l.limited,
           deadline_at = case when l.options ? 'timeouts' then (select d.at from durable.execution_deadline(l.options, p_now, j.created_at) d) end,
           deadline_kind = case when l.options ? 'timeouts' then (select d.kind from durable.execution_deadline(l.options, p_now, j.created_at) d) end
      from locked l
     where j.ctid = l.place
    returning j.shard, j.run_id, j.seq, j.kind, j.name, j.queue, j.attempt, l.input::text, l.options::text, l.workflow_id, l.actor::text,
        j.heartbeat::text, durable.to_us(j.scheduled_at), durable.to_us(j.created_at), l.headers::text;
end $$;

-- Take the first of a queue without keys, at most so many and at most so much weight: the ordinary claim's statement, for one queue, in one pass. `p_meter`: the
-- rate that the weight is taken from.
create function durable.take_first(p_worker uuid, p_queue text, p_room integer, p_weight_room double precision, p_rate jsonb, p_limited boolean, p_now timestamptz)
returns setof durable.claimed_job
language plpgsql
set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set plan_cache_mode = force_generic_plan
as $$
declare
    v_most double precision := coalesce(p_rate ->> 'burst', p_rate ->> 'limit', 'infinity')::float8;
begin
    return query
    with heads as materialized (
        select h.place from (
            select c.place, case when p_rate is null then 0 else sum(least(c.weight, v_most)) over (order by c.priority, c.scheduled_at, c.place) end as total
              from unnest(durable.shard_keys()) as k(key)
             cross join lateral (
                select j.ctid as place, j.priority, j.scheduled_at, j.weight from durable.jobs j
                 where j.shard = k.key and j.queue = p_queue and j.phase = 'ready'
                 order by j.priority, j.scheduled_at limit 2 + p_room / 24) c
             order by c.priority, c.scheduled_at, c.place limit p_room) h
         where p_rate is null or h.total <= p_weight_room
    ), locked as materialized (
        select j.ctid as place, coalesce(j.options, e.body) as options, coalesce(j.input, e.payload) as input, r.workflow_id, r.actor, r.headers
          from heads h join durable.jobs j on j.ctid = h.place
          left join lateral (
            select t.body, t.payload from durable.history t
             where t.shard = case when j.kind = 'activity' then j.shard end and t.run_id = j.run_id and t.seq = j.seq limit 1) e on true
          left join lateral (
            select t.workflow_id, t.actor, t.headers from durable.runs t
             where t.shard = case when j.kind = 'activity' then j.shard end and t.run_id = j.run_id and t.status is not distinct from 'running' limit 1) r on true
         where j.state is not distinct from 'available' and (j.kind = 'job' or r.workflow_id is not null)
         for update of j skip locked
    ), taken as (
        update durable.jobs j
           set state = 'executing', owner = p_worker, attempt = j.attempt + 1, note = null, limited = p_limited,
               deadline_at = case when l.options ? 'timeouts' then (select d.at from durable.execution_deadline(l.options, p_now, j.created_at) d) end,
               deadline_kind = case when l.options ? 'timeouts' then (select d.kind from durable.execution_deadline(l.options, p_now, j.created_at) d) end
          from locked l
         where j.ctid = l.place
        returning j.shard, j.run_id, j.seq, j.kind, j.name, j.queue, j.attempt, l.input::text as input, l.options::text as options, l.workflow_id,
            l.actor::text as actor, j.heartbeat::text as heartbeat, durable.to_us(j.scheduled_at) as scheduled_at, durable.to_us(j.created_at) as created_at,
            l.headers::text as headers, j.weight
    ), metered as materialized (  -- as of now, when they have been taken: a claim may take a while, and starts are as far apart as the rate says
        select durable.rate_take(p_queue, '', p_rate, durable.now(), u.weight)
          from (select sum(least(t.weight, v_most)) as weight from taken t) u where p_rate is not null and u.weight > 0
    )
    select t.shard, t.run_id, t.seq, t.kind, t.name, t.queue, t.attempt, t.input, t.options, t.workflow_id, t.actor, t.heartbeat, t.scheduled_at, t.created_at, t.headers
      from taken t where (select count(*) from metered) >= 0;
end $$;

-- CLAIM from one special queue: under the lock of its row, what all its limits let start.
create function durable.claim_limited(p_worker uuid, p_queue text, p_free integer, p_aged boolean) returns setof durable.claimed_job
language plpgsql
set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set plan_cache_mode = force_generic_plan
as $$
declare
    v_now timestamptz;
    v_queue durable.queues;
    v_room integer := p_free;
    v_weight_room double precision;
    v_chosen durable.chosen_jobs;
    v_taken durable.claimed_job[];
    v_last text;
begin
    select q.* into v_queue from durable.queues q where q.name = p_queue for update;
    v_now := durable.now();  -- after the lock: another claim may have used the rate meanwhile
    if v_queue.paused_at is not null then
        return;
    end if;
    if v_queue.global_limit is not null then
        v_room := least(v_room, v_queue.global_limit - (select count(*) from durable.jobs j where j.phase = 'limited' and j.queue = p_queue)::int);
    end if;
    v_weight_room := durable.rate_room(p_queue, '', v_queue.rate_limit, v_now);
    if v_room <= 0 or v_weight_room <= 0 then
        return;
    elsif not v_queue.keyed and not (p_aged and exists (select from durable.longest_waiting(p_queue, v_now, 1))) then
        return query select * from durable.take_first(p_worker, p_queue, v_room, v_weight_room, v_queue.rate_limit, v_queue.global_limit is not null, v_now);
        return;
    end if;
    select array_agg(c.shard), array_agg(c.run_id), array_agg(c.seq), array_agg(c.weight), array_agg(c.key), array_agg(c.place),
           array_agg(v_queue.global_limit is not null or (c.key is not null and (c.serial or v_queue.key_limit is not null)))
      into v_chosen
      from (select s.*, sum(durable.rate_most(v_queue.rate_limit, s.weight)) over (rows unbounded preceding) as total
              from durable.startable(v_queue, v_room, v_now, p_aged) s) c
     where v_queue.rate_limit is null or c.total <= v_weight_room;
    v_taken := array(select t from durable.take_jobs(p_worker, p_queue, v_chosen.shards, v_chosen.runs, v_chosen.seqs, v_chosen.limited, v_now) t);
    if v_queue.rate_limit is not null or v_queue.key_rate_limit is not null then
        perform durable.rate_take(p_queue, u.meter, u.rate, durable.now(), u.weight) from (  -- not v_now: see take_first
            select '' as meter, v_queue.rate_limit as rate, sum(durable.rate_most(v_queue.rate_limit, c.weight)) as weight
              from unnest(v_chosen.runs, v_chosen.seqs, v_chosen.weights) as c(run_id, seq, weight) join unnest(v_taken) t on t.run_id = c.run_id and t.seq = c.seq
            union all
            select '=' || c.key, v_queue.key_rate_limit, sum(durable.rate_most(v_queue.key_rate_limit, c.weight))
              from unnest(v_chosen.runs, v_chosen.seqs, v_chosen.weights, v_chosen.keys) as c(run_id, seq, weight, key)
              join unnest(v_taken) t on t.run_id = c.run_id and t.seq = c.seq where c.key is not null group by c.key) u
         where u.rate is not null and u.weight > 0;
    end if;
    if v_queue.keyed then
        select c.key into v_last from unnest(v_chosen.keys, v_chosen.places) as c(key, place) where c.key is not null order by c.place desc limit 1;
        update durable.queues q set last_key = v_last where q.name = p_queue and v_last is not null and q.last_key is distinct from v_last;
    end if;
    return query select * from unnest(v_taken);
end $$;

-- What is to be taken before the ordinary claim. `p_aged` gives an eighth of the slots, at least one, to jobs that have waited for longer than a minute;
-- the worker asks for it now and then while there is a backlog, so that no stream of urgent jobs keeps the others waiting for ever.
create function durable.claim_specially(p_worker uuid, p_queues text[], p_limits integer[], p_aged boolean) returns setof durable.claimed_job
language plpgsql
set jit = off set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set plan_cache_mode = force_generic_plan
as $$
declare
    v_now timestamptz := durable.now();
    v_each record;
begin
    for v_each in  -- by name: two workers must lock the same queues in the same order
        select w.name, w.free, coalesce(q.special, false) as special
          from unnest(p_queues, p_limits) as w(name, free) left join durable.queues q on q.name = w.name where w.free > 0 order by w.name
    loop
        if v_each.special then
            return query select * from durable.claim_limited(p_worker, v_each.name, v_each.free, p_aged);
        elsif p_aged then
            return query
            select t.* from (
                select array_agg(o.shard) as shards, array_agg(o.run_id) as runs, array_agg(o.seq) as seqs, array_agg(false) as limited
                  from durable.longest_waiting(v_each.name, v_now, greatest(1, v_each.free / 8)) o) o
             cross join lateral durable.take_jobs(p_worker, v_each.name, o.shards, o.runs, o.seqs, o.limited, v_now) t;
        end if;
    end loop;
end $$;

-- What a command changes of a queue, for the log.
create function durable.queue_standing(q durable.queues) returns jsonb language sql stable as $$
    select jsonb_strip_nulls(jsonb_build_object('paused', case when q.paused_at is not null then true end, 'slots', q.slots, 'global_limit', q.global_limit,
        'key_limit', q.key_limit, 'rate_limit', q.rate_limit, 'key_rate_limit', q.key_rate_limit))
$$;

-- CONFIGURE a queue: `p_changes` names what changes, null takes a limit away. Creates its row. Remembered over restarts, and taken up by the next claim; what is under
-- way when a first limit that counts attempts is set is counted from then on.
create function durable.configure_queue(p_name text, p_changes jsonb, p_reason text default null, p_actor jsonb default null,
                                        p_command uuid default gen_random_uuid())
returns void language plpgsql as $$
declare
    v_now timestamptz := durable.now();
    v_queue durable.queues;
begin
    insert into durable.queues (name, created_at, updated_at) values (p_name, v_now, v_now) on conflict (name) do nothing;
    select q.* into v_queue from durable.queues q where q.name = p_name for update;
    update durable.queues q
       set slots = case when p_changes ? 'slots' then (p_changes ->> 'slots')::int else q.slots end,
           global_limit = case when p_changes ? 'global_limit' then (p_changes ->> 'global_limit')::int else q.global_limit end,
           key_limit = case when p_changes ? 'key_limit' then (p_changes ->> 'key_limit')::int else q.key_limit end,
           rate_limit = case when p_changes ? 'rate_limit' then nullif(p_changes -> 'rate_limit', 'null') else q.rate_limit end,
           key_rate_limit = case when p_changes ? 'key_rate_limit' then nullif(p_changes -> 'key_rate_limit', 'null') else q.key_rate_limit end,
           paused_at = case when p_changes ? 'paused' then case when (p_changes ->> 'paused')::boolean then coalesce(q.paused_at, v_now) end else q.paused_at end,
           pause_reason = case when p_changes ? 'paused' then case when (p_changes ->> 'paused')::boolean then p_reason end else q.pause_reason end,
           updated_at = v_now
     where q.name = p_name;
    if (p_changes ->> 'global_limit' is not null and v_queue.global_limit is null) or (p_changes ->> 'key_limit' is not null and v_queue.key_limit is null) then
        update durable.jobs j set limited = true where j.queue = p_name and j.state = 'executing' and not j.limited;
    end if;
    if (p_changes ? 'rate_limit' and v_queue.rate_limit ->> 'kind' is distinct from p_changes #>> '{rate_limit,kind}')
       or (p_changes ? 'rate_limit' and v_queue.rate_limit ->> 'period_s' is distinct from p_changes #>> '{rate_limit,period_s}') then
        delete from durable.queue_meters m where m.queue = p_name and m.key = '';
    end if;
    if p_changes ? 'key_rate_limit' then
        delete from durable.queue_meters m where m.queue = p_name and m.key <> '';
    end if;
    perform durable.log_stray('queue', p_name, p_command,
        case p_changes ->> 'paused' when 'true' then 'pause_queue' when 'false' then 'resume_queue' else 'configure_queue' end, 'accepted', p_reason, p_actor,
        durable.queue_standing(v_queue), (select durable.queue_standing(q) from durable.queues q where q.name = p_name));
end $$;

-- WHY a job does not run: everything that keeps it, as facts. `reason` is one of a closed list (durable/queue_limits.py).
create function durable.explain_job(p_shard smallint, p_run uuid, p_seq integer default 0)
returns table (reason text, until_us bigint, facts jsonb)
language plpgsql stable
set jit = off set enable_seqscan = off
as $$
declare
    v_now timestamptz := durable.now();
    v_job durable.jobs;
    v_queue durable.queues;
    v_count bigint;
    v_found record;
    v_until timestamptz;
begin
    select j.* into v_job from durable.jobs j where j.shard = p_shard and j.run_id = p_run and j.seq = p_seq;
    if not found then
        return;
    end if;
    facts := '{}';
    if v_job.state = 'executing' then
        reason := 'executing';
        facts := jsonb_build_object('worker', (select w.name from durable.workers w where w.worker_id = v_job.owner), 'attempt', v_job.attempt);
        return next; return;
    elsif v_job.finished_at is not null then
        reason := 'finished'; facts := jsonb_build_object('state', v_job.state); return next; return;
    elsif v_job.state = 'waiting' then
        reason := 'completed_elsewhere'; facts := jsonb_build_object('attempt', v_job.attempt); return next; return;
    elsif v_job.state = 'paused' then
        reason := 'job_paused'; return next;
    elsif v_job.state in ('scheduled', 'retryable') then
        reason := case v_job.state when 'scheduled' then 'scheduled' else 'retry' end; until_us := durable.to_us(v_job.scheduled_at);
        facts := jsonb_build_object('attempt', v_job.attempt); return next;
        until_us := null;
    end if;
    if v_job.note ->> 'kind' = 'unknown_activity' then
        reason := 'unknown_activity'; facts := jsonb_build_object('message', v_job.note ->> 'message'); return next;
    end if;
    if not exists (select from durable.workers w where w.state = 'alive' and w.lease_until >= v_now and w.queues ? v_job.queue) then
        reason := 'no_worker'; facts := jsonb_build_object('queue', v_job.queue); return next;
    end if;
    select q.* into v_queue from durable.queues q where q.name = v_job.queue;
    if v_queue.paused_at is not null then
        reason := 'queue_paused'; facts := jsonb_build_object('queue', v_job.queue, 'since_us', durable.to_us(v_queue.paused_at), 'why', v_queue.pause_reason);
        return next;
    end if;
    if v_queue.slots = 0 then
        reason := 'claim_disabled'; facts := jsonb_build_object('queue', v_job.queue); return next;
    end if;
    if v_queue.global_limit is not null then
        select count(*) into v_count from durable.jobs j where j.phase = 'limited' and j.queue = v_job.queue;
        if v_count >= v_queue.global_limit then
            reason := 'global_limit'; facts := jsonb_build_object('running', v_count, 'limit', v_queue.global_limit); return next;
        end if;
    end if;
    v_until := durable.rate_free_at(v_job.queue, '', v_queue.rate_limit, v_now, v_job.weight);
    if v_until > v_now then
        reason := 'rate_limit'; until_us := durable.to_us(v_until); facts := v_queue.rate_limit; return next;
        until_us := null;
    end if;
    if v_job.limit_key is not null then
        select count(*) into v_count from durable.jobs j where j.phase = 'limited' and j.queue = v_job.queue and j.limit_key = v_job.limit_key;
        if v_count >= v_queue.key_limit then
            reason := 'key_limit'; facts := jsonb_build_object('key', v_job.limit_key, 'running', v_count, 'limit', v_queue.key_limit); return next;
        end if;
        v_until := durable.rate_free_at(v_job.queue, '=' || v_job.limit_key, v_queue.key_rate_limit, v_now, v_job.weight);
        if v_until > v_now then
            reason := 'key_rate_limit'; until_us := durable.to_us(v_until); facts := v_queue.key_rate_limit || jsonb_build_object('key', v_job.limit_key);
            return next;
            until_us := null;
        end if;
    end if;
    if v_job.serial then
        select j.run_id, j.state into v_found from durable.jobs j
         where j.serial and j.phase is not null and j.queue = v_job.queue and j.limit_key = v_job.limit_key
           and (j.created_at, j.run_id) < (v_job.created_at, v_job.run_id) order by j.created_at, j.run_id limit 1;
        if found then
            reason := 'serial_predecessor'; facts := jsonb_build_object('key', v_job.limit_key, 'job', v_found.run_id, 'state', v_found.state); return next;
        end if;
    end if;
    if reason is null and v_job.state = 'available' then
        select count(*) into v_count from unnest(durable.shard_keys()) as k(key)
         cross join lateral (select from durable.jobs j where j.shard = k.key and j.queue = v_job.queue and j.phase = 'ready'
                                and (j.priority, j.scheduled_at) < (v_job.priority, v_job.scheduled_at) limit 20) b;
        reason := 'no_free_slot'; facts := jsonb_build_object('before_at_least', v_count); return next;
    end if;
end $$;

-- A documented, stable view for reading: every queue that has limits, or that a worker serves.
create view durable.queue_list as
select n.name, q.paused_at, q.pause_reason, q.slots, q.global_limit, q.key_limit, q.rate_limit, q.key_rate_limit, coalesce(q.keyed, false) as keyed,
       (select count(*) from durable.workers w where w.state = 'alive' and w.lease_until >= durable.now() and w.queues ? n.name) as workers
  from (select q.name from durable.queues q
        union
        select k.name from durable.workers w cross join lateral jsonb_object_keys(w.queues) as k(name) where w.state in ('alive', 'stopping')) n
  left join durable.queues q on q.name = n.name;
