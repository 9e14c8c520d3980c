-- The client's statements about schedules. Times leave as microseconds and JSON as text, as in client.sql.

-- name: put_schedule
select outcome, revision from durable.put_schedule(
    %(schedule_id)s, %(request_id)s::uuid, %(mode)s, %(revision)s::int, null, %(spec)s::jsonb, %(policy)s::jsonb, %(action)s::jsonb, %(input)s::json,
    %(paused)s, %(note)s, %(actor)s::jsonb)

-- name: command_schedule
select status, slot_us, asked from durable.command_schedule(
    %(schedule_id)s, %(command)s, %(note)s, %(overlap)s, %(slots)s::bigint[], %(request_id)s::uuid, %(actor)s::jsonb)

-- name: read_schedules
-- One, or all in the order of their ids; the database's time comes with each.
select s.schedule_id, s.revision, s.spec::text, s.policy::text, s.action::text, s.input::text, s.paused, s.note, s.declared is not null as declared,
       durable.to_us(s.cursor_at) as cursor_us, durable.to_us(s.created_at) as created_at, durable.to_us(s.updated_at) as updated_at,
       durable.to_us(durable.now()) as now_us,
       (select count(*) from durable.schedule_slots t where t.schedule_id = s.schedule_id and t.decision = 'started' and t.outcome is null
           and durable.slot_is_open(t.kind, t.target_shard, t.target)) as open,
       (select count(*) from durable.schedule_slots t where t.schedule_id = s.schedule_id and t.decision in ('pending', 'buffered')) as waiting
  from durable.schedules s
 where s.deleted_at is null and (%(schedule_id)s::text is null or s.schedule_id = %(schedule_id)s)
   and (%(prefix)s::text is null or starts_with(s.schedule_id, %(prefix)s))
 order by s.schedule_id limit %(limit)s::int

-- name: read_slots
-- The newest first.
select durable.to_us(t.slot_at) as scheduled_for, t.origin, t.decision, t.reason, t.kind, t.target,
       case when t.decision = 'started' then coalesce(t.outcome, durable.slot_status(t.kind, t.target_shard, t.target)) end as outcome,
       durable.to_us(t.decided_at) as decided_at
  from durable.schedule_slots t
 where t.schedule_id = %(schedule_id)s and (%(decision)s::text is null or t.decision = %(decision)s)
 order by t.slot_at desc limit %(limit)s::int

-- name: read_now
select durable.to_us(durable.now()) as now_us

-- name: count_schedules
-- All, those that nobody has looked at although they are due, and those that have paused themselves.
select count(*) as total, count(*) filter (where s.next_at < durable.now() - interval '1 minute') as overdue,
       count(*) filter (where s.paused and s.note like 'paused because%%') as stopped
  from durable.schedules s where s.deleted_at is null
