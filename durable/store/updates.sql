-- The client's statements about queries and updates. Times leave as microseconds and JSON as text.

-- name: send_update
select run_id::text, status, name, run_status, queue, owner::text from durable.send_update(
    %(shard)s::smallint, %(workflow_id)s, %(update_id)s, %(request_id)s::uuid, %(name)s, %(payload)s::json, %(actor)s::jsonb)

-- name: read_update
select u.name, u.status, u.reason, u.result::text, u.failure::text, u.accepted_at is not null as accepted, r.status as run_status
  from durable.updates u left join durable.runs r on r.shard = u.shard and r.run_id = u.run_id
 where u.shard = %(shard)s::smallint and u.workflow_id = %(workflow_id)s and u.update_id = %(update_id)s
 order by u.generation desc limit 1

-- name: list_updates
select u.update_id, u.name, u.status, u.reason, u.result::text as payload, u.failure::text as failure, u.actor::text, u.seq,
       durable.to_us(u.requested_at) as at, durable.to_us(u.accepted_at) as accepted_at, durable.to_us(u.ended_at) as ended_at
  from durable.updates u
 where u.shard = %(shard)s::smallint and u.workflow_id = %(workflow_id)s
   and (%(run_id)s::uuid is null or u.run_id = %(run_id)s::uuid)
 order by u.requested_at, u.update_id

-- name: with_start
-- What a start takes along, after the statement `started` that is put before this.
select s.run_id, s.outcome, s.status, w.signal_status, w.signal_reason, w.update_status, w.update_name, w.run_status, w.queue, w.owner::text
  from started s cross join lateral durable.send_with_start(
    s.outcome, %(shard)s::smallint, %(workflow_id)s,
    %(with_signal_id)s::uuid, %(with_signal_name)s, %(with_signal_payload)s::json, %(with_dedupe_key)s,
    %(with_update_id)s, %(with_request_id)s::uuid, %(with_update_name)s, %(with_update_payload)s::json,
    %(with_actor)s::jsonb, %(with_headers)s::jsonb) w

-- name: ask_query
select run_id::text, queue from durable.ask_query(
    %(shard)s::smallint, %(query_id)s::uuid, %(workflow_id)s, %(run_id)s::uuid, %(name)s, %(payload)s::json)

-- name: take_answer
-- The answer, which is taken away; or a row that says that there is none yet; or nothing, when the question was lost.
with answered as (
    delete from durable.queries q where q.shard = %(shard)s::smallint and q.query_id = %(query_id)s::uuid and q.answered_at is not null
    returning q.result::text, q.failure::text
)
select true as answered, a.result, a.failure from answered a
union all
select false, null, null from durable.queries q
 where q.shard = %(shard)s::smallint and q.query_id = %(query_id)s::uuid and q.answered_at is null

-- name: drop_query
delete from durable.queries q where q.shard = %(shard)s::smallint and q.query_id = %(query_id)s::uuid

-- name: explain_silence
select status, queue, begun, delayed, review::text, workers, refused
  from durable.explain_silence(%(shard)s::smallint, %(workflow_id)s, %(query_id)s::uuid)
