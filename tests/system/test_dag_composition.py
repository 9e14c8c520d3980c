"""DAGs within DAGs, and steps that are added while a run goes on."""

from __future__ import annotations

import json
from datetime import timedelta
from functools import partial
from typing import Any

import psycopg
import pytest

import durable
from durable.client_sync import Client
from durable.dag import Dag, edge, result
from durable.handles_sync import Handle
from tests.system import dag_growth_flows as flows
from tests.system.conftest import Working
from tests.system.processes import Fleet
from tests.waiting import eventually

MODULE = "tests.system.dag_growth_flows"


def statuses(steps: dict[str, Any]) -> dict[str, str]:
    return {name: row["status"] for name, row in steps.items()}


def test_a_dag_is_a_step_with_a_context_a_result_and_a_history_of_its_own(
    working: Working, client: Client
) -> None:
    """Without a cache, so that every turn is a replay."""
    with working(MODULE, max_cached_runs=0):
        handle = client.start(flows.outer(), id="o")
        steps = handle.result(timeout=40)
        inside = client.handle("o/plain")
        assert inside.query("steps")["once"]["result"] == 10
    assert steps["plain"]["result"]["twice"] == {"status": "completed", "result": 20}
    assert steps["whole"]["result"] == {"sum": 80}
    assert steps["each"]["result"] == [{"sum": 4}, {"sum": 8}, {"sum": 12}]
    assert steps["end"]["result"] == 92
    started = [e.body["workflow_id"] for e in handle.history() if e.type == "ChildStarted"]
    assert sorted(started) == ["o/each[0]", "o/each[1]", "o/each[2]", "o/plain", "o/whole"]


def now(handle: Handle[Any]) -> dict[str, str]:
    """The steps as they stand; none before the run has begun."""
    try:
        return statuses(handle.query("steps"))
    except durable.QueryFailed:
        return {}


def has_events(sql: psycopg.Connection[tuple[Any, ...]], number: int) -> bool:
    found = sql.execute("select count(*) from durable.history").fetchone()
    return found is not None and found[0] >= number


def failures(handle: Handle[Any], count: int) -> bool:
    return [e.type for e in handle.history()].count("ChildFailed") == count


def test_a_nested_dag_that_fails_is_a_failed_step(working: Working, client: Client) -> None:
    with working(MODULE):
        steps = client.start(flows.failing_inside(), id="o").result(timeout=30)
    assert statuses(steps) == {"sub": "failed", "below": "cancelled", "told": "completed"}
    assert steps["sub"]["failure"]["type"] == "DagFailed"
    assert "1 of 2 steps failed: no" in steps["sub"]["failure"]["message"]


def test_a_retry_of_a_nested_dag_starts_it_again(
    working: Working, client: Client, sql: psycopg.Connection[tuple[Any, ...]]
) -> None:
    inner = Dag("inner").add("no", flows.refuse, {"why": "out of stock"})
    again = durable.RetryPolicy(max_attempts=3, initial_interval=timedelta(hours=1))
    dag = Dag("outer", on_failure="complete").add("sub", inner, retry=again)
    with working(MODULE):
        handle = client.start(dag, id="o")
        for count in (1, 2):
            eventually(partial(failures, handle, count))
            sql.execute("select durable.advance_clock('3 hours')")
        assert statuses(handle.result(timeout=30)) == {"sub": "failed"}
    assert [e.type for e in handle.history()].count("ChildStarted") == 3


def test_a_cancelled_run_cancels_the_dags_inside(working: Working, client: Client) -> None:
    dag = Dag("outer").add("sub", Dag("middle").add("deep", Dag("inner").add("x", flows.hangs)))
    with working(MODULE):
        handle = client.start(dag, id="o")
        deepest = client.handle("o/sub/deep")
        eventually(lambda: any(run.workflow_id == "o/sub/deep" for run in client.list()))
        eventually(lambda: now(deepest) == {"x": "running"})
        handle.cancel("enough")
        with pytest.raises(durable.WorkflowCancelled):
            handle.result(timeout=30)
        with pytest.raises(durable.WorkflowCancelled):
            deepest.result(timeout=30)


def test_an_id_too_long_for_a_nested_dag_gives_way(working: Working, client: Client) -> None:
    inner = Dag("inner").add("x", flows.add, {"left": 1, "right": 1})
    with working(MODULE):
        handle = client.start(Dag("outer").add("s" * 150, inner), id="i" * 100)
        assert set(statuses(handle.result(timeout=30)).values()) == {"completed"}


def growing(**settings: Any) -> Dag:
    return (
        Dag("growing", **settings)
        .add("base", flows.add, {"left": 40, "right": 60})
        .add("pages", flows.pages, {"first": 1, "last": 5}, deps=["base"], expand=True)
        .add("all", flows.echo, {"value": result("pages")})
    )


def test_steps_are_added_while_the_run_goes_on_and_what_is_below_waits_for_them(
    working: Working, client: Client
) -> None:
    """Without a cache, so that every turn is a replay, which adds the same steps again."""
    with working(MODULE, max_cached_runs=0):
        handle = client.start(growing(), id="g")
        steps = handle.result(timeout=40)
        assert handle.query("steps") == steps
    assert set(statuses(steps).values()) == {"completed"}
    assert list(steps) == [
        "base", "pages", "all", "page-1", "page-2", "after-1", "page-3", "page-4", "after-3", "page-5",
    ]  # fmt: skip
    assert steps["all"]["result"] == {f"page-{number}": 100 + number for number in range(1, 6)}
    assert steps["pages"] == {"status": "completed", "added": ["page-1", "page-2", "after-1"]}


@pytest.mark.parametrize(
    ("returned", "problem"),
    [
        (7, "steps: Input should be a valid array"),
        ([{"name": "a"}], "steps.0: give one of activity, dag, branch, wait"),
        ([{"name": "a", "activity": "growing.add", "colour": "red"}], "steps.0.colour: there is no such field"),
        ([{"name": "base", "activity": "x"}], "step 'base' is declared twice"),
        ([{"name": "a", "activity": "x"}, {"name": "a", "activity": "x"}], "step 'a' is declared twice"),
        ([{"name": "a", "activity": "x", "deps": ["nowhere"]}], "depends on 'nowhere', which does not"),
        ([{"name": "a", "activity": "x", "deps": ["plan"]}], "cycle: plan -> a -> plan"),
        ([{"name": "a", "activity": "x", "deps": ["below"]}], "cycle: plan -> below -> a -> plan"),
        ([{"name": "a", "activity": "x", "args": {"n": {"$result": "base", "transform": "shout"}}}], "unknown transform 'shout'"),
        ([{"name": "a", "branch": {"on": {"$result": "base"}, "cases": {"1": ["below"]}}}], "branches to 'below', which is not added"),
    ],
)  # fmt: skip
def test_steps_that_cannot_be_added_fail_the_step_and_nothing_of_them_starts(
    working: Working, client: Client, returned: Any, problem: str
) -> None:
    dag = (
        Dag("growing", on_failure="complete")
        .add("base", flows.add, {"left": 1, "right": 1})
        .add("plan", flows.read, {"text": json.dumps(returned)}, deps=["base"], expand=True)
        .add("below", flows.add, {"left": 1, "right": 1}, deps=["plan"])
        .add("told", flows.add, {"left": 1, "right": 1}, deps=[edge("plan", policy="continue")])
    )
    with working(MODULE):
        handle = client.start(dag, id="g")
        steps = handle.result(timeout=30)
    assert statuses(steps) == {
        "base": "completed", "plan": "failed", "below": "cancelled", "told": "completed",
    }  # fmt: skip
    assert any(problem in it for it in steps["plan"]["failure"]["problems"])
    scheduled = [e.body["id"] for e in handle.history() if e.type == "ActivityScheduled"]
    assert scheduled == ["base", "plan", "told"]


@pytest.mark.parametrize("retried", ["parts", "b", None])
def test_a_retry_of_an_added_step_takes_back_the_end_of_the_step_that_added_it(
    working: Working, client: Client, retried: str | None
) -> None:
    flows.broken.add("b")
    dag = (
        Dag("mended", on_failure="wait")
        .add("parts", flows.parts, {"names": ["a", "b", "c"]}, expand=True)
        .add("all", flows.echo, {"value": result("parts", transform="values")})
    )
    with working(MODULE, max_cached_runs=0):
        handle = client.start(dag, id="m")
        eventually(lambda: now(handle).get("all") == "cancelled")
        assert statuses(handle.query("steps"))["parts"] == "failed"
        flows.broken.clear()
        handle.update("retry_step", retried, "mended")
        steps = handle.result(timeout=30)
    assert set(statuses(steps).values()) == {"completed"}
    assert steps["all"]["result"] == ["a is done", "b is done", "c is done"]
    scheduled = [e.body["id"] for e in handle.history() if e.type == "ActivityScheduled"]
    assert scheduled == ["parts", "a", "b", "c", "b#2", "all"]


def test_a_cancelled_step_cancels_what_it_has_added(working: Working, client: Client) -> None:
    dag = (
        Dag("stopped", on_failure="complete")
        .add("waiting", flows.waiting, expand=True)
        .add("below", flows.echo, {"value": result("waiting")})
    )
    with working(MODULE):
        handle = client.start(dag, id="s")
        eventually(lambda: "hanging" in now(handle))
        handle.update("cancel_step", "waiting", "enough")
        steps = handle.result(timeout=30)
    assert set(statuses(steps).values()) == {"cancelled"}


def test_a_loop_adds_rounds_as_long_as_it_likes(working: Working, client: Client) -> None:
    """Deeper than JSON may be: the result of a round is not within that of the one before."""
    dag = (
        Dag("loop")
        .add("start", flows.following, {"number": 0, "last": 250}, expand=True)
        .add("all", flows.echo, {"value": result("start", transform="length")})
    )
    with working(MODULE):
        steps = client.start(dag, id="loop").result(timeout=60)
    assert len(steps) == 502
    assert steps["all"]["result"] == 251  # the last round added nothing, and has its own result


def test_a_nested_dag_is_retried_by_hand(working: Working, client: Client) -> None:
    flows.broken.add("x")
    inner = Dag("inner").add("x", flows.flaky, {"part": "x"})
    with working(MODULE):
        handle = client.start(Dag("outer", on_failure="wait").add("sub", inner), id="o")
        eventually(lambda: now(handle) == {"sub": "failed"})
        flows.broken.clear()
        handle.update("retry_step", "sub", "mended")
        steps = handle.result(timeout=30)
    assert steps["sub"]["result"]["x"]["result"] == "x is done"
    started = [e.body["workflow_id"] for e in handle.history() if e.type == "ChildStarted"]
    assert started == ["o/sub", "o/sub#2"]


def test_a_saga_undoes_what_was_added_in_reverse_order(working: Working, client: Client) -> None:
    """One of the added steps fails; a step that is kept back meanwhile never starts."""
    flows.broken.add("c")
    flows.undone.clear()
    dag = (
        Dag("saga")
        .add("before", flows.flaky, {"part": "before"}, undo=flows.take_back)
        .add("parts", flows.chain, {"names": ["a", "b", "c", "d"]}, deps=["before"], expand=True)
        .add("after", flows.flaky, {"part": "after"}, deps=["parts"], undo=flows.take_back)
    )
    with working(MODULE, max_cached_runs=0):
        handle = client.start(dag, id="saga")
        with pytest.raises(durable.WorkflowFailed) as caught:
            handle.result(timeout=30)
    assert flows.undone == ["b", "a", "before"]
    assert isinstance(caught.value.__cause__, durable.DagFailed)
    assert statuses(caught.value.__cause__.steps) == {
        "before": "completed", "parts": "failed", "after": "cancelled",
        "a": "completed", "b": "completed", "c": "failed", "d": "cancelled",
    }  # fmt: skip


def test_dags_grow_on_when_workers_are_killed(
    fleet: Fleet, system_url: str, client: Client, sql: psycopg.Connection[tuple[Any, ...]]
) -> None:
    """Whoever takes a run over adds the same steps to it, and starts none of them a second time."""
    workers = [fleet.hire(system_url, MODULE, lease_s=1.0).ready() for _ in range(2)]
    handles = [client.start(flows.everything_at_once(), id=f"k-{n}") for n in range(4)]
    for kill in range(1, 4):
        eventually(partial(has_events, sql, 120 * kill))
        workers.pop(0).kill()
        workers.append(fleet.hire(system_url, MODULE, lease_s=1.0))
    for handle in handles:
        steps = handle.result(timeout=90)
        assert set(statuses(steps).values()) == {"completed"}
        assert len(steps) == 6 + 24 + 11
        assert (steps["loops"]["result"], steps["sums"]["result"]) == (13, [4, 8, 12, 16])
        called = [e.body["id"] for e in handle.history() if e.type == "ActivityScheduled"]
        assert len(called) == len(set(called)) == len(steps) - 1
