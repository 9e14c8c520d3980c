"""What a parked run keeps in memory (issue 2: at most 10 KiB of a worker; `python -m bench.replay` measures the whole of it)."""

from __future__ import annotations

import gc
import json
import tracemalloc
from collections.abc import Generator
from typing import Any
from uuid import UUID

import pytest

from durable import Signal, activity, workflow
from durable.core.events import Event
from durable.core.execution import Execution
from durable.core.nothing import NO_ITEMS, NO_KEYS, NO_NAMES
from durable.definitions import Workflow
from tests.core.simulation import Simulation

KIB = 1024
PAGE = 4 * KIB
"""What CPython's stack of Python frames takes of a fiber beside, of which tracemalloc knows nothing."""

RUNS = 200

approval = Signal("weighed_approval", int)


@activity(name="parked_memory.prepare")
async def prepare(number: int) -> int:
    return number


@workflow(name="parked_memory.awaiting")
async def awaiting(text: str) -> int:
    del text
    return await prepare(1) + await approval.receive()


@workflow(name="parked_memory.yielding")
def yielding(text: str) -> Generator[Any, Any, int]:
    del text
    number = yield from prepare(1)
    return number + (yield from approval.receive())


@workflow(name="parked_memory.blocking")
def blocking() -> int:
    return prepare(1).result() + approval.receive().result()


def rows_until_parked(subject: Workflow[..., Any], *args: Any) -> str:
    """The history as text, so that nothing of it is shared."""
    sim = Simulation(subject, *args)
    (scheduled,) = sim.turn()
    sim.turn(sim.completed(scheduled, 1))
    assert [wait["kind"] for wait in sim.execution.waiting_on()] == ["signal"]
    sim.execution.evict()
    return json.dumps(sim.history)


def parked(subject: Workflow[..., Any], rows: str, number: int) -> Execution:
    execution = Execution(subject, UUID(int=number), f"order-{number}")
    execution.replay([Event(*row) for row in json.loads(rows)])
    return execution


def bytes_a_run(subject: Workflow[..., Any], *args: Any) -> float:
    rows = rows_until_parked(subject, *args)
    kept = [parked(subject, rows, number) for number in range(10)]
    gc.collect()
    tracemalloc.start()
    try:
        kept += [parked(subject, rows, number) for number in range(RUNS)]
        gc.collect()
        return tracemalloc.get_traced_memory()[0] / RUNS
    finally:
        tracemalloc.stop()
        for execution in kept:
            execution.evict()


@pytest.mark.parametrize(
    ("subject", "args", "beside"),
    [(awaiting, ("",), 0), (yielding, ("",), 0), (blocking, (), PAGE)],
    ids=["await", "yield", "def"],
)
def test_a_parked_run_is_small(subject: Workflow[..., Any], args: Any, beside: int) -> None:
    assert bytes_a_run(subject, *args) + beside < (10 if beside else 5) * KIB


def test_a_parked_run_does_not_keep_the_text_of_its_arguments() -> None:
    assert bytes_a_run(awaiting, 100 * KIB * "x") < 5 * KIB


def test_nothing_can_be_put_into_what_all_runs_share() -> None:
    assert [*NO_ITEMS, *NO_KEYS, *NO_NAMES] == []
    with pytest.raises(AttributeError):
        NO_ITEMS.append("for one run")
    with pytest.raises(AttributeError):
        NO_NAMES.add("for one run")
    with pytest.raises(TypeError):
        NO_KEYS["for"] = "one run"


def test_what_a_start_says_by_name_is_kept_once() -> None:
    sim = Simulation(
        blocking, start={"version": 3, "retry": {"max_attempts": 2}, "headers": {"a": 1}}
    )
    assert sim.execution.start == {"actor": "tester", "headers": {"a": 1}}
    assert sim.execution.version == 3
    assert json.loads(sim.execution.defaults.retry) == {"max_attempts": 2}
    sim.execution.evict()
