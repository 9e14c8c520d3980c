"""The scheduler of DAG steps: what the end of a step releases, cancels or skips."""

from __future__ import annotations

import random

import pytest

from durable.dag.expansion import waits_of
from durable.dag.model import edge, stored_edge
from durable.dag.scheduler import FINAL, Edge, Scheduler, Status
from durable.dag.validation import order_problems


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


def check_counts(scheduler: Scheduler, ready: set[str]) -> None:
    """Who waits for how many is what the states say, whatever was added and taken back."""
    status = scheduler.status
    for name in status:
        added = scheduler._added.get(name, [])
        open_above = sum(status[it] not in FINAL for it in scheduler.waits_for(name))
        open_added = sum(status[it] not in FINAL for it in added)
        if status[name] == "pending":
            assert scheduler._waiting[name] == open_above > 0
        elif status[name] == "running" and added:
            assert scheduler._waiting[name] == open_added
            assert name in ready or open_added
    assert scheduler.done == all(it in FINAL for it in status.values())


@pytest.mark.parametrize("seed", range(300))
def test_what_is_added_is_retried_and_cancelled_like_anything_else(seed: int) -> None:
    """Steps add steps, end as they like, and are taken back; what added them follows."""
    draw = random.Random(seed)
    scheduler = Scheduler({"0": [], "1": [], "2": [Edge("0"), Edge("1")], "3": [Edge("2")]})
    ready = set(scheduler.begin())
    added: dict[str, list[str]] = {}
    retries = 0
    while ready or retries < 5:
        status = scheduler.status
        ended = [it for it in status if status[it] in FINAL]
        badly = [it for it in ended if status[it] in ("failed", "cancelled")]
        again = [it for it in badly if it not in scheduler.cause]
        if retries < 5 and (not ready or draw.random() < 0.15):
            retries += 1
            if again:
                name = draw.choice(again)
                inside = [it for it in added.get(name, []) if it in again]
                ready.update(scheduler.retry(draw.choice(inside) if inside else name).ready)
        elif ready:
            name = draw.choice(sorted(ready))
            ready.remove(name)
            if any(status[it] not in FINAL for it in added.get(name, [])):
                continue  # one was taken back before it came to its end
            if name not in added and draw.random() < 0.4 and len(status) < 50:
                steps: dict[str, list[Edge]] = {}
                for _ in range(draw.randint(1, 4)):
                    known = [*ended, *steps]
                    ups = draw.sample(known, draw.randint(0, min(len(known), 3)))
                    new = str(len(status) + len(steps))
                    steps[new] = [
                        edge(it, policy=draw.choice(["cancel", "continue"])) for it in ups
                    ]
                stored = [
                    {"name": it, "deps": [stored_edge(e) for e in edges]}
                    for it, edges in steps.items()
                ]
                if list(order_problems(waits_of(name, stored, scheduler))):
                    ready.add(name)
                    continue
                added[name] = list(steps)
                ready.update(scheduler.extend(name, steps))
            elif name in added and any(status[it] == "failed" for it in added[name]):
                ready.update(scheduler.settle(name, "failed"))
            else:
                how: Status = draw.choice(
                    ["completed", "completed", "failed", "cancelled", "skipped"]
                )
                ready.update(scheduler.settle(name, how))
        check_counts(scheduler, ready)
    assert scheduler.done


def test_an_added_step_cannot_wait_for_one_below_that_a_retry_would_bring_back() -> None:
    """`below` is cancelled now; if `bad` is retried it is pending again, and waits for `plan`, which would wait for the added step."""
    scheduler = Scheduler({"bad": [], "plan": [], "below": [Edge("plan"), Edge("bad")]})
    scheduler.begin()
    scheduler.settle("bad", "failed")
    assert scheduler.status["below"] == "cancelled"
    new = [{"name": "new", "deps": [{"step": "below", "cancelled": "continue"}]}]
    assert list(order_problems(waits_of("plan", new, scheduler))) == ["cycle: plan -> below -> new -> plan"]  # fmt: skip
