"""The floor: what the same rows cost when nothing but PostgreSQL and psycopg is in the way.

The rows of `ten_steps` are prepared beforehand, turn by turn, exactly as a worker would send them: the workflow is run once and its turns are kept. Only
the calls are timed: one after the other on one connection, each one call of the SQL function that workers commit with, for as many runs
at once as the worker's own batches had. For each step that is: two rows of history, a job inserted, a job deleted, the run updated. Starting and claiming
the runs is not in it, nor is polling, nor running anything.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from bench.driver import Starter, connect
from bench.flows import STEPS, ten_steps
from bench.processes import say
from durable.core.events import Event, Message
from durable.core.execution import Decision, Execution
from durable.ids import uuid7
from durable.store.batch import RunCommit, commit_arguments
from durable.store.queries import load_queries
from durable_worker.effects import add_effects

_COMMIT = load_queries("engine.sql")["commit"]
_BEAT = load_queries("engine.sql")["beat"]
_CLAIM = "select shard, run_id::text, epoch from durable.claim_runs(%s::uuid, '{default}', %s)"


class Lane(NamedTuple):
    """A claimed run whose turns are to be written."""

    shard: int
    run_id: str
    epoch: int


def turns_of_ten_steps(at_us: int) -> list[RunCommit]:
    """The eleven commits of one run, made by the core and by the worker's own table of effects."""
    start = Event(1, 0, "WorkflowStarted", at_us, {"queue": "default", "priority": 0}, "{}")
    execution = Execution(ten_steps, UUID(int=0), "floor")
    execution.replay([start])
    commits: list[RunCommit] = []
    inbound: list[Message] = []
    done: list[tuple[int, int]] = []
    while not execution.closed:
        before = execution.last_seq
        decision = execution.activate(inbound, at_us)
        commits.append(_commit_of(execution, decision, before, done))
        seq = decision.events[-1].seq
        body = {"ref": seq, "attempt": 1}
        inbound = [Message("ActivityCompleted", at_us, body, str(len(commits)))]
        done = [(seq, 1)]
    assert len(commits) == STEPS + 1
    return commits


def _commit_of(
    execution: Execution, decision: Decision, before: int, done: list[tuple[int, int]]
) -> RunCommit:
    waiting = (
        json.dumps(decision.waiting_on, separators=(",", ":")) if decision.waiting_on else None
    )
    commit = RunCommit(
        0,
        "",
        0,
        before,
        execution.last_seq,
        execution.turn,
        "running",
        waiting,
        decision.events,
        done=done,
    )
    for event in decision.events:
        add_effects(commit, event, "default", lambda _name, _queue: True)
    return commit


class Floor:
    """Writes runs of ten steps as fast as the database takes them."""

    def __init__(self, url: str) -> None:
        self._connection = connect(url)
        self._starter = Starter(self._connection, ten_steps)
        self._owner = str(uuid7())
        alive = (self._owner, "floor", "alive", "{}", "{}", 86_400.0)
        self._connection.execute(_BEAT, alive)  # only who lives may claim
        self._turns = turns_of_ten_steps(time.time_ns() // 1000)

    def measure(self, batch: int, window_s: float) -> tuple[int, float]:
        """Write batches for so long. Returns the steps and the seconds that their commits took."""
        steps, taken_s = 0, 0.0
        while taken_s < window_s:
            calls = self._prepare(batch)
            begin = time.perf_counter()
            for call in calls:
                self._connection.execute(_COMMIT, call, prepare=True)
            taken_s += time.perf_counter() - begin
            steps += batch * STEPS
        return steps, taken_s

    def _prepare(self, batch: int) -> list[tuple[str | None, ...]]:
        self._starter.start(batch)
        lanes: list[Lane] = []
        while len(lanes) < batch:  # one claim takes only the heads of each shard
            rows = self._connection.execute(_CLAIM, (self._owner, batch), prepare=True).fetchall()
            assert rows, "somebody else claims runs in the floor's database"
            lanes += [Lane(*row) for row in rows]
        return [self._arguments(turn, lanes) for turn in self._turns]

    def _arguments(self, turn: RunCommit, lanes: Sequence[Lane]) -> tuple[str | None, ...]:
        commits = [
            dataclasses.replace(turn, shard=lane.shard, run_id=lane.run_id, epoch=lane.epoch)
            for lane in lanes
        ]
        return commit_arguments(self._owner, commits)


def main() -> None:
    """Take cells (`batch`, `window_s`) from stdin."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    options = parser.parse_args()
    floor = Floor(options.url)
    for line in sys.stdin:
        cell: dict[str, Any] = json.loads(line)
        floor.measure(cell["batch"], cell["warm_s"])
        say(event="begin")
        steps, seconds = floor.measure(cell["batch"], cell["window_s"])
        say(event="end", steps=steps, seconds=seconds)
        say(event="drained")


if __name__ == "__main__":
    main()
