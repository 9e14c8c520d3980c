"""Who is measured, and how one cell of the table comes about: a window of one contender at one width."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.cpu import Usage, usage
from bench.processes import Child
from bench.server import Server

ONE_PROCESS = "one process"
TWO_PROCESSES = "two processes"
LOCAL = "local()"
EMBEDDED = "embedded"
FLOOR = "floor"
DBOS_THREADS = "DBOS threads"
DBOS_TASKS = "DBOS tasks"
ROLES = {ONE_PROCESS: ("both",), TWO_PROCESSES: ("workflows", "activities"), LOCAL: ("both",)}


@dataclass(frozen=True, slots=True)
class Cell:
    """One window. CPU is in microseconds a step; `foreign` is the share of the machine that others used meanwhile, other virtual machines included."""

    width: int
    steps_s: float
    seconds: float
    worker_us: float
    postgres_us: float
    driver_us: float
    foreign: float
    batch: float | None

    def as_json(self) -> dict[str, Any]:
        """For --json."""
        return {
            key: value if value is None else round(value, 3) for key, value in asdict(self).items()
        }


def median_of(cells: Sequence[Cell]) -> Cell:
    """The cell with the median of steps/s (the lower one of an even number)."""
    return sorted(cells, key=lambda cell: cell.steps_s)[(len(cells) - 1) // 2]


def spread(cells: Sequence[Cell]) -> float:
    """Highest over lowest steps/s."""
    speeds = [cell.steps_s for cell in cells]
    return max(speeds) / min(speeds)


@dataclass(frozen=True, slots=True)
class Contender:
    """Running processes: `asked` takes the cells, `workers` do the work; for DBOS and the floor they are the same."""

    name: str
    server: Server
    asked: Child
    workers: tuple[Child, ...]

    def measure(self, width: int, **cell: Any) -> Cell:
        """Measure one window."""
        self.asked.send(width=width, **cell)
        self._expect("begin")
        before, batches_before = self._usage(), self._batches()
        message = self._expect("end")
        after, batches_after = self._usage(), self._batches()
        self._expect("drained")
        batch = _mean_batch(batches_before, batches_after)
        return _cell(width, message["steps"], message["seconds"], before, after, batch)

    def windows(self, width: int, count: int, **cell: Any) -> Iterator[Cell]:
        """Measure consecutive windows without a pause."""
        self.asked.send(width=width, windows=count, **cell)
        self._expect("begin")
        before, batches_before = self._usage(), self._batches()
        for _ in range(count):
            message = self._expect("end", cell["window_s"] + 60)
            after, batches_after = self._usage(), self._batches()
            batch = _mean_batch(batches_before, batches_after)
            yield _cell(width, message["steps"], message["seconds"], before, after, batch)
            before, batches_before = after, batches_after
        self._expect("drained")

    def _expect(self, event: str, timeout_s: float = 120.0) -> dict[str, Any]:
        message = self.asked.read(timeout_s)
        assert message["event"] == event, message
        return message

    def _usage(self) -> Usage:
        driver = None if self.asked in self.workers else self.asked.pid
        return usage([worker.pid for worker in self.workers], driver, self.server.postmaster)

    def _batches(self) -> dict[str, Any] | None:
        return self.workers[0].ask() if self.name in ROLES else None


@contextlib.contextmanager
def durable(name: str, server: Server, url: str) -> Iterator[Contender]:
    """Our workers, in one process or two, and the driver."""
    with contextlib.ExitStack() as stack:
        workers = [
            stack.enter_context(Child("bench.worker_process", ["--url", url, "--role", role]))
            for role in ROLES[name]
        ]
        for worker in workers:
            worker.ask()
        flow = ["--local"] if name == LOCAL else []
        driver = stack.enter_context(Child("bench.driver", ["--url", url, *flow]))
        yield Contender(name, server, driver, tuple(workers))


@contextlib.contextmanager
def embedded(server: Server, url: str) -> Iterator[Contender]:
    """Our worker with its client in one process, which is its own driver."""
    with Child("bench.embedded_process", ["--url", url]) as child:
        yield Contender(EMBEDDED, server, child, (child,))


@contextlib.contextmanager
def floor(server: Server, url: str) -> Iterator[Contender]:
    """Bare psycopg."""
    with Child("bench.floor", ["--url", url]) as child:
        yield Contender(FLOOR, server, child, (child,))


@contextlib.contextmanager
def dbos(name: str, server: Server, url: str) -> Iterator[Contender]:
    """DBOS with threads or tasks."""
    style = "threads" if name == DBOS_THREADS else "tasks"
    with Child("bench.dbos_process", ["--url", url, "--style", style]) as child:
        yield Contender(name, server, child, (child,))


def _cell(
    width: int, steps: int, seconds: float, before: Usage, after: Usage, batch: float | None
) -> Cell:
    spent = Usage(*(now - then for now, then in zip(after, before, strict=True)))
    per_step_us = 1e6 / max(1, steps)
    ours = spent.workers + spent.driver + spent.postgres
    capacity_s = max(spent.at_s, 1e-9) * (os.cpu_count() or 1)
    return Cell(
        width,
        steps / seconds,
        seconds,
        spent.workers * per_step_us,
        spent.postgres * per_step_us,
        spent.driver * per_step_us,
        max(0.0, (spent.machine + spent.stolen - ours) / capacity_s),
        batch,
    )


def _mean_batch(before: dict[str, Any] | None, after: dict[str, Any] | None) -> float | None:
    if before is None or after is None or after["commits"] == before["commits"]:
        return None
    return float((after["turns"] - before["turns"]) / (after["commits"] - before["commits"]))
