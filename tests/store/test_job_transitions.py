"""The database makes the changes of the table, all of them, and no other: a trigger of the test's writes down what happens to jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from durable import Unique, activity, enqueueing, targets
from durable.client_sync import Client
from durable.core.job_life import PERMITTED
from durable.store import job_calls
from durable.store.calls import taken_at_once

WATCH = """
create table transitions (before text, after text, by text);
create function note_transition() returns trigger language plpgsql as $$
begin
    insert into transitions values (case when tg_op = 'UPDATE' then old.state end, new.state, current_setting('test.by', true));
    return null;
end $$;
create trigger watch_insert after insert on durable.jobs for each row execute function note_transition();
create trigger watch_update after update on durable.jobs for each row when (old.state <> new.state) execute function note_transition();
"""
WORKER = "00000000-0000-7000-8000-00000000000a"
TOKEN = "ab" * 32
OUTCOMES = {
    "ActivityCompleted": "completed",
    "ActivityFailed": "discarded",
    "ActivityCancelled": "cancelled",
}


@activity
def wanders(number: int = 0) -> None: ...


class Wanderer:
    """One database, and what brings jobs from state to state."""

    def __init__(self, url: str, client: Client) -> None:
        self.sql = psycopg.connect(url, autocommit=True)
        self.client = client
        self.sql.execute(WATCH.encode())
        self.revive()

    def revive(self) -> None:
        self.sql.execute(
            "insert into durable.workers (worker_id, name, state, queues, started_at, beat_at, lease_until) values (%s, 'w', 'alive', '{}', now(), now(), durable.now() + '1 h')"
            " on conflict (worker_id) do update set state = 'alive', lease_until = excluded.lease_until, buried_at = null",
            (WORKER,),
        )

    def job(self, state: str = "available", **options: Any) -> str:
        """A job brought to a state by the functions that bring jobs there."""
        delay = 3600 if state == "scheduled" else 0
        job_id = self.client.enqueue(wanders, delay=delay, **options).job_id
        if state in ("executing", "retryable", "waiting", *OUTCOMES.values()):
            self.claim()
        if state == "waiting":
            self.park(job_id)
        if state == "retryable":
            self.retry(job_id, "{}")
        for outcome, ends in OUTCOMES.items():
            if ends == state:
                self.settle(job_id, outcome)
        return job_id

    def take_at_once(self) -> None:
        """As a worker's own client enqueues."""
        target = targets.of_activity(wanders)
        call = job_calls.enqueue_job(
            *enqueueing.one(target, wanders, (), {}, enqueueing.JobOptions(), None), fresh=True
        )
        assert self.client._execute(taken_at_once(call, WORKER)).answer.state == "executing"

    def claim(self) -> None:
        self.sql.execute("select * from durable.claim_jobs(%s, '{default}', '{100}')", (WORKER,))

    def settle(self, job_id: str, outcome: str) -> None:
        self._attempt(
            "settle_jobs", job_id, f"'{{{outcome}}}', array['{{}}']::jsonb[], array[null]::json[]"
        )

    def retry(self, job_id: str, error: str | None) -> None:
        given = "null" if error is None else f"'{error}'"
        self._attempt("retry_jobs", job_id, f"'{{3600}}', array[{given}]::jsonb[]")

    def park(self, job_id: str) -> None:
        self._attempt("park_jobs", job_id, f"'{{1}}', '{{{TOKEN}}}'")

    def complete_from_outside(self, job_id: str, outcome: str, *, final: bool = False) -> None:
        self.sql.execute(
            "select * from durable.settle_completion(durable.shard_of(%(id)s::text), %(id)s::uuid, 0, 1, decode(%(token)s, 'hex'), %(type)s,"
            " null, '{}', '{}', %(final)s, null, gen_random_uuid(), false)",
            {"id": job_id, "token": TOKEN, "type": outcome, "final": final},
        )

    def put_back(self, job_id: str, delay_s: int) -> None:
        self._attempt("put_back_jobs", job_id, f"'{{{delay_s}}}', '{{null}}'")

    def _attempt(self, function: str, job_id: str, rest: str) -> None:
        attempt = "(select array[attempt] from durable.jobs where run_id = %(id)s::uuid)"
        statement = f"select * from durable.{function}(%(w)s, array[durable.shard_of(%(id)s::text)], array[%(id)s::uuid], '{{0}}', {attempt}, {rest})"
        self.sql.execute(statement.encode(), {"w": WORKER, "id": job_id})

    def lose(self) -> None:
        self.sql.execute("update durable.workers set lease_until = durable.now() - interval '1 s'")
        self.sql.execute("select * from durable.bury_dead_workers(100)")
        self.revive()

    def expire(self, state: str) -> None:
        """A deadline passes for a job in that state."""
        self.sql.execute(
            "update durable.jobs set deadline_at = durable.now() - interval '1 h', deadline_kind = 'schedule_to_close' where state = %s",
            (state,),
        )
        self.sql.execute("select durable.expire_deadlines(1, 100)")

    def time_out(self) -> None:
        self.sql.execute(
            "update durable.jobs set deadline_at = durable.now() - interval '1 h', deadline_kind = 'heartbeat' where state = 'executing'"
        )
        self.sql.execute("select durable.expire_deadlines(1, 100)")

    def pass_time(self) -> None:
        self.sql.execute("select durable.advance_clock('2 h')")
        self.sql.execute("select * from durable.stage_due(1000)")

    def replace(self, before: str, delay: float) -> None:
        unique = Unique(key=f"{before} {delay}", replace=("scheduled_at",))
        self.job(before, unique=unique)
        assert self.client.enqueue(wanders, delay=delay, unique=unique).replaced

    def command(self, verb: str, state: str) -> None:
        getattr(self.client.job(self.job(state)), verb)()

    def seen(self) -> set[tuple[Any, ...]]:
        return set(self.sql.execute("select before, after from transitions").fetchall())


@pytest.fixture
def wanderer(database_url: str) -> Iterator[Wanderer]:
    with Client(database_url) as client:
        wanderer = Wanderer(database_url, client)
        yield wanderer
        wanderer.sql.close()


def cancelled_while_executing(w: Wanderer, then: Callable[[str], None]) -> None:
    """Told to stop, then the attempt ends in another way."""
    job_id = w.job("executing")
    w.client.job(job_id).cancel()
    then(job_id)
    assert w.client.job(job_id).describe().state == "cancelled"


def test_the_database_makes_every_change_of_the_table_and_no_other(wanderer: Wanderer) -> None:
    w = wanderer
    w.take_at_once()
    for state in ("scheduled", "available", "retryable"):
        w.command("cancel", state)
        w.job(state)
        w.expire(state)
    for state in ("scheduled", "retryable", "completed", "discarded", "cancelled"):
        w.command("retry", state)
    for state in ("scheduled", "retryable"):
        w.job(state)
        w.pass_time()
    w.replace("scheduled", 0)
    w.replace("available", 60)
    w.replace("retryable", 60)
    w.retry(w.job("executing"), None)
    w.put_back(w.job("executing"), 60)
    w.put_back(w.job("executing"), 0)
    for ending in (w.lose, w.time_out, lambda: w.expire("executing")):
        w.job("executing")
        ending()
    for verb in ("cancel", "retry"):
        w.command(verb, "waiting")
    w.complete_from_outside(w.job("waiting"), "ActivityCompleted")
    w.complete_from_outside(w.job("waiting"), "ActivityFailed")
    w.complete_from_outside(w.job("waiting"), "ActivityFailed", final=True)
    for then in (w.park, lambda j: w.retry(j, "{}"), lambda j: w.retry(j, None), lambda j: w.put_back(j, 0), lambda _: w.lose(),
                 lambda j: w.settle(j, "ActivityCancelled")):  # fmt: skip
        cancelled_while_executing(w, then)
    assert w.seen() == PERMITTED


def test_a_watched_database_would_notice(wanderer: Wanderer) -> None:
    """The watch itself can fail."""
    job_id = wanderer.job("completed")
    wanderer.sql.execute("update durable.jobs set state = 'discarded' where run_id = %s", (job_id,))
    assert ("completed", "discarded") in wanderer.seen() - PERMITTED
