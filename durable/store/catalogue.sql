-- What the schema `durable` consists of, as the server describes it.

-- name: read_catalogue
with space as (select 'durable'::regnamespace as oid),
relation as (select c.* from pg_class c, space where c.relnamespace = space.oid)
select case relkind when 'r' then 'table' when 'p' then 'partitioned table' when 'v' then 'view' when 'm' then 'materialized view'
            when 'S' then 'sequence' else relkind::text end || ' ' || relname as object,
       case when relkind in ('v', 'm') then pg_get_viewdef(relation.oid) else '' end as definition
  from relation where relkind not in ('i', 'I', 'c')
union all
select 'storage of ' || relname, array_to_string(reloptions, ', ') from relation where reloptions is not null
union all
select format('column %s.%s', relname, attname),
       format('%s %s default %s %s', format_type(atttypid, atttypmod), case when attnotnull then 'not null' end,
              pg_get_expr(adbin, adrelid), attgenerated::text || attidentity::text)
  from relation join pg_attribute a on attrelid = relation.oid and attnum > 0 and not attisdropped
       left join pg_attrdef on adrelid = attrelid and adnum = attnum
 where relkind not in ('i', 'I')
union all
select format('constraint %s on %s', conname, coalesce(conrelid::regclass::text, contypid::regtype::text)), pg_get_constraintdef(c.oid)
  from pg_constraint c, space where connamespace = space.oid and contype <> 'n'
union all
select 'index ' || relname, pg_get_indexdef(relation.oid) from relation where relkind in ('i', 'I')
union all
select format('function %s', p.oid::regprocedure), pg_get_functiondef(p.oid) from pg_proc p, space where pronamespace = space.oid and prokind in ('f', 'p')
union all
select format('trigger %s on %s', tgname, relname), pg_get_triggerdef(t.oid) from pg_trigger t join relation on tgrelid = relation.oid where not tgisinternal
union all
select 'enum ' || typname, string_agg(enumlabel, ', ' order by enumsortorder)
  from space, pg_type t join pg_enum e on enumtypid = t.oid where typnamespace = space.oid group by typname
union all
select 'comment on ' || relname, description from relation join pg_description d on d.objoid = relation.oid and d.objsubid = 0
