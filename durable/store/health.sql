-- What the doctor asks. Every statement only reads, and is given a few seconds.

-- name: be_patient
select set_config('statement_timeout', %(for)s, true)

-- name: read_server
select current_setting('server_version') as server_version, pg_is_in_recovery() as standby,
       current_setting('default_transaction_read_only') = 'on' as read_only, current_setting('server_encoding') as encoding

-- name: read_recorded_catalogue
select catalogue::text as catalogue from durable.migration order by id desc limit 1

-- name: list_invalid_indexes
-- Left by a `create index concurrently` or `reindex concurrently` that failed: it costs every write, and no query uses it.
select c.relname as name, t.relname as table, i.indisunique as is_unique, i.indisready as is_ready
  from pg_index i join pg_class c on c.oid = i.indexrelid join pg_class t on t.oid = i.indrelid
 where c.relnamespace = 'durable'::regnamespace and not (i.indisvalid and i.indisready) order by c.relname

-- name: list_duties
select d.name, d.holder is not null and d.lease_until >= durable.now()
       and exists (select from durable.workers w where w.worker_id = d.holder and w.state in ('alive', 'stopping') and w.lease_until >= durable.now()) as held,
       extract(epoch from durable.now() - d.lease_until)::float8 as lapsed_s,
       (select extract(epoch from durable.now() - min(w.started_at))::float8 from durable.workers w
         where w.state = 'alive' and w.lease_until >= durable.now()) as oldest_worker_s
  from durable.duties d order by d.name

-- name: list_unburied
-- Workers whose lease lapsed and whose work nobody has freed.
select w.name, extract(epoch from durable.now() - w.lease_until)::float8 as lapsed_s,
       (select count(*)::int from durable.runs r where r.shard = any (durable.shard_keys()) and r.owner = w.worker_id) as runs
  from durable.workers w where w.state in ('alive', 'stopping') and w.lease_until < durable.now() order by w.lease_until

-- name: list_unserved
-- Queues that what living workers have registered is for, or that somebody has configured, and that no live worker polls. (What nobody has registered
-- since the oldest of them began is left from code that is gone.)
select n.queue, n.reason from (
    select distinct d.queue, 'running code has activities or workflows for it' as reason from durable.definitions d
     where d.queue is not null and d.updated_at > (select min(w.started_at) - interval '1 minute' from durable.workers w
                                                    where w.state = 'alive' and w.lease_until >= durable.now())
    union
    select q.name, 'it has limits' from durable.queues q) n
 where not exists (select from durable.workers w where w.state = 'alive' and w.lease_until >= durable.now() and w.queues ? n.queue)
 order by n.queue

-- name: list_paused_queues
select q.name, q.pause_reason as reason, extract(epoch from durable.now() - q.paused_at)::float8 as paused_s
  from durable.queues q where q.paused_at is not null order by q.name

-- name: count_parked
-- Runs that an operator holds, and activities of which the attempts ran out or that an operator holds.
select (select count(*)::int from durable.runs r where r.shard = any (durable.shard_keys()) and r.delayed_until > '9000-01-01' and r.status = 'running'
           and r.paused is not null) as runs,
       (select count(distinct j.run_id)::int from durable.jobs j where j.shard = any (durable.shard_keys()) and j.phase = 'paused' and j.paused ->> 'kind' = 'exhausted') as exhausted,
       (select count(*)::int from durable.jobs j where j.shard = any (durable.shard_keys()) and j.phase = 'paused' and j.paused ->> 'kind' = 'operator') as held

-- name: list_bloat
select s.relname as name, s.n_live_tup as live, s.n_dead_tup as dead,
       coalesce(array_to_string(c.reloptions, ',') like '%%autovacuum_enabled=false%%', false) or current_setting('autovacuum') = 'off' as never_vacuumed,
       extract(epoch from clock_timestamp() - greatest(s.last_vacuum, s.last_autovacuum))::float8 as vacuumed_s
  from pg_stat_all_tables s join pg_class c on c.oid = s.relid where s.schemaname = 'durable' order by s.n_dead_tup desc

-- name: list_long_transactions
-- What keeps the vacuum from removing anything.
select a.pid, coalesce(nullif(a.application_name, ''), a.usename::text, 'unknown') as who, a.state, extract(epoch from clock_timestamp() - a.xact_start)::float8 as age_s
  from pg_stat_activity a
 where a.datname = current_database() and a.pid <> pg_backend_pid() and a.backend_type = 'client backend'
   and a.xact_start < clock_timestamp() - %(older_s)s * interval '1 second'
 order by a.xact_start

-- name: read_session
select pg_backend_pid() as pid
