"""What makes a step cheap, seen from outside: eager dispatch, the merged turn, and a bounded cache of live runs."""

from __future__ import annotations

from typing import Any

import psycopg

from durable.client_sync import Client
from tests.system import flows
from tests.system.conftest import Working
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]


def test_a_step_costs_one_commit(working: Working, client: Client) -> None:
    """The outcome of an activity, its event, and the next activity are one turn and one transaction; no claim, no message."""
    with working() as background:
        handle = client.start(flows.quick_steps, 10)
        assert handle.result(timeout=30) == 45
        assert background.worker.committer.commits == 11
        assert background.worker.committer.settled == 0  # no outcome went by way of the inbox
    turns: dict[int, list[str]] = {}
    for event in handle.history():
        turns.setdefault(event.turn, []).append(event.type)
    assert turns.pop(0) == ["WorkflowStarted"]
    assert turns.pop(1) == ["ActivityScheduled"]
    assert turns.pop(11) == ["ActivityCompleted", "WorkflowCompleted"]
    assert list(turns.values()) == 9 * [["ActivityCompleted", "ActivityScheduled"]]


def test_without_eager_dispatch_it_is_the_same_run(working: Working, client: Client) -> None:
    with working(eager=False):
        assert client.start(flows.quick_steps, 10).result(timeout=30) == 45


def test_the_runs_that_were_used_last_stay_live(working: Working, client: Client) -> None:
    with working(max_cached_runs=2) as background:
        live = background.worker.runs.held

        def started(name: str) -> str:
            handle = client.start(flows.listens, 2, id=name)
            eventually(lambda: "word" in str(handle.describe().waiting_on))
            return str(handle.run_id)

        a, b = started("a"), started("b")
        client.handle("a").signal(flows.word, "one")
        eventually(lambda: len(client.handle("a").history()) == 2)
        c = started("c")
        eventually(lambda: set(live()) == {a, c})
        client.handle("b").signal(flows.word, "one")  # it comes back by replay, in the place of a
        eventually(lambda: set(live()) == {b, c})
        for name, missing in (("a", 1), ("b", 1), ("c", 2)):
            handle = client.handle(name)
            for _ in range(missing):
                handle.signal(flows.word, "two")
            assert len(handle.result(timeout=30)) == 2
