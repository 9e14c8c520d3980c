"""The small samples, each run for real: a worker in the background, a database, a client."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from durable import Client, WorkflowCancelled
from durable.handles_sync import Handle
from samples import (
    clean_up,
    hello,
    host_files,
    newsletter,
    polling,
    recipe,
    sliding_window,
    thumbnails,
    updatable_timer,
)
from samples.recipe import AtOnce, Do, InOrder, Recipe
from samples.updatable_timer import Alarm
from tests.samples.conftest import Working
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]


def advance(sql: Sql, by: str) -> None:
    sql.execute("select durable.advance_clock(%s::interval)", (by,))


def types(handle: Handle[Any]) -> list[str]:
    return [event.type for event in handle.history()]


def waits(handle: Handle[Any], event: str) -> None:
    """Wait until the newest event of the run is of this type."""
    eventually(lambda: types(handle)[-1] == event, what=event)


def test_hello(client: Client, working: Working) -> None:
    with working("samples.hello"):
        assert client.start(hello.greet, "Ada").result(timeout=30) == "Good day, Ada"
        formal = client.start(hello.greet_in_tone, "Ada", hello.Tone.FORMAL)
        casual = client.start(hello.greet_in_tone, "Ada", hello.Tone.CASUAL)
        assert formal.result(timeout=30) == "Good day, Ada"
        assert casual.result(timeout=30) == "Hi Ada"
        names = ["Ada", "Grace", "Mary", "Joan", "Jean"]
        everybody = client.start(hello.greet_all, names).result(timeout=30)
        assert everybody == [f"Hi {name}" for name in names]


def test_what_fails_at_first_is_tried_again_and_leaves_two_events(
    client: Client, working: Working
) -> None:
    with working("samples.hello"):
        handle = client.start(hello.greet_stubbornly, "Ada", 3)
        assert handle.result(timeout=30) == "Hello Ada, at last"
    assert types(handle).count("ActivityScheduled") == types(handle).count("ActivityCompleted") == 1


def test_a_cancelled_run_frees_its_room(client: Client, working: Working) -> None:
    with working("samples.clean_up"):
        handle = client.start(clean_up.stay, "Ada", 30)
        waits(handle, "TimerStarted")
        handle.cancel("she is ill")
        with pytest.raises(WorkflowCancelled):
            handle.result(timeout=30)
    called = [e.body["name"] for e in handle.history() if e.type == "ActivityScheduled"]
    assert called == ["book_room", "free_room"]


def test_a_newsletter_has_a_child_for_each_reader_and_a_run_for_each_issue(
    client: Client, working: Working, sql: Sql
) -> None:
    with working("samples.newsletter"):
        handle = client.start(newsletter.run_newsletter, ["Ada", "Grace"], 3, id="weekly")
        sent = "select 1 from durable.runs where workflow_id = %s and status = 'completed'"
        for issue in (1, 2):
            eventually(lambda issue=issue: sql.execute(sent, (f"issue-{issue}",)).fetchone())  # type: ignore[misc]
            waits(client.handle("weekly"), "TimerStarted")
            advance(sql, "7 days")
        assert handle.result(timeout=30) == 3
    runs = sql.execute("select status from durable.runs where workflow_id = 'weekly'").fetchall()
    assert sorted(runs) == [("completed",), ("continued",), ("continued",)]
    assert client.handle("issue-2-Grace").result(timeout=1) == "issue 2 to Grace"


def test_a_background_job_needs_no_workflow(client: Client, working: Working) -> None:
    with working("samples.thumbnails"):
        job = client.enqueue(thumbnails.make_thumbnail, "cat.png", 64)
        assert job.result(timeout=30) == "cat-64.png"


def test_a_decorator_heartbeats_for_a_function_that_does_not(
    client: Client, working: Working, sql: Sql
) -> None:
    thumbnails.finish_film.clear()
    with working("samples.thumbnails"):
        try:
            job = client.enqueue(thumbnails.encode_film, "metropolis")
            beat = "select heartbeat from durable.jobs where heartbeat is not null"
            eventually(lambda: sql.execute(beat).fetchone() is not None)
        finally:
            thumbnails.finish_film.set()
        assert job.result(timeout=30) == "metropolis.mp4"


def test_a_window_slides_over_many_children(client: Client, working: Working, sql: Sql) -> None:
    with working("samples.sliding_window"):
        handle = client.start(sliding_window.process_batch, 40, 4, 15, id="batch")
        assert handle.result(timeout=60) == sum(range(40))
    parents = sql.execute(
        "select count(*) from durable.runs where workflow_id = 'batch'"
    ).fetchone()
    assert parents == (3,)


def test_a_recipe_is_followed(client: Client, working: Working) -> None:
    onion = Do(activity="chop", take="onion", give="onion")
    carrot = Do(activity="chop", take="carrot", give="carrot")
    dish = Do(activity="fry", take="onion", give="dish")
    root = InOrder(steps=[AtOnce(branches=[onion, carrot]), dish])
    with working("samples.recipe"):
        cooked = client.start(
            recipe.cook, Recipe(variables={"onion": "onion", "carrot": "carrot"}, root=root)
        ).result(timeout=30)
    assert cooked == {
        "onion": "chopped onion",
        "carrot": "chopped carrot",
        "dish": "fried chopped onion",
    }


@pytest.mark.parametrize("workflow", [polling.wait_often, polling.wait_with_a_rhythm])
def test_polling_finds_the_answer(
    client: Client, working: Working, sql: Sql, tmp_path: Path, workflow: Any
) -> None:
    answer = tmp_path / "answer"
    with working("samples.polling"):
        handle = client.start(workflow, str(answer))
        if workflow is polling.wait_with_a_rhythm:
            child = eventually(lambda: client.list(workflow="poll_in_rounds"))[0]
            waits(client.handle(child.workflow_id), "TimerStarted")
        else:
            waits(handle, "ActivityScheduled")
        answer.write_text("42", encoding="utf-8")
        if workflow is polling.wait_with_a_rhythm:
            advance(sql, "1 hour")
        assert handle.result(timeout=30) == "42"


def test_polling_seldom_costs_attempts_and_no_history(
    client: Client, working: Working, sql: Sql, tmp_path: Path
) -> None:
    answer = tmp_path / "answer"
    with working("samples.polling"):
        handle = client.start(polling.wait_seldom, str(answer))
        for attempt in (1, 2):
            failed = f"select 1 from durable.jobs where state = 'retryable' and attempt = {attempt}"
            eventually(lambda failed=failed: sql.execute(failed).fetchone())  # type: ignore[misc]
            if attempt == 2:
                answer.write_text("42", encoding="utf-8")
            advance(sql, "2 minutes")
        assert handle.result(timeout=30) == "42"
    assert len(types(handle)) == 4


def test_an_alarm_is_moved_while_its_run_sleeps(client: Client, working: Working, sql: Sql) -> None:
    row = sql.execute("select durable.now()").fetchone()
    assert row is not None
    at = row[0] + timedelta(days=10)
    with working("samples.updatable_timer"):
        handle = client.start(updatable_timer.sleep_until, Alarm(at=at))
        waits(handle, "TimerStarted")
        handle.signal(updatable_timer.set_alarm, Alarm(at=at - timedelta(days=8)))
        eventually(lambda: types(handle).count("TimerStarted") == 2)
        advance(sql, "3 days")
        woke = handle.result(timeout=30)
    assert at - timedelta(days=8) <= woke < at


def test_the_steps_after_the_first_run_on_its_host(
    client: Client, working: Working, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOST_FOLDER", str(tmp_path))
    monkeypatch.setenv("HOST_QUEUE", "host-a")
    with working("samples.host_files", queues={"default": 5, "host-a": 5}):
        handle = client.start(host_files.process_file, "abc")
        assert handle.result(timeout=30) == 9
    scheduled = [e.body for e in handle.history() if e.type == "ActivityScheduled"]
    assert [it["queue"] for it in scheduled] == ["default", "host-a", "host-a"]
    assert list(tmp_path.iterdir()) == []


def test_a_lost_host_is_left_for_another_one(
    client: Client, working: Working, sql: Sql, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOST_FOLDER", str(tmp_path))
    monkeypatch.setenv("HOST_QUEUE", "host-gone")
    with working("samples.host_files", queues={"default": 5, "host-b": 5}):
        handle = client.start(host_files.process_file, "abc")
        waiting = "select 1 from durable.jobs where queue = 'host-gone' and state = 'available'"
        eventually(lambda: sql.execute(waiting).fetchone())
        monkeypatch.setenv("HOST_QUEUE", "host-b")
        advance(sql, "6 minutes")
        assert handle.result(timeout=30) == 9
