"""What a parked run costs in the worker's memory. Started by `bench.replay` in a process of its own, so that nothing else is counted.

Each run is made as a worker makes one: its history is decoded from text, replayed, and kept as a live run.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tracemalloc
from typing import Any
from uuid import UUID

from bench import flows
from bench.cpu import rss_bytes
from bench.processes import say
from bench.recorded import record
from durable.core.events import Event
from durable.core.execution import Execution
from durable.definitions import Workflow
from durable.ids import uuid7
from durable.store.engine import ClaimedRun
from durable_worker.runs import LiveRun

SHAPES: dict[str, Workflow[..., Any]] = {
    "await, at a signal": flows.parked,
    "await, asleep": flows.asleep,
    "def, at a signal": flows.parked_blocking,
    "yield, at a signal": flows.parked_yielding,
}


def live_run(workflow: Workflow[..., Any], rows: list[tuple[Any, ...]]) -> LiveRun:
    """A claimed run that has been replayed."""
    run_id = str(uuid7())
    history = [
        Event(seq, turn, kind, at_us, json.loads(body), payload)
        for seq, turn, kind, at_us, body, payload in rows
    ]
    last = history[-1]
    claimed = ClaimedRun(
        0, run_id, f"order-{run_id}", workflow.name, 1, 1, last.seq, last.turn, "default", 0, False
    )
    run = LiveRun(claimed, Execution(workflow, UUID(run_id), claimed.workflow_id))
    run.execution.replay(history)
    return run


def bytes_a_run(shape: str, count: int, *, traced: bool) -> float:
    """Make `count` parked runs. `traced`: what Python allocated for them; else what the process grew by."""
    workflow = SHAPES[shape]
    rows = record(workflow, turns=2, sleeping="asleep" in shape)
    kept = {run.run_id: run for run in (live_run(workflow, rows) for _ in range(100))}
    gc.collect()
    if traced:
        tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0] if traced else rss_bytes(os.getpid())
    for _ in range(count):
        run = live_run(workflow, rows)
        kept[run.run_id] = run
    gc.collect()
    after = tracemalloc.get_traced_memory()[0] if traced else rss_bytes(os.getpid())
    assert len(kept) == count + 100
    return (after - before) / count


def main() -> None:
    """Answer one question and end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--traced", action="store_true")
    options = parser.parse_args()
    say(bytes=bytes_a_run(options.shape, options.count, traced=options.traced))
    sys.stdout.flush()
    os._exit(0)  # tearing down ten thousand suspended runs one by one is nobody's concern here


if __name__ == "__main__":
    main()
