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


RUN = """
insert into durable.runs (shard, run_id, workflow_id, workflow, created_at) values (0, gen_random_uuid(), 'ruled', 'ruled', now())
"""
JOB = """
insert into durable.jobs (shard, run_id, seq, kind, name, queue, state, scheduled_at, created_at)
values (0, gen_random_uuid(), 0, 'job', 'ruled', 'default', 'available', now(), now())
"""
ID = "gen_random_uuid()"
BROKEN_RUNS = {
    "runs_status_known": "status = 'odd', closed_at = now()",
    "runs_priority_range": "priority = 10",
    "runs_closed_has_time": "status = 'completed'",
    "runs_closed_has_no_owner": f"status = 'completed', closed_at = now(), owner = {ID}",
    "runs_owned_is_not_claimable": f"owner = {ID}, ready_at = now()",
    "runs_delayed_is_not_ready": "delayed_until = now(), ready_at = now()",
    "runs_workflow_id_length": "workflow_id = ''",
    "runs_only_pinned_have_a_build": "build = 'b'",
    "runs_positions": "last_seq = 0",
    "runs_details_length": "details = repeat('x', 8193)",
}
BROKEN_JOBS = {
    "jobs_kind_known": "kind = 'odd', seq = 1",
    "jobs_state_known": "state = 'odd'",
    "jobs_timer_only_waits": "kind = 'timer', seq = 1, state = 'available'",
    "jobs_executing_has_owner": "state = 'executing'",
    "jobs_finished_has_time": "state = 'completed'",
    "jobs_only_standalone_are_kept": "kind = 'activity', seq = 1, state = 'completed', finished_at = now()",
    "jobs_standalone_is_seq_zero": "seq = 1",
    "jobs_deadline_has_kind": "deadline_at = now()",
    "jobs_priority_range": "priority = -1",
    "jobs_weight_positive": "options = '{\"weight\": 0}'",
    "jobs_unique_are_standalone": "kind = 'activity', seq = 1, unique_key = 'k'",
}


@pytest.mark.parametrize(
    ("table", "row", "rule", "change"),
    [
        (table, row, rule, change)
        for table, row, broken in (("runs", RUN, BROKEN_RUNS), ("jobs", JOB, BROKEN_JOBS))
        for rule, change in broken.items()
    ],
)
def test_a_row_that_breaks_a_rule_is_refused_by_its_name(
    sql: Sql, table: str, row: str, rule: str, change: str
) -> None:
    sql.execute(row.encode())
    with pytest.raises(psycopg.errors.CheckViolation) as refused:
        sql.execute(f"update durable.{table} set {change}".encode())
    said = refused.value.diag
    assert (said.schema_name, said.table_name, said.constraint_name) == ("durable", table, rule)
    assert rule in str(refused.value)


def test_every_rule_has_been_broken(sql: Sql) -> None:
    """So that a rule which is added is tried as well."""
    functions = "select prosrc from pg_proc where proname in ('is_legal_run', 'job_phase')"
    found = {
        rule
        for (source,) in sql.execute(functions)
        for rule in re.findall(r"'((?:runs|jobs)_\w+)'", source)
    }
    constraints = "select conname from pg_constraint where contype = 'c' and conrelid in ('durable.runs'::regclass, 'durable.jobs'::regclass)"
    found |= {name for (name,) in sql.execute(constraints)} - {"runs_are_legal"}
    assert found == set(BROKEN_RUNS) | set(BROKEN_JOBS)
