"""Reset, retry and fork on a real database, with live owners and crashes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg
import pytest

from durable.client_sync import Client
from durable.errors import OperationRefused, WorkflowFailed, WorkflowNotFound
from durable.handles_sync import Handle
from tests.system import mending_flows as flows
from tests.system.conftest import Working
from tests.system.gates import gate
from tests.system.invariants import assert_sound
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]
MODULE = flows.__name__


@pytest.fixture(autouse=True)
def unbroken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows, "broken", {"charge": True, "code": True})


def types(handle: Handle[Any]) -> list[str]:
    return [event.type for event in handle.history()]


def times(sql: Sql, name: str) -> int:
    row = sql.execute("select count(*) from system.executions where name = %s", (name,)).fetchone()
    assert row is not None
    return int(row[0])


def said(handle: Handle[Any], text: str, *, after: int, dedupe_key: str | None = None) -> None:
    """Signal a run once it waits, after so many completed activities."""
    eventually(lambda: types(handle).count("ActivityCompleted") == after)
    handle.signal(flows.word, text, dedupe_key=dedupe_key)


def failed_order(client: Client, workflow_id: str) -> Handle[Any]:
    handle = client.start(flows.order_flow, 10, id=workflow_id)
    with pytest.raises(WorkflowFailed):
        handle.result(timeout=20)
    return handle


def test_retry_runs_the_failed_activity_again_and_nothing_else(
    working: Working, client: Client, sql: Sql
) -> None:
    """Also not the sibling that had completed meanwhile. It is another attempt at the same call: its idempotency key stays."""
    with working(MODULE):
        failed_order(client, "order")
        before = times(sql, "noted")
        flows.broken["charge"] = False
        handle = client.handle("order")
        receipt = handle.retry("the bank is open again", actor="ann")
        assert handle.result(timeout=20) == ["first", 10, "beside"]
    assert times(sql, "noted") == before == 2
    keys = sql.execute(
        "select distinct idempotency_key from system.executions where name = 'charges'"
    )
    assert len(keys.fetchall()) == 1
    run = handle.describe()
    assert (run.run_id, run.generation) == (receipt.run_id, 1)
    (command,) = handle.commands()
    assert (command.action, command.actor, command.reason) == (
        "retry",
        "ann",
        "the bank is open again",
    )
    assert command.before["status"] == "failed"
    assert command.after["run_id"] == receipt.run_id
    assert_sound(sql)


def test_retry_after_a_fix_of_the_code_decides_the_last_turn_again(
    working: Working, client: Client, sql: Sql
) -> None:
    """The activity and the signal before the bug are not asked for again."""
    with working(MODULE):
        handle = client.start(flows.has_a_bug, "hello", id="buggy")
        eventually(lambda: types(handle)[-1] == "ActivityCompleted")
        handle.signal(flows.word, "world")
        with pytest.raises(WorkflowFailed):
            handle.result(timeout=20)
        flows.broken["code"] = False
        receipt = client.handle("buggy").retry("fixed in 1.2")
        assert receipt.discarded == {}
        assert client.handle("buggy").result(timeout=20) == "hello world"
        assert times(sql, "noted") == 1
        assert [it.status for it in handle.signals()] == ["replayed"]
        assert [it.status for it in client.handle("buggy").signals()] == ["delivered"]


@pytest.mark.parametrize("how", ["cancelled", "terminated"])
def test_retry_takes_back_a_cancel_or_terminate(
    working: Working, client: Client, sql: Sql, how: str
) -> None:
    with working(MODULE):
        handle = client.start(flows.words, 1, id=how)
        eventually(lambda: types(handle)[-1] == "ActivityCompleted")
        if how == "cancelled":
            handle.cancel("by mistake")
        else:
            handle.terminate("by mistake")
        assert handle.outcome(timeout=20).status == how
        again = client.handle(how)
        again.retry("that was a mistake")
        again.signal(flows.word, "still here")
        assert again.result(timeout=20) == ["still here"]
        assert again.describe().cancel_requested_at is None
        assert times(sql, "noted") == 1
    assert_sound(sql)


def test_a_reset_of_an_open_run_goes_on_from_the_point_and_handles_follow(
    working: Working, client: Client, sql: Sql
) -> None:
    """The run's own handle too: it is continued by the new one, not terminated. Its owner is alive and loses it (C2)."""
    with working(MODULE):
        handle = client.start(flows.words, 3, id="reset")
        for completed, text in enumerate(("one", "two"), 1):
            said(handle, text, after=completed)
        eventually(lambda: types(handle).count("ActivityCompleted") == 3)
        receipt = handle.reset("again", to_event=4, actor="ann")
        assert receipt.signals_sent_again == 2
        assert receipt.discarded == {"noted": 2}
        assert receipt.from_run_id == handle.run_id
        handle.signal(flows.word, "three")
        assert handle.result(timeout=20) == ["one", "two", "three"]
    history = client.handle("reset").history()
    assert history[0].body["reset"]["actor"] == "ann"
    assert (history[0].body["reset"]["event"], history[0].body["reset"]["run_id"]) == (
        4,
        handle.run_id,
    )
    last = handle.history()[-1]
    assert (last.type, last.body["reason"], last.body["run_id"]) == (
        "WorkflowReset",
        "again",
        receipt.run_id,
    )
    assert_sound(sql)


def test_signals_after_the_point_may_be_left_out(
    working: Working, client: Client, sql: Sql
) -> None:
    """They are dropped with the reason, and the same dedupe key may be used again; those before the point hold theirs."""
    with working(MODULE):
        handle = client.start(flows.words, 2, id="left-out")
        said(handle, "kept", after=1, dedupe_key="a")
        eventually(lambda: types(handle).count("ActivityCompleted") == 2)
        point = handle.history()[-1].seq
        handle.signal(flows.word, "wrong", dedupe_key="b")
        assert handle.result(timeout=20) == ["kept", "wrong"]
        again = client.handle("left-out")
        assert (
            again.reset("a wrong word", to_event=point, reapply_signals=False).signals_sent_again
            == 0
        )
        assert again.signal(flows.word, "kept", dedupe_key="a").status == "duplicate"
        assert again.signal(flows.word, "right", dedupe_key="b").status == "buffered"
        assert again.result(timeout=20) == ["kept", "right"]
    left = [(it.status, it.reason) for it in handle.signals() if it.dedupe_key == "b"]
    assert left == [("dropped", f"reset to event {point} without it")]
    assert_sound(sql)


def test_timers_have_as_much_time_left_as_at_the_point(
    working: Working, client: Client, sql: Sql
) -> None:
    """A run that is taken up again after a week must not find its three days over; "original" asks for just that."""
    with working(MODULE):
        handle = client.start(flows.sleeps_and_notes, 3600, id="asleep")
        eventually(lambda: "TimerStarted" in types(handle))
        sql.execute("select durable.advance_clock('2 hours')")
        assert handle.result(timeout=20) == "after"
        again = client.handle("asleep")
        again.reset("once more", to_event=4)
        (timer,) = eventually(again.pending)
        assert timer.next_at is not None
        left = (timer.next_at - timer.created_at).total_seconds()
        assert 3500 < left <= 3600
        assert types(again)[-1] == "TimerStarted"
        again.reset("as it was", to_event=4, timers="original")
        assert again.result(timeout=20) == "after"
    assert_sound(sql)


def test_points_by_name(working: Working, client: Client, sql: Sql) -> None:
    with working(MODULE):
        failed_order(client, "named")
        handle = client.handle("named")
        first = handle.reset("a", to_first_failure=True)
        assert handle.outcome(timeout=20).status == "failed"
        second = handle.reset("b", before_activity="charges")
        assert second.event == 3
        assert first.event >= second.event
        with pytest.raises(OperationRefused, match="durable history named") as refused:
            handle.reset("c", before_activity="nothing_of_that_name")
        assert refused.value.code == "no_such_point"
        with pytest.raises(OperationRefused):
            handle.reset("d", to_event=999)
        assert handle.outcome(timeout=20).status == "failed"
        with pytest.raises(WorkflowNotFound):
            client.handle("nobody").reset("e", to_event=1)
    codes = [(it.reason, it.code) for it in handle.commands()]
    assert codes == [
        ("d", "no_such_point"),
        ("c", "no_such_point"),
        ("b", "accepted"),
        ("a", "accepted"),
    ]
    assert_sound(sql)


def test_what_cannot_be_retried_says_what_can_be_done(working: Working, client: Client) -> None:
    with working(MODULE):
        handle = client.start(flows.words, 1, id="not-yet")
        with pytest.raises(OperationRefused, match="durable reset not-yet --to-event N") as running:
            handle.retry("why not")
        handle.signal(flows.word, "done")
        assert handle.result(timeout=20) == ["done"]
        with pytest.raises(OperationRefused) as completed:
            client.handle("not-yet").retry("why not")
    assert (running.value.code, completed.value.code) == ("workflow_running", "workflow_completed")


def test_a_fork_goes_its_own_way_and_the_original_is_untouched(
    working: Working, client: Client, sql: Sql
) -> None:
    """Its activities have keys of their own, and it gets the signals after the point only if asked."""
    with working(MODULE):
        handle = client.start(flows.words, 2, id="original")
        said(handle, "one", after=1)
        eventually(lambda: types(handle).count("ActivityCompleted") == 2)
        before, signals = handle.history(), handle.signals()
        fork = handle.fork("copy", "what if", to_event=3)
        assert handle.history() == before
        assert handle.signals() == signals
        for text in ("eins", "zwei"):
            fork.signal(flows.word, text)
        assert fork.result(timeout=20) == ["eins", "zwei"]
        heard = handle.fork("copy-2", "with what it heard", to_event=3, reapply_signals=True)
        heard.signal(flows.word, "drei")
        assert heard.result(timeout=20) == ["one", "drei"]
        handle.signal(flows.word, "two")
        assert handle.result(timeout=20) == ["one", "two"]
        with pytest.raises(OperationRefused) as refused:
            handle.fork("copy", "again", to_event=3)
        assert refused.value.code == "id_in_use"
    assert fork.history()[0].body["reset"]["workflow_id"] == "original"
    assert_sound(sql)


def test_an_attempt_under_way_loses_its_say(
    working: Working, system_url: str, client: Client, sql: Sql
) -> None:
    with working(MODULE), gate(system_url, 1) as held:
        handle = client.start(flows.waits_at_a_gate, 1, id="under-way")
        held.wait_for(1)
        handle.reset("it hangs", to_event=2)
        held.wait_for(2)
        held.open()
        assert handle.result(timeout=20) == "1"
    keys = sql.execute("select idempotency_key from system.executions where name = 'behind_a_gate'")
    assert len({row[0] for row in keys.fetchall()}) == 1
    assert_sound(sql)


def test_children_pending_at_the_point_are_kept(working: Working, client: Client, sql: Sql) -> None:
    """One that is open is the new run's; one that has ended by itself meanwhile tells the new run how."""
    with working(MODULE):
        handle = client.start(flows.parent_of_mended, 1, id="family")
        eventually(lambda: types(handle)[-1] == "ActivityCompleted")
        child = client.handle("family/child_of_mended-1")
        eventually(lambda: child.describe().status == "running")
        handle.reset("once", to_event=3)
        assert child.describe().generation == 0
        child.signal(flows.word, "hello")
        assert child.result(timeout=20) == "child heard hello"
        eventually(lambda: "ChildCompleted" in types(client.handle("family")))
        client.handle("family").reset("and again", to_event=3)
        client.handle("family").signal(flows.word, "parent")
        assert client.handle("family").result(timeout=20) == ["parent", "child heard hello"]
    assert_sound(sql)


def test_children_that_ended_with_their_parent_are_started_again(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(MODULE):
        handle = client.start(flows.parent_of_mended, 1, id="family")
        eventually(lambda: types(handle)[-1] == "ActivityCompleted")
        handle.terminate("by mistake")
        child = client.handle("family/child_of_mended-1")
        assert child.outcome(timeout=20).status == "terminated"
        again = client.handle("family")
        again.retry("that was a mistake")
        eventually(lambda: child.describe().generation == 1)
        child.signal(flows.word, "hello")
        again.signal(flows.word, "parent")
        assert again.result(timeout=20) == ["parent", "child heard hello"]
        fork = again.fork("cousins", "what if", to_event=3)
        client.handle("cousins/2").signal(flows.word, "fork")
        fork.signal(flows.word, "parent 2")
        assert fork.result(timeout=20) == ["parent 2", "child heard fork"]
    assert_sound(sql)


def test_children_started_after_the_point_end_with_the_old_run(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(MODULE):
        handle = client.start(flows.parent_of_mended, 1, id="family")
        eventually(lambda: types(handle)[-1] == "ActivityCompleted")
        child = client.handle("family/child_of_mended-1")
        first = child.describe().run_id
        handle.reset("from the start", to_event=1)
        eventually(lambda: child.describe().run_id != first)
        child.signal(flows.word, "hello")
        handle.signal(flows.word, "parent")
        assert handle.result(timeout=20) == ["parent", "child heard hello"]
        ended = sql.execute(
            "select status from durable.runs where run_id = %s", (first,)
        ).fetchone()
    assert ended == ("terminated",)
    assert_sound(sql)


def test_a_command_sent_again_is_done_once(working: Working, client: Client, sql: Sql) -> None:
    """Its answer was lost: the same run is named again, and there is one row in the log."""
    from durable.interventions import Point
    from durable.store import operations

    with working(MODULE):
        handle = client.start(flows.words, 1, id="twice")
        eventually(lambda: types(handle)[-1] == "ActivityCompleted")
        given = operations.order("twice", "again", None)
        options = operations.RewindOptions("reset")
        first = handle._rewind(Point(to_event=1), options, given)
        second = handle._rewind(Point(to_event=1), options, given)
        assert second.run_id == first.run_id
        assert len(handle.commands()) == 1
        handle.terminate("enough")
    assert_sound(sql)


def test_owners_under_load_are_not_hurt_by_resets(
    working: Working, client: Client, sql: Sql
) -> None:
    """Runs are reset while they run as fast as they can: each ends as a fresh one would, and nothing is left of the former ones (C2, C3)."""
    with working(MODULE), working(MODULE):
        handles = [client.start(flows.ticks, 20, id=f"load-{n}") for n in range(8)]
        for round_ in range(3):
            for handle in handles:
                newest = client.handle(handle.workflow_id).describe()
                point = min(1 + 2 * round_, newest.last_seq)
                handle.reset("load", to_event=point)
        assert [handle.result(timeout=60) for handle in handles] == [20] * 8
    assert_sound(sql)


def test_updates_after_the_point_are_done_again_and_those_before_it_stay(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(MODULE):
        handle = client.start(flows.counts_updates, 10, id="updates")
        eventually(lambda: types(handle)[-1] == "ActivityCompleted")
        assert handle.update("add", 1, id="first") == 1
        point = handle.history()[-1].seq
        assert handle.update("add", 2, id="second") == 3
        handle.reset("again", to_event=point)
        again = client.handle("updates")
        eventually(lambda: types(again).count("UpdateCompleted") == 2)
        assert handle.update("add", 1, id="first") == 1
        assert handle.update("add", 7, id="third") == 10
        assert handle.result(timeout=20) == [1, 2, 7]
        other = again.reset("without", to_event=point, reapply_signals=False)
        assert again.update("add", 9, id="ninth") == 10
        assert again.result(timeout=20) == [1, 9]
        assert again.describe().run_id == other.run_id
    assert_sound(sql)


def test_a_run_that_ran_out_of_time_gets_its_time_anew(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(MODULE):
        handle = client.start(flows.words, 1, id="late", run_timeout=timedelta(hours=1))
        eventually(lambda: types(handle)[-1] == "ActivityCompleted")
        sql.execute("select durable.advance_clock('2 hours')")
        assert handle.outcome(timeout=20).status == "failed"
        again = client.handle("late")
        again.retry("it was our fault")
        deadline, created = again.describe().deadline_at, again.describe().created_at
        assert deadline is not None
        assert 3500 < (deadline - created).total_seconds() <= 3600
        again.pause("hold it")
        sql.execute("select durable.advance_clock('2 hours')")
        assert again.describe().deadline_at is None
        again.resume()
        again.signal(flows.word, "in time")
        assert again.result(timeout=20) == ["in time"]
    assert_sound(sql)
