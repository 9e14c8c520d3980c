-- What replay tools read: runs in pages, histories in batches. Nothing here writes, claims or locks.

-- name: count_open
select count(*) from durable.runs r where r.shard = any (durable.shard_keys()) and r.status = 'running'
   and (%(workflow)s::text is null or r.workflow = %(workflow)s)

-- name: count_all
select count(*) from durable.runs r where %(workflow)s::text is null or r.workflow = %(workflow)s

-- name: page_open
-- Open runs after a place, along the index runs_one_open.
select r.shard, r.run_id::text, r.workflow_id, r.workflow, r.version, r.status, r.build, r.last_seq from durable.runs r
 where r.status = 'running' and (r.shard, r.workflow_id) > (%(shard)s::smallint, %(after)s)
   and (%(workflow)s::text is null or r.workflow = %(workflow)s)
 order by r.shard, r.workflow_id limit %(limit)s

-- name: page_all
-- All runs after a place, along the primary key.
select r.shard, r.run_id::text, r.workflow_id, r.workflow, r.version, r.status, r.build, r.last_seq from durable.runs r
 where (r.shard, r.run_id) > (%(shard)s::smallint, %(after)s::uuid)
   and (%(workflow)s::text is null or r.workflow = %(workflow)s)
 order by r.shard, r.run_id limit %(limit)s

-- name: find_run
select r.shard, r.run_id::text, r.workflow_id, r.workflow, r.version, r.status, r.build, r.last_seq from durable.runs r
 where r.shard = %(shard)s::smallint and r.workflow_id = %(workflow_id)s
   and (%(run_id)s::uuid is null or r.run_id = %(run_id)s::uuid)
 order by r.generation desc limit 1

-- name: load_events
select run_id::text, seq, turn, type, at_us, body, payload from durable.load_history(%(shards)s::smallint[], %(runs)s::uuid[])

-- name: read_recorded
-- A run with its events, undecoded; as bytes, which nobody on the way takes for JSON to open or mend.
select r.workflow, r.version, r.workflow_id, r.run_id::text, r.status,
       h.seq, h.turn, h.type, durable.to_us(h.at) as at_us, convert_to(h.body::text, 'UTF8') as body_bytes, convert_to(h.payload::text, 'UTF8') as payload_bytes
  from durable.history h
  join (select * from durable.runs n
         where n.shard = %(shard)s::smallint and n.workflow_id = %(workflow_id)s
           and (%(run_id)s::uuid is null or n.run_id = %(run_id)s::uuid)
         order by n.generation desc limit 1) r on r.shard = h.shard and r.run_id = h.run_id
 order by h.seq
