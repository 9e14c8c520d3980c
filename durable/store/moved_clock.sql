-- name: advance
select durable.to_us(durable.advance_clock(%(by)s)) as now_us

-- name: skip
-- What is due next, if nothing executes, is available, ready, or waits in an inbox for somebody.
select durable.advance_clock(n.at - durable.now()) is not null as moved
  from (select min(d.at) as at from (
            select j.scheduled_at as at from durable.jobs j where j.shard = any (durable.shard_keys()) and j.phase = 'due'
            union all
            select r.delayed_until from durable.runs r where r.shard = any (durable.shard_keys()) and r.delayed_until < '9999-01-01') d) n
 where n.at > durable.now()
   and not exists (select from durable.jobs j where j.shard = any (durable.shard_keys()) and j.state in ('available', 'executing'))
   and not exists (select from durable.jobs j where j.shard = any (durable.shard_keys()) and j.phase = 'due' and j.scheduled_at <= durable.now())
   and not exists (select from durable.runs r where r.shard = any (durable.shard_keys()) and r.owner is null and r.ready_at is not null)
   and not exists (select from durable.inbox i where i.shard = any (durable.shard_keys()))
