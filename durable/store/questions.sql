-- The worker's statements about queries, and what it clears away of queries and updates.

-- name: take_queries
select shard, query_id::text, run_id::text, name, payload, workflow_id, workflow, version, begun
  from durable.take_queries(%s::uuid, %s::text[], %s)

-- name: answer_queries
select durable.answer_queries(%s::uuid, %s::smallint[], %s::uuid[], %s::json[], %s::jsonb[])

-- name: load_history
select run_id::text, seq, turn, type, at_us, body, payload from durable.load_history(%s::smallint[], %s::uuid[])

-- name: forget_requests
select durable.forget_requests(%s)
