"""Hundreds of runs of random shape while workers are killed and replaced at random: C1, C2, C3, C5, C7, C9, C11, C12 at once."""

from __future__ import annotations

import contextlib
import random
from functools import partial
from typing import Any

import psycopg
import pytest

from durable.client_sync import Client
from durable.errors import WorkflowClosed, WorkflowFailed
from durable.handles_sync import Handle
from tests.system import flows, storm_flows
from tests.system.conftest import Working
from tests.system.invariants import assert_sound
from tests.system.processes import Fleet, WorkerProcess
from tests.system.storm_flows import Plan
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]

FLOWS = ("tests.system.flows", "tests.system.storm_flows")
SEED = 20_240_229
RUNS = 320
KILLS = 8
CACHE = "40"  # far fewer than there are runs: most turns begin with a replay

EVENTS = "select count(*) from durable.history"
HELD = """
select (w.info ->> 'pid')::int, (select count(*) from durable.jobs j where j.owner = w.worker_id and j.state = 'executing'),
       (select count(*) from durable.runs r where r.owner = w.worker_id) from durable.workers w where w.state = 'alive'
"""
DECLARE_OWNER_DEAD = (
    "update durable.workers set lease_until = durable.now() - interval '1 s' where worker_id = %s"
)
UNDONE = "select key, count(*) from system.executions where name = 'note' group by key"


def events(sql: Sql) -> int:
    row = sql.execute(EVENTS.encode()).fetchone()
    assert row is not None
    return int(row[0])


class Storm:
    """The runs, their plans, and the two workers of the moment."""

    def __init__(self, fleet: Fleet, url: str, client: Client, sql: Sql) -> None:
        self.chance = random.Random(SEED)
        self.plans: dict[str, Plan] = {
            f"storm-{n}": storm_flows.draw(self.chance, f"storm-{n}") for n in range(RUNS)
        }
        self.handles: dict[str, Handle[list[str]]] = {}
        self._client, self._sql, self._fleet, self._url = client, sql, fleet, url
        self._workers = [self._hire(), self._hire()]

    def _hire(self) -> WorkerProcess:
        return self._fleet.hire(self._url, *FLOWS, lease_s=1.0, options=("--cache", CACHE))

    def start(self) -> None:
        """Some at once, some later; a few hear their signals before they start."""
        for name, plan in self.plans.items():
            early = self.chance.random() < 0.1
            self.handles[name] = self._client.start(
                storm_flows.storm, plan, id=name, delay=1.0 if early else None
            )
            if early:
                self.signal(name)

    def signal(self, name: str) -> None:
        """All the signals that the run waits for, each of them twice; it may have ended before the second."""
        for number in range(storm_flows.signals_in(self.plans[name])):
            for _ in range(2):
                with contextlib.suppress(WorkflowClosed):
                    self.handles[name].signal(storm_flows.storm_go, number, dedupe_key=f"{number}")

    def rage(self) -> None:
        """Between two kills a share of the runs hears its signals and some events are written."""
        names = list(self.plans)
        self.chance.shuffle(names)
        for kill in range(KILLS):
            before = events(self._sql)
            for name in names[kill::KILLS]:
                self.signal(name)
            written = self.chance.randint(1, 200)
            eventually(partial(self._written, before + written), what=f"{written} more events")
            (victim,) = eventually(self._busiest, what="a worker is at work")
            self._workers.remove(victim)
            victim.kill()
            self._workers.append(self._hire())

    def _busiest(self) -> list[WorkerProcess]:
        """The worker with the most attempts under way, or the most runs; none while all are idle."""
        held = {pid: counts for pid, *counts in self._sql.execute(HELD.encode())}
        busiest = max(self._workers, key=lambda worker: held.get(worker.pid, [0, 0]))
        return [busiest] if any(held.get(busiest.pid, [])) else []

    def _written(self, count: int) -> bool:
        return events(self._sql) >= count

    def end(self) -> None:
        for worker in self._workers:
            assert not worker.ended(), worker.log()
            assert worker.stop() == 0


def answer_of(handle: Handle[list[str]]) -> Any:
    """Its result, or what it failed with."""
    try:
        return handle.result(timeout=60)
    except WorkflowFailed as failed:
        return repr(failed.__cause__)


def expected_of(name: str, plan: Plan) -> Any:
    return repr(storm_flows.Refused(name)) if storm_flows.fails(plan) else storm_flows.answer(plan)


@pytest.mark.timeout(180)
def test_runs_of_every_shape_end_right_while_workers_die(
    fleet: Fleet, system_url: str, client: Client, sql: Sql
) -> None:
    """All end as their plans say; histories are whole, closed once and replay; nothing is left; nothing was undone twice."""
    storm = Storm(fleet, system_url, client, sql)
    storm.start()
    storm.rage()
    answers = {name: answer_of(handle) for name, handle in storm.handles.items()}
    expected = {name: expected_of(name, plan) for name, plan in storm.plans.items()}
    assert {name: it for name, it in answers.items() if it != expected[name]} == {}
    storm.end()
    undone = {key for key, _ in sql.execute(UNDONE.encode())}
    assert undone == {
        f"undo {name}" for name, plan in storm.plans.items() if storm_flows.fails(plan)
    }
    assert_sound(sql)


def taken_over(sql: Sql, epoch: int) -> bool:
    """Have the run's owner taken for dead until somebody has claimed it after `epoch`."""
    ((now, owner, review),) = sql.execute(
        "select epoch, owner, review from durable.runs"
    ).fetchall()
    assert review is None
    if now > epoch and owner is not None:
        return True
    sql.execute(DECLARE_OWNER_DEAD, (owner,))
    return False


def is_beyond_suspicion(sql: Sql) -> bool:
    return sql.execute("select losses from durable.runs").fetchone() == (0,)


def test_a_run_that_waits_is_not_blamed_for_the_workers_that_die(
    working: Working, client: Client, sql: Sql
) -> None:
    """C8: five takeovers in a row do not make a quiet run one that needs review; it hears the next signal at once."""
    with working(name="one", lease_s=1.5), working(name="two", lease_s=1.5):
        handle = client.start(flows.listens, 2, id="quiet")
        handle.signal(flows.word, "hello")
        eventually(lambda: len(handle.history()) > 1)
        for takeover in range(5):
            eventually(partial(taken_over, sql, 2 * takeover + 1), what="the other has the run")
            eventually(partial(is_beyond_suspicion, sql))
            assert handle.describe().operator_status == "waiting"
        handle.signal(flows.word, "still here")
        assert handle.result(timeout=5) == ["hello", "still here"]
    assert_sound(sql)
