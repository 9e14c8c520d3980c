"""A schema as lines of text, from the catalogue, so that two databases can be compared and a difference read."""

from __future__ import annotations

from typing import Any

import psycopg

LINES = """
with space as (select 'durable'::regnamespace as oid),
relation as (select c.* from pg_class c, space where c.relnamespace = space.oid)
select format('%s %s %s', case relkind when 'r' then 'table' when 'p' then 'partitioned table' when 'v' then 'view'
       when 'm' then 'materialized view' when 'S' then 'sequence' else relkind::text end, relname, reloptions)
  from relation where relkind not in ('i', 'I', 'c')
union all
select format('column %s.%s %s %s default %s %s', relname, attname, format_type(atttypid, atttypmod),
       case when attnotnull then 'not null' end, pg_get_expr(adbin, adrelid), attgenerated::text || attidentity::text)
  from relation join pg_attribute a on attrelid = relation.oid and attnum > 0 and not attisdropped
       left join pg_attrdef on adrelid = attrelid and adnum = attnum
 where relkind <> 'i'
union all
select format('constraint %s on %s: %s', conname, conrelid::regclass, pg_get_constraintdef(c.oid))
  from pg_constraint c, space where connamespace = space.oid
union all
select format('index %s: %s %s', relname, pg_get_indexdef(relation.oid), reloptions) from relation where relkind = 'i'
union all
select format('view %s: %s', relname, pg_get_viewdef(relation.oid)) from relation where relkind in ('v', 'm')
union all
select format('function %s', pg_get_functiondef(p.oid)) from pg_proc p, space where pronamespace = space.oid and prokind in ('f', 'p')
union all
select format('trigger %s', pg_get_triggerdef(t.oid)) from pg_trigger t join relation on tgrelid = relation.oid where not tgisinternal
union all
select format('enum %s: %s', typname, string_agg(enumlabel, ', ' order by enumsortorder))
  from space, pg_type t join pg_enum e on enumtypid = t.oid where typnamespace = space.oid group by typname
union all
select format('comment on %s: %s', relname, description) from relation join pg_description d on d.objoid = relation.oid and d.objsubid = 0
"""


def describe(connection: psycopg.Connection[Any]) -> list[str]:
    """Every table, column, constraint, index, view, function, trigger and enum of schema `durable`, in order of its text."""
    return sorted(line for (line,) in connection.execute(LINES).fetchall())
