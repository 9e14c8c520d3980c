"""Undo and compensate in the interpreter, without a database: random DAGs with random failures, compensations and cancellations."""

from __future__ import annotations

import random
from typing import Any

import pytest

from durable import DagFailed, NonRetryable
from durable.core import events as e
from durable.core.events import Event, Message
from durable.dag import Dag, Halt, edge, item, result
from durable.dag.interpreter import run_dag
from tests.core.simulation import Simulation
from tests.dag.undo_order import ENDS, assert_undone_in_order, failed_undos, ids, undone
from tests.system import saga_dag_flows as flows


class World(Simulation):
    """What goes on around a DAG: activities end in any order and in any way."""

    def __init__(self, dag: Dag) -> None:
        super().__init__(run_dag, dag.validate().to_json())
        self.turn()

    @property
    def under_way(self) -> list[Event]:
        ended = {it.body["ref"] for it in self.history if it.type in ENDS}
        return [
            it for it in self.history if it.type == e.ACTIVITY_SCHEDULED and it.seq not in ended
        ]

    def cut_off(self, event: Event) -> Message:
        return self.message(e.ACTIVITY_CANCELLED, ref=event.seq, attempt=1, started=True)

    def id_of(self, seq: int) -> str:
        return ids(self.history)[seq]

    @property
    def undos(self) -> list[str]:
        return undone(self.history)

    def end(self, **outcomes: Any) -> World:
        """Activities end one by one, the oldest first: with what `outcomes` has for their id, or None."""
        while not self.decision.closed and self.under_way:
            event = self.under_way[0]
            outcome = outcomes.get(event.body["id"].replace(":", "_"))
            if isinstance(outcome, BaseException):
                self.turn(self.failed(event, outcome))
            else:
                self.turn(self.completed(event, outcome))
        self.check()
        return self


def refused() -> NonRetryable:
    return NonRetryable("refused")


# -- any DAG ----------------------------------------------------------------------------------------------------------------


def random_dag(draw: random.Random) -> Dag:
    dag = Dag("random", on_failure=draw.choice(["fail", "fail", "fail", "complete"]))
    names: list[str] = []
    for number in range(draw.randint(1, 14)):
        name = f"s{number}"
        above = draw.sample(names, draw.randint(0, min(number, 3)))
        deps = [edge(it, policy=draw.choice(["cancel", "cancel", "continue"])) for it in above]
        given: dict[str, Any] = {"deps": deps}
        if draw.random() < 0.8:
            given["undo"] = flows.undo
        if draw.random() < 0.5:
            given |= {"compensate": flows.mend, "compensate_retries": draw.randint(0, 2)}
        if draw.random() < 0.25:
            over = [f"{name}.{n}" for n in range(draw.randint(0, 4))]
            dag.map(name, flows.do, over, {"key": item()}, max_concurrency=2, **given)
        else:
            dag.add(name, flows.do, {"key": name}, **given)
        names.append(name)
    return dag


def random_end(world: World, draw: random.Random, event: Event) -> Message:
    call = event.body["id"]
    cancelled = any(it.type == e.CANCEL_REQUESTED for it in world.history)
    asked = any(
        it.type == e.ACTIVITY_CANCEL_REQUESTED and it.body["ref"] == event.seq
        for it in world.history
    )
    if asked and draw.random() < 0.5:
        return world.cut_off(event)
    if ":compensate:" in call and draw.random() < 0.9:
        verdict = draw.choice(["continue", "retry", "give_up"])
        return world.completed(event, {"decision": verdict, "value": "v"})
    if draw.random() < (0.2 if not cancelled else 0.1):
        return world.failed(event, refused())
    return world.completed(event, f"did {call}")


def go(seed: int) -> World:
    """A whole run, from a seed."""
    draw = random.Random(seed)
    world = World(random_dag(draw))
    while not world.decision.closed:
        if draw.random() < 0.03:
            world.turn(world.cancelling())
            continue
        chosen = draw.sample(world.under_way, draw.randint(1, min(3, len(world.under_way))))
        world.turn(*(random_end(world, draw, it) for it in chosen))
    return world


def assert_right(seed: int) -> None:
    """Every completed undoable unit undone exactly once; nothing else; nothing in flight meanwhile; failures of undos are all reported."""
    world = go(seed)
    if world.outcome == e.WORKFLOW_COMPLETED:
        assert world.undos == [], seed
        return
    assert_undone_in_order(world.history)
    failed = failed_undos(world.history)
    if failed or world.outcome == e.WORKFLOW_FAILED:
        error = world.failure
        assert isinstance(error, DagFailed)
        assert [unit_of(it) for it in error.undo_failures] == failed, seed
    if seed % 10 == 0:
        world.check()


def unit_of(failure: dict[str, Any]) -> str:
    where = f"[{failure['item']}]" if "item" in failure else ""
    return f"{failure['step']}{where}:undo"


@pytest.mark.parametrize("base", range(0, 200, 40))
def test_undo_is_the_reverse_of_completion_whatever_fails(base: int) -> None:
    for seed in range(base, base + 40):
        assert_right(seed)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_undo_is_the_reverse_of_completion_in_twenty_thousand_runs() -> None:
    for seed in range(1_000, 21_000):
        assert_right(seed)


# -- one thing at a time ----------------------------------------------------------------------------------------------------


def trip() -> Dag:
    return (
        Dag("trip", context={"who": "ada"})
        .add("hotel", flows.do, {"key": "hotel"}, undo=flows.undo_all)
        .add("flight", flows.do, {"key": "flight"}, undo=flows.undo, deps=["hotel"])
        .add("pay", flows.do, {"key": "pay"}, compensate=flows.mend, deps=["flight"])
        .add("tell", flows.do, {"key": "tell"}, deps=["pay"], undo=flows.undo)
    )


def test_the_failure_carries_its_cause_and_every_undo_failure() -> None:
    world = World(trip()).end(
        hotel="h", flight="f", pay=refused(), pay_compensate_1=None, flight_undo=refused()
    )
    assert world.undos == ["flight", "hotel"]
    error = world.failure
    assert isinstance(error, DagFailed)
    assert error.failed == ["pay"]
    assert error.steps["pay"]["failure"]["message"] == "refused"
    assert error.steps["tell"]["status"] == "cancelled"
    assert error.undo_failures == [
        {"step": "flight", "type": "NonRetryable", "message": "refused", "attempt": 1}
    ]
    assert {name: row.get("undo") for name, row in error.steps.items()} == {
        "hotel": "undone", "flight": "failed", "pay": None, "tell": None,
    }  # fmt: skip
    assert "1 could not be undone: flight" in str(error)


def test_undo_gets_result_arguments_and_context_as_far_as_it_takes_them() -> None:
    world = World(trip()).end(hotel="h", flight="f", pay=refused())
    given = {it.body["id"]: it.payload for it in world.history if it.type == e.ACTIVITY_SCHEDULED}
    assert (
        given["hotel:undo"] == '{"result":"h","arguments":{"key":"hotel"},"context":{"who":"ada"}}'
    )
    assert given["flight:undo"] == '{"result":"f"}'
    assert '"message":"refused"' in str(given["pay:compensate:1"])


@pytest.mark.parametrize(
    ("decision", "outcome"),
    [
        ({"decision": "continue", "value": 7}, e.WORKFLOW_COMPLETED),
        ({"decision": "give_up"}, e.WORKFLOW_FAILED),
        (None, e.WORKFLOW_FAILED),
        ("perhaps", e.WORKFLOW_FAILED),
        (NonRetryable("cannot tell"), e.WORKFLOW_FAILED),
    ],
)
def test_what_compensate_returns_decides(decision: Any, outcome: str) -> None:
    world = World(trip()).end(hotel="h", flight="f", pay=refused(), pay_compensate_1=decision)
    assert world.outcome == outcome
    pay = world.ask("steps")["pay"]
    if outcome == e.WORKFLOW_COMPLETED:
        assert pay == {"status": "completed", "result": 7}
    else:
        assert pay["failure"]["message"] == "refused"
        said = pay["failure"].get("compensation", {}).get("message", "")
        told = {"perhaps": "compensate returned 'perhaps'", None: ""}
        assert told.get(decision if isinstance(decision, str | None) else None, "") in said
        assert ("cannot tell" in said) == isinstance(decision, NonRetryable)


def test_compensate_has_the_step_run_again_so_many_times() -> None:
    dag = Dag("again").add(
        "a", flows.do, {"key": "a"}, compensate=flows.mend, compensate_retries=2, undo=flows.undo
    )
    again = {"decision": "retry"}
    asked = {f"a_compensate_{n}": again for n in (1, 2, 3)}
    world = World(dag).end(a=refused(), **{"a#2": refused(), "a#3": refused()}, **asked)
    assert world.outcome == e.WORKFLOW_FAILED
    ids = [it.body["id"] for it in world.history if it.type == e.ACTIVITY_SCHEDULED]
    assert ids == [
        "a", "a:compensate:1", "a#2", "a:compensate:2", "a#3", "a:compensate:3",
    ]  # fmt: skip
    world = World(dag).end(a=refused(), **{"a#2": "late"}, a_compensate_1=again)
    assert world.ask("steps")["a"] == {"status": "completed", "result": "late"}
    first, second = world.find("a"), world.find("a#2")
    assert second.body["idempotency_key"] == f"{world.run_id}/{first.seq}"


def test_a_completion_that_compensate_made_is_undone_with_its_value() -> None:
    dag = (
        Dag("value")
        .add("a", flows.do, {"key": "a"}, compensate=flows.mend, undo=flows.undo)
        .add("b", flows.do, {"key": "b"}, deps=["a"])
    )
    mended = {"decision": "continue", "value": "spare"}
    world = World(dag).end(a=refused(), a_compensate_1=mended, b=refused())
    assert world.undos == ["a"]
    assert world.find("a:undo").payload == '{"result":"spare"}'


def test_siblings_in_flight_are_awaited_and_undone_and_nothing_new_begins() -> None:
    dag = (
        Dag("siblings")
        .add("a", flows.do, {"key": "a"}, undo=flows.undo)
        .add("b", flows.do, {"key": "b"}, undo=flows.undo)
        .add("c", flows.do, {"key": "c"}, undo=flows.undo, deps=["b"])
        .add("clean", flows.do, {"key": "clean"}, deps=[edge("a", policy="continue")])
        .add("swept", flows.do, {"key": "swept"}, deps=["clean"])
    )
    world = World(dag)
    world.turn(world.failed("a", refused()))
    assert [it.body["id"] for it in world.under_way] == ["b", "clean"]
    world.turn(world.completed("clean"))
    world.turn(world.completed("b", "late"))
    assert [it.body["id"] for it in world.under_way] == ["swept"]
    world.turn(world.completed("swept"))
    assert [it.body["id"] for it in world.under_way] == ["b:undo"]
    world.end()
    steps = world.ask("steps")
    assert steps["c"] == {"status": "cancelled", "cause": "a"}
    assert world.undos == ["b"]


def test_without_an_undo_the_other_branches_go_on() -> None:
    dag = (
        Dag("plain")
        .add("a", flows.do, {"key": "a"})
        .add("b", flows.do, {"key": "b"})
        .add("c", flows.do, {"key": "c"}, deps=["b"])
    )
    world = World(dag).end(a=refused())
    assert world.ask("steps")["c"]["status"] == "completed"


def test_on_failure_complete_undoes_nothing_unless_it_is_cancelled() -> None:
    dag = Dag("lenient", on_failure="complete")
    dag.add("a", flows.do, {"key": "a"}, undo=flows.undo)
    dag.add("b", flows.do, {"key": "b"}, deps=["a"]).add("c", flows.do, {"key": "c"}, deps=["b"])
    assert World(dag).end(b=refused()).undos == []
    world = World(dag)
    world.turn(world.completed("a"))
    world.turn(world.cancelling())
    world.end()
    assert (world.undos, world.outcome) == (["a"], e.WORKFLOW_CANCELLED)


def test_elements_of_a_map_are_undone_one_by_one() -> None:
    dag = Dag("elements").map(
        "m", flows.do, ["x", "y", "z"], {"key": item()}, max_concurrency=2, undo=flows.undo
    )
    world = World(dag)
    world.turn(world.completed("m[1]", "Y"), world.completed("m[0]", "X"))
    world.turn(world.failed("m[2]", refused()))
    world.end()
    assert world.undos == ["m[0]", "m[1]"]


# -- cancelled --------------------------------------------------------------------------------------------------------------


def pair() -> Dag:
    return (
        Dag("pair")
        .add("a", flows.do, {"key": "a"}, undo=flows.undo)
        .add("b", flows.do, {"key": "b"}, undo=flows.undo)
        .add("plain", flows.do, {"key": "plain"})
    )


def test_a_cancel_waits_for_what_is_under_way_and_undoes_what_completed_all_the_same() -> None:
    world = World(pair())
    world.turn(world.completed("a", "A"))
    world.turn(world.cancelling())
    asked = [it.body["ref"] for it in world.history if it.type == e.ACTIVITY_CANCEL_REQUESTED]
    assert {world.id_of(it) for it in asked} == {"b", "plain"}
    world.turn(world.completed("b", "B"))
    assert [it.body["id"] for it in world.under_way] == ["plain"]
    world.end()
    assert (world.undos, world.outcome) == (["b", "a"], e.WORKFLOW_CANCELLED)


def test_what_was_cut_off_is_not_undone() -> None:
    world = World(pair())
    world.turn(world.completed("a", "A"))
    world.turn(world.cancelling())
    world.turn(world.cut_off(world.find("b")), world.cut_off(world.find("plain")))
    world.end()
    assert (world.undos, world.outcome) == (["a"], e.WORKFLOW_CANCELLED)
    assert world.ask("steps")["b"] == {"status": "cancelled"}


@pytest.mark.parametrize("verdict", ["continue", "retry", "give_up"])
def test_compensate_is_asked_about_what_was_cut_off(verdict: str) -> None:
    dag = Dag("cut").add("a", flows.do, {"key": "a"}, undo=flows.undo, compensate=flows.mend)
    world = World(dag)
    world.turn(world.cancelling())
    world.turn(world.cut_off(world.find("a")))
    assert '"type":"CancelledError"' in str(world.find("a:compensate:1").payload)
    world.end(a_compensate_1={"decision": verdict, "value": "it was done"})
    assert world.undos == (["a"] if verdict == "continue" else [])
    assert world.outcome == e.WORKFLOW_CANCELLED
    assert verdict == "continue" or world.ask("steps")["a"] == {"status": "cancelled"}


def test_a_cancel_does_not_disturb_a_compensation() -> None:
    world = World(trip())
    for each, value in (("hotel", "h"), ("flight", "f")):
        world.turn(world.completed(each, value))
    world.turn(world.failed("pay", refused()))
    world.turn(world.cancelling())
    assert e.ACTIVITY_CANCEL_REQUESTED not in world.types
    world.end(pay_compensate_1={"decision": "continue", "value": 1})
    assert world.undos == ["flight", "hotel"]
    assert world.ask("steps")["pay"] == {"status": "completed", "result": 1}
    assert world.outcome == e.WORKFLOW_CANCELLED


def test_a_step_that_must_not_be_cut_off_is_not_asked_to_end() -> None:
    dag = Dag("kept").add("a", flows.do.options(cancellation="abandon"), {"key": "a"}, undo=flows.undo)  # fmt: skip
    world = World(dag)
    world.turn(world.cancelling())
    assert e.ACTIVITY_CANCEL_REQUESTED not in world.types
    world.end()
    assert (world.undos, world.outcome) == (["a"], e.WORKFLOW_CANCELLED)


def test_a_cancel_does_not_disturb_a_rollback() -> None:
    world = World(trip())
    for each, value in (("hotel", "h"), ("flight", "f")):
        world.turn(world.completed(each, value))
    world.turn(world.failed("pay", refused()))
    world.turn(world.completed("pay:compensate:1"))
    world.turn(world.cancelling("stop"))
    world.end()
    assert world.undos == ["flight", "hotel"]
    assert isinstance(world.failure, DagFailed)


def test_a_cancelled_run_whose_undo_fails_fails() -> None:
    world = World(pair())
    world.turn(world.completed("a", "A"))
    world.turn(world.cancelling())
    world.turn(world.cut_off(world.find("b")), world.cut_off(world.find("plain")))
    world.end(a_undo=refused())
    error = world.failure
    assert isinstance(error, DagFailed)
    assert [it["step"] for it in error.undo_failures] == ["a"]
    assert error.failed == []


# -- halted -----------------------------------------------------------------------------------------------------------------


def halting() -> Dag:
    return (
        Dag("halting")
        .add("a", flows.do, {"key": "a"}, undo=flows.undo)
        .add("ask", flows.approve, {"key": "x"}, deps=["a"], undo=flows.undo)
        .add("other", flows.do, {"key": "o"}, deps=["a"])
        .add("after", flows.do, {"key": result("ask")}, deps=["other"])
    )


def halted() -> World:
    world = World(halting())
    world.turn(world.completed("a", "A"))
    world.turn(world.failed("ask", Halt("look at it", value="fine"), "non_retryable"))
    world.turn(world.completed("other"))
    return world


def test_a_halt_stops_and_shows_and_resumes() -> None:
    world = halted()
    assert world.under_way == []
    assert world.ask("steps")["ask"] == {"status": "halted", "halt": "look at it"}
    details = [it.body["details"] for it in world.history if it.type == e.DETAILS_SET]
    assert details == ["halted at ask: look at it"]
    world.turn(world.updating("resume"))
    assert [it.body["id"] for it in world.under_way] == ["after"]
    assert world.find("after").payload == '{"key":"fine"}'
    world.end()
    assert world.outcome == e.WORKFLOW_COMPLETED
    assert world.ask("steps")["ask"] == {"status": "completed", "result": "fine"}


def test_a_halted_run_that_is_cancelled_is_undone_with_what_halted() -> None:
    world = halted()
    world.turn(world.cancelling())
    world.end()
    assert (world.undos, world.outcome) == (["ask", "a"], e.WORKFLOW_CANCELLED)


def test_what_has_not_halted_is_not_resumed() -> None:
    world = World(halting())
    world.turn(world.updating("resume"))
    assert "not halted" in str(world.refused())


# -- operators --------------------------------------------------------------------------------------------------------------


def undoable(*names: str, **settings: Any) -> Dag:
    """Independent steps that can be undone."""
    dag = Dag("undoable", **settings)
    for name in names:
        dag.add(name, flows.do, {"key": name}, undo=flows.undo)
    return dag


def test_a_retry_lets_what_was_kept_back_go_on() -> None:
    dag = undoable("a", "b").add("c", flows.do, {"key": "c"}, deps=["b"])
    world = World(dag)
    world.turn(world.failed("a", refused()))
    world.turn(world.updating("retry_step", "a", "the bank is back"))
    world.turn(world.completed("b"))
    assert [it.body["id"] for it in world.under_way] == ["a#2", "c"]
    world.end()
    assert world.outcome == e.WORKFLOW_COMPLETED
    assert world.undos == []


def test_a_retry_takes_back_that_others_were_cancelled_for_the_failure() -> None:
    """While a step cleans up, what was kept back is cancelled already."""
    dag = (
        undoable("a", "b")
        .add("c", flows.do, {"key": "c"}, deps=["b"])
        .add("clean", flows.do, {"key": "clean"}, deps=[edge("c", policy="continue")])
    )
    world = World(dag)
    world.turn(world.failed("a", refused()))
    world.turn(world.completed("b"))
    assert [it.body["id"] for it in world.under_way] == ["clean"]
    world.turn(world.updating("retry_step", "a", "the bank is back"))
    assert [it.body["id"] for it in world.under_way] == ["clean", "a#2", "c"]
    world.end()
    assert world.outcome == e.WORKFLOW_COMPLETED


def test_a_run_that_waits_for_an_operator_is_undone_when_it_is_given_up() -> None:
    world = World(undoable("a", "b", on_failure="wait"))
    world.turn(world.completed("b", "B"))
    world.turn(world.failed("a", refused()))
    assert world.under_way == []
    world.turn(world.updating("give_up", "nobody knows"))
    world.end()
    assert world.undos == ["b"]
    assert isinstance(world.failure, DagFailed)


def test_what_was_completed_by_hand_is_undone_with_the_payload() -> None:
    world = World(undoable("a", "b"))
    world.turn(world.updating("complete_step", "a", "completed", "by hand"))
    world.turn(world.failed("b", refused()))
    assert world.find("a:undo").payload == '{"result":"by hand"}'
    world.turn(world.updating("retry_step", "b", "too late", update_id="v"))
    assert "is being undone" in str(world.refused("v"))
    world.end()
    assert world.undos == ["a"]


def test_a_step_cancelled_by_hand_that_completes_all_the_same_is_undone() -> None:
    dag = undoable("a", "b").add("c", flows.do, {"key": "c"}, deps=["a"])
    world = World(dag)
    world.turn(world.updating("cancel_step", "a", "not needed"))
    assert world.ask("steps")["a"]["status"] == "running"
    world.turn(world.completed("a", "late"))
    assert world.ask("steps")["a"]["status"] == "cancelled"
    world.turn(world.failed("b", refused()))
    world.end()
    assert world.undos == ["a"]


def test_a_step_that_has_halted_can_be_ended_by_hand() -> None:
    world = halted()
    world.turn(world.updating("complete_step", "ask", "completed", "mine"))
    assert world.find("after").payload == '{"key":"mine"}'
    world.end()
    assert world.outcome == e.WORKFLOW_COMPLETED


def test_an_element_of_a_map_halts_and_resumes() -> None:
    dag = Dag("elements").map("m", flows.approve, ["x", "y", "z"], {"key": item()}, max_concurrency=2)  # fmt: skip
    world = World(dag)
    world.turn(world.failed("m[0]", Halt("look", value="X")), world.completed("m[1]", "Y"))
    assert world.under_way == []
    assert world.ask("steps")["m"] == {"status": "halted", "halt": "look"}
    world.turn(world.updating("resume"))
    world.turn(world.completed("m[2]", "Z"))
    world.check()
    assert world.ask("steps")["m"]["result"] == ["X", "Y", "Z"]


def test_compensate_is_asked_for_an_element_of_a_map() -> None:
    dag = Dag("elements").map("m", flows.do, ["x", "y"], {"key": item()}, compensate=flows.mend, compensate_retries=1)  # fmt: skip
    mended = {"m[0]_compensate_1": {"decision": "retry"}, "m[1]_compensate_1": {"decision": "continue", "value": "spare"}}  # fmt: skip
    world = World(dag).end(**{"m[0]": refused(), "m[1]": refused(), "m[0]#2": "late", **mended})
    assert world.ask("steps")["m"]["result"] == ["late", "spare"]


def test_steps_that_were_added_are_undone_and_then_the_one_that_added_them() -> None:
    more = Dag("more")
    for name in ("x", "y"):
        more.add(name, flows.do, {"key": name}, undo=flows.undo)
    dag = (
        Dag("grows")
        .add("first", flows.do, {"key": "first"}, undo=flows.undo)
        .add("plan", flows.do, {"key": "plan"}, deps=["first"], expand=True, undo=flows.undo_all)
        .add("last", flows.do, {"key": "last"}, deps=["plan"])
    )
    world = World(dag).end(plan=more.expansion(), last=refused())
    assert world.undos == ["y", "x", "plan", "first"]
    world = World(dag).end(plan=more.expansion(), x=refused())
    assert world.undos == ["y", "plan", "first"]
    assert world.ask("steps")["last"]["status"] == "cancelled"
