-- What the holders of duties ask of the database: each calls one function of migrations/0008_schedules.sql.

-- name: take_duties
select name, epoch from durable.take_duties(%s::uuid, %s)

-- name: drop_duties
update durable.duties set holder = null, lease_until = null where holder = %s::uuid

-- name: due_schedules
select schedule_id, revision, spec, before, policy, action_kind, cursor_us, passed_over_us, paused, started, pending, buffered, now_us
  from durable.due_schedules(%s, %s)

-- name: next_schedule
select next_us, now_us from durable.next_schedule_us()

-- name: decide_slots
select applied, pushes::text from durable.decide_slots(
    %s::uuid, %s, %s, %s, %s, %s, %s::bigint, %s,
    %s::bigint[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::smallint[],
    %s::bigint[], %s::text[], %s::bigint[], %s::text[])

-- name: declare_schedule
select outcome from durable.put_schedule(
    %s, %s::uuid, 'declare', null, %s, %s::jsonb, %s::jsonb, %s::jsonb, %s::json, false, null)
