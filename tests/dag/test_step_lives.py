"""The whole semantics of steps, in the pure scheduler: the table of edges, joins in every order, and random lives against a naive model.

The model knows nothing of counters or cascades: it keeps what happened to steps by themselves, and works the others out anew each time, from the top.
"""

from __future__ import annotations

from itertools import permutations, product
from typing import Any, get_args

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from durable.dag.model import EdgePolicy, SkipPolicy, edge
from durable.dag.scheduler import FINAL, Edge, Scheduler, Status

ENDS: tuple[Status, ...] = ("completed", "failed", "cancelled", "skipped")

# What becomes of a step whose one dependency ended so, by the policy of its edge for that end.
OUTCOMES = {
    ("completed", None): "running",
    ("failed", "cancel"): "cancelled",
    ("failed", "continue"): "running",
    ("cancelled", "cancel"): "cancelled",
    ("cancelled", "continue"): "running",
    ("skipped", "join"): "skipped",
    ("skipped", "cancel"): "cancelled",
    ("skipped", "continue"): "running",
}


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("failed", get_args(EdgePolicy))
@pytest.mark.parametrize("cancelled", get_args(EdgePolicy))
@pytest.mark.parametrize("skipped", get_args(SkipPolicy))
def test_every_switch_of_an_edge_at_every_end(
    how: Status, failed: Any, cancelled: Any, skipped: Any
) -> None:
    """Only the switch for the end that happened decides."""
    dependency = edge("a", failed=failed, cancelled=cancelled, skipped=skipped)
    policy = {"failed": failed, "cancelled": cancelled, "skipped": skipped}.get(how)
    scheduler = Scheduler({"a": [], "b": [dependency]})
    scheduler.begin()
    ready = scheduler.settle("a", how)
    assert scheduler.status["b"] == OUTCOMES[how, policy]
    assert ready == (["b"] if scheduler.status["b"] == "running" else [])


@pytest.mark.parametrize("ends", list(product(("completed", "failed", "skipped"), repeat=4)))
def test_siblings_that_end_together_never_lose_the_join(ends: tuple[Status, ...]) -> None:
    """In all 24 orders: a join that tolerates anything begins once, with the last; one that does not is cancelled once, or begins with the last."""
    names = [str(n) for n in range(4)]
    for order in permutations(range(4)):
        scheduler = Scheduler(
            {
                **{name: [] for name in names},
                "any": [edge(name, policy="continue") for name in names],
                "all": [edge(name) for name in names],
            }
        )
        scheduler.begin()
        released = [scheduler.settle(names[n], ends[n]) for n in order]
        assert [ready.count("any") for ready in released] == [0, 0, 0, 1]
        if "failed" in ends:
            assert scheduler.status["all"] == "cancelled"
        elif set(ends) == {"skipped"}:
            assert scheduler.status["all"] == "skipped"
        else:
            assert [ready.count("all") for ready in released] == [0, 0, 0, 1]


def test_a_step_that_has_not_ended_keeps_those_below_pending() -> None:
    """Whether its activity runs or waits for its next attempt is the same to the scheduler: it has not ended."""
    scheduler = Scheduler({"a": [], "b": [Edge("a")], "c": [Edge("b")]})
    assert scheduler.begin() == ["a"]
    assert scheduler.status == {"a": "running", "b": "pending", "c": "pending"}


@pytest.mark.parametrize("how", ["failed", "cancelled"])
def test_a_cascade_through_ten_thousand_steps_is_taken_back(how: Status) -> None:
    chain = {str(n): [Edge(str(n - 1))] if n else [] for n in range(10_000)}
    scheduler = Scheduler(chain)
    scheduler.begin()
    scheduler.settle("0", how)
    assert scheduler.done
    ready, revived = scheduler.retry("0")
    assert ready == ["0"]
    assert len(revived) == 10_000
    for number in range(9_999):
        assert scheduler.settle(str(number), "completed") == [str(number + 1)]


def test_only_what_was_cancelled_because_of_it_is_revived() -> None:
    scheduler = Scheduler(
        {
            "first": [],
            "second": [],
            "of first": [Edge("first")],
            "of both": [Edge("first"), Edge("second")],
            "below": [Edge("of both")],
            "told": [edge("first", policy="continue")],
        }
    )
    scheduler.begin()
    assert scheduler.settle("first", "failed") == ["told"]
    scheduler.settle("second", "failed")
    scheduler.settle("told", "completed")
    assert scheduler.retry("second") == (["second"], ["second"])
    assert scheduler.status["of both"] == "cancelled"
    scheduler.settle("second", "failed")
    assert scheduler.retry("first") == (["first"], ["first", "of first"])
    assert scheduler.cause == {"of both": "second", "below": "of both"}
    assert scheduler.status["told"] == "completed"


# -- random lives -----------------------------------------------------------------------------------------------------------

Steps = dict[str, list[Edge]]


@st.composite
def dags(draw: st.DrawFn) -> Steps:
    """Up to 14 steps; "x" and "y" are what a step may choose if it is a branch to those below."""
    steps: Steps = {}
    for number in range(draw(st.integers(1, 14))):
        known = list(steps)
        ups = draw(st.lists(st.sampled_from(known), max_size=4, unique=True)) if known else []
        steps[str(number)] = [
            Edge(
                up,
                draw(st.sampled_from(["cancel", "continue"])),
                draw(st.sampled_from(["cancel", "continue"])),
                draw(st.sampled_from(["join", "cancel", "continue"])),
                draw(st.sampled_from([(), (), ("x",)])),
                draw(st.sampled_from([(), (), (), ("x",)])),
            )
            for up in ups
        ]
    return steps


class Model:
    """What happened to each step by itself; all else follows."""

    def __init__(self, steps: Steps) -> None:
        self.steps = steps
        self.own: dict[str, Status] = {}
        self.chosen: dict[str, str] = {}
        self.begun: list[str] = []
        self.begin()

    def statuses(self) -> dict[str, Status]:
        now: dict[str, Status] = {}
        for name, edges in self.steps.items():  # declared from the top
            now[name] = self.own.get(name) or self._follows(name, edges, now)
        return now

    def _follows(self, name: str, edges: list[Edge], now: dict[str, Status]) -> Status:
        if name in self.begun:
            return "running"
        ended = [it for it in edges if now[it.upstream] in FINAL]
        effects = [it.effect(now[it.upstream], self.chosen.get(it.upstream)) for it in ended]
        if "cancel" in effects:
            return "cancelled"
        if len(ended) < len(edges):
            return "pending"
        return "running" if "release" in effects or not edges else "skipped"

    def begin(self) -> set[str]:
        """What can run now and did not before, has begun."""
        ready = {name for name, it in self.statuses().items() if it == "running"} - set(self.begun)
        self.begun += sorted(ready)
        return ready


class Lives(RuleBasedStateMachine):
    """Invariants: the states are those of the model; a step begins only when all above it has ended, and is told so once; a cancelled step has a cause that
    explains it; `done` is right.
    """

    @initialize(steps=dags())
    def declare(self, steps: Steps) -> None:
        self.model = Model(steps)
        self.scheduler = Scheduler(steps)
        assert set(self.scheduler.begin()) == set(self.model.begun)

    def _in(self, *states: str) -> list[str]:
        return [name for name, it in self.scheduler.status.items() if it in states]

    def _begins(self, ready: list[str]) -> None:
        assert len(ready) == len(set(ready))
        assert set(ready) == self.model.begin()
        for name in ready:
            assert all(self.scheduler.status[it.upstream] in FINAL for it in self.model.steps[name])

    @precondition(lambda self: self._in("running"))
    @rule(data=st.data(), how=st.sampled_from(ENDS), chosen=st.sampled_from([None, "x", "y"]))
    def end(self, data: st.DataObject, how: Status, chosen: str | None) -> None:
        name = data.draw(st.sampled_from(self._in("running")))
        if how == "completed" and chosen is not None:
            self.model.chosen[name] = chosen
        self.model.own[name] = how
        told = chosen if how == "completed" else None
        self._begins(self.scheduler.settle(name, how, chosen=told))

    @precondition(lambda self: self._in("pending"))
    @rule(data=st.data())
    def cancel_before_it_began(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self._in("pending")))
        self.model.own[name] = "cancelled"
        self._begins(self.scheduler.settle(name, "cancelled"))

    @precondition(lambda self: self._by_themselves())
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self._by_themselves()))
        before = dict(self.scheduler.status)
        del self.model.own[name]
        if name in self.model.begun:
            self.model.begun.remove(name)
        ready, revived = self.scheduler.retry(name)
        self._begins(ready)
        after = self.scheduler.status
        changed = {it for it in after if before[it] in FINAL and after[it] not in FINAL}
        assert set(revived) == changed
        assert all(before[it] == "cancelled" for it in changed - {name})

    def _by_themselves(self) -> list[str]:
        return [name for name, it in self.model.own.items() if it in ("failed", "cancelled")]

    @precondition(lambda self: self._in(*FINAL))
    @rule(data=st.data(), how=st.sampled_from(ENDS))
    def end_once_more(self, data: st.DataObject, how: Status) -> None:
        name = data.draw(st.sampled_from(self._in(*FINAL)))
        before = dict(self.scheduler.status)
        assert self.scheduler.settle(name, how) == []
        assert self.scheduler.status == before

    @invariant()
    def the_states_are_those_of_the_model(self) -> None:
        if not hasattr(self, "model"):
            return
        assert self.scheduler.status == self.model.statuses()
        assert self.scheduler.done == (set(self.scheduler.status.values()) <= FINAL)

    @invariant()
    def a_cause_explains(self) -> None:
        if not hasattr(self, "model"):
            return
        status = self.scheduler.status
        for name in self._in("cancelled"):
            if name not in self.model.own:
                cause = self.scheduler.cause[name]
                (way,) = (it for it in self.model.steps[name] if it.upstream == cause)
                assert way.effect(status[cause], self.model.chosen.get(cause)) == "cancel"
        assert all(status[name] in ("cancelled", "skipped") for name in self.scheduler.cause)

    def teardown(self) -> None:
        """Whatever happened, all steps can end."""
        if not hasattr(self, "model"):
            return
        while running := self._in("running"):
            self.model.own[running[0]] = "completed"
            self.scheduler.settle(running[0], "completed")
            self.model.begin()
        self.the_states_are_those_of_the_model()
        assert self.scheduler.done


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
