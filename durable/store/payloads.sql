-- Large payloads, by the SHA-256 of their bytes.

-- name: put_payload
-- What is there already is as good as new: somebody is about to refer to it.
insert into durable.payloads as p (key, data, put_at) values (%(key)s, %(data)s, durable.now())
on conflict (key) do update set put_at = excluded.put_at

-- name: get_payload
select data from durable.payloads where key = %(key)s

-- name: delete_payloads
with gone as (
    delete from durable.payloads
     where key <> all (%(used)s::text[]) and put_at < durable.now() - %(older_than_s)s::float8 * interval '1 second'
    returning 1
)
select count(*) from gone

-- name: payload_refs
select distinct ref from durable.payload_refs() as ref
