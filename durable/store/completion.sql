-- Completing an activity from outside, by its token; see completion_calls.py.

-- name: read_activity
-- What the token is for, to check the value against its type. Whether the token is any good, the others say.
select j.name from durable.jobs j where j.shard = %(shard)s::smallint and j.run_id = %(run_id)s::uuid and j.seq = %(seq)s
union all
select h.body ->> 'name' from durable.history h
 where h.shard = %(shard)s::smallint and h.run_id = %(run_id)s::uuid and h.seq = %(seq)s and h.type = 'ActivityScheduled' limit 1

-- name: settle_completion
select verdict, name, hint from durable.settle_completion(
    %(shard)s::smallint, %(run_id)s::uuid, %(seq)s, %(attempt)s, decode(%(digest)s, 'hex'), %(type)s, %(payload)s::json, %(failure)s::jsonb,
    %(names)s::text[], %(final)s, %(actor)s::jsonb, %(command_id)s::uuid, %(patient)s)

-- name: heartbeat_completion
select verdict, cancel_requested from durable.heartbeat_completion(
    %(shard)s::smallint, %(run_id)s::uuid, %(seq)s, %(attempt)s, decode(%(digest)s, 'hex'), %(heartbeat)s::json, %(patient)s)
