"""The network fails: connections are cut before a request reaches the database, or after it has and before the answer (C3)."""

from __future__ import annotations

from functools import partial
from itertools import count
from typing import Any

import psycopg
import pytest

from durable.client_sync import Client
from tests.system import flows
from tests.system.invariants import assert_sound
from tests.system.processes import Fleet
from tests.system.proxy import Moment, Proxy
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]
UNKNOWN_HOLDINGS = """
select 'run', workflow_id from durable.runs where owner is not null and status <> 'running'
union all select 'job', name from durable.jobs where state = 'executing'
"""


def run_some(client: Client, prefix: str, many: int) -> list[Any]:
    handles = [client.start(flows.interleaving, n, id=f"{prefix}-{n}") for n in range(many)]
    for handle in handles:
        handle.signal(flows.go, 1)
    return handles


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("session", ["durable-commit", "durable-intake", "durable-housekeeping"])
def test_a_connection_cut_at_any_request_loses_and_repeats_nothing(
    session: str,
    moment: Moment,
    cable: Proxy,
    fleet: Fleet,
    system_url: str,
    client: Client,
    sql: Sql,
) -> None:
    """C2, C3: commits whose outcome is unknown, claims whose answer is lost, heartbeats; the run is completed by the same worker."""
    hire(fleet, cable, system_url)
    for number in range(1, 6 if session == "durable-housekeeping" else 13):
        cut = cable.cut(session, number, moment)
        for again in count():
            for handle in run_some(client, f"{number}-{again}", 4):
                handle.result(timeout=30)
            if cut.done.is_set():
                break
    eventually(
        lambda: not sql.execute(UNKNOWN_HOLDINGS.encode()).fetchall(),
        what="nothing is held that nobody knows of",
    )
    assert_sound(sql)


def test_all_connections_cut_again_and_again_under_load(
    cable: Proxy, fleet: Fleet, system_url: str, client: Client, sql: Sql
) -> None:
    """C3: 150 runs, 12 cuts of everything at once, two workers behind the proxy."""
    hire(fleet, cable, system_url)
    hire(fleet, cable, system_url)
    handles = run_some(client, "r", 150)
    for _ in range(12):
        eventually(partial(busy_again, cable, cable.requests + 40, sql))
        cable.cut_all()
    for handle in handles:
        handle.result(timeout=60)
    assert_sound(sql)


def test_a_claim_that_takes_effect_long_after_the_break_is_found(
    fleet: Fleet, system_url: str, client: Client, sql: Sql
) -> None:
    """It had waited for a lock, say, while whoever sent it was gone: nobody runs the job, and its owner lives."""
    fleet.hire(system_url, lease_s=1.0).ready()
    job = client.enqueue(flows.quick, 7, delay=1000)
    sql.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'durable-intake'"
    )
    beats(sql, 3)  # and with each some looks for what the break has left
    sql.execute(
        "update durable.jobs set state = 'executing', attempt = 1, owner = (select worker_id from durable.workers)"
    )
    assert job.result(timeout=30) == 7


def beats(sql: Sql, count: int) -> None:
    """Wait until the worker has shown so often that it lives."""
    for _ in range(count):
        eventually(partial(lives_beyond, sql, lease_end(sql)))


def lives_beyond(sql: Sql, moment: Any) -> bool:
    return bool(lease_end(sql) > moment)


def lease_end(sql: Sql) -> Any:
    ((moment,),) = sql.execute("select max(lease_until) from durable.workers").fetchall()
    return moment


def hire(fleet: Fleet, cable: Proxy, system_url: str) -> None:
    """A worker behind the proxy; its activities have a cable of their own."""
    fleet.hire(cable.url, lease_s=3.0, env={"SYSTEM_DATABASE_URL": system_url}).ready()


def busy_again(cable: Proxy, requests: int, sql: Sql) -> bool:
    """So many requests have come through, or there is nothing left to ask for."""
    return cable.requests >= requests or all_ended(sql)


def all_ended(sql: Sql) -> bool:
    return (
        sql.execute("select 1 from durable.runs where status = 'running' limit 1").fetchone()
        is None
    )
