-- Tables of durable. Every hot table's primary key, unique index and hot index begins with `shard` (see docs/architecture.md, "Shards").
-- Reference tables (clock, workers, definitions) are small and are read from any shard.

-- The one clock (C19). Tests move it with durable.advance_clock(); in production the offset stays 0.
create table durable.clock (
    the_only_row boolean primary key default true check (the_only_row),
    offset_us    bigint not null default 0
);
insert into durable.clock default values;

-- In plpgsql, because it keeps its plan: a function in SQL with a FROM is planned anew by every statement that calls it.
create function durable.now() returns timestamptz language plpgsql volatile parallel safe as $$
begin
    return clock_timestamp() + (select offset_us from durable.clock) * interval '1 microsecond';
end $$;

-- Stable, not immutable: PostgreSQL takes its own arithmetic of times for stable, and would not inline a function that claims more.
create function durable.from_us(us bigint) returns timestamptz language sql stable parallel safe as
$$ select timestamptz 'epoch' + us * interval '1 microsecond' $$;

create function durable.to_us(at timestamptz) returns bigint language sql stable parallel safe as
$$ select (extract(epoch from at) * 1000000)::bigint $$;

-- The 64 shard keys, fixed for ever: chosen so that each falls on a hash shard of its own in a 64-shard distributed table.
create function durable.shard_keys() returns smallint[] language sql immutable parallel safe as
$$ select '{0,1,2,3,4,5,6,7,8,9,10,11,12,13,16,17,18,19,21,22,24,27,28,31,36,37,39,41,43,44,45,46,48,50,52,58,59,60,62,66,70,79,80,82,83,85,88,89,92,95,96,99,101,109,112,113,136,149,166,168,170,172,179,351}'::smallint[] $$;

-- The same rule as durable/store/shards.py: the first byte of the id's SHA-256 picks the key.
create function durable.shard_of(workflow_id text) returns smallint language sql immutable parallel safe as
$$ select (durable.shard_keys())[1 + get_byte(sha256(convert_to(workflow_id, 'UTF8')), 0) % 64] $$;

-- Refuse a row by the name of the rule that it breaks. Volatile, because the planner would compute what is immutable beforehand, and refuse everything.
create function durable.breaks_rule(p_table text, p_rule text) returns text language plpgsql volatile parallel safe as $$
begin
    raise exception 'a row of durable.% breaks the rule %', p_table, p_rule
        using errcode = 'check_violation', schema = 'durable', table = p_table, constraint = p_rule;
end $$;

-- The rules of a run's row, each by its name. They are in a function, and not a constraint each, because PostgreSQL parses the text of every constraint again for each
-- statement: with those of jobs they were about a sixth of a lone commit's cost. (A condition that is null breaks no rule, as in a constraint.)
create function durable.is_legal_run(status text, priority smallint, workflow_id text, pinned boolean, build text, owner uuid, ready_at timestamptz,
                                     delayed_until timestamptz, closed_at timestamptz, epoch integer, last_seq integer, turn integer)
returns boolean language plpgsql immutable parallel safe as $$
declare
    v_broken text := case
        when not status in ('running', 'completed', 'failed', 'cancelled', 'terminated', 'continued') then 'runs_status_known'
        when not priority between 0 and 9 then 'runs_priority_range'
        when not (status = 'running') = (closed_at is null) then 'runs_closed_has_time'
        when not (status = 'running' or (owner is null and ready_at is null and delayed_until is null)) then 'runs_closed_has_no_owner'
        when not (owner is null or (ready_at is null and delayed_until is null)) then 'runs_owned_is_not_claimable'
        when not (ready_at is null or delayed_until is null) then 'runs_delayed_is_not_ready'
        when not length(workflow_id) between 1 and 1000 then 'runs_workflow_id_length'
        when not (build is null or pinned) then 'runs_only_pinned_have_a_build'
        when not (epoch >= 0 and last_seq >= 1 and turn >= 0) then 'runs_positions'
    end;
begin
    return v_broken is null or durable.breaks_rule('runs', v_broken) is null;
end $$;

-- One row a run. Only its owner updates it while it runs (C2); `generation` numbers the runs of one workflow id. `ready_at` is set while anybody
-- may claim it, `delayed_until` while it shall become ready later (start delay, back-off): staged like due jobs, so that a claim reads only
-- what it can take. `losses` counts the workers that died holding it since its last commit. A `pinned` run stays with the `build` of the worker
-- that took its first recorded turn (see 0006).
create table durable.runs (
    shard               smallint    not null,
    run_id              uuid        not null,
    workflow_id         text        not null,
    generation          integer     not null default 0,
    workflow            text        not null,
    version             integer     not null default 1,
    semantics           smallint    not null default 1,
    pinned              boolean     not null default false,
    build               text,
    status              text        not null default 'running',
    queue               text        not null default 'default',
    priority            smallint    not null default 0,
    owner               uuid,
    epoch               integer     not null default 0,
    last_seq            integer     not null default 1,
    turn                integer     not null default 0,
    ready_at            timestamptz,
    delayed_until       timestamptz,
    losses              smallint    not null default 0,
    waiting_on          jsonb,
    review              jsonb,
    paused              jsonb,
    cancel_requested_at timestamptz,
    actor               jsonb,
    attributes          jsonb,
    memo                jsonb,
    parent_run_id       uuid,
    parent_shard        smallint,
    parent_seq          integer,
    created_at          timestamptz not null,
    started_at          timestamptz,
    closed_at           timestamptz,
    primary key (shard, run_id),
    constraint runs_are_legal check (durable.is_legal_run(status, priority, workflow_id, pinned, build, owner, ready_at, delayed_until, closed_at, epoch, last_seq, turn))
) with (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);

-- Run ids are UUIDv7: the primary key also gives the runs of a shard in the order of their creation.
create unique index runs_generation on durable.runs (shard, workflow_id, generation);
create unique index runs_one_open on durable.runs (shard, workflow_id) where status = 'running';
create index runs_claimable on durable.runs (shard, queue, priority, ready_at) where owner is null and ready_at is not null;
create index runs_delayed on durable.runs (shard, delayed_until) where delayed_until is not null;
create index runs_in_review on durable.runs (shard) where review is not null;
create index runs_owned on durable.runs (shard, owner) where owner is not null;

-- The truth. Append only: (run_id, seq) is contiguous from 1. `payload` is json, not jsonb, because key order must survive (see architecture).
create table durable.history (
    shard   smallint    not null,
    run_id  uuid        not null,
    seq     integer     not null check (seq >= 1),
    turn    integer     not null check (turn >= 0),
    type    text        not null,
    at      timestamptz not null,
    body    jsonb       not null,
    payload json,
    primary key (shard, run_id, seq)
) with (autovacuum_vacuum_insert_scale_factor = 0.2);

-- Messages from anybody to a run; consumed only by its owner's commit. `queue` is the run's, so that a worker's poll skips what it does not serve.
create table durable.inbox (
    shard      smallint    not null,
    run_id     uuid        not null,
    message_id uuid        not null default gen_random_uuid(),
    queue      text        not null,
    type       text        not null,
    at         timestamptz not null,
    body       jsonb       not null,
    payload    json,
    primary key (shard, run_id, message_id)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
create index inbox_by_queue on durable.inbox (shard, queue);

-- The rules of a job's row, as durable.is_legal_run has those of a run's, and what the indexes know of the state of one that keeps them: both in one call a row.
create function durable.job_phase(kind text, seq integer, state text, priority smallint, owner uuid, deadline_at timestamptz, deadline_kind text,
                                  finished_at timestamptz, options jsonb, limited boolean)
returns text language plpgsql immutable parallel safe as $$
begin
    return case
        when not kind in ('job', 'activity', 'timer') then durable.breaks_rule('jobs', 'jobs_kind_known')
        when not (kind = 'job') = (seq = 0) then durable.breaks_rule('jobs', 'jobs_standalone_is_seq_zero')
        when not (kind = 'job' or finished_at is null) then durable.breaks_rule('jobs', 'jobs_only_standalone_are_kept')
        when not (kind <> 'timer' or state in ('scheduled', 'paused')) then durable.breaks_rule('jobs', 'jobs_timer_only_waits')
        when not (state = 'executing') = (owner is not null) then durable.breaks_rule('jobs', 'jobs_executing_has_owner')
        when not (state in ('completed', 'discarded', 'cancelled')) = (finished_at is not null) then durable.breaks_rule('jobs', 'jobs_finished_has_time')
        when not (deadline_at is null) = (deadline_kind is null) then durable.breaks_rule('jobs', 'jobs_deadline_has_kind')
        when not priority between 0 and 9 then durable.breaks_rule('jobs', 'jobs_priority_range')
        when state = 'available' then case when options ? 'limit_key' then 'keyed' else 'ready' end
        when state = 'executing' then case when limited then 'limited' end
        when state in ('scheduled', 'retryable') then 'due'
        when state in ('paused', 'waiting') then state
        when finished_at is null then durable.breaks_rule('jobs', 'jobs_state_known')
    end;
end $$;

-- Activities of runs (input and options live in the opening event of the history), timers, and standalone jobs (seq 0, input and options here).
-- `phase` is what the indexes know of a state: it is null both before and after an attempt's end, so that this update touches no index (a heap-only
-- tuple) unless a limit counts the attempt. For `limit_key`, `serial`, `weight` and `limited` see 0012_queues.sql.
create table durable.jobs (
    shard               smallint    not null,
    run_id              uuid        not null,
    seq                 integer     not null,
    kind                text        not null,
    name                text        not null,
    queue               text        not null,
    priority            smallint    not null default 0,
    state               text        not null,
    attempt             integer     not null default 0,
    scheduled_at        timestamptz not null,
    deadline_at         timestamptz,
    deadline_kind       text,
    owner               uuid,
    cancel_requested_at timestamptz,
    input               json,
    options             jsonb,
    result              json,
    errors              jsonb,
    heartbeat           json,
    note                jsonb,
    limited             boolean     not null default false,
    paused              jsonb,
    created_at          timestamptz not null,
    finished_at         timestamptz,
    limit_key           text collate "C" generated always as (options ->> 'limit_key') stored,
    serial              boolean generated always as (options ? 'serial') stored,
    weight              real generated always as (coalesce((options ->> 'weight')::real, 1)) stored,
    phase               text generated always as (
        durable.job_phase(kind, seq, state, priority, owner, deadline_at, deadline_kind, finished_at, options, limited)) stored,
    primary key (shard, run_id, seq),
    constraint jobs_weight_positive check (weight > 0)
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);

create index jobs_claimable on durable.jobs (shard, queue, priority, scheduled_at) where phase = 'ready';
create index jobs_due on durable.jobs (shard, scheduled_at) where phase = 'due';
create index jobs_deadlines on durable.jobs (shard, deadline_at) where deadline_at is not null;

-- Evidence of each attempt to signal (C11).
create table durable.signals (
    shard      smallint    not null,
    run_id     uuid        not null,
    signal_id  uuid        not null,
    name       text        not null,
    dedupe_key text,
    status     text        not null,
    reason     text,
    payload    json,
    actor      jsonb,
    at         timestamptz not null,
    seq        integer,
    primary key (shard, run_id, signal_id),
    constraint signals_status_known check (status in ('buffered', 'delivered', 'duplicate', 'dropped', 'late', 'ambiguous', 'replayed'))
);
create unique index signals_once on durable.signals (shard, run_id, name, dedupe_key)
    where dedupe_key is not null and status in ('buffered', 'delivered');

-- What was refused or came too late: a zombie's answer, a message to a closed run (C5). Nothing reads it but people.
create table durable.evidence (
    shard       smallint    not null,
    run_id      uuid        not null,
    evidence_id uuid        not null default gen_random_uuid(),
    at          timestamptz not null,
    kind        text        not null,
    body        jsonb       not null,
    primary key (shard, run_id, evidence_id)
);

-- Every operator's command, accepted or refused.
create table durable.operator_commands (
    shard       smallint    not null,
    run_id      uuid        not null,
    command_id  uuid        not null default gen_random_uuid(),
    workflow_id text        not null,
    action      text        not null,
    accepted    boolean     not null,
    reason      text,
    refusal     text,
    actor       jsonb,
    at          timestamptz not null,
    primary key (shard, run_id, command_id)
);

create table durable.workers (
    worker_id   uuid primary key,
    name        text        not null,
    state       text        not null default 'alive' check (state in ('alive', 'stopping', 'dead', 'gone')),
    queues      jsonb       not null,
    info        jsonb       not null default '{}',
    build       text,
    workflows   jsonb       not null default '{}',
    started_at  timestamptz not null,
    beat_at     timestamptz not null,
    lease_until timestamptz not null,
    buried_at   timestamptz
);

-- What running code has registered: lets the CLI and SQL check names and payloads without importing anything.
create table durable.definitions (
    kind       text        not null check (kind in ('workflow', 'activity', 'signal')),
    name       text        not null,
    version    integer     not null default 1,
    queue      text,
    schema     jsonb       not null default '{}',
    updated_at timestamptz not null,
    primary key (kind, name, version)
);

-- For tests: moves the clock. Living workers stay alive: their leases move along.
create function durable.advance_clock(by interval) returns timestamptz language sql volatile as $$
    update durable.clock set offset_us = offset_us + (extract(epoch from by) * 1000000)::bigint;
    update durable.workers set lease_until = lease_until + by, beat_at = beat_at + by where state in ('alive', 'stopping');
    select durable.now()
$$;
