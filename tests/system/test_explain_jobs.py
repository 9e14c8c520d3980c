"""Why activities, jobs, steps and schedules stand still: each cause of the list, produced by real workers on a real database."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg
import pytest

from durable import RateLimit
from durable.client_sync import Client
from durable.core.causes import CODES, KINDS
from durable.core.diagnosis import _CODE
from durable.dag import Dag, result
from durable.errors import InvalidOption
from durable.queue_limits import ReasonCode
from tests.system import explain_flows as flows
from tests.system import saga_dag_flows as sagas
from tests.system import test_explain_runs as of_runs
from tests.system.conftest import Working
from tests.system.explaining import PRODUCED, Witness, produces, witness
from tests.system.gates import gate
from tests.waiting import eventually

__all__ = ["witness"]
Sql = psycopg.Connection[tuple[Any, ...]]
MODULE = flows.__name__
SCHEDULES = "tests.system.schedule_flows"
HOUR = timedelta(hours=1)


@produces("executing")
def test_an_attempt_under_way_says_where_and_how_it_is(
    working: Working, client: Client, system_url: str, witness: Witness
) -> None:
    with working(MODULE, name="w-1"), gate(system_url, 1) as closed:
        handle = client.start(flows.order, 1, id="o-1")
        job = client.enqueue(flows.counts, 1)
        closed.wait_for(2)
        found = witness.sees("executing", handle.explain)
        assert found.about == "activity explain.stands_at #2"
        assert (found.line or "").startswith("explain_flows.py:")
        assert "worker w-1 executes attempt 1 of 1, begun " in found.sentence
        assert "its start_to_close timeout is in " in found.sentence
        assert witness.status() == "runnable"
        (dependency,) = witness.explanation.dependencies
        assert (dependency.kind, dependency.name, dependency.state) == ("activity", "explain.stands_at", "executing")  # fmt: skip
        beat = eventually(lambda: beaten(witness.sees("executing", job.explain)))
        assert "last heartbeat" in str(beat)
        assert witness.explanation.kind == "job"


def beaten(cause: Any) -> str | None:
    return cause.sentence if '[1, "of 100"]' in cause.sentence else None


@produces("retry", "exhausted", "job_paused")
def test_failed_attempts_are_told_with_their_error(
    working: Working, client: Client, sql: Sql, witness: Witness
) -> None:
    with working(MODULE):
        handle = client.start(flows.refund, 9, id="o-1")
        found = witness.sees("retry", handle.explain)
        assert "attempt 1 of 3 failed (ValueError: 9 is too much)" in found.sentence
        assert found.until is not None
        assert found.next_steps[0].command == "durable activity retry o-1 2 --reason WHY"
        assert witness.sees("retry", client.enqueue(flows.declines, 7).explain).about == ""
        handle.activity(2).pause("the bank asked us to", actor="ann")
        held = witness.sees("job_paused", handle.explain)
        assert "by ann: the bank asked us to" in held.sentence
        careful = client.start(flows.careful_refund, 9, id="o-2")
        spent = witness.sees("exhausted", careful.explain)
        assert "ValueError: 9 is too much" in spent.sentence
        assert spent.since is not None
        assert witness.status() == "needs_review" == careful.describe().operator_status
        assert {step.command.split()[2] for step in spent.next_steps} == {"retry", "set-result", "set-failure"}  # fmt: skip


@produces("completed_elsewhere", "scheduled")
def test_jobs_that_wait_for_somebody_or_for_their_time(
    working: Working, client: Client, witness: Witness
) -> None:
    with working(MODULE):
        # a standalone job cannot be completed from elsewhere, an activity can
        handle = client.start(flows.given_away, id="o-1")
        witness.sees("completed_elsewhere", handle.explain)
        assert witness.status() == "waiting"
        later = client.enqueue(flows.ships, 1, delay=HOUR)
        assert witness.sees("scheduled", later.explain).until is not None


@produces("unknown_activity", "no_worker", "queue_paused", "claim_disabled")
def test_jobs_that_nobody_takes_are_blocked(
    working: Working, client: Client, witness: Witness
) -> None:
    with working("tests.system.flows", queues={"default": 5, "shut": 5, "closed": 5}):
        unknown = client.enqueue(flows.elsewhere_known)
        message = witness.sees("unknown_activity", unknown.explain).facts["message"]
        assert "has no activity 'explain.elsewhere_known'" in message
        deserted = client.enqueue(flows.nobody_serves)
        assert witness.sees("no_worker", deserted.explain).next_steps[0].command == "durable-worker MODULE --queue deserted=10"  # fmt: skip
        client.queue("shut").pause("the bank is down")
        shut = client.enqueue(flows.ships, 1, queue="shut")
        assert ": the bank is down" in witness.sees("queue_paused", shut.explain).sentence
        client.queue("closed").set(slots=0)
        witness.sees("claim_disabled", client.enqueue(flows.ships, 1, queue="closed").explain)
        assert witness.status() == "blocked"


KEYS: dict[str, dict[str, Any]] = {
    "whole": {}, "rated": {}, "keyed": {"partition_key": "t-7"}, "key-rated": {"partition_key": "t-7"},
    "serial": {"serial_key": "a-1"}, "tight": {},
}  # fmt: skip


def two_of(client: Client, queue: str, key: dict[str, Any]) -> tuple[Any, Any]:
    """A job that runs at the gate, and one after it."""
    first: Any = client.enqueue(flows.stands_at, 1, queue=queue, **key)
    eventually(lambda: first.describe().state == "executing")
    return first, client.enqueue(flows.stands_at, 1, queue=queue, **key)


@produces("global_limit", "rate_limit", "key_limit", "key_rate_limit", "serial_predecessor", "no_free_slot")  # fmt: skip
def test_limits_say_what_uses_them_up_and_until_when(
    working: Working, client: Client, system_url: str, witness: Witness
) -> None:
    client.queue("whole").set(global_limit=1)
    client.queue("rated").set(rate_limit=RateLimit(1, 3600))
    client.queue("keyed").set(key_limit=1)
    client.queue("key-rated").set(key_rate_limit=RateLimit(1, 3600))
    queues = dict.fromkeys(("whole", "rated", "keyed", "key-rated", "serial"), 5)
    with working(MODULE, queues={**queues, "tight": 1}), gate(system_url, 1) as closed:
        two = {name: two_of(client, name, key) for name, key in KEYS.items()}
        closed.wait_for(6)
        whole = witness.sees("global_limit", two["whole"][1].explain)
        assert "the limit of queue 'whole' is reached: 1 of 1 run" in whole.sentence
        rated = witness.sees("rate_limit", two["rated"][1].explain)
        assert rated.until is not None
        assert "the rate of queue 'rated', 1 per 3600 s" in rated.sentence
        assert witness.sees("key_limit", two["keyed"][1].explain).facts["key"] == "t-7"
        assert witness.sees("key_rate_limit", two["key-rated"][1].explain).until is not None
        first, second = two["serial"]
        assert (
            witness.sees("serial_predecessor", second.explain).next_steps[0].command
            == f"durable explain {first.job_id}"
        )
        assert witness.status() == "waiting"
        witness.sees("no_free_slot", two["tight"][1].explain)
        assert witness.status() == "runnable"


# -- steps of a DAG -------------------------------------------------------------------------------------------------------


@produces("dependencies", "dependency_failed")
def test_a_step_says_what_it_depends_on(
    working: Working, client: Client, system_url: str, witness: Witness
) -> None:
    dag = (
        Dag("explain", on_failure="complete")
        .add("pack", flows.stands_at, {"gate": 1})
        .add("ship", flows.ships, {"parcel": result("pack")})
        .add("charge", flows.declines.options(retry=flows.ONCE), {"amount": 9})
        .add("thank", flows.ships, {"parcel": 1}, deps=["charge"])
    )
    with working(MODULE), gate(system_url, 1) as closed:
        handle = client.start(dag, id="d-1")
        closed.wait_for(1)
        waits = witness.sees("dependencies", lambda: handle.explain(step="ship"))
        assert waits.sentence == "waits for the end of pack (running)"
        assert [it.command for it in waits.next_steps] == ["durable explain d-1 --step pack"]  # fmt: skip
        (upstream,) = witness.explanation.dependencies
        assert (upstream.name, upstream.state) == ("pack", "running")
        assert (
            [it.code for it in upstream.causes] == ["executing"] == [it.code for it in waits.causes]
        )
        witness.sees("executing", lambda: handle.explain(step="pack"))
        failed = witness.sees("dependency_failed", lambda: handle.explain(step="thank"))
        assert failed.sentence == "it was cancelled because step 'charge' failed"
        declined = witness.sees("ended", lambda: handle.explain(step="charge"))
        assert "9 is too much" in declined.sentence
        assert declined.next_steps[0].command == "durable dag retry-step d-1 charge --reason WHY"
        assert witness.sees("executing", handle.explain).about == "step pack (explain.stands_at) #2"
        with pytest.raises(InvalidOption, match="no step 'shop'; it has pack, ship, charge, thank"):
            handle.explain(step="shop")


@produces("completion_awaited", "steps_failed")
def test_a_dag_that_waits_for_somebody_says_what_is_asked_of_them(
    working: Working, client: Client, witness: Witness
) -> None:
    inner = Dag("inner").wait("approval").add("ship", flows.ships, {"parcel": 1}, deps=["approval"])
    dag = (
        Dag("outer", on_failure="wait")
        .add("inner", inner)
        .wait("heard", signal=flows.approved.name)
        .add("charge", flows.declines.options(retry=flows.ONCE), {"amount": 9})
    )
    with working(MODULE, max_cached_runs=0):  # whoever waits has no owner
        handle = client.start(dag, id="d-1")
        child = eventually(lambda: child_at(witness, lambda: handle.explain(step="inner"), "completion_awaited"))  # fmt: skip
        assert child.facts["child_id"] == "d-1/inner"
        assert witness.sees("signal", lambda: handle.explain(step="heard")).facts["name"] == "explain_approved"  # fmt: skip
        below = client.handle("d-1/inner")
        found = witness.sees("completion_awaited", lambda: below.explain(step="approval"))
        assert found.next_steps[0].command.startswith(
            "durable dag complete-step d-1/inner approval JSON"
        )
        assert witness.status() == "waiting"
        assert witness.sees("dependencies", lambda: below.explain(step="ship")).facts["step"] == "approval"  # fmt: skip
        client.complete_step("d-1/inner", "approval")
        handle.signal(flows.approved.name, 1)
        held = witness.sees("steps_failed", handle.explain)
        assert held.facts["name"] == "retry of charge"
        assert witness.status() == "needs_review" == handle.describe().operator_status


@produces("halted")
def test_a_dag_that_has_halted_says_where_and_what_lets_it_go_on(
    working: Working, client: Client, witness: Witness
) -> None:
    dag = (
        Dag("halting")
        .add("check", sagas.approve, {"key": "order 7"})
        .add("ship", flows.ships, {"parcel": 1}, deps=["check"])
    )
    with working(MODULE, "tests.system.saga_dag_flows"):
        handle = client.start(dag, id="d-3")
        found = witness.sees("halted", handle.explain)
        assert found.facts["name"] == "check"
        assert "durable dag resume d-3" in [it.command for it in found.next_steps]
        assert witness.status() == "needs_review" == handle.describe().operator_status
        witness.sees("halted", lambda: handle.explain(step="check"))
        assert witness.sees("dependencies", lambda: handle.explain(step="ship")).facts["step"] == "check"  # fmt: skip
        client.resume_dag("d-3")
        eventually(lambda: "halted" not in [it.code for it in handle.explain().causes])
        handle.result(timeout=30)


def child_at(witness: Witness, explain: Any, code: str) -> Any:
    """The child, once it stands there."""
    child = witness.sees("child", explain)
    return child if [it.code for it in child.causes] == [code] else None


def test_a_pending_activity_is_a_step_of_its_workflow(
    working: Working, client: Client, witness: Witness
) -> None:
    with working(MODULE):
        handle = client.start(flows.refund, 9, id="o-1")
        witness.sees("retry", handle.explain)
        witness.sees("retry", lambda: client.explain("o-1", step="2"))
        witness.sees("retry", lambda: client.explain("o-1", step="explain.declines-1"))
        with pytest.raises(InvalidOption, match="no activity pending of this id"):
            handle.explain(step="nothing")


# -- schedules ------------------------------------------------------------------------------------------------------------


def moved(sql: Sql, by: timedelta) -> None:
    sql.execute("select durable.advance_clock(%s)", (by,))


@produces("schedule_next", "schedule_paused", "slot_skipped", "slot_waits", "slot_limit", "slot_missed")  # fmt: skip
def test_a_schedule_says_what_kept_its_last_slot(
    working: Working, client: Client, sql: Sql, witness: Witness
) -> None:
    with working(MODULE):
        skips = client.schedule("skips", flows.report, every=HOUR)
        buffers = client.schedule("buffers", flows.report, every=HOUR, overlap="buffer_one")
        assert witness.sees("schedule_next", skips.explain).until is not None
        eventually(lambda: skips.explain().status == "waiting")  # once a worker holds the duty
        moved(sql, HOUR)
        eventually(lambda: buffers.describe().open and skips.describe().open)
        moved(sql, HOUR)
        skipped = witness.sees("slot_skipped", skips.explain)
        assert "(overlap=skip): skips/" in skipped.sentence
        assert skipped.next_steps[0].command.startswith("durable explain skips/")
        witness.sees("slot_waits", buffers.explain)
        moved(sql, HOUR)
        witness.sees("slot_limit", buffers.explain)
        skips.pause("the books are closed")
        paused = witness.sees("schedule_paused", skips.explain)
        assert paused.sentence == "it was paused: the books are closed"
        assert witness.status() == "blocked"
        late = client.schedule("late", flows.report, every=HOUR, catch_up=1.0)
        witness.sees("schedule_next", late.explain)
    moved(sql, 2 * HOUR)
    with working(MODULE):
        witness.sees("slot_missed", late.explain)


@produces("schedule_over", "no_worker_for_schedules")
def test_a_schedule_without_worker_or_slots(
    working: Working, client: Client, sql: Sql, witness: Witness
) -> None:
    over = client.schedule("over", flows.report, every=HOUR, end=first_day(sql))
    witness.sees("no_worker_for_schedules", over.explain)
    assert witness.status() == "blocked"
    with working(MODULE):
        moved(sql, timedelta(days=3))
        witness.sees("schedule_over", over.explain)
        eventually(lambda: [it.code for it in client.explain("over").causes][-1] == "schedule_over")


def first_day(sql: Sql) -> Any:
    row = sql.execute("select durable.now() + interval '1 day'").fetchone()
    assert row is not None
    return row[0]


# -- the list -------------------------------------------------------------------------------------------------------------


def test_every_cause_of_the_list_is_produced_by_a_test() -> None:
    assert of_runs.__name__
    assert sorted(PRODUCED) == sorted(CODES) == sorted(KINDS)


def test_every_reason_why_a_job_does_not_run_is_a_cause() -> None:
    from typing import get_args

    assert set(get_args(ReasonCode)) - {"finished"} <= set(_CODE)
