"""The closed loop: keep K runs of `ten_steps` open, and count the steps that are durable.

The driver is an instrument, so it is light: it starts runs in bulk (durable.start_run, called once for each row of one statement) and finds the
finished ones by key. Steps are counted in the database: `last_seq` of a run of ten_steps says how many of its activities have completed (two events a
step after the first; of local ones one, after two), so a window is exact to the step, not to the run.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from uuid import uuid4

import psycopg

from bench.flows import STEPS, ten_local_steps, ten_steps
from bench.processes import say
from durable import requests, targets
from durable.requests import StartOptions
from durable.store.arrays import plain, quoted
from durable.store.round_trip import RoundTrips

_HINT_GAP_S = 0.002
_START = """
    select s.outcome
      from unnest(%(shards)s::smallint[], %(run_ids)s::uuid[], %(workflow_ids)s::text[], %(bodies)s::jsonb[]) as n(shard, run_id, workflow_id, body)
     cross join lateral durable.start_run(n.shard, n.run_id, n.workflow_id, %(workflow)s, 1, %(queue)s, %(priority)s::smallint, 0, n.body,
                                          %(payload)s::json, null, null, null) s"""
_LOOK = """
    select n.ix::int, r.status, r.last_seq
      from unnest(%s::smallint[], %s::uuid[]) with ordinality as n(shard, run_id, ix)
      join durable.runs r on r.shard = n.shard and r.run_id = n.run_id"""


class Run(NamedTuple):
    """A run that was started here."""

    shard: int
    run_id: str


class Starter:
    """Starts runs of one workflow in bulk over its own connection."""

    def __init__(self, connection: psycopg.Connection[Any], workflow: Any, *arguments: Any) -> None:
        self._connection = connection
        self._target = targets.of_workflow(workflow)
        self._arguments = arguments
        self._prefix = uuid4().hex[:8]
        self._count = 0
        self._hinted_at = 0.0
        self._trips = RoundTrips(connection)

    def start(self, count: int) -> list[Run]:
        """Start `count` runs in one statement, and wake a worker that may be asleep as a client does."""
        given = [self._one().parameters for _ in range(count)]
        first = given[0]
        values = {
            "shards": plain([g["shard"] for g in given]),
            "run_ids": plain([g["run_id"] for g in given]),
            "workflow_ids": quoted([g["workflow_id"] for g in given]),
            "bodies": quoted([g["body"] for g in given]),
        }
        trip = self._trips.rows(_START, {**first, **values}, self._hint(first["queue"]))
        self._connection.wait(trip)
        return [Run(g["shard"], g["run_id"]) for g in given]

    def _one(self) -> Any:
        self._count += 1
        options = StartOptions(id=f"{self._prefix}-{self._count}")
        return requests.start(self._target, self._arguments, {}, options)[1]

    def _hint(self, queue: str) -> str | None:
        now = time.monotonic()
        if now - self._hinted_at < _HINT_GAP_S:
            return None
        self._hinted_at = now
        return f"runs:{queue}"


def connect(url: str) -> psycopg.Connection[Any]:
    """A connection whose look-ups stay look-ups by key, however the tables grow."""
    connection = psycopg.connect(url, autocommit=True, application_name="bench driver")
    for setting in ("enable_seqscan", "enable_hashjoin", "enable_mergejoin", "jit"):
        connection.execute(f"set {setting} = off".encode())
    return connection


class ClosedLoop:
    """K runs open at any time, the oldest first in `_open`."""

    def __init__(self, url: str, width: int, *, local: bool = False) -> None:
        self._connection = connect(url)
        self._starter = Starter(self._connection, ten_local_steps if local else ten_steps)
        self._local = local
        self._width = width
        self._open: list[Run] = []
        self._finished = 0
        self._looks = 0
        self._gap_s = max(1.0, min(8.0, width / 32)) / 1000
        self._lone_s = 0.0

    def run_for(self, duration_s: float) -> None:
        """Keep the loop closed for a while."""
        end = time.monotonic() + duration_s
        while time.monotonic() < end:
            if self._width == 1 and not self._open:
                self._await_lone_run()
                continue
            if len(self._open) < self._width:
                self._open += self._starter.start(self._width - len(self._open))
            if not self._collect():
                time.sleep(self._gap_s)

    def _await_lone_run(self) -> None:
        """Start one run and see its end. To look all the time would take a share of the very core that it needs: sleep for most of what the last ones
        took, then look often."""
        begin = time.monotonic()
        self._open += self._starter.start(1)
        time.sleep(0.8 * self._lone_s)
        while not self._collect():
            time.sleep(0.0005)
        took_s = time.monotonic() - begin
        self._lone_s = min(took_s, 0.8 * self._lone_s + 0.2 * took_s) if self._lone_s else took_s

    def steps(self) -> tuple[float, int]:
        """Now, and the steps that are durable so far."""
        self._connection.execute("discard plans")  # those made while the tables were small
        begin = time.monotonic()
        rows = self._look(self._open)
        done = sum(max(0, self._done(last_seq)) for _, _, last_seq in rows)
        return (begin + time.monotonic()) / 2, self._finished * STEPS + done

    def _done(self, last_seq: int) -> int:
        return last_seq - 2 if self._local else last_seq // 2 - 1

    def drain(self, timeout_s: float = 60.0) -> None:
        """Wait until no run is open. Raises TimeoutError."""
        deadline = time.monotonic() + timeout_s
        while self._open:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(self._open)} runs did not end within {timeout_s:g} s")
            if not self._collect(everything=True):
                time.sleep(0.005)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _collect(self, *, everything: bool = False) -> int:
        """Forget runs that have ended; most looks are at the oldest quarter only. Returns how many."""
        self._looks += 1
        count = len(self._open) if everything or self._looks % 8 == 0 else max(32, self._width // 4)
        rows = self._look(self._open[:count])
        ended = {ix - 1 for ix, status, _ in rows if status != "running"}
        wrong = {status for _, status, _ in rows} - {"running", "completed"}
        if wrong:
            raise RuntimeError(f"runs ended as {wrong}; the figures would mean nothing")
        if ended:
            self._open = [run for ix, run in enumerate(self._open) if ix not in ended]
            self._finished += len(ended)
        return len(ended)

    def _look(self, runs: Sequence[Run]) -> list[tuple[int, str, int]]:
        columns = (plain([r.shard for r in runs]), plain([r.run_id for r in runs]))
        return self._connection.execute(_LOOK, columns, prepare=True).fetchall()


def serve(url: str, cells: Iterable[dict[str, Any]], *, local: bool) -> None:
    """Measure one cell after the other: say `begin` and `end` of each window, and `drained`."""
    for cell in cells:
        loop = ClosedLoop(url, cell["width"], local=local)
        loop.run_for(cell["warm_s"])
        begin_s, before = loop.steps()
        say(event="begin")
        for _ in range(cell.get("windows", 1)):
            loop.run_for(cell["window_s"])
            end_s, after = loop.steps()
            say(event="end", steps=after - before, seconds=end_s - begin_s)
            begin_s, before = end_s, after
        loop.drain()
        loop.close()
        say(event="drained")


def main() -> None:
    """Take cells from stdin."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--local", action="store_true")
    options = parser.parse_args()
    serve(options.url, map(json.loads, sys.stdin), local=options.local)


if __name__ == "__main__":
    main()
