"""From facts to explanations, as a table: what is known, and what is said of it. (That the facts come about is tests/system/test_explain_*.)"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from durable.core.causes import CODES, KINDS, by_urgency, cause, length, told, worst
from durable.core.diagnosis import DAG, explain_job, explain_run, explain_schedule, explain_step
from durable.core.facts import (
    CancelFacts,
    JobFacts,
    MessageFacts,
    ReasonFacts,
    RunFacts,
    ScheduleFacts,
    ServiceFacts,
    SlotFacts,
    StepFacts,
    UpdateFacts,
    WorkerFacts,
)
from durable.core.schedule_times import Times
from durable.dag.model import INTERPRETER

SECOND = 1_000_000
NOW = 1_800_000_000 * SECOND
HOUR = 3600 * SECOND
ALIVE = WorkerFacts("w-1", "alive", NOW - SECOND, NOW + 29 * SECOND)
SILENT = WorkerFacts("w-1", "alive", NOW - 25 * SECOND, NOW + 5 * SECOND)
LAPSED = WorkerFacts("w-1", "dead", NOW - 60 * SECOND, NOW - 30 * SECOND)
SERVED = ServiceFacts(queue=True, workflow=True, build=True)
UNSERVED = ServiceFacts(queue=False, workflow=False, build=False)

RUN = RunFacts(
    now_us=NOW, workflow_id="o-1", run_id="r", workflow="checkout", version=1, status="running", queue="default", build=None,
    last_seq=5, created_us=NOW - HOUR, closed_us=None, ready_us=None, delayed_us=None, cancel_us=None, review=None, review_us=None,
    paused=None, paused_us=None, waiting_on=None, parent_seq=None, owner=ALIVE, service=SERVED, cancel=None, messages=(), message_count=0,
    updates=(), jobs=(), job_count=0, children=(), child_count=0, last=None, cause=None,
)  # fmt: skip
JOB = JobFacts(
    job_id="j", seq=2, kind="activity", name="charge", queue="payments", state="available", attempt=0, max_attempts=5, created_us=NOW - HOUR,
    scheduled_us=NOW - HOUR, finished_us=None, deadline_us=None, deadline_kind=None, timeouts={}, worker=None, failure=None, heartbeat=None,
    note=None, paused=None, cancel_us=None, call_id="charge-1", line="shop.py:31", reasons=(), cause=None,
)  # fmt: skip
SIGNAL = {"kind": "signal", "name": "paid", "line": "shop.py:30", "since_us": NOW - HOUR}
REVIEW: dict[str, Any] = {"kind": "nondeterminism", "times": 3, "failure": {"message": "they part at event 4"}}  # fmt: skip
FAILURE = {"type": "shop:Declined", "message": "no money", "cause": {"type": "builtins:OSError", "message": "closed"}}  # fmt: skip


def because(reason: str, until_us: int | None = None, **facts: Any) -> dict[str, Any]:
    return {"reasons": (ReasonFacts(reason, until_us, facts),)}


RUNS: list[tuple[str, dict[str, Any], str, list[str]]] = [
    ("a worker runs its code", {}, "runnable", ["in_turn"]),
    ("ready", {"owner": None, "ready_us": NOW}, "runnable", ["ready"]),
    ("nobody serves its queue", {"owner": None, "ready_us": NOW, "service": UNSERVED}, "blocked", ["no_worker", "ready"]),
    ("nobody has the workflow", {"owner": None, "ready_us": NOW, "service": ServiceFacts(True, False, False)}, "blocked",
     ["no_worker_for_workflow", "ready"]),
    ("nobody of its build", {"owner": None, "ready_us": NOW, "build": "b", "service": ServiceFacts(True, True, False)}, "blocked",
     ["no_worker_for_build", "ready"]),
    ("put back by a worker that has it not", {"owner": None, "delayed_us": NOW + 1, "review": {"kind": "unknown_workflow"},
      "service": ServiceFacts(True, False, False)}, "blocked", ["no_worker_for_workflow"]),
    ("put back, and by now somebody has it", {"owner": None, "delayed_us": NOW + 1, "review": {"kind": "unknown_workflow"}}, "waiting",
     ["delayed"]),
    ("before its time", {"owner": None, "delayed_us": NOW + HOUR}, "waiting", ["delayed"]),
    ("parked", {"owner": None, "delayed_us": NOW + HOUR, "review": REVIEW}, "needs_review", ["nondeterminism"]),
    ("parked, tried again at this moment", {"review": REVIEW}, "needs_review", ["nondeterminism"]),
    ("any other error", {"review": {"kind": "error", "failure": FAILURE}}, "needs_review", ["turn_fails"]),
    ("kills", {"review": {"kind": "kills_workers", "message": "x"}}, "needs_review", ["kills_workers"]),
    ("paused, whatever it waits for", {"owner": None, "delayed_us": NOW * 5, "paused": {"actor": "ann"}, "waiting_on": [SIGNAL]}, "blocked",
     ["run_paused", "signal"]),
    ("paused and parked", {"owner": None, "paused": {}, "review": REVIEW}, "needs_review", ["nondeterminism", "run_paused"]),
    ("asked to stop, and has not read it", {"messages": [MessageFacts("CancelRequested", None, NOW, "why")], "message_count": 1}, "waiting",
     ["cancel_requested", "message_waiting"]),
    ("cleans up", {"cancel_us": NOW, "cancel": CancelFacts(NOW, "why", {"id": 7})}, "waiting", ["cancel_requested"]),
    ("its worker is silent", {"owner": SILENT, "waiting_on": [SIGNAL]}, "waiting", ["worker_silent", "signal"]),
    ("its worker is dead, and it was the last one", {"owner": LAPSED, "service": UNSERVED}, "blocked", ["no_worker", "worker_silent"]),
    ("awaits a signal", {"waiting_on": [SIGNAL]}, "waiting", ["signal"]),
    ("its signal has come", {"waiting_on": [SIGNAL], "messages": [MessageFacts("SignalReceived", "paid", NOW, None)], "message_count": 1},
     "runnable", ["message_waiting"]),
    ("an update", {"updates": [UpdateFacts("u", "add", "accepted", NOW)]}, "waiting", ["update_waiting"]),
    ("closed", {"owner": None, "status": "failed", "closed_us": NOW, "last": {"failure": FAILURE}, "cause": "failed"}, "done", ["ended"]),
    ("closed runs wait for nothing", {"owner": None, "status": "completed", "closed_us": NOW, "waiting_on": [SIGNAL], "ready_us": NOW}, "done",
     ["ended"]),
]  # fmt: skip


@pytest.mark.parametrize(("what", "facts", "status", "codes"), RUNS, ids=[it[0] for it in RUNS])
def test_runs(what: str, facts: dict[str, Any], status: str, codes: list[str]) -> None:
    found = explain_run(replace(RUN, **facts))
    assert (found.status, [it.code for it in found.causes]) == (status, codes), what


JOBS: list[tuple[str, dict[str, Any], str, list[str]]] = [
    ("it runs", {"state": "executing", "worker": ALIVE}, "runnable", ["executing"]),
    ("its worker is silent", {"state": "executing", "worker": SILENT}, "waiting", ["worker_silent"]),
    ("told to stop", {"state": "executing", "worker": ALIVE, "cancel_us": NOW}, "waiting", ["cancel_requested", "executing"]),
    ("completed elsewhere", {"state": "waiting"}, "waiting", ["completed_elsewhere"]),
    ("paused by somebody", {"state": "paused", "paused": {"kind": "operator", "actor": "ann"}}, "blocked", ["job_paused"]),
    ("exhausted", {"state": "paused", "paused": {"kind": "exhausted"}, "failure": FAILURE}, "needs_review", ["exhausted"]),
    ("paused with its run, which says so", {"state": "paused", "paused": {"kind": "run"}}, "runnable", []),
    ("over", {"state": "discarded", "finished_us": NOW, "failure": FAILURE, "cause": "attempts_exhausted"}, "done", ["ended"]),
    ("backs off", {"state": "retryable", "failure": FAILURE, **because("retry", NOW + HOUR, attempt=1)}, "waiting", ["retry"]),
    ("a paused queue", because("queue_paused", queue="q", since_us=NOW, why="bank"), "blocked", ["queue_paused"]),
    ("only slots", because("no_free_slot", before_at_least=0), "runnable", ["no_free_slot"]),
    ("a rate", because("rate_limit", NOW + HOUR, limit=1, period_s=60, kind="window"), "waiting", ["rate_limit"]),
]  # fmt: skip


@pytest.mark.parametrize(("what", "facts", "status", "codes"), JOBS, ids=[it[0] for it in JOBS])
def test_jobs(what: str, facts: dict[str, Any], status: str, codes: list[str]) -> None:
    found = explain_job(replace(JOB, seq=0, kind="job", **facts), NOW)
    assert (found.status, [it.code for it in found.causes]) == (status, codes), what
    within = explain_run(replace(RUN, jobs=(replace(JOB, **facts),), job_count=1))
    (dependency,) = within.dependencies
    assert [it.code for it in dependency.causes] == codes
    assert all(it.line == "shop.py:31" for it in dependency.causes if it.about)


def test_what_can_be_done_about_a_job_are_commands_on_jobs() -> None:
    for _, facts, _, _ in JOBS:
        found = explain_job(replace(JOB, seq=0, kind="job", **facts), NOW)
        words = {" ".join(it.command.split()[:2]) for it in found.next_steps}
        assert words <= {"durable job", "durable queue", "durable complete", "durable doctor"}


def test_a_deadline_is_told_with_what_it_is_the_deadline_of() -> None:
    timer = replace(JOB, kind="timer", name="signal paid", seq=2, state="scheduled")
    wait = {**SIGNAL, "seq": 2, "until_us": NOW + HOUR}
    found = explain_run(replace(RUN, waiting_on=[wait], jobs=(timer,), job_count=1))
    assert [it.code for it in found.causes] == ["signal"]
    assert "at the latest until" in found.causes[0].sentence


def test_what_is_left_out_is_counted() -> None:
    found = explain_run(replace(RUN, jobs=(JOB,), job_count=51, children=(RUN,), child_count=3))
    assert found.unlisted == 52


@pytest.mark.parametrize(("inner", "status"), [({"waiting_on": [SIGNAL]}, "waiting"), ({"review": REVIEW}, "blocked"), ({}, "waiting")])  # fmt: skip
def test_a_child_that_needs_somebody_blocks_its_parent(inner: dict[str, Any], status: str) -> None:
    child = replace(RUN, workflow_id="o-1/c", parent_seq=4, **inner)
    found = explain_run(replace(RUN, children=(child,), child_count=1))
    assert found.status == status
    assert found.causes[0].causes == explain_run(child).causes


def test_the_start_and_the_last_beat_follow_from_time_limits() -> None:
    limited = replace(JOB, deadline_us=NOW + HOUR, deadline_kind="start_to_close", timeouts={"start_to_close_s": 5400})  # fmt: skip
    beating = replace(JOB, deadline_us=NOW + HOUR, deadline_kind="heartbeat", timeouts={"heartbeat_s": 3660})  # fmt: skip
    assert (limited.begun_us, limited.beat_us) == (NOW - HOUR // 2, None)
    assert (beating.begun_us, beating.beat_us) == (NOW - HOUR, NOW - 60 * SECOND)


# -- steps --------------------------------------------------------------------------------------------------------------

TABLE = {
    "pack": StepFacts("running", ()),
    "pay": StepFacts("failed", (), None, FAILURE),
    "ship": StepFacts("pending", ("pack", "done")),
    "thank": StepFacts("cancelled", ("pay",), "pay"),
    "done": StepFacts("completed", ()),
    "grow": StepFacts("running", ("done",), None, None, ("pack",)),
}


@pytest.mark.parametrize(
    ("step", "status", "codes"),
    [("pack", "runnable", ["in_turn"]), ("pay", "done", ["ended"]), ("ship", "waiting", ["dependencies"]), ("thank", "done", ["dependency_failed"]),
     ("done", "done", ["ended"]), ("grow", "waiting", ["dependencies"])],
)  # fmt: skip
def test_steps(step: str, status: str, codes: list[str]) -> None:
    found = explain_step(replace(RUN, workflow=DAG), step, TABLE)
    assert found is not None
    assert (found.status, [it.code for it in found.causes]) == (status, codes)
    assert [it.name for it in found.dependencies] == [*TABLE[step].upstream, *TABLE[step].added]


def test_a_step_is_told_with_the_causes_of_those_before_it() -> None:
    backs_off = replace(JOB, call_id="pack", state="retryable", failure=FAILURE, **because("retry", NOW + HOUR, attempt=1))  # fmt: skip
    other = replace(JOB, call_id="packs_else", **because("queue_paused", queue="q", since_us=NOW))
    found = explain_step(replace(RUN, workflow=DAG, jobs=(backs_off, other)), "ship", TABLE)
    assert found is not None
    (waits,) = found.causes
    assert (found.status, waits.code, [it.code for it in waits.causes]) == ("waiting", "dependencies", ["retry"])  # fmt: skip
    spent = replace(backs_off, state="paused", paused={"kind": "exhausted"}, call_id="pack#2")
    held = explain_step(replace(RUN, workflow=DAG, jobs=(spent,)), "ship", TABLE)
    assert held is not None
    assert held.status == "blocked"
    assert [(it.name, it.status) for it in held.dependencies] == [("pack", "needs_review"), ("done", "done")]  # fmt: skip


def test_what_holds_the_run_holds_its_open_steps_and_not_those_that_ended() -> None:
    run = replace(RUN, workflow=DAG, paused={"actor": "ann"}, owner=None)
    codes = {step: [it.code for it in getattr(explain_step(run, step, TABLE), "causes", ())] for step in TABLE}  # fmt: skip
    assert codes["ship"] == ["run_paused", "dependencies"]
    assert codes["pay"] == ["ended"]


def test_a_step_that_is_not_there() -> None:
    assert explain_step(replace(RUN, workflow=DAG), "nothing", TABLE) is None
    assert explain_step(RUN, "nothing") is None
    assert explain_step(replace(RUN, jobs=(JOB,)), "charge-1") is not None


def test_the_interpreter_is_known_by_its_name() -> None:
    assert DAG == INTERPRETER


# -- schedules ----------------------------------------------------------------------------------------------------------

HOURLY = Times(every_us=HOUR).to_body()
SCHEDULE = ScheduleFacts(NOW, "nightly", "report", False, None, HOURLY, (), "skip", NOW, (), (), ALIVE)  # fmt: skip
OPEN, FULL = "the run before it is open", "the run before it is open, and no more starts may wait"


@pytest.mark.parametrize(
    ("facts", "status", "codes"),
    [
        ({}, "waiting", ["schedule_next"]),
        ({"paused": True, "note": "holidays"}, "blocked", ["schedule_paused"]),
        ({"worker": None}, "blocked", ["no_worker_for_schedules", "schedule_next"]),
        ({"worker": LAPSED}, "blocked", ["no_worker_for_schedules", "schedule_next"]),
        ({"spec": Times(every_us=HOUR, end_us=NOW - 1).to_body()}, "done", ["schedule_over"]),
        ({"slots": [SlotFacts(NOW, "skipped", OPEN, None, None)]}, "waiting", ["slot_skipped", "schedule_next"]),
        ({"slots": [SlotFacts(NOW, "skipped", FULL, None, None)]}, "waiting", ["slot_limit", "schedule_next"]),
        ({"slots": [SlotFacts(NOW, "missed", "too late", None, None)]}, "waiting", ["slot_missed", "schedule_next"]),
        ({"slots": [SlotFacts(NOW, "started", None, "x", "running"), SlotFacts(0, "missed", "old", None, None)]}, "waiting", ["schedule_next"]),
        ({"slots": [SlotFacts(NOW, "buffered", "waits", None, None), SlotFacts(0, "skipped", OPEN, None, None)], "open": ["x"]}, "waiting",
         ["slot_waits", "slot_skipped", "schedule_next"]),
    ],
)  # fmt: skip
def test_schedules(facts: dict[str, Any], status: str, codes: list[str]) -> None:
    found = explain_schedule(replace(SCHEDULE, **facts))
    assert (found.status, [it.code for it in found.causes]) == (status, codes)


# -- the list and its words ---------------------------------------------------------------------------------------------


def test_the_list_is_closed_and_each_entry_says_who_can_act() -> None:
    assert set(KINDS) == set(CODES)
    blocked = {
        code: kind for code, kind in KINDS.items() if kind.status in ("blocked", "needs_review")
    }
    assert [code for code, kind in blocked.items() if kind.who == "nobody"] == []
    assert [code for code, kind in blocked.items() if not kind.steps] == [], "something can be done"


def test_every_step_is_a_command_with_a_remark() -> None:
    for code, kind in KINDS.items():
        for step in kind.steps:
            command, mark, remark = step.partition("  # ")
            assert mark, (code, step)
            assert command, (code, step)
            assert remark, (code, step)


def test_a_name_that_means_something_to_a_shell_is_quoted() -> None:
    found = cause("signal", NOW, id="o 1; rm -rf /", name="paid")
    assert found.next_steps[0].command == "durable signal 'o 1; rm -rf /' paid JSON"


def test_a_step_whose_fact_is_missing_is_left_out() -> None:
    found = cause("retry", NOW, attempt=1, most="5", error="x", until_us=NOW + HOUR)
    assert found.next_steps == ()
    assert cause("retry", NOW, attempt=1, most="5", error="x", id="o-1", seq=2).next_steps


def test_the_most_urgent_cause_comes_first_and_gives_the_status() -> None:
    found = (
        cause("delayed", NOW),
        cause("no_worker", NOW, queue="q"),
        cause("timer", NOW, name="t"),
    )
    assert [it.code for it in by_urgency(found)] == ["no_worker", "delayed", "timer"]
    assert worst(found) == "blocked"
    assert worst(()) == "runnable"


def test_next_steps_are_said_once() -> None:
    found = explain_run(replace(RUN, owner=LAPSED, service=UNSERVED, jobs=(replace(JOB, **because("no_worker", queue="default")),)))  # fmt: skip
    commands = [step.command for step in found.next_steps]
    assert commands == ["durable-worker MODULE --queue default=10", "durable doctor"]


@pytest.mark.parametrize(
    ("us", "said"),
    [(NOW - 184 * SECOND, "07:56:56Z (3m 4s ago)"), (NOW, "08:00:00Z (in 0s)"), (NOW + 49 * HOUR, "2027-01-17 09:00:00Z (in 2d 1h)"),
     (253_370_764_800_000_000, "the end of time")],
)  # fmt: skip
def test_times(us: int, said: str) -> None:
    assert told(us, NOW) == said


def test_lengths() -> None:
    assert [length(it) for it in (0.2, 59, 60, 3600, 90_061)] == ["0s", "59s", "1m", "1h", "1d 1h"]
