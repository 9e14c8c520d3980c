"""DBOS doing the same ten steps: its documented direct call, K callers in a closed loop in its own process.

Threads for `def`, tasks for `async def`; the caller of this program takes the better of the two. DBOS's settings are its defaults, save the log level.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import threading
import time
from itertools import pairwise
from typing import Any

from dbos import DBOS, SetWorkflowID

from bench.flows import STEPS
from bench.processes import say
from durable.ids import uuid7


@DBOS.step()
def add_one(number: int) -> int:
    return number + 1


@DBOS.step()
async def add_one_async(number: int) -> int:
    return number + 1


@DBOS.step()
def stamp() -> int:
    return time.monotonic_ns()


class Lanes:
    """K callers and what each has done; `stopped` ends them after their current workflow."""

    def __init__(self, width: int) -> None:
        self.counts = [0] * width
        self.stopped = False


current = Lanes(0)


@DBOS.workflow()
def ten_steps(lane: int) -> int:
    number = 0
    for _ in range(STEPS):
        number = add_one(number)
        current.counts[lane] += 1
    return number


@DBOS.workflow()
async def ten_steps_async(lane: int) -> int:
    number = 0
    for _ in range(STEPS):
        number = await add_one_async(number)
        current.counts[lane] += 1
    return number


@DBOS.workflow()
def stamped_steps(count: int) -> list[int]:
    return [stamp() for _ in range(count)]


def measure_threads(cell: dict[str, Any]) -> None:
    """K threads."""

    def work(lane: int) -> None:
        while not current.stopped:
            ten_steps(lane)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(cell["width"])]
    for thread in threads:
        thread.start()
    time.sleep(cell["warm_s"])
    begin_s, before = time.monotonic(), sum(current.counts)
    say(event="begin")
    time.sleep(cell["window_s"])
    say(event="end", steps=sum(current.counts) - before, seconds=time.monotonic() - begin_s)
    current.stopped = True
    for thread in threads:
        thread.join()


async def measure_tasks(cell: dict[str, Any]) -> None:
    """K tasks."""

    async def work(lane: int) -> None:
        while not current.stopped:
            await ten_steps_async(lane)

    tasks = [asyncio.create_task(work(n)) for n in range(cell["width"])]
    await asyncio.sleep(cell["warm_s"])
    begin_s, before = time.monotonic(), sum(current.counts)
    say(event="begin")
    await asyncio.sleep(cell["window_s"])
    say(event="end", steps=sum(current.counts) - before, seconds=time.monotonic() - begin_s)
    current.stopped = True
    await asyncio.gather(*tasks)


def measure_latency(count: int) -> None:
    """One idle workflow after the other: the time (ns) from asking until its first step runs, and between its steps."""
    starts: list[int] = []
    steps: list[int] = []
    for _ in range(count):
        begin = time.monotonic_ns()
        with SetWorkflowID(str(uuid7())):
            stamps = DBOS.start_workflow(stamped_steps, STEPS).get_result()
        starts.append(stamps[0] - begin)
        steps += [after - before for before, after in pairwise(stamps)]
        time.sleep(0.2)
    say(starts_ns=starts, steps_ns=steps)


def main() -> None:
    """Take cells from stdin."""
    global current
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--style", choices=("threads", "tasks"), required=True)
    options = parser.parse_args()
    DBOS(config={"name": "bench", "system_database_url": options.url, "log_level": "ERROR"})
    DBOS.launch()
    for line in sys.stdin:
        cell: dict[str, Any] = json.loads(line)
        if "latency" in cell:
            measure_latency(cell["latency"])
            continue
        current = Lanes(cell["width"])
        if options.style == "threads":
            measure_threads(cell)
        else:
            asyncio.run(measure_tasks(cell))
        say(event="drained")
    DBOS.destroy()


if __name__ == "__main__":
    main()
