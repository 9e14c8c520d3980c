"""`durable.testing` without a database: modes, drain, perform, assertions, and that contexts do not mix (S150)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from durable import (
    ActivityError,
    BulkRefused,
    InvalidOption,
    JobCancelled,
    PayloadError,
    Unique,
    activity,
)
from durable.client_async import AsyncClient
from durable.client_sync import Client
from durable.testing import (
    all_enqueued,
    assert_enqueued,
    inline,
    manual,
    perform,
    refute_enqueued,
)
from tests.testing.kit_flows import always_fails, client, dozes, post_card, post_many, sent, stamps


@pytest.fixture(autouse=True)
def nothing_sent() -> Iterator[None]:
    sent.clear()
    yield
    sent.clear()


def test_manual_keeps_jobs_until_they_are_drained() -> None:
    with manual() as jobs:
        handle = client.enqueue(post_card, "ann")
        assert (handle.created, handle.describe().state, sent) == (True, "available", [])
        with pytest.raises(TimeoutError, match="drain"):
            handle.result()
        assert jobs.drain() == {"completed": 1}
        assert (handle.result(), sent) == ("hi, ann", ["ann"])


def test_drain_runs_what_jobs_enqueue_and_leaves_what_is_not_due() -> None:
    with manual() as jobs:
        client.enqueue(post_many, ["ann", "bob"])
        later = client.enqueue(post_card, "cat", delay=60)
        assert jobs.drain() == {"completed": 3, "scheduled": 1}
        assert sent == ["ann", "bob"]
        assert jobs.drain(with_scheduled=True) == {"completed": 4}
        assert later.result() == "hi, cat"


def test_drain_of_one_queue_by_priority() -> None:
    with manual() as jobs:
        client.enqueue(post_many, [])
        client.enqueue(post_card, "last", priority=5)
        client.enqueue(post_card, "first", priority=1)
        assert jobs.drain(queue="post") == {"available": 1, "completed": 2}
    assert sent == ["first", "last"]


def test_failures_snoozes_and_cancels_end_as_in_the_database() -> None:
    with manual() as jobs:
        failing, dozing = client.enqueue(always_fails), client.enqueue(dozes)
        assert jobs.drain() == {"retryable": 1, "scheduled": 1}
        assert jobs.drain(with_scheduled=True) == {"discarded": 1, "cancelled": 1}
        assert [(it.attempt, str(it.error)) for it in failing.attempts()] == [
            (1, "not here"),
            (2, "not here"),
        ]
        with pytest.raises(ActivityError) as ended:
            dozing.result()
    assert isinstance(ended.value.cause, JobCancelled)
    assert (dozing.describe().attempt, dozing.describe().snoozes) == (1, 2)


def test_a_drain_without_end_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("durable.recorded_jobs.MOST_RUNS", 50)

    @activity
    def calls_itself() -> None:
        client.enqueue(calls_itself)

    with manual() as jobs:
        client.enqueue(calls_itself)
        with pytest.raises(InvalidOption, match="for ever"):
            jobs.drain()


def test_inline_runs_at_once_and_shows_failures() -> None:
    with inline() as jobs:
        assert client.enqueue(post_card, "ann").result() == "hi, ann"
        client.enqueue(post_many, ["bob"])
        assert sent == ["ann", "bob"]
        with pytest.raises(LookupError, match="not here"):
            client.enqueue(always_fails)
        assert client.enqueue(post_card, "cat", delay=60).describe().state == "completed"
        assert len(jobs) == 5
    with inline(raises=False):
        handle = client.enqueue(always_fails)
        assert handle.describe().state == "retryable"


def test_bad_arguments_are_refused_as_ever() -> None:
    with manual() as jobs:
        with pytest.raises(PayloadError, match="to"):
            client.enqueue(post_card, 5)  # type: ignore[arg-type]
        with pytest.raises(BulkRefused) as refused:
            client.enqueue_many(post_card, [("a",), (5,)])
        assert ([index for index, _ in refused.value.errors], len(jobs)) == ([1], 0)


def test_unique_jobs_conflict_in_memory_too() -> None:
    with manual() as jobs:
        first = client.enqueue(post_card, "ann", unique=Unique())
        assert client.enqueue(post_card, "ann", unique=Unique()).job_id == first.job_id
        done = client.enqueue_many(post_card, [("bob",), ("ann",)], unique=Unique())
        assert (done.created, [it.index for it in done.conflicts]) == (1, [1])
        jobs.drain()
        assert client.enqueue(post_card, "ann", unique=Unique()).created


def test_perform_runs_one_attempt_with_json_in_between() -> None:
    done = perform(post_card, "ann", text="hello")
    assert (done.state, done.result, done.attempt) == ("completed", "hello, ann", 1)
    assert isinstance(perform(always_fails).error, LookupError)
    snoozed = perform(dozes)
    assert (snoozed.state, snoozed.snoozes) == ("scheduled", 1)
    with pytest.raises(PayloadError, match="to"):
        perform(post_card, 5)
    with manual():
        client.enqueue(post_card, "bob")
        assert perform(assert_enqueued()).result == "hi, bob"  # type: ignore[arg-type]


def test_assertions_find_by_facts_and_say_what_is_there() -> None:
    at = datetime.now(UTC) + timedelta(hours=1)
    with manual():
        client.enqueue(
            post_card, "ann", tags=["x"], meta={"a": {"b": 1, "c": 2}}, priority=3, at=at
        )
        client.enqueue(post_card, "bob")
        found = assert_enqueued(
            post_card, arguments={"to": "ann"}, tags=["X"], meta={"a": {"b": 1}}, priority=3
        )
        assert found.arguments == {"to": "ann"}
        assert_enqueued("post_card", count=2, queue="post")
        assert_enqueued(at=at + timedelta(seconds=0.5))
        refute_enqueued(at=at + timedelta(seconds=2))
        refute_enqueued(post_many)
        assert [it.arguments["to"] for it in all_enqueued()] == ["ann", "bob"]
        with pytest.raises(AssertionError, match=r"arguments=.*'cat'(.|\n)*'bob'"):
            assert_enqueued(post_card, arguments={"to": "cat"})
        with pytest.raises(AssertionError, match="expected 3 jobs"):
            assert_enqueued(count=3)
        with pytest.raises(AssertionError, match="expected no job"):
            refute_enqueued(post_card, arguments={"to": "ann"})
    with pytest.raises(InvalidOption, match="manual"):
        assert_enqueued()


def test_assertions_on_a_database(database_url: str) -> None:
    with Client(database_url) as real:
        real.enqueue(post_card, "ann")
        real.enqueue(post_card, "bob").cancel()
        assert (
            assert_enqueued(post_card, arguments={"to": "ann"}, client=real, count=1).state
            == "available"
        )
        refute_enqueued(arguments={"to": "bob"}, client=real)


def test_contexts_do_not_mix() -> None:
    """Tasks started in a mode share it; other tasks and threads have none, or their own."""
    seen: dict[str, int] = {}

    async def of_one_test(name: str, count: int) -> None:
        with manual() as jobs:
            real = AsyncClient("postgresql://nobody@localhost:1/nothing")
            async with asyncio.TaskGroup() as group:
                for number in range(count):
                    group.create_task(real.enqueue(post_card, f"{name} {number}"))
            seen[name] = len(jobs)

    async def both() -> None:
        await asyncio.gather(of_one_test("a", 3), of_one_test("b", 5))

    asyncio.run(both())
    with manual() as jobs:
        thread = threading.Thread(target=lambda: asyncio.run(of_one_test("c", 2)))
        thread.start()
        thread.join()
        assert len(jobs) == 0
    assert seen == {"a": 3, "b": 5, "c": 2}


def test_an_async_client_runs_async_activities_in_its_own_loop() -> None:
    loops: list[object] = []

    @activity
    async def notes_its_loop() -> None:
        loops.append(asyncio.get_running_loop())

    async def enqueues() -> bool:
        with inline():
            await AsyncClient("postgresql://nobody@localhost:1/nothing").enqueue(notes_its_loop)
            client.enqueue(notes_its_loop)
        return loops[0] is asyncio.get_running_loop() is not loops[1]

    assert asyncio.run(enqueues())


def test_a_transactional_activity_is_sent_to_the_environment() -> None:
    @activity(transactional=True)
    def writes(connection: psycopg.Connection[Any]) -> None: ...

    with pytest.raises(InvalidOption, match="environment"):
        perform(writes)


def test_a_chunk_may_answer_for_its_job_and_heartbeats_are_json() -> None:
    with manual() as jobs:
        handle = client.enqueue(stamps, ["a", "b"])
        assert jobs.drain() == {"retryable": 1}
        assert jobs.drain(with_scheduled=True) == {"completed": 1}
        assert handle.result() == ["({'done': [1]},)", "({'done': [1]},)"]
