"""`python -m bench.queue`: our job queue beside PgQueuer and Procrastinate, in one run on one PostgreSQL.

No-op async jobs, one worker process. Contenders take turns, round after round, each round in fresh processes, every second one backwards, so that a machine
that slows down meanwhile slows them all. Figures are medians of the rounds; the ratios are what carries over to other machines. See docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

from bench import machine, queue_report
from bench.processes import Child
from bench.queue_report import (
    APART,
    BARE,
    BESIDE,
    DURABLE,
    PGQUEUER,
    PROCRASTINATE,
    Figures,
    Run,
)
from bench.server import Server, server

MODULES = {
    DURABLE: "bench.queue_durable",
    PGQUEUER: "bench.queue_pgqueuer",
    PROCRASTINATE: "bench.queue_procrastinate",
    BARE: "bench.queue_bare",
}
PACE = {
    DURABLE: {1: 15_000, 16: 17_000, 64: 20_000, 256: 20_000},
    PGQUEUER: {1: 400, 16: 4_000, 64: 8_000, 256: 10_000},
    PROCRASTINATE: {1: 400, 16: 500, 64: 500, 256: 500},
}
"""About how many jobs/s to expect, which only decides how many jobs a measurement takes."""

_FEATURE_WIDTH = 64


class Measurement:
    """All rounds of one run of this program, in databases that last as long as it does."""

    def __init__(
        self, on: Server, options: argparse.Namespace, stack: contextlib.ExitStack
    ) -> None:
        self._server = on
        self._options = options
        self.figures = Figures()
        self._urls: dict[tuple[str, int], str] = {}
        for name in options.contenders:
            for waiting in options.waiting:
                database = on.database(f"{name}_{waiting}".lower(), migrated=name == DURABLE)
                self._urls[name, waiting] = stack.enter_context(database)
        self._urls[BARE, 0] = stack.enter_context(on.database("bare", migrated=False))

    @contextlib.contextmanager
    def _process(self, name: str, waiting: int, **options: Any) -> Iterator[Child]:
        arguments = ["--url", self._urls[name, waiting]]
        if self._server.postmaster:
            arguments += ["--postmaster", str(self._server.postmaster)]
        with Child(MODULES[name], [*arguments, "--options", json.dumps(options)]) as child:
            yield child

    def fill(self) -> None:
        """Put in what shall wait, once for each contender."""
        for (name, waiting), url in self._urls.items():
            if waiting:
                with self._process(name, waiting) as child:
                    took_s = child.ask(900.0, do="bulk", count=waiting)["seconds"]
                with psycopg.connect(url, autocommit=True) as connection:
                    connection.execute("vacuum analyze")
                progress(f"filled   {name:14} {waiting:,} jobs wait ({waiting / took_s:,.0f}/s)")

    def rounds(self) -> None:
        """Measure everything `--repeat` times."""
        for number in range(self._options.repeat):
            names = self._options.contenders
            for name in names if number % 2 == 0 else reversed(names):
                for waiting in self._options.waiting:
                    with self._process(name, waiting) as child:
                        if not waiting:
                            self._enqueueing(name, child)
                        else:
                            self._warm_up(name, child)
                        for width in self._options.widths:
                            self._run(name, child, waiting, width)
            for feature in self._features():
                self._beside(feature, feature_first=number % 2 == 1)

    def _beside(self, feature: str, *, feature_first: bool) -> None:
        """A queue with the feature, and one without in the next seconds: minutes apart, the machine's own pace would be what differs."""
        with (
            self._process(DURABLE, 0, feature=feature) as with_it,
            self._process(DURABLE, 0) as without,
        ):
            pair = [(f"{DURABLE} {feature}", with_it), (BESIDE, without)]
            found = {
                name: self._run(name, child, 0, _FEATURE_WIDTH).jobs_s
                for name, child in (pair if feature_first else pair[::-1])
            }
        self.figures.shares[feature].append(found[f"{DURABLE} {feature}"] / found[BESIDE])

    def _features(self) -> list[str]:
        return list(self._options.features) if DURABLE in self._options.contenders else []

    def _enqueueing(self, name: str, child: Child) -> None:
        one, bulk = self._options.one_by_one, min(self._options.bulk, 4 * PACE[name][64])
        took_s = child.ask(900.0, do="one by one", count=one)["seconds"]
        self.figures.one_by_one[name].append(one / took_s)
        took_s = child.ask(900.0, do="bulk", count=bulk)["seconds"]
        self.figures.bulk[name].append(bulk / took_s)
        child.ask(900.0, do="run", width=64, count=one + bulk)  # warms up, too

    def _warm_up(self, name: str, child: Child) -> None:
        """As many jobs as are measured at K=64: those of an empty queue come after some, too."""
        count = int(self._options.window * PACE[name][64])
        child.ask(900.0, do="bulk", count=count)
        child.ask(900.0, do="run", width=64, count=count)

    def _run(self, name: str, child: Child, waiting: int, width: int) -> Run:
        pace = PACE[name.partition(" ")[0]]
        count = int(self._options.window * pace[min(pace, key=lambda known: abs(known - width))])
        child.ask(900.0, do="bulk", count=count)
        spent = child.ask(900.0, do="run", width=width, count=count)
        run = Run.of(count, spent)
        self.figures.runs[name][width, waiting].append(run)
        progress(f"{name:22} K={width:<4} {waiting:>9,} waiting {run.jobs_s:>9,.0f} jobs/s")
        return run

    def pick_ups(self) -> None:
        """Measure one idle job at a time; first of all, because a server that has just written a lot is not idle."""
        found: dict[str, list[float]] = defaultdict(list)
        for _ in range(self._options.repeat):
            apart = [APART] if DURABLE in self._options.contenders else []
            for name in [*self._options.contenders, *apart, BARE]:
                options = {"apart": True} if name == APART else {}
                with self._process(name.partition(",")[0], 0, **options) as child:
                    answer = child.ask(120.0, do="pick up", count=self._options.probes)
                    found[name] += answer["us"]
                progress(f"pick-up  {name}")
        self.figures.pick_up_us.update(found)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure, print, and return what --json writes."""
    begin = time.monotonic()
    with contextlib.ExitStack() as stack:
        on = stack.enter_context(server(options.url, options.setting))
        described = machine.describe(on)
        print(queue_report.header(described), flush=True)
        measurement = Measurement(on, options, stack)
        if options.probes:
            measurement.pick_ups()
        measurement.fill()
        measurement.rounds()
        figures = measurement.figures
        print(queue_report.everything(figures, options.repeat))
        seconds = round(time.monotonic() - begin)
        print(f"\nload {machine.load()} after, {seconds} s in all")
    command = " ".join(["python -m bench.queue", *sys.argv[1:]])
    return {
        "command": command,
        "machine": described,
        "load_after": machine.load(),
        "seconds": seconds,
        **figures.as_json(),
    }


def progress(line: str) -> None:
    """Show life on stderr."""
    print(line, file=sys.stderr, flush=True)


def known_contenders() -> Iterator[str]:
    """Ours, and those that are installed."""
    yield DURABLE
    for name in (PGQUEUER, PROCRASTINATE):
        if importlib.util.find_spec(name.lower()):
            yield name
        else:
            progress(f"{name} is not installed (pip install 'durable[bench]')")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.queue", description=__doc__)
    parser.add_argument("--url", help="a server of one's own; default: an embedded one, fresh")
    parser.add_argument(
        "--setting",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="of the embedded server",
    )
    parser.add_argument("--widths", "-k", type=_numbers, help="concurrency, e.g. 1,64")
    parser.add_argument("--waiting", type=_numbers, help="other jobs in the queue, e.g. 0,1000000")
    parser.add_argument("--only", help=f"contenders, e.g. {DURABLE},{PGQUEUER}")
    parser.add_argument("--features", help="of ours, e.g. unique,global")
    parser.add_argument("--repeat", type=int, help="rounds")
    parser.add_argument("--window", type=float, help="seconds that a run shall take, roughly")
    parser.add_argument("--bulk", type=int, help="jobs to enqueue in bulk")
    parser.add_argument("--one-by-one", type=int, help="jobs to enqueue one by one")
    parser.add_argument("--probes", type=int, help="pick-ups to time in each round; 0: none")
    parser.add_argument("--quick", action="store_true", help="one round, less of everything")
    parser.add_argument("--json", type=Path, help="write everything there")
    options = parser.parse_args()
    defaults: dict[str, Any] = {
        "widths": [1, 16, 64, 256], "waiting": [0, 1_000_000], "repeat": 3, "window": 3.0, "bulk": 50_000,
        "one_by_one": 2_000, "probes": 100, "features": ",".join(queue_report.FEATURES),
    }  # fmt: skip
    if options.quick:
        defaults |= {
            "widths": [1, 64], "waiting": [0, 100_000], "repeat": 1, "window": 1.0, "bulk": 10_000, "one_by_one": 300,
            "probes": 40,
        }  # fmt: skip
    for name, value in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    options.setting = dict(pair.split("=", 1) for pair in options.setting)
    known = list(known_contenders())
    options.contenders = options.only.split(",") if options.only else known
    options.features = [name for name in options.features.split(",") if name]
    if unknown := set(options.contenders) - set(known):
        parser.error(f"unknown: {', '.join(unknown)}; there are: {', '.join(known)}")
    return options


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> None:
    """Entry point."""
    options = arguments()
    figures = run(options)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
