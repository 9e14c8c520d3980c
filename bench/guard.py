"""`python -m bench.guard`: what the determinism guard costs. Needs no database.

An audit hook cannot be taken out again, so on and off are two processes, and they take turns: a busy machine then slows both. Replay of sequential
steps is the worst case, because there the guard's two audit events for each command (`sys._getframe` and a frame's code, for the source line) weigh most.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path
from types import FunctionType

from bench import flows, machine
from bench.recorded import record
from bench.replay import _replay_s
from durable.core import guard, scan

_ROOT = Path(__file__).parents[1]


def replay_us(events: int, repeat: int, *, guarded: bool) -> float:
    """Microseconds for each event, the best of `repeat` replays in this process."""
    guard.installed = not guarded  # "it is there already"
    rows = record(flows.many_steps, (events - 2) // 2)
    return min(_replay_s(flows.many_steps, rows)[0] for _ in range(repeat)) / len(rows) * 1e6


def decoration_us() -> float:
    """Microseconds for the scan of one small workflow."""
    fn = flows.stamped_signals.fn
    assert isinstance(fn, FunctionType)
    begin = time.perf_counter()
    for _ in range(100):
        scan.scan(fn.__code__, scan.LiveScope(fn, None))
    return (time.perf_counter() - begin) / 100 * 1e6


def _child(mode: str, events: int) -> float:
    command = [sys.executable, "-m", "bench.guard", "--child", mode, "--events", str(events)]
    return float(subprocess.run(command, cwd=_ROOT, capture_output=True, check=True).stdout)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m bench.guard", description=__doc__)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--pairs", type=int, default=9, help="processes of each kind")
    parser.add_argument("--child", choices=["on", "off"])
    options = parser.parse_args()
    if options.child:
        print(replay_us(options.events, 5, guarded=options.child == "on"))
        return
    pairs = [
        (_child("off", options.events), _child("on", options.events)) for _ in range(options.pairs)
    ]
    off, on = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(with_ / without for without, with_ in pairs)
    print(f"python {sys.version.split()[0]}, load {machine.load()}")
    print(f"replay, guard off  {off:.2f} us/event\nreplay, guard on   {on:.2f} us/event")
    print(f"cost               {100 * (ratio - 1):+.1f} % (median of {len(pairs)} pairs)")
    print(f"scan at decoration {decoration_us():.0f} us for a small workflow")


if __name__ == "__main__":
    main()
