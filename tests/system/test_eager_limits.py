"""What a turn schedules may be started without a claim (eagerly). A pause and a rate that are set while such a worker runs hold for it too, from when it has heard."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from durable import Client, RateLimit
from tests.system import queue_flows
from tests.system.background import Background
from tests.system.conftest import Working
from tests.system.queue_flows import nothing_after_nothing
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]
MODULES = ("tests.system.queue_flows",)
QUEUES = {"default": 10, "quick": 10}
ENDLESS = 100_000


@pytest.fixture(autouse=True)
def tables(system_url: str) -> None:
    queue_flows.create_tables(system_url)


def completed(sql: Sql) -> int:
    row = sql.execute(
        "select count(*) from durable.history where type = 'ActivityCompleted'"
    ).fetchone()
    return row[0] if row else 0


def has_heard(background: Background) -> None:
    """The worker knows that the queue is special: no attempt of it starts without a claim from now on."""
    slots = background.worker.attempts.slots
    eventually(lambda: background.call(lambda: slots.any_special), what="the worker has heard")


def stands_still(background: Background, sql: Sql, at: int) -> None:
    """Several rounds of everything that the worker does by itself bring nothing forward."""
    passes = background.worker.intake.passes
    eventually(lambda: background.worker.intake.passes > passes + 20)
    assert completed(sql) == at


def waits(sql: Sql) -> bool:
    """The next activity is in the queue like everybody else's."""
    row = sql.execute("select count(*) from durable.jobs where state = 'available' and queue = 'quick'").fetchone()  # fmt: skip
    return row == (1,)


def test_activities_of_a_paused_queue_wait_though_their_worker_could_start_them(
    working: Working, client: Client, sql: Sql
) -> None:
    quick = client.queue("quick")
    with working(*MODULES, queues=QUEUES) as background:
        run = client.start(nothing_after_nothing, ENDLESS)
        eventually(lambda: completed(sql) > 20, what="activities run eagerly")
        quick.pause("the provider is down")
        has_heard(background)
        eventually(lambda: waits(sql), what="the next one is queued")
        at = completed(sql)
        stands_still(background, sql, at)
        quick.resume()
        eventually(lambda: completed(sql) > at + 20, what="it goes on")
        run.terminate("enough")


def test_a_rate_that_is_set_live_holds_for_eager_activities(
    working: Working, client: Client, sql: Sql
) -> None:
    quick = client.queue("quick")
    with working(*MODULES, queues=QUEUES) as background:
        run = client.start(nothing_after_nothing, ENDLESS)
        eventually(lambda: completed(sql) > 20, what="activities run eagerly")
        quick.pause()
        has_heard(background)
        eventually(lambda: waits(sql), what="the next one is queued")
        at = completed(sql)
        quick.set(rate_limit=RateLimit(3, 3600), paused=False)
        eventually(lambda: completed(sql) == at + 3, what="as many as the rate lets start")
        eventually(lambda: waits(sql), what="the next one is queued")
        stands_still(background, sql, at + 3)
        run.terminate("enough")


def test_a_queue_that_was_paused_before_the_worker_came_gets_nothing(
    working: Working, client: Client, sql: Sql
) -> None:
    """A worker asks before its first turn."""
    client.queue("quick").pause()
    runs = [client.start(nothing_after_nothing, 3) for _ in range(20)]
    with working(*MODULES, queues=QUEUES) as background:
        eventually(
            lambda: sql.execute("select count(*) from durable.jobs where queue = 'quick'").fetchone() == (20,)
        )  # fmt: skip
        stands_still(background, sql, 0)
        client.queue("quick").resume()
        assert [run.result(timeout=30) for run in runs] == [3] * 20
