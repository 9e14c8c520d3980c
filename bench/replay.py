"""`python -m bench.replay`: how fast history is replayed, and what a parked run weighs. Needs no database.

Replay is measured at growing lengths, because it must be linear: sequential steps, and one wide gather. Twice: the core alone, and with the decoding of the
rows' JSON that a worker does on the way.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any
from uuid import UUID

from bench import flows, machine, parked
from bench.processes import Child
from bench.recorded import record
from bench.report import number, table
from durable.core.events import Event
from durable.core.execution import Execution
from durable.definitions import Workflow

SHAPES: dict[str, Workflow[..., Any]] = {"sequential": flows.many_steps, "gather": flows.fan_out}


def replay_figures(shape: str, events: int, repeat: int) -> dict[str, Any]:
    """Replay a history of so many events; medians."""
    workflow = SHAPES[shape]
    rows = record(workflow, (events - 2) // 2)
    timed = [_replay_s(workflow, rows) for _ in range(repeat)]
    alone_s, decode_s = (statistics.median(column) for column in zip(*timed, strict=True))
    return {
        "shape": shape,
        "events": len(rows),
        "events_s": round(len(rows) / alone_s),
        "with_decoding_events_s": round(len(rows) / (alone_s + decode_s)),
    }


def _replay_s(workflow: Workflow[..., Any], rows: list[tuple[Any, ...]]) -> tuple[float, float]:
    begin = time.perf_counter()
    history = [
        Event(seq, turn, kind, at_us, json.loads(body), payload)
        for seq, turn, kind, at_us, body, payload in rows
    ]
    decoded = time.perf_counter()
    execution = Execution(workflow, UUID(int=1), "recorded")
    execution.replay(history)
    replayed = time.perf_counter()
    assert execution.closed
    execution.evict()
    gc.collect()
    return replayed - decoded, decoded - begin


def parked_figures(shape: str, count: int) -> dict[str, Any]:
    """Bytes a parked run, by two measures."""
    figures: dict[str, Any] = {"shape": shape, "runs": count}
    for measure, extra in (("rss_bytes", []), ("traced_bytes", ["--traced"])):
        with Child("bench.parked", ["--shape", shape, "--count", str(count), *extra]) as child:
            figures[measure] = round(child.read(300)["bytes"])
    return figures


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.replay", description=__doc__)
    parser.add_argument(
        "--events",
        type=lambda text: [int(n) for n in text.split(",")],
        default=[1_000, 10_000, 50_000],
    )
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--runs", type=int, default=10_000, help="parked runs; 0: none")
    parser.add_argument("--json", type=Path, help="write everything there")
    return parser.parse_args()


def main() -> None:
    """Entry point."""
    options = arguments()
    print(
        f"python {sys.version.split()[0]}, fixed piece of Python {machine.python_us()} us, load {machine.load()}\n"
    )
    replays = [
        replay_figures(shape, events, options.repeat)
        for shape in SHAPES
        for events in options.events
    ]
    rows = [
        [r["shape"], *(f"{r[k]:,}" for k in ("events", "events_s", "with_decoding_events_s"))]
        for r in replays
    ]
    print(table(["replay", "events", "events/s", "with decoding"], rows) + "\n")
    runs = [parked_figures(shape, options.runs) for shape in parked.SHAPES] if options.runs else []
    weights = [
        [
            r["shape"],
            f"{r['runs']:,}",
            *(number(r[k] / 1024) for k in ("rss_bytes", "traced_bytes")),
        ]
        for r in runs
    ]
    print(table(["parked", "runs", "KiB a run (RSS)", "KiB a run (tracemalloc)"], weights))
    print(f"\nload {machine.load()} after")
    if options.json:
        options.json.write_text(json.dumps({"replay": replays, "parked": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
