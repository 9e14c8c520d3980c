"""The scheduler of DAG steps: what the end of a step releases, cancels or skips."""

from __future__ import annotations

import random

import pytest

from durable.dag.model import edge
from durable.dag.scheduler import FINAL, Edge, Scheduler, Status


@pytest.mark.parametrize(
    ("how", "dependency", "expected"),
    [
        ("completed", edge("a"), "running"),
        ("failed", edge("a"), "cancelled"),
        ("cancelled", edge("a"), "cancelled"),
        ("skipped", edge("a"), "skipped"),
        ("failed", edge("a", policy="continue"), "running"),
        ("cancelled", edge("a", policy="continue"), "running"),
        ("skipped", edge("a", policy="continue"), "running"),
        ("failed", edge("a", cancelled="continue"), "cancelled"),
        ("failed", edge("a", failed="continue"), "running"),
        ("cancelled", edge("a", failed="continue"), "cancelled"),
        ("skipped", edge("a", skipped="cancel"), "cancelled"),
    ],
)
def test_what_an_edge_does(how: Status, dependency: Edge, expected: Status) -> None:
    scheduler = Scheduler({"a": [], "b": [dependency]})
    assert scheduler.begin() == ["a"]
    ready = scheduler.settle("a", how)
    assert scheduler.status["b"] == expected
    assert ready == (["b"] if expected == "running" else [])
    assert scheduler.cause == ({} if expected == "running" else {"b": "a"})


def test_a_failure_cascades_through_ten_thousand_steps() -> None:
    chain = {str(n): [Edge(str(n - 1))] if n else [] for n in range(10_000)}
    scheduler = Scheduler({**chain, "cleanup": [edge("9999", policy="continue")]})
    scheduler.begin()
    assert scheduler.settle("0", "failed") == ["cleanup"]
    assert set(list(scheduler.status.values())[1:-1]) == {"cancelled"}


def test_a_join_waits_for_the_activated_branch_only() -> None:
    steps = {
        "route": [],
        "left": [Edge("route", only=("l",))],
        "right": [Edge("route", unless=("l",))],
        "join": [Edge("left"), Edge("right")],
    }
    scheduler = Scheduler(steps)
    scheduler.begin()
    assert scheduler.settle("route", "completed", chosen="l") == ["left"]
    assert scheduler.status["right"] == "skipped"
    assert scheduler.settle("left", "completed") == ["join"]


def test_a_second_end_of_a_step_is_without_effect() -> None:
    scheduler = Scheduler({"a": [], "b": [], "join": [Edge("a"), Edge("b")]})
    scheduler.begin()
    scheduler.settle("a", "completed")
    assert scheduler.settle("a", "failed") == []
    assert scheduler.settle("b", "completed") == ["join"]


def test_the_step_that_adds_others_is_ready_again_when_they_have_ended() -> None:
    scheduler = Scheduler({"old": [], "plan": [], "below": [Edge("plan")]})
    scheduler.begin()
    scheduler.settle("old", "failed")
    added = {
        "free": [],
        "doomed": [Edge("old")],
        "behind": [Edge("doomed")],
        "told": [edge("old", policy="continue")],
        "last": [Edge("free")],
    }
    assert scheduler.extend("plan", added) == ["free", "told"]
    assert scheduler.status["doomed"] == scheduler.status["behind"] == "cancelled"
    assert scheduler.settle("told", "completed") == []
    assert scheduler.settle("free", "completed") == ["last"]
    assert scheduler.settle("last", "completed") == ["plan"]
    assert scheduler.settle("plan", "completed") == ["below"]


def test_steps_added_that_never_run_do_not_hold_up_the_step_that_added_them() -> None:
    scheduler = Scheduler({"old": [], "plan": []})
    scheduler.begin()
    scheduler.settle("old", "failed")
    assert scheduler.extend("plan", {"a": [Edge("old")], "b": [Edge("a")]}) == ["plan"]


@pytest.mark.parametrize("seed", range(100))
def test_whatever_is_added_when_every_step_ends_once_and_before_what_added_it(seed: int) -> None:
    draw = random.Random(seed)
    scheduler = Scheduler({"0": []})
    running = scheduler.begin()
    added: dict[str, list[str]] = {}
    ended: list[str] = []
    while running:
        name = running.pop(draw.randrange(len(running)))
        assert scheduler.status[name] == "running"
        if name not in added and draw.random() < 0.4 and len(scheduler.status) < 60:
            added[name] = []
            steps: dict[str, list[Edge]] = {}
            for _ in range(draw.randint(1, 4)):
                known = [*ended, *steps]
                ups = draw.sample(known, draw.randint(0, min(len(known), 3)))
                new = str(len(scheduler.status) + len(steps))
                steps[new] = [edge(up, policy=draw.choice(["cancel", "continue"])) for up in ups]
            added[name] = list(steps)
            running += scheduler.extend(name, steps)
            continue
        assert all(scheduler.status[it] in FINAL for it in added.get(name, []))
        running += scheduler.settle(name, draw.choice(["completed", "failed", "skipped"]))
        ended.append(name)
    assert scheduler.done
    assert len(ended) == len(set(ended))


@pytest.mark.parametrize("seed", range(200))
def test_whatever_ends_how_and_when_every_step_ends_once_and_after_what_it_depends_on(
    seed: int,
) -> None:
    draw = random.Random(seed)
    names = [str(n) for n in range(draw.randint(1, 30))]
    steps = {
        name: [
            edge(up, policy=draw.choice(["cancel", "continue"]))
            for up in draw.sample(names[:n], draw.randint(0, min(n, 4)))
        ]
        for n, name in enumerate(names)
    }
    scheduler = Scheduler(steps)
    running = scheduler.begin()
    started = list(running)
    while running:
        name = running.pop(draw.randrange(len(running)))
        assert all(scheduler.status[it.upstream] in FINAL for it in steps[name])
        ready = scheduler.settle(name, draw.choice(["completed", "failed", "skipped"]))
        running += ready
        started += ready
    assert scheduler.done
    assert len(started) == len(set(started))
    assert set(scheduler.status.values()) <= FINAL
    for name, edges in steps.items():
        ups = [(scheduler.status[it.upstream], it.failed) for it in edges]
        doomed = any(status in ("failed", "cancelled") and it == "cancel" for status, it in ups)
        assert not doomed or (scheduler.status[name] == "cancelled" and name not in started)
