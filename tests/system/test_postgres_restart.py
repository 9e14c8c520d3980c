"""PostgreSQL itself is shut down at once under load and started again: nothing is lost, nothing is recorded twice (C3)."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from durable import embedded
from durable.client_sync import Client
from durable.store.migrate import migrate
from tests.system import flows
from tests.system.invariants import assert_sound
from tests.system.processes import Fleet
from tests.waiting import eventually

RUNS = 120
STEPS = 12
NOT_ONE_OUTCOME_PER_STEP = """
select s.run_id, s.seq from durable.history s where s.type = 'ActivityScheduled'
   and (select count(*) from durable.history c where c.shard = s.shard and c.run_id = s.run_id
           and c.type = 'ActivityCompleted' and c.body ->> 'ref' = s.seq::text) <> 1
"""


class Server:
    """A server of the test's own, because it is killed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running = embedded.start(folder)
        self.url = self._running.url

    def crash(self, number: signal.Signals) -> None:
        """SIGQUIT is an immediate shutdown, SIGKILL not even that; then start anew, with recovery from the log."""
        os.kill(self._running.pid, number)
        before = self._running
        eventually(lambda: not answers(self.url))
        self._running = embedded.start(self._folder)
        assert self._running.started_here
        before.stop()

    def stop(self) -> None:
        self._running.stop()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "pg")
    migrate(made.url)
    flows.create_tables(made.url)
    yield made
    made.stop()


def answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=3).close()
    except psycopg.OperationalError:
        return False
    return True


def ask(url: str, question: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(question.encode()).fetchall()


def completed(url: str) -> int:
    count: int = ask(url, "select count(*) from durable.history where type = 'ActivityCompleted'")[0][0]
    return count


def test_an_immediate_shutdown_under_load_loses_and_doubles_nothing(server: Server, fleet: Fleet) -> None:
    """Three crashes while 120 runs are in flight in two workers; they reconnect by themselves and every run completes."""
    url = server.url
    workers = [fleet.hire(url, lease_s=3.0).ready() for _ in range(2)]
    with Client(url) as client:
        for number in range(RUNS):
            client.start(flows.steps, STEPS, id=f"s-{number}")
        asleep = client.start(flows.sleeps, 3.0, id="asleep")
    for part, number in ((1, signal.SIGQUIT), (2, signal.SIGKILL), (3, signal.SIGQUIT)):
        eventually(lambda p=part: completed(url) >= RUNS * STEPS * p // 5, 60.0, what=f"{part} fifths are done")
        assert completed(url) < RUNS * STEPS, "the crash comes under load"
        server.crash(number)
    with Client(url) as client:
        for number in range(RUNS):
            result = client.handle(f"s-{number}").result(timeout=60)
            assert result == [f"{n}" for n in range(STEPS)]
        assert client.handle(asleep.workflow_id).result(timeout=60) >= 3.0
    assert not any(worker.ended() for worker in workers)
    assert ask(url, NOT_ONE_OUTCOME_PER_STEP) == []
    executed = "select count(distinct (workflow_id, key)) from system.executions"
    assert ask(url, executed) == [(RUNS * STEPS,)]
    with psycopg.connect(url, autocommit=True) as sql:
        assert_sound(sql)
