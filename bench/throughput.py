"""`python -m bench.throughput`: durable steps per second and latencies, beside the floor and DBOS, in one run.

Ten trivial sequential async activities a run, K runs in a closed loop. (a) is one worker process that runs workflows and activities, (b) one process for
each, (c) one process with local activities, (d) one process that also starts the runs and awaits their results. Contenders take turns, round after round, each with its own database in one server, and every second round goes backwards, so that a
machine that slows down meanwhile slows them all. Figures are medians of the rounds. See docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from bench import contenders, latency, machine, report, sustained
from bench.contenders import (
    DBOS_TASKS,
    DBOS_THREADS,
    EMBEDDED,
    FLOOR,
    LOCAL,
    ONE_PROCESS,
    ROLES,
    TWO_PROCESSES,
    Cell,
    Contender,
)
from bench.processes import Child
from bench.server import Server, server

DBOS_LIMIT = 256
"""Beyond this width DBOS has a thousand threads in one process, and only becomes slower."""

Opener = Callable[[], AbstractContextManager[Contender]]


class Measurement:
    """All rounds of one run of this program, in databases that last as long as it does."""

    def __init__(
        self, on: Server, options: argparse.Namespace, stack: contextlib.ExitStack
    ) -> None:
        self._server = on
        self._options = options
        self.openers: dict[str, Opener] = {}
        self.urls: dict[str, str] = {}
        self.cells: dict[str, dict[int, list[Cell]]] = {}
        for name in options.contenders:
            purpose = name.replace(" ", "_").strip("()").lower()
            self.urls[name] = stack.enter_context(
                on.database(purpose, migrated=not name.startswith("DBOS"))
            )
            self.cells[name] = {}
        self.bare = latency.BareInsert(stack.enter_context(on.database("bare", migrated=False)))
        stack.callback(self.bare.close)

    def open(self, name: str) -> AbstractContextManager[Contender]:
        """Start the processes of a contender."""
        url = self.urls[name]
        if name in ROLES:
            return contenders.durable(name, self._server, url)
        if name == FLOOR:
            return contenders.floor(self._server, url)
        if name == EMBEDDED:
            return contenders.embedded(self._server, url)
        return contenders.dbos(name, self._server, url)

    def rounds(self) -> None:
        """Measure everything `--repeat` times."""
        for number in range(self._options.repeat):
            names = self._options.contenders
            for name in names if number % 2 == 0 else reversed(names):
                self.bare.warm()
                self.bare.measure(latency.BATCH)
                with self.open(name) as contender:
                    for width in self._widths(name):
                        self._measure(contender, width, number)

    def _widths(self, name: str) -> list[int]:
        limit = DBOS_LIMIT if name.startswith("DBOS") else max(self._options.widths)
        return [width for width in self._options.widths if width <= limit]

    def _measure(self, contender: Contender, width: int, number: int) -> None:
        cell = contender.measure(
            width,
            warm_s=self._options.warm,
            window_s=self._options.window,
            batch=self._batch(width),
        )
        self.cells[contender.name].setdefault(width, []).append(cell)
        progress(
            f"round {number + 1}  {contender.name:14} K={width:<5} {cell.steps_s:>9,.0f} steps/s"
        )

    def _batch(self, width: int) -> int:
        """The floor writes batches as large as the worker's last ones at this width."""
        seen = self.cells.get(ONE_PROCESS, {}).get(width)
        return max(1, round(seen[-1].batch)) if seen and seen[-1].batch else max(1, width // 2)

    def latencies(self) -> dict[str, Any]:
        """Measure one idle run at a time."""
        found: dict[str, Any] = {}
        for name in (ONE_PROCESS, TWO_PROCESSES):
            if name in self.urls:
                with self.open(name):
                    found[name] = asyncio.run(
                        latency.measure(self.urls[name], self._options.probes)
                    )
                progress(f"latency  {name}")
        if DBOS_THREADS in self.urls:
            with self.open(DBOS_THREADS) as contender:
                found[DBOS_THREADS] = dbos_latencies(contender.asked, self._options.probes)
        return found


def dbos_latencies(child: Child, count: int) -> dict[str, Any]:
    """The same for DBOS: `start_workflow` until the first step runs, and from step to step."""
    answer = child.ask(latency=count)
    return {
        "step_us": machine.percentiles([value / 1e3 for value in answer["steps_ns"]]),
        "start_us": machine.percentiles([value / 1e3 for value in answer["starts_ns"]]),
    }


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure, print, and return what --json writes."""
    begin = time.monotonic()
    with contextlib.ExitStack() as stack:
        on = stack.enter_context(server(options.url, options.setting))
        described = machine.describe(on)
        print(report.header(described), flush=True)
        if options.minutes:
            figures = sustained.run(on, options.widths, options.minutes)
        else:
            figures = side_by_side(Measurement(on, options, stack), options)
        seconds = round(time.monotonic() - begin)
        print(f"\nload {machine.load()} after, {seconds} s in all")
    command = " ".join(["python -m bench.throughput", *sys.argv[1:]])
    return {
        "command": command,
        "machine": described,
        "load_after": machine.load(),
        "seconds": seconds,
        **figures,
    }


def side_by_side(measurement: Measurement, options: argparse.Namespace) -> dict[str, Any]:
    """The comparison."""
    measurement.rounds()
    latency = measurement.latencies() if options.probes else {}
    cells = measurement.cells
    bare = machine.percentiles(measurement.bare.taken_us)
    insert_us = bare["p50"]
    print(f"\nSteps/s, medians of {options.repeat} windows of {options.window:g} s")
    print(report.throughput(cells, insert_us))
    print(
        "\n(a) one process, (b) workflows and activities in two, (c) one process with durable.local(), (d) one process with the caller in it, as DBOS has\n"
        "it; batch: turns in one commit of (a), and of the floor\n"
        f"../insert: steps in the time of one bare INSERT and commit (p50 {insert_us:g} us, p95 "
        f"{bare['p95']:g} us in this run; "
        f"{report.PROTOTYPE_INSERT_US:g} us where\nthe prototype was measured). It says more than steps/s while commits are the limit "
        "(small K), and nothing once CPU is."
    )
    print("\n" + report.cpu(cells))
    print(report.quiet(cells))
    print("\n" + report.latencies(latency))
    goals = report.goals(cells, latency)
    for goal in goals:
        print(f"{'met' if goal['met'] else 'MISSED':7} {goal['goal']}: {goal['value']:.3g}")
    as_json = {
        name: {width: [cell.as_json() for cell in repeats] for width, repeats in by_width.items()}
        for name, by_width in cells.items()
    }
    return {"cells": as_json, "latency": latency, "bare_insert_us": bare, "goals": goals}


def progress(line: str) -> None:
    """Show life on stderr."""
    print(line, file=sys.stderr, flush=True)


def known_contenders() -> Iterator[str]:
    """All of them, DBOS if it is installed."""
    yield from (ONE_PROCESS, EMBEDDED, TWO_PROCESSES, LOCAL, FLOOR)
    if importlib.util.find_spec("dbos"):
        yield from (DBOS_THREADS, DBOS_TASKS)
    else:
        progress("DBOS is not installed (pip install 'durable[bench]'): measuring without it")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.throughput", description=__doc__)
    parser.add_argument("--url", help="a server of one's own; default: an embedded one, fresh")
    parser.add_argument(
        "--setting",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="of the embedded server",
    )
    parser.add_argument("--widths", "-k", type=_numbers, help="concurrent runs, e.g. 1,64")
    parser.add_argument("--only", help="contenders, e.g. 'one process,floor'")
    parser.add_argument("--repeat", type=int, help="rounds")
    parser.add_argument("--window", type=float, help="seconds a window")
    parser.add_argument("--warm", type=float, help="seconds before each window")
    parser.add_argument("--probes", type=int, help="repeats of each latency; 0: none")
    parser.add_argument("--quick", action="store_true", help="about 90 s: one round, fewer widths")
    parser.add_argument(
        "--minutes", type=float, help="instead: so long at each width, a line every 30 s"
    )
    parser.add_argument("--json", type=Path, help="write everything there")
    options = parser.parse_args()
    defaults: dict[str, Any] = {
        "widths": [1, 16, 64, 256, 1024],
        "repeat": 3,
        "window": 4.0,
        "warm": 1.0,
        "probes": 30,
    }
    if options.quick:
        defaults = {"widths": [1, 64, 256], "repeat": 1, "window": 3.0, "warm": 0.7, "probes": 8}
    if options.minutes:
        defaults["widths"] = [64, 256]
    for name, value in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    options.setting = dict(pair.split("=", 1) for pair in options.setting)
    known = list(known_contenders())
    options.contenders = options.only.split(",") if options.only else known
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
