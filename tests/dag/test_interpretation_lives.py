"""Random lives of whole DAG runs, in memory: outcomes of several activities in one turn, completions (early, late, twice), cancels and retries in any order.

After each turn the table must be that of the naive model of test_step_lives.py, every request is answered as the model says, and at the end every prefix of the history
must replay.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from durable import NonRetryable, StepRefused
from durable.core.events import Event
from durable.dag import Dag, edge
from durable.dag.interpreter import run_dag
from durable.dag.scheduler import FINAL, Completion, Status
from tests.core.simulation import Simulation
from tests.dag.test_step_lives import Model
from tests.system.dag_flows import approved

STATUSES: tuple[Completion, ...] = ("completed", "failed", "skipped")


def test_a_retried_step_that_another_cancels_holds_the_run_no_longer() -> None:
    dag = (
        Dag("doomed", on_failure="wait")
        .wait("up")
        .wait("down", deps=[edge("up", failed="continue", cancelled="cancel")])
    )
    sim = Simulation(run_dag, dag.to_json())
    sim.turn()
    for number, (update, *arguments) in enumerate(
        [
            ("complete_step", "up", "failed", "no"),
            ("complete_step", "down", "failed", "no"),
            ("retry_step", "up", "why"),
            ("cancel_step", "up", "why"),
            ("retry_step", "down", "why"),
        ]
    ):
        assert not sim.decision.closed
        sim.turn(sim.updating(update, *arguments, update_id=str(number)))
    assert sim.result["down"] == {
        "status": "cancelled",
        "cause": "up",
        "by": {"operation": "retry_step", "reason": "why"},
    }
    sim.check()


@st.composite
def declared(draw: st.DrawFn) -> Dag:
    """Activities and steps that wait, under edges of every policy; the run is held while a step has failed."""
    dag = Dag("lives", on_failure="wait")
    for number in range(draw(st.integers(1, 9))):
        known = [step["name"] for step in dag.steps]
        ups = draw(st.lists(st.sampled_from(known), max_size=3, unique=True)) if known else []
        deps = [
            edge(
                up,
                failed=draw(st.sampled_from(["cancel", "continue"])),
                cancelled=draw(st.sampled_from(["cancel", "continue"])),
                skipped=draw(st.sampled_from(["join", "cancel", "continue"])),
            )
            for up in ups
        ]
        if draw(st.booleans()):
            dag.add(str(number), "some.activity", deps=deps)
        else:
            dag.wait(str(number), deps=deps)
    return dag


class RunModel(Model):
    """With what was completed before its time."""

    def __init__(self, dag: Dag) -> None:
        self.early: dict[str, Status] = {}
        super().__init__(run_dag_edges(dag))

    def begin(self) -> set[str]:
        begun: set[str] = set()
        while ready := super().begin():
            begun |= ready
            for name in ready & self.early.keys():
                self.own[name] = self.early.pop(name)
        return begun


def run_dag_edges(dag: Dag) -> Any:
    from durable.dag.model import edges_of

    return edges_of(dag.steps)


class RunLives(RuleBasedStateMachine):
    @initialize(dag=declared())
    def start(self, dag: Dag) -> None:
        self.dag = dag
        self.model = RunModel(dag)
        self.sim = Simulation(run_dag, dag.to_json())
        self.sim.turn()
        self.number = 0
        self.given: dict[str, tuple[Completion, int]] = {}
        self.abandoned: list[Event] = []

    def _names(self, *states: str) -> list[str]:
        return [name for name, it in self.model.statuses().items() if not states or it in states]

    def _is_open(self) -> bool:
        return not self.sim.decision.closed

    def _ask(self, update: str, *arguments: Any) -> bool:
        """Request an update in a turn of its own; whether it was accepted."""
        self.number += 1
        update_id = f"u{self.number}"
        before = self._calls()
        self.sim.turn(self.sim.updating(update, *arguments, update_id=update_id))
        self.abandoned += [it for step, it in before.items() if self._calls().get(step) != it]
        verdicts = self.sim.execution.verdicts
        if verdicts is None or update_id not in verdicts.refused:
            return True
        assert isinstance(self.sim.refused(update_id), StepRefused)
        return False

    def _calls(self) -> dict[str, Event]:
        """The open call of each step."""
        return {event.body["id"].partition("#")[0]: event for event in self.sim.activities}

    @precondition(lambda self: self._is_open() and self._calls())
    @rule(data=st.data())
    def activities_end_in_one_turn(self, data: st.DataObject) -> None:
        calls = self._calls()
        messages = []
        for name in data.draw(st.permutations(sorted(calls)))[: data.draw(st.integers(1, 4))]:
            fails = data.draw(st.booleans())
            self.model.own[name] = "failed" if fails else "completed"
            error = NonRetryable("no")
            messages.append(
                self.sim.failed(calls[name], error) if fails else self.sim.completed(calls[name])
            )
        self.sim.turn(*messages)
        self.model.begin()

    @precondition(lambda self: self._is_open())
    @rule(data=st.data(), status=st.sampled_from(STATUSES))
    def complete(self, data: st.DataObject, status: Completion) -> None:
        name = data.draw(st.sampled_from(self._names()))
        self.number += 1
        standing = self.model.statuses()[name]
        legal = standing not in FINAL and name not in self.model.early
        assert self._ask("complete_step", name, status, self.number) == legal
        if not legal:
            return
        self.given[name] = (status, self.number - 1)
        if standing == "pending":
            self.model.early[name] = status
        else:
            self.model.own[name] = status
        self.model.begin()

    @precondition(lambda self: self._is_open() and self.given)
    @rule(data=st.data())
    def complete_once_more(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.given)))
        assert self._ask("complete_step", name, *self.given[name])

    @precondition(lambda self: self._is_open())
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self._names()))
        by_hand = self.model.own.get(name) == "cancelled"
        legal = self.model.statuses()[name] not in FINAL
        assert self._ask("cancel_step", name, "why") == (legal or by_hand)
        if legal:
            self.model.own[name] = "cancelled"
            self.model.begin()

    @precondition(lambda self: self._is_open())
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self._names()))
        legal = self.model.own.get(name) in ("failed", "cancelled")
        before = self.model.statuses()
        assert self._ask("retry_step", name, "why") == legal
        if not legal:
            return
        del self.model.own[name]
        if name in self.model.begun:
            self.model.begun.remove(name)
        self.model.begin()
        taken_back = {it for it, was in before.items() if was in FINAL} & {
            *self._names("pending"),
            *self._names("running"),
        }
        for each in (taken_back | {name}) - self.model.early.keys():
            self.given.pop(each, None)

    @precondition(lambda self: self._is_open() and self.abandoned)
    @rule(completes=st.booleans())
    def what_was_given_up_ends_late(self, completes: bool) -> None:
        event = self.abandoned.pop()
        late = (
            self.sim.completed(event.seq)
            if completes
            else self.sim.failed(event.seq, NonRetryable("late"))
        )
        self.sim.turn(late)

    @precondition(lambda self: not self._is_open())
    @rule()
    def it_is_over(self) -> None:
        assert self.sim.result == self.sim.ask("steps")

    @invariant()
    def the_table_is_that_of_the_model(self) -> None:
        if not hasattr(self, "sim"):
            return
        table = self.sim.ask("steps")
        assert {name: row["status"] for name, row in table.items()} == self.model.statuses()
        ended = set(self._names()) == set(self._names(*FINAL))
        assert self.sim.decision.closed == (ended and not self._names("failed"))

    def teardown(self) -> None:
        if not hasattr(self, "sim"):
            return
        if self._is_open():  # a turn of refused requests never was, and left no time behind
            self.sim.turn(self.sim.signalled(approved, {}))
        self.sim.check()


TestRunLives = RunLives.TestCase
TestRunLives.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
