"""What did not simply happen is on record and can be asked for: signals (C11, S93-S97), cancel requests apart from outcomes (C9, S98), refused commands (S107), recoveries (S108)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from durable import AmbiguousSignal, AsyncClient, InvalidOption, JobNotFound
from durable.client_sync import Client
from durable.errors import (
    ScheduleAlreadyExists,
    ScheduleNotFound,
    WorkflowClosed,
    WorkflowNotFound,
)
from durable.refusals import CODES, REFUSALS
from tests.system import ending_flows, family_flows, flows
from tests.system.conftest import Working
from tests.system.gates import gate
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]
MODULES = ("tests.system.flows", "tests.system.ending_flows", "tests.system.family_flows")


def found(client: Client, workflow_id: str, kind: str) -> list[tuple[str, str | None]]:
    """Status and reason of one kind of evidence, oldest first."""
    rows = client.handle(workflow_id).evidence(1000)
    return [(it.status, it.reason) for it in reversed(rows) if it.kind == kind]


# -- signals ------------------------------------------------------------------------------------------------------------


def test_what_simply_arrives_leaves_no_evidence(working: Working, client: Client) -> None:
    with working():
        handle = client.start(flows.listens, 1, id="l")
        handle.signal(flows.word, "a", dedupe_key="k")
        assert handle.result(timeout=30) == ["a"]
    assert handle.evidence() == []
    assert handle.cancel_requests() == []


def test_a_duplicate_is_evidence_with_who_sent_it(client: Client) -> None:
    """S93."""
    handle = client.start(flows.listens, 2, id="l")
    handle.signal(flows.word, "a", dedupe_key="k")
    assert handle.signal(flows.word, "b", dedupe_key="k", actor="ann").status == "duplicate"
    (it,) = handle.evidence()
    assert (it.kind, it.status, it.name, it.actor, it.times) == ("signal", "duplicate", "word", "ann", 1)  # fmt: skip
    assert (it.payload, it.detail["dedupe_key"]) == ("b", "k")


def test_late_is_not_dropped(client: Client) -> None:
    """S94, S96: one came after the end; the other was there before, and nobody had read it."""
    handle = client.start(flows.listens, 2, id="l")
    handle.signal(flows.word, "in time")
    handle.terminate("enough")
    with pytest.raises(WorkflowClosed):
        handle.signal(flows.word, "too late")
    assert sorted(found(client, "l", "signal")) == [
        ("dropped", "the run closed before it was read"),
        ("late", "the run is terminated"),
    ]


def test_an_ambiguous_signal_wakes_nobody_and_can_be_routed(client: Client, sql: Sql) -> None:
    """S95."""
    for n in (1, 2, 3):
        client.start(flows.listens, 1, id=f"l{n}", attributes={"order": "o-1", "n": n})
    with pytest.raises(AmbiguousSignal) as caught:
        client.signal_where("attribute.order=o-1", flows.word, "who?", actor="ann")
    assert caught.value.workflow_ids == ("l1", "l2", "l3")
    assert sql.execute("select count(*) from durable.inbox").fetchone() == (0,)
    for n in (1, 2, 3):
        (it,) = client.handle(f"l{n}").evidence()
        assert (it.status, it.payload, it.actor) == ("ambiguous", "who?", "ann")
        (command,) = client.handle(f"l{n}").commands()
        assert (command.code, command.accepted) == ("ambiguous", False)
    receipt = client.signal_where({"attributes": {"n": 2}}, flows.word, "you")
    assert (receipt.status, receipt.run_id) == ("buffered", client.handle("l2").describe().run_id)
    with pytest.raises(WorkflowNotFound):
        client.signal_where("attribute.order=o-2", flows.word, "nobody")
    with pytest.raises(InvalidOption, match="running"):
        client.signal_where("status=completed", flows.word, "over")


def test_what_a_reset_sends_again_is_replayed(client: Client) -> None:
    """S97: the old run's row says so; the new run has it like any other."""
    handle = client.start(flows.listens, 2, id="l")
    handle.signal(flows.word, "a")
    receipt = handle.reset("again", to_event=1)
    assert receipt.signals_sent_again == 1
    assert found(client, "l", "signal") == [("replayed", f"sent again to run {receipt.run_id}")]


def test_what_continue_as_new_carries_over_is_replayed(
    working: Working, client: Client, system_url: str, sql: Sql
) -> None:
    with working(*MODULES), gate(system_url, 1) as held:
        handle = client.start(ending_flows.goes_on_unheard, 1, 1, id="l")
        held.wait_for()
        handle.signal(flows.word, "a")
        handle.signal(flows.word, "b")
        held.open()
        eventually(lambda: client.handle("l").describe().generation > 0)
    evidence = [it for it in client.handle("l").evidence() if it.kind == "signal"]
    carried = [it for it in evidence if it.run_id == handle.run_id]
    assert [(it.status, it.times) for it in carried] == [("replayed", 2)]
    assert len(carried[0].detail["signals"]) == 2


def test_a_million_duplicates_make_no_million_rows(client: Client, sql: Sql) -> None:
    """Bounded: beyond a thousand rows they are counted with the newest of their kind. And pruned with the run."""
    handle = client.start(flows.listens, 2, id="l")
    handle.signal(flows.word, "a", dedupe_key="k")
    again = "select durable.send_signal(durable.shard_of('l'), 'l', gen_random_uuid(), 'word', '\"a\"', 'k') from generate_series(1, %s)"
    sql.execute(again, (1500,))
    assert sql.execute("select count(*), sum(times) from durable.signals").fetchone() == (1001, 501)
    assert sum(it.times for it in handle.evidence(10_000)) == 1500
    handle.terminate("enough")
    with pytest.raises(WorkflowClosed):
        handle.signal(flows.word, "b")
    assert ("late", "the run is terminated") in found(client, "l", "signal"), "each kind is shown"
    sql.execute("select durable.prune_runs(null, null, durable.shard_of('l'), null, 100, 10000,"
                " '[{\"kind\": \"run\", \"queue\": \"*\", \"state\": \"*\", \"keep_s\": -1}]', false)")  # fmt: skip
    assert sql.execute("select count(*) from durable.signals").fetchone() == (0,)


def test_a_lost_answer_is_given_again_and_noted_once(client: Client, sql: Sql) -> None:
    client.start(flows.listens, 2, id="l").terminate("enough")
    again = "select status from durable.send_signal(durable.shard_of('l'), 'l', '00000000-0000-7000-8000-000000000001', 'word', '1')"
    assert [sql.execute(again).fetchone() for _ in range(3)] == [("late",)] * 3
    assert len(client.handle("l").evidence()) == 1


# -- cancel requests ----------------------------------------------------------------------------------------------------


def became(client: Client, workflow_id: str) -> list[tuple[str, Any, str | None]]:
    requests = client.handle(workflow_id).cancel_requests()
    return [(it.became, it.actor, it.reason) for it in requests]


def test_a_cancel_request_is_recorded_apart_from_the_outcome(
    working: Working, client: Client, sql: Sql
) -> None:
    """S98: who, when and why; delivered, and the run completed all the same; asked twice, and once too late."""
    handle = client.start(ending_flows.ends, "asked", id="w")
    sql.execute("update durable.runs set epoch = 1")  # as if a worker had begun with it
    handle.cancel("too dear", actor="ann")
    handle.cancel("too dear, I said", actor="bob")
    with working(*MODULES):
        assert handle.result(timeout=30) == "asked"
    with pytest.raises(WorkflowClosed):
        handle.cancel("really", actor="cid")
    assert became(client, "w") == [
        ("delivered", "ann", "too dear"),
        ("repeated", "bob", "too dear, I said"),
        ("late", "cid", "really"),
    ]
    assert handle.describe().cause == "completed_after_cancel_request"
    (first, *_) = handle.cancel_requests()
    assert abs(datetime.now(UTC) - first.at) < timedelta(minutes=5)


def test_what_becomes_of_a_request_that_nobody_has_read(client: Client, sql: Sql) -> None:
    for workflow_id in ("waits", "ends", "resets"):
        client.start(ending_flows.ends, "stops", id=workflow_id)
        sql.execute("update durable.runs set epoch = 1 where workflow_id = %s", (workflow_id,))
        client.handle(workflow_id).cancel("first", actor="ann")
        client.handle(workflow_id).cancel("again")
    assert became(client, "waits") == [("pending", "ann", "first"), ("repeated", None, "again")]
    client.handle("ends").terminate("enough")
    assert became(client, "ends")[0] == ("overtaken", "ann", "first")
    client.handle("resets").reset("undo", to_event=1)
    assert became(client, "resets")[0] == ("dropped", "ann", "first")


def test_a_parent_that_asks_is_named(working: Working, client: Client) -> None:
    with working(*MODULES):
        parent = client.start(family_flows.undoing_parent, id="parent")
        children = eventually(lambda: [r for r in client.list(workflow="undoing_leaf") if r.started_at])  # fmt: skip
        parent.cancel("enough")
        eventually(lambda: parent.describe().closed_at)
    (told,) = became(client, children[0].workflow_id)
    assert told[:2] == ("delivered", {"parent": "parent"})


# -- the log of commands ------------------------------------------------------------------------------------------------


def log(client: Client, **conditions: Any) -> list[tuple[str, str, Any]]:
    return [(it.action, it.code, it.actor) for it in reversed(client.commands(**conditions))]


def test_changes_of_schedules_are_logged_accepted_and_refused(client: Client) -> None:
    handle = client.schedule("s", flows.quick_steps, 1, every=timedelta(days=1), by="ann")
    handle.pause("a holiday", actor="bob")
    handle.update(every=timedelta(days=2), by="cid")
    handle.trigger(actor="dan")
    handle.delete(actor="eve")
    with pytest.raises(ScheduleNotFound):
        handle.resume(actor="fay")
    client.schedule("s", flows.quick_steps, 1, every=timedelta(days=1))
    with pytest.raises(ScheduleAlreadyExists):
        client.schedule("s", flows.quick_steps, 2, every=timedelta(days=1), on_existing="fail")
    assert log(client, subject="schedule", name="s") == [
        ("create_schedule", "accepted", "ann"),
        ("pause_schedule", "accepted", "bob"),
        ("update_schedule", "accepted", "cid"),
        ("trigger_schedule", "accepted", "dan"),
        ("delete_schedule", "accepted", "eve"),
        ("resume_schedule", "unknown_schedule", "fay"),
        ("create_schedule", "accepted", None),
        ("create_schedule", "schedule_exists", None),
    ]
    records = list(reversed(client.commands(subject="schedule")))
    assert (records[1].reason, records[1].before.get("paused"), records[1].after["paused"]) == ("a holiday", None, True)  # fmt: skip
    assert records[5].next_steps == ("durable schedule list",)


def test_a_schedule_that_stays_as_it_is_leaves_no_row(client: Client) -> None:
    for _ in range(3):
        client.schedule("s", flows.quick_steps, 1, every=timedelta(days=1))
    assert log(client) == [("create_schedule", "accepted", None)]


def test_changes_of_queues_are_logged_with_before_and_after(client: Client) -> None:
    client.queue("q").set(global_limit=3, actor="ann")
    client.queue("q").pause("a fire", actor="bob")
    first, second = reversed(client.commands(subject="queue", name="q"))
    assert (first.action, first.actor, first.before, first.after) == (
        "configure_queue", "ann", {}, {"global_limit": 3},
    )  # fmt: skip
    assert (second.action, second.reason, second.after["paused"]) == ("pause_queue", "a fire", True)


def test_commands_on_jobs_are_logged_with_before_and_after(client: Client) -> None:
    job = client.enqueue(flows.quick, 1)
    job.cancel("no", actor="ann")
    job.cancel("no!", actor="bob")
    job.retry(actor="cid")
    job.retry(actor="dan")
    job.delete(actor="eve")
    with pytest.raises(JobNotFound):
        job.delete(actor="fay")
    told = list(reversed(client.commands(subject="job", name=job.job_id)))
    assert [(it.action, it.code, it.actor) for it in told] == [
        ("cancel_job", "accepted", "ann"),
        ("cancel_job", "job_ended", "bob"),
        ("retry_job", "accepted", "cid"),
        ("retry_job", "unchanged", "dan"),
        ("delete_job", "accepted", "eve"),
        ("delete_job", "unknown_job", "fay"),
    ]
    assert (told[0].before, told[0].after) == ({"state": "available"}, {"state": "cancelled"})
    assert told[1].next_steps == (f"durable job retry {job.job_id}",)


def test_what_is_asked_of_nobody_is_refused_on_record(client: Client, sql: Sql) -> None:
    nobody = client.handle("nope")
    for command in (
        lambda: nobody.cancel("x"),
        lambda: nobody.terminate("x"),
        lambda: nobody.pause("x"),
        lambda: nobody.resume("x"),
        lambda: nobody.retry("x"),
        lambda: nobody.reset("x", to_event=1),
        lambda: nobody.activity(2).retry("x"),
        lambda: nobody.move("b"),
        lambda: nobody.signal(flows.word, "x"),
    ):
        with pytest.raises(WorkflowNotFound):
            command()
    told = nobody.commands()
    assert [it.action for it in reversed(told)] == [
        "cancel", "terminate", "pause", "resume", "retry", "reset", "activity_retry", "move", "signal",
    ]  # fmt: skip
    assert {(it.code, it.accepted, it.next_steps) for it in told} == {
        ("unknown_workflow", False, ("durable list --prefix nope",))
    }


def test_each_refusal_says_what_is_legal(sql: Sql) -> None:
    assert set(REFUSALS) == set(CODES) - {"accepted"}
    assert all(refusal.next_steps for refusal in REFUSALS.values())


def test_what_stands_under_no_run_is_bounded(client: Client, sql: Sql) -> None:
    for n in range(5):
        with pytest.raises(WorkflowNotFound):
            client.handle(f"nope-{n}").cancel()
    client.start(flows.steps, 1, id="w").cancel()
    sql.execute("select durable.forget_strays(2, 100)")
    assert {it.workflow_id for it in client.commands()} == {"nope-3", "nope-4", "w"}


def test_a_late_answer_of_a_job_is_evidence_of_it(client: Client, sql: Sql) -> None:
    """C5: a worker that was declared dead answers; so is a command that was refused."""
    job = client.enqueue(flows.quick, 1)
    worker = "00000000-0000-7000-8000-00000000000b"
    late = "select durable.complete_jobs(%s, array[durable.shard_of(%s)], array[%s]::uuid[], array[1], array['1']::json[])"
    sql.execute(late, (worker, job.job_id, job.job_id))
    job.cancel()
    job.cancel(actor="ann")
    command, outcome = job.evidence()
    assert (outcome.kind, outcome.status, outcome.detail["worker"]) == ("outcome", "OutcomeRefused", worker)  # fmt: skip
    assert (command.kind, command.name, command.status, command.actor) == ("command", "cancel_job", "job_ended", "ann")  # fmt: skip
    assert len(client.handle(job.job_id).evidence()) == 2, "as the command line asks"


def test_a_refusal_shows_in_the_evidence(client: Client) -> None:
    handle = client.start(flows.steps, 1, id="w")
    handle.terminate("enough", actor="ann")
    with pytest.raises(WorkflowClosed):
        handle.pause("why not", actor="bob")
    (it,) = handle.evidence()
    assert (it.kind, it.name, it.status, it.actor) == ("command", "pause", "workflow_closed", "bob")


# -- recoveries ---------------------------------------------------------------------------------------------------------


def test_a_recovery_groups_what_was_commanded_in_it(client: Client, sql: Sql) -> None:
    """S108: workflows, jobs, queues, accepted and refused; what comes before and after is none of it."""
    handle = client.start(flows.steps, 1, id="w")
    handle.pause("before")
    with client.recovery("a bad release", actor="ann", note="rolled back") as recovery_id:
        handle.resume("go on")
        client.queue("q").pause()
        client.enqueue(flows.quick, 1).cancel()
        with pytest.raises(WorkflowNotFound):
            client.handle("nope").cancel()
        assert client.recoveries()[0].ended_at is None
    handle.terminate("after")
    assert log(client, recovery_id=recovery_id) == [
        ("resume", "accepted", None),
        ("pause_queue", "accepted", None),
        ("cancel_job", "accepted", None),
        ("cancel", "unknown_workflow", None),
    ]
    (record,) = client.recoveries()
    assert (record.reason, record.actor, record.note) == ("a bad release", "ann", "rolled back")
    assert (record.accepted, record.refused, record.ended_at is not None) == (3, 1, True)


def test_a_recovery_joins_the_callers_transaction_and_leaves_it(
    client: Client, database_url: str
) -> None:
    handle = client.start(flows.steps, 1, id="w")
    with psycopg.connect(database_url) as mine:
        with client.recovery("by hand") as recovery_id:
            handle.terminate("in it", connection=mine)
        client.start(flows.steps, 1, id="v", connection=mine).terminate("after", connection=mine)
        mine.commit()
    commands = client.commands(recovery_id=recovery_id)
    assert [(it.workflow_id, it.action) for it in commands] == [("w", "terminate")]
    assert len(client.commands()) == 2


def test_a_recovery_that_has_ended_is_not_joined(client: Client, database_url: str) -> None:
    recovery_id = client.begin_recovery("a fire")
    with Client(database_url) as other:
        assert other.join_recovery(recovery_id).reason == "a fire"
        other.start(flows.steps, 1, id="w").cancel()
    assert len(client.commands(recovery_id=recovery_id)) == 1
    client.end_recovery(recovery_id)
    with pytest.raises(InvalidOption, match="has ended"):
        client.join_recovery(recovery_id)
    with pytest.raises(InvalidOption, match="does not exist"):
        client.join_recovery("00000000-0000-7000-8000-000000000000")


def test_the_asynchronous_client_has_the_same(database_url: str) -> None:
    async def look() -> None:
        async with AsyncClient(database_url) as client:
            handle = await client.start(flows.listens, 2, id="l")
            async with client.recovery("a look") as recovery_id:
                await handle.cancel("enough")
            assert len(await client.commands(recovery_id=recovery_id)) == 1
            assert [it.became for it in await handle.cancel_requests()] == ["delivered"]
            assert [it.kind for it in await handle.evidence()] == ["cancel"]

    asyncio.run(look())
