"""`python -m bench.history_partitions`: would a history in partitions be worth it?

The table `durable.history` as it is, beside the same table partitioned by ranges of run_id. Ids are UUIDv7, so a range is a span of time in which its runs began, and all
that is looked up by run_id still finds one partition. (Partitions by the event's own time would take the time into the primary key and every look-up into every
partition.) Variants take turns; figures are medians of the rounds, PostgreSQL's CPU time of the connection in microseconds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, LiteralString
from uuid import UUID

import psycopg

from bench import machine
from bench.server import server

SPANS = 12
EVENTS = 20
BATCH = 64
PASS = 20_000
SPAN_MS = 30 * 24 * 3600 * 1000
BEGIN_MS = 1_700_000_000_000
BODY = '{"name": "charge", "queue": "default", "priority": 0, "id": "", "digest": "6fd1c2a1", "line": "shop.py:17"}'
PAYLOAD = '{"order": "o-4711", "amount": 1999}'

Sql = psycopg.Connection[tuple[Any, ...]]

INSERT = """insert into {table} (shard, run_id, seq, turn, type, at, body, payload)
select shard, run_id, seq, seq / 2, 'ActivityScheduled', now(), %s::jsonb, %s::json
  from unnest(%s::smallint[], %s::uuid[], %s::int[]) as u(shard, run_id, seq)"""
READ = "select seq, turn, type, at, body::text, payload::text from {table} where shard = %s and run_id = %s order by seq"
DELETE = "delete from {table} t using unnest(%s::smallint[], %s::uuid[]) as u(shard, run_id) where t.shard = u.shard and t.run_id = u.run_id"


def run_id(span: int, number: int) -> UUID:
    """An id as the client makes it, of a run that began in that span."""
    stamp = BEGIN_MS + span * SPAN_MS + number
    return UUID(
        int=stamp << 80 | 0x7 << 76 | (number * 2654435761 % 2**12) << 64 | 0b10 << 62 | number
    )


def shard_of(number: int) -> int:
    return number % 64


class Table:
    """One variant of the history, filled alike."""

    def __init__(self, sql: Sql, name: str, *, partitioned: bool) -> None:
        self.sql = sql
        self.name = name
        self.partitioned = partitioned

    def make(self) -> None:
        """Begin anew, empty."""
        self._do("drop table if exists {table}")
        keys = " partition by range (run_id)" if self.partitioned else ""
        self._do("create table {table} (like durable.history including defaults including constraints, primary key (shard, run_id, seq))" + keys)  # fmt: skip
        for span in range(SPANS if self.partitioned else 0):
            low, high = (UUID(int=(BEGIN_MS + at * SPAN_MS) << 80) for at in (span, span + 1))
            self._do(f"create table {self.name}_{span} partition of {{table}} for values from ('{low}') to ('{high}')")  # fmt: skip

    def append(self, span: int, numbers: list[int], seqs: list[int]) -> None:
        """One commit's rows."""
        shards, ids = [shard_of(n) for n in numbers], [run_id(span, n) for n in numbers]
        self._do(INSERT, BODY, PAYLOAD, shards, ids, seqs)

    def fill(self, runs: int) -> None:
        """So many runs in each span."""
        for span in range(SPANS):
            for first in range(0, runs, 100):
                numbers = [n for n in range(first, min(first + 100, runs)) for _ in range(EVENTS)]
                self.append(span, numbers, list(range(1, EVENTS + 1)) * (len(numbers) // EVENTS))
        self._do("vacuum analyze {table}")

    def read(self, span: int, number: int) -> None:
        """A whole history, as a replay reads it."""
        rows = self.sql.execute(READ.format(table=self.name).encode(), (shard_of(number), run_id(span, number)), prepare=True).fetchall()  # fmt: skip
        assert len(rows) >= EVENTS

    def prune(self, runs: int) -> None:
        """Get rid of the oldest span."""
        if self.partitioned:
            self._do(f"alter table {{table}} detach partition {self.name}_0")
            self._do(f"drop table {self.name}_0")
            return
        each = PASS // EVENTS
        for first in range(0, runs, each):
            numbers = range(first, min(first + each, runs))
            self._do(DELETE, [shard_of(n) for n in numbers], [run_id(0, n) for n in numbers])
        self._do("vacuum {table}")

    def _do(self, statement: LiteralString | str, *parameters: Any) -> None:
        self.sql.execute(statement.format(table=self.name).encode(), parameters, prepare=bool(parameters))  # fmt: skip


def cpu_us(sql: Sql) -> float:
    """What the connection's own process has spent."""
    return int(Path(f"/proc/{sql.info.backend_pid}/schedstat").read_text().split()[0]) / 1e3


def spent(sql: Sql, times: int, work: Callable[[int], None]) -> tuple[float, float]:
    """CPU and elapsed time (us) of each of so many calls."""
    cpu, begin = cpu_us(sql), time.perf_counter()
    for number in range(times):
        work(number)
    return (cpu_us(sql) - cpu) / times, (time.perf_counter() - begin) * 1e6 / times


def measure(table: Table, runs: int) -> dict[str, tuple[float, float]]:
    """One round of one variant."""
    table.make()
    table.fill(runs)
    half = list(range(BATCH // 2))

    def turn(number: int) -> None:
        numbers = [*half, *half]  # two rows for each of so many runs
        seqs = [EVENTS + 1 + 2 * number] * len(half) + [EVENTS + 2 + 2 * number] * len(half)
        table.append(SPANS - 1, numbers, seqs)

    found = {"append 64 rows": spent(table.sql, 500, turn)}
    found["read a history"] = spent(table.sql, 2_000, lambda n: table.read(n % SPANS, 40 + n * 7 % (runs - 40)))  # fmt: skip
    found["prune a span"] = spent(table.sql, 1, lambda _: table.prune(runs))
    return found


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m bench.history_partitions", description=__doc__)
    parser.add_argument("--url", help="a server of one's own; default: an embedded one, fresh")
    parser.add_argument("--runs", type=int, default=1_000, help=f"runs in each of {SPANS} spans")
    parser.add_argument("--repeat", type=int, default=5, help="rounds")
    options = parser.parse_args()
    found: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    with server(options.url, {}) as on, on.database("partitions") as url:
        print(machine.describe(on))
        with psycopg.connect(url, autocommit=True) as sql:
            tables = [Table(sql, "one_table", partitioned=False), Table(sql, "parts", partitioned=True)]  # fmt: skip
            for _ in range(options.repeat):
                for table in tables:
                    for what, figures in measure(table, options.runs).items():
                        found[what, table.name].append(figures)
    print(f"{'':16} {'':10} {'cpu us':>12} {'elapsed us':>12}")
    for (what, name), rounds in found.items():
        cpu = statistics.median(each[0] for each in rounds)
        elapsed = statistics.median(each[1] for each in rounds)
        print(f"{what:16} {name:10} {cpu:12,.0f} {elapsed:12,.0f}")


if __name__ == "__main__":
    main()
