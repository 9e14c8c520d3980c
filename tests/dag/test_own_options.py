"""Which options a step has that only names its activity."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from durable import RetryPolicy, activity
from durable.dag import Dag
from durable.store.calls import Definition
from durable.targets import of_dag


@activity(
    queue="billing",
    retry=RetryPolicy(max_attempts=7, initial_interval=timedelta(minutes=1)),
    timeout=timedelta(seconds=5),
)
def bill_by_name(amount: int) -> int:
    return amount


@activity(retry=RetryPolicy(max_attempts=9))
def unbill_by_name(result: int) -> None:
    pass


OWN = {
    "queue": "billing",
    "retry": {"max_attempts": 7, "initial_interval_s": 60.0},
    "timeouts": {"start_to_close_s": 5.0},
}


def started(dag: Dag) -> list[dict[str, Any]]:
    """The steps as they are stored in the run's first event."""
    (definition,) = json.loads(of_dag(dag).encode((), {})).values()
    steps: list[dict[str, Any]] = definition["steps"]
    return steps


def test_a_name_stands_for_the_activity_and_its_options() -> None:
    by_name = Dag("d").add("bill", "bill_by_name", {"amount": 1})
    assert started(by_name) == started(Dag("d").add("bill", bill_by_name, {"amount": 1}))
    assert started(by_name)[0]["options"] == OWN


def test_what_a_step_says_itself_wins_field_by_field() -> None:
    dag = Dag("d").add(
        "bill", "bill_by_name", {"amount": 1}, queue="slow", retry=RetryPolicy(max_attempts=2)
    )
    retry = {"max_attempts": 2, "initial_interval_s": 60.0}
    assert started(dag)[0]["options"] == {**OWN, "queue": "slow", "retry": retry}


def test_so_in_dags_within_undo_and_steps_added_at_run_time() -> None:
    inner = Dag("inner").add("bill", "bill_by_name", {"amount": 1}, undo="unbill_by_name")
    (within,) = started(Dag("outer").add("sub", inner, {}))[0]["dag"]["steps"]
    assert within["options"] == OWN
    assert within["undo"]["options"] == {"retry": {"max_attempts": 9}}
    (added,) = Dag("more").add("bill", "bill_by_name", {"amount": 1}).expansion()
    assert added["options"] == OWN


def test_what_only_workers_know_has_the_options_that_they_registered() -> None:
    options = {
        "retry": {"max_attempts": 3},
        "timeouts": {},
        "priority": 4,
        "unique": {"period_s": 9},
    }
    far = Definition("far_by_name", 1, "far", {"properties": {}}, options)
    dag = Dag("d").add("far", "far_by_name", {})
    (definition,) = json.loads(of_dag(dag, [far]).encode((), {})).values()
    stored = {"queue": "far", "priority": 4, "retry": {"max_attempts": 3}}
    assert definition["steps"][0]["options"] == stored
