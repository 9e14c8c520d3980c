"""The hot statements among a million rows: no table is scanned, and what is read depends on what is asked for, not on what is there.

Each is measured twice: in a session that planned it while there were two thousand runs and no statistics, and in a new one after ANALYZE.
(What a worker planned over empty tables it soon forgets: see durable/store/session.py.)
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, NamedTuple
from uuid import uuid4

import psycopg
import pytest

from durable.core.events import Event
from durable.store import engine
from durable.store.batch import (
    JobInsert,
    Outcome,
    Release,
    Retry,
    RunCommit,
    commit_arguments,
    outcome_arguments,
    release_arguments,
    retry_arguments,
)
from tests import postgres
from tests.system import crowd
from tests.system.crowd import ME, Touched

Sql = psycopg.Connection[tuple[Any, ...]]

RUNS = 200_000
STANDALONE_JOBS = 400_000
BATCH = 100
SHARDS = 64
SLOTS = 100
CLAIM = 200
STAGE = 32

MINE = """
select r.shard, r.run_id::text, r.last_seq, (select i.message_id::text from durable.inbox i where i.shard = r.shard and i.run_id = r.run_id limit 1)
  from durable.runs r where r.owner = %s order by r.run_id desc limit %s
"""


class Held(NamedTuple):
    """A run that `crowd` made ours; it has one executing job (seq 2, attempt 1) and one message."""

    shard: int
    run_id: str
    last_seq: int
    message_id: str


def mine(sql: Sql) -> list[Held]:
    return [Held(*row) for row in sql.execute(MINE, (ME, BATCH)).fetchall()]


def turn(held: Held, *, closes: bool) -> RunCommit:
    """Merged turn: the job is done, its outcome and a message come in, another job goes out, or the run closes."""
    seq, now_us = held.last_seq, time.time_ns() // 1000
    types = (
        "ActivityCompleted",
        "SignalReceived",
        "WorkflowCompleted" if closes else "ActivityScheduled",
    )
    events = [
        Event(seq + n, 2, type_, now_us, {"ref": 2}, "{}") for n, type_ in enumerate(types, 1)
    ]
    commit = RunCommit(
        held.shard, held.run_id, 1, seq, seq + 3, 2, "completed" if closes else "running", None, events
    )  # fmt: skip
    commit.done.append((2, 1))
    commit.consumed.append(held.message_id)
    commit.signals.append((str(uuid4()), seq + 2))
    if not closes:
        commit.jobs.append(
            JobInsert(seq + 3, "activity", "crowd", "ours", 0, True, None, None, None)
        )
    return commit


def statements(runs: list[Held]) -> dict[str, tuple[str, Any]]:
    """The worker's statements, as it sends them, for these runs."""
    shards, ids = [held.shard for held in runs], [held.run_id for held in runs]
    turns = [turn(held, closes=n % 10 == 0) for n, held in enumerate(runs)]
    body = {"ref": 2, "attempt": 1}
    outcomes = [Outcome(it.shard, it.run_id, 2, 1, "ActivityCompleted", body, "{}") for it in runs]
    retries = [Retry(it.shard, it.run_id, 2, 1, 10.0, {"failure": {}}) for it in runs]
    releases = [Release(it.shard, it.run_id, 1, None, None) for it in runs]
    beats = (
        ME,
        shards,
        ids,
        [2] * len(runs),
        [1] * len(runs),
        ["[]"] * len(runs),
        [60.0] * len(runs),
    )
    given: dict[str, Any] = {
        "claim_jobs": (ME, ["ours"], [SLOTS], False),
        "claim_runs": (ME, ["ours"], CLAIM),
        "stage_due": (STAGE,),
        "read_inbox": (ME, ["ours"], 2_000),
        "commit": commit_arguments(ME, turns),
        "complete_jobs": (ME, shards, ids, [1] * len(runs), ["{}"] * len(runs)),
        "settle_jobs": outcome_arguments(ME, outcomes),
        "retry_jobs": retry_arguments(ME, retries),
        "put_back_jobs": retry_arguments(ME, retries),
        "release_runs": release_arguments(ME, releases),
        "heartbeat_jobs": beats,
        "load_history": (shards, ids),
        "expire_deadlines": (5.0, 200),
        "bury_dead_workers": (1_000,),
    }
    claims = {
        "claim_from_limited_queue": ("theirs", False),
        "claim_longest_waiting": ("ours", True),
    }
    messages = "select count(*) from durable.inbox where queue = any(%s)", (["ours"],)
    return {
        "messages": messages,
        **{name: (engine._SQL[name], params) for name, params in given.items()},
        **{
            name: (engine._SQL["claim_jobs"], (ME, [queue], [SLOTS], aged))
            for name, (queue, aged) in claims.items()
        },
    }


Measured = dict[tuple[str, str], tuple[list[tuple[Any, ...]], dict[str, Touched]]]


@pytest.fixture(scope="module")
def measured(postgres_url: str, template_database: str) -> Iterator[Measured]:
    """What each statement answered and touched, by (session, name)."""
    with (
        postgres.copied_database(postgres_url, template_database) as url,
        psycopg.connect(url, autocommit=True) as admin,
        psycopg.connect(url, autocommit=True) as stale,
    ):
        crowd.prepare(admin)
        crowd.fill(admin, 0, 1_999, jobs=100)
        for _ in range(6):
            for statement in statements(mine(admin)).values():
                crowd.touched(stale, *statement)
        crowd.fill(admin, 2_000, RUNS, jobs=STANDALONE_JOBS)
        runs = mine(admin)
        found = {
            ("stale", name): crowd.touched(stale, *it) for name, it in statements(runs).items()
        }
        admin.execute("analyze")
        with psycopg.connect(url, autocommit=True) as fresh:
            found |= {
                ("fresh", name): crowd.touched(fresh, *it) for name, it in statements(runs).items()
            }
        yield found


class Bound(NamedTuple):
    """What a statement may touch: blocks in all, entries of an index."""

    blocks: int
    entries: dict[str, int]


HEADS = SHARDS * (2 + CLAIM // 16)
"""A claim of runs looks at so many of each shard and kind."""

BOUNDS = {
    "claim_jobs": Bound(4_000, {"jobs_claimable": SHARDS * (2 + SLOTS // 24)}),
    "claim_runs": Bound(25_000, {"runs_claimable": HEADS + CLAIM + 1, "runs_pkey": 4 * HEADS}),
    "stage_due": Bound(
        8_000, {"jobs_due": 4 * SHARDS * (2 + STAGE // 16), "runs_delayed": 4 * SHARDS}
    ),
    "commit": Bound(
        BATCH * 80, {"runs_pkey": 2 * BATCH, "jobs_pkey": 4 * BATCH, "inbox_pkey": 4 * BATCH}
    ),
    "claim_from_limited_queue": Bound(
        12_000, {"jobs_claimable": SHARDS * (2 + SLOTS // 24), "jobs_keyed": 6 * (64 + SLOTS)}
    ),
    "claim_longest_waiting": Bound(
        8_000, {"jobs_claimable": SHARDS * 10 + SHARDS * (2 + SLOTS // 24)}
    ),
    "complete_jobs": Bound(BATCH * 20, {"jobs_pkey": 2 * BATCH}),
    "settle_jobs": Bound(BATCH * 50, {"jobs_pkey": 4 * BATCH, "runs_pkey": 2 * BATCH}),
    "retry_jobs": Bound(BATCH * 80, {"jobs_pkey": 8 * BATCH}),
    "put_back_jobs": Bound(BATCH * 80, {"jobs_pkey": 8 * BATCH}),
    "release_runs": Bound(BATCH * 50, {"runs_pkey": 2 * BATCH}),
    "heartbeat_jobs": Bound(BATCH * 40, {"jobs_pkey": 4 * BATCH}),
    "load_history": Bound(BATCH * 20, {"history_pkey": 8 * BATCH}),
    "expire_deadlines": Bound(1_000, {"jobs_deadlines": 200}),
    "bury_dead_workers": Bound(100, {}),
}


@pytest.mark.parametrize("session", ["stale", "fresh"])
@pytest.mark.parametrize("name", BOUNDS)
def test_a_hot_statement_touches_what_it_needs(name: str, session: str, measured: Measured) -> None:
    """DESIGN 4: the index by which it finds its rows is used, and read no further than asked; no hot table is read from end to end."""
    _, spent = measured[session, name]
    shown = "\n".join(f"{relation}: {it}" for relation, it in sorted(spent.items()))
    assert [table for table in crowd.HOT if table in spent and spent[table].scans] == [], shown
    bound = BOUNDS[name]
    for index, entries in bound.entries.items():
        assert spent[index].scans, shown
        assert spent[index].rows <= entries, shown
    assert sum(it.blocks for it in spent.values()) <= bound.blocks, shown


@pytest.mark.parametrize("session", ["stale", "fresh"])
def test_reading_the_inbox_costs_what_waits_in_ones_queues(
    session: str, measured: Measured
) -> None:
    """Not what waits in others' queues, and not the runs that nobody wrote to."""
    rows, spent = measured[session, "read_inbox"]
    waiting = next(iter(measured[session, "messages"][0]))[0]
    assert len(rows) == 2_000
    assert spent["inbox_by_queue"].rows <= waiting * 1.5, spent
    assert spent["runs_pkey"].rows <= waiting * 1.5, spent
    assert sum(it.blocks for it in spent.values()) <= waiting * 6, spent


def test_the_statements_did_what_they_are_for(measured: Measured) -> None:
    """Nothing was cheap because it found nothing."""
    for session in ("stale", "fresh"):
        answers = {name: rows for (of, name), (rows, _) in measured.items() if of == session}
        assert len(answers["claim_jobs"]) == SLOTS
        assert len(answers["claim_from_limited_queue"]) == SLOTS
        assert len(answers["claim_longest_waiting"]) == SLOTS
        assert len(answers["claim_runs"]) == CLAIM
        assert len(answers["load_history"]) == 2 * BATCH
        assert sum(answers["stage_due"][0][:2]) >= SHARDS
        assert len(answers["heartbeat_jobs"]) == BATCH
        assert answers["retry_jobs"] == [(None,)], "none was refused"
        assert answers["put_back_jobs"] == answers["release_runs"] == [(BATCH,)]


def test_the_end_of_an_attempt_touches_no_index(sql: Sql) -> None:
    """A heap-only tuple: PostgreSQL makes none where an index, or its condition, names a column whose value changes. `phase` does not change then."""
    changing = "state|owner|finished_at|result|errors|note|heartbeat|unique_key"
    assert (
        sql.execute(
            "select indexname from pg_indexes where schemaname = 'durable' and tablename = 'jobs' and indexdef ~ %s",
            (rf"\m({changing})\M",),
        ).fetchall()
        == []
    )
