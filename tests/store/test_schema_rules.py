"""The rules that docs/architecture.md states about the schema ("Shards", "Clock"), read from the catalogue of a migrated database."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

Sql = psycopg.Connection[tuple[Any, ...]]

WITHOUT_A_SHARD = frozenset(
    [
        "batches", "clock", "definitions", "duties", "migration", "payloads", "queue_meters", "queues",
        "recoveries", "retention", "schedule_slots", "schedules", "workers",
    ]
)  # fmt: skip
"""Small tables that the whole installation shares. A run's, a job's or a caller's rows are never in one of them."""

ACROSS_SHARDS = {
    "runs_children": "begins with parent_shard, the shard of the parent's id",
    "runs_attributes": "a GIN index has no order; list(where=) asks all shards",
    "jobs_keyed": "limits for keys are the queue's, over all shards",
    "jobs_limited": "the same",
    "jobs_serial": "the same, in the order of enqueueing",
}

INDEXES = """
select t.relname, i.relname, x.indisunique or x.indisprimary,
       (select attname from pg_attribute where attrelid = t.oid and attnum = x.indkey[0])
  from pg_index x join pg_class i on i.oid = x.indexrelid join pg_class t on t.oid = x.indrelid
 where t.relnamespace = 'durable'::regnamespace and t.relkind = 'r'
"""
FUNCTIONS = "select proname, prosrc from pg_proc where pronamespace = 'durable'::regnamespace"
TRIGGERS = """
select t.tgname, pg_get_triggerdef(t.oid) from pg_trigger t join pg_class c on c.oid = t.tgrelid
 where c.relnamespace = 'durable'::regnamespace and not t.tgisinternal
"""
CLOCKS = re.compile(
    r"(?<!durable\.)\b(now\(\)|clock_timestamp\(\)|current_timestamp|localtimestamp|statement_timestamp\(\)|transaction_timestamp\(\))",
    re.IGNORECASE,
)


@pytest.fixture
def sql(database_url: str) -> Iterator[Sql]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def test_keys_and_indexes_begin_with_the_shard(sql: Sql) -> None:
    rows = sql.execute(INDEXES).fetchall()
    assert {table for table, *_ in rows} > {"runs", "history", "inbox", "jobs", "signals"}
    across = {
        index
        for table, index, _, first in rows
        if table not in WITHOUT_A_SHARD and first != "shard"
    }
    assert across == set(ACROSS_SHARDS)
    assert not any(unique for _, index, unique, _ in rows if index in ACROSS_SHARDS)


def test_every_table_of_runs_and_jobs_has_a_shard(sql: Sql) -> None:
    tables = "select relname from pg_class where relnamespace = 'durable'::regnamespace and relkind = 'r'"
    sharded = "select table_name from information_schema.columns where table_schema = 'durable' and column_name = 'shard'"
    everything = {name for (name,) in sql.execute(tables)}
    assert everything - {name for (name,) in sql.execute(sharded)} == everything & WITHOUT_A_SHARD


def test_triggers_are_those_of_groups_and_do_nothing_for_other_jobs(sql: Sql) -> None:
    triggers: dict[str, str] = dict(sql.execute(TRIGGERS).fetchall())
    assert set(triggers) == {"jobs_count_in_group", "jobs_leave_group"}
    assert all("group_id IS NOT NULL" in definition for definition in triggers.values())


def test_no_sequences_and_no_advisory_locks(sql: Sql) -> None:
    sequences = "select relname from pg_class where relnamespace = 'durable'::regnamespace and relkind = 'S'"
    assert sql.execute(sequences).fetchall() == []
    assert [name for name, source in sql.execute(FUNCTIONS) if "pg_advisory" in source] == []


def test_one_function_is_the_clock(sql: Sql) -> None:
    """C19: everything that decides asks durable.now(), which tests can set."""
    asks_another = {
        name
        for name, source in sql.execute(FUNCTIONS)
        if CLOCKS.search(re.sub(r"--.*", "", source))
    }
    assert asks_another == {"now", "uuid7"}  # an id orders, it decides nothing
