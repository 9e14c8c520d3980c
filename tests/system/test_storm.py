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
from tests.system import storm_flows
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
EXECUTING = """
select count(*) from durable.jobs j join durable.workers w on w.worker_id = j.owner where j.state = 'executing' and (w.info ->> 'pid')::int = %s
"""
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
            victim = self._workers.pop(self.chance.randrange(2))
            eventually(partial(self._holds, victim), what="the victim is at work")
            victim.kill()
            self._workers.append(self._hire())

    def _holds(self, worker: WorkerProcess) -> bool:
        """Whether attempts are under way there."""
        row = self._sql.execute(EXECUTING.encode(), (worker.pid,)).fetchone()
        return row is not None and row[0] > 0

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
