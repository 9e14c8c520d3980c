-- What the transaction of an activity begins and ends with; see transactions_async.py.

-- name: mark_attempt
-- No query, so that the function may still choose an isolation level.
set local durable.attempt = {}

-- name: settle_transaction
select verdict, hint from durable.settle_transaction(%s::uuid, %s::smallint, %s::uuid, %s, %s, %s, %s::json)

-- name: note_refusal
insert into durable.evidence (shard, run_id, at, kind, body)
values (%s::smallint, %s::uuid, durable.now(), 'TransactionRefused', jsonb_build_object('seq', %s::int, 'attempt', %s::int, 'worker', %s::text))

-- name: bound_idle_transactions
set idle_in_transaction_session_timeout = '60s'
