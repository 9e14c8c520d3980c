-- What clients ask and tell about queues.

-- name: configure_queue
select durable.configure_queue(%(name)s, %(changes)s::jsonb, %(reason)s, %(actor)s::jsonb, %(command_id)s::uuid)

-- name: expect_keys
insert into durable.queues as q (name, keyed, created_at, updated_at)
select %(name)s, true, durable.now(), durable.now() where not exists (select from durable.queues k where k.name = %(name)s and k.keyed)
on conflict (name) do update set keyed = true

-- name: list_queues
select q.name, durable.to_us(q.paused_at) as paused_at, q.pause_reason, q.slots, q.global_limit, q.key_limit, q.rate_limit::text, q.key_rate_limit::text,
       q.keyed, q.workers,
       (select count(*) from (select from unnest(durable.shard_keys()) as k(key)
                               cross join lateral (select from durable.jobs j where j.shard = k.key and j.queue = q.name and j.phase = 'ready' limit 1000) r) c)
       + (select count(*) from (select from durable.jobs j where j.phase = 'keyed' and j.queue = q.name limit 10000) c) as waiting
  from durable.queue_list q where %(name)s::text is null or q.name = %(name)s order by q.name

-- name: explain_job
select e.reason, e.until_us as until, e.facts::text from durable.explain_job(%(shard)s::smallint, %(job_id)s::uuid, %(seq)s) e
