"""Eager start: what a worker's own client starts or enqueues is the worker's from the beginning, or an ordinary start (worker/durable_worker/eager_client.py).

A trigger of the test's writes down how each run and each job was born: with an owner, or for anybody to claim.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from durable import (
    Compression,
    Payloads,
    Unique,
    WorkflowAlreadyExists,
    WorkflowTerminated,
)
from durable.client_async import AsyncClient
from durable.client_sync import Client
from durable_worker import Worker, eager_client, queue_rules
from durable_worker.eager_client import EagerStarts
from tests.system import flows
from tests.system.background import SHORT
from tests.system.conftest import Working
from tests.system.eager_births import (
    FLOWS,
    GATE,
    Sending,
    Sql,
    all_done,
    beside,
    born,
    executions,
    sending,
    suspects,
    watch_births,
)
from tests.system.eager_flows import (
    WHOSE,
    awaits_reply,
    pays,
    pays_in_time,
    renews,
    reply,
    stays_with_its_build,
    tells_whose,
    tells_whose_here,
)
from tests.system.gates import gate
from tests.system.invariants import assert_sound
from tests.waiting import eventually


@pytest.fixture(autouse=True)
def births(system_url: str, sql: Sql) -> None:
    watch_births(sql)


# -- taken --------------------------------------------------------------------------------------------------------------


def test_a_run_is_the_workers_from_the_beginning(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(*FLOWS) as background:

        async def start(client: AsyncClient) -> bool:
            handle = await client.start(awaits_reply, id="r")
            assert handle.created
            return background.worker.runs.get(str(handle.run_id)) is not None

        assert beside(background, start)  # it lives here when `start` returns
        owner = background.worker.worker_id
        assert born(sql) == [("run", owner, 1)]
        described = client.handle("r").describe()
        assert (described.status, described.last_seq) == ("running", 1) or described.last_seq > 1
        client.handle("r").signal(reply, "yes")
        assert client.handle("r").result(timeout=30) == "yes"
        assert sql.execute("select epoch from durable.runs").fetchall() == [(1,)]  # never claimed
    assert_sound(sql)


def test_a_job_is_the_workers_first_attempt_from_the_beginning(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(*FLOWS) as background, gate(os.environ["SYSTEM_DATABASE_URL"], GATE) as held:
        handle = beside(background, lambda c: c.enqueue(flows.gated, "a", GATE))
        assert (handle.created, handle.state) == (True, "executing")
        owner = background.worker.worker_id
        assert born(sql) == [("job", owner, 1)]
        held.wait_for(1)
        described = client.job(handle.job_id).describe()
        assert (described.state, described.attempt) == ("executing", 1)
        held.open()
        assert beside(background, lambda _: handle.result(timeout=30)) == "a"
    assert executions(sql, "a") == [1]
    assert client.job(handle.job_id).describe().attempt == 1  # never claimed


def test_nobody_is_woken_for_what_is_taken(
    working: Working, system_url: str, client: Client, sql: Sql
) -> None:
    with psycopg.connect(system_url, autocommit=True) as listener, working(*FLOWS) as background:
        listener.execute("listen durable")
        beside(background, lambda c: c.start(awaits_reply))
        beside(background, lambda c: c.enqueue(pays, "a"))
        client.enqueue(pays, "b")
        told = [note.payload for note in listener.notifies(timeout=20, stop_after=1)]
        assert told == ["jobs:default"]  # of the last alone
        assert [owner is None for _, owner, _ in born(sql)] == [False, False, True]


def test_it_starts_without_a_pass_of_the_intake(working: Working, sql: Sql) -> None:
    """No claim and no read of the inbox: a worker that asks once an hour has done it at once."""
    with working(*FLOWS, poll_s=3600.0, notify=False) as background:
        eventually(lambda: background.worker.intake.passes == 1)
        run = beside(background, lambda c: c.start(flows.quick_steps, 5))
        job = beside(background, lambda c: c.enqueue(pays, "a"))
        assert beside(background, lambda _: run.result(timeout=30)) == 10
        assert beside(background, lambda _: job.result(timeout=30)) == "a"
        assert background.worker.intake.passes == 1


def test_result_is_told_of_the_end(
    working: Working, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All who wait are; polling alone would come too late."""
    monkeypatch.setattr(eager_client, "LAST_POLL_S", 3600.0)
    with working(*FLOWS) as background:

        async def wait(client: AsyncClient) -> list[str]:
            handle = await client.start(awaits_reply, id="r")
            same = client.handle("r")
            same.run_id = handle.run_id
            return list(
                await asyncio.gather(*(h.result(timeout=30) for h in (handle, same, handle)))
            )

        waiting = sending(background, wait)
        waits = background.worker._starts._waiting  # type: ignore[union-attr]
        eventually(lambda: len(waits) == 1)
        client.handle("r").signal(reply, "yes")
        assert waiting.result(20) == ["yes"] * 3
        eventually(lambda: len(waits) == 0, what="no one is remembered who waits no more")


def test_result_of_a_run_that_ends_elsewhere(working: Working, client: Client) -> None:
    """Whoever waits looks now and then, for its end is not always told."""
    with working(*FLOWS, lease_s=60.0) as background:
        handle = beside(background, lambda c: c.start(awaits_reply, id="r"))
        waiting = sending(background, lambda _: handle.result(timeout=30))
        starts = background.worker._starts
        eventually(lambda: starts is not None and len(starts._waiting) == 1)
        client.handle("r").terminate("enough")
        with pytest.raises(WorkflowTerminated):
            waiting.result(20)


def test_result_gives_up_in_time(working: Working) -> None:
    with working(*FLOWS) as background:
        handle = beside(background, lambda c: c.start(awaits_reply, id="r"))
        with pytest.raises(TimeoutError, match="it goes on"):
            beside(background, lambda _: handle.result(timeout=0.05))


def test_result_of_a_run_that_continues_as_new(working: Working, sql: Sql) -> None:
    with working(*FLOWS) as background:
        handle = beside(background, lambda c: c.start(renews, 3))
        assert beside(background, lambda _: handle.result(timeout=30)) == 0


def test_the_taken_job_has_the_deadline_of_a_claimed_one(
    working: Working, client: Client, sql: Sql
) -> None:
    row = "select deadline_kind, extract(epoch from deadline_at - created_at)::int from durable.jobs where run_id = %s"
    with working(*FLOWS) as background, gate(os.environ["SYSTEM_DATABASE_URL"], GATE) as held:
        taken = beside(background, lambda c: c.enqueue(pays_in_time, GATE))
        claimed = client.enqueue(pays_in_time, GATE)
        held.wait_for(2)
        found = [sql.execute(row, (it.job_id,)).fetchall() for it in (taken, claimed)]
        assert found == [[("heartbeat", 1800)]] * 2
        held.open()
        all_done(sql, 2)


def test_a_pinned_run_stays_with_the_build_that_took_it(working: Working, sql: Sql) -> None:
    builds = "select build from durable.runs order by created_at"
    with working(*FLOWS, build="b1") as background:
        beside(background, lambda c: c.start(stays_with_its_build))
        beside(background, lambda c: c.start(awaits_reply))
        assert sql.execute(builds).fetchall() == [("b1",), (None,)]
        assert [number for _, _, number in born(sql)] == [1, 1]


def test_a_start_in_the_place_of_a_running_one_is_taken(
    working: Working, client: Client, sql: Sql
) -> None:
    with working(*FLOWS) as background:
        beside(background, lambda c: c.start(awaits_reply, id="r"))
        beside(background, lambda c: c.start(awaits_reply, id="r", on_running="terminate"))
        client.handle("r").signal(reply, "yes")
        assert client.handle("r").result(timeout=30) == "yes"
        assert [number for _, _, number in born(sql)] == [1, 1]
        states = "select status from durable.runs order by generation"
        assert sql.execute(states).fetchall() == [("terminated",), ("completed",)]


def test_a_start_is_idempotent(working: Working, client: Client, sql: Sql) -> None:
    job_id = uuid4()
    with working(*FLOWS) as background, gate(os.environ["SYSTEM_DATABASE_URL"], GATE) as held:
        first, second = (beside(background, lambda c: c.start(awaits_reply, id="r")) for _ in "12")
        assert (first.created, second.created) == (True, False)
        assert first.run_id == second.run_id
        with pytest.raises(WorkflowAlreadyExists):
            beside(background, lambda c: c.start(awaits_reply, id="r", on_running="fail"))
        jobs = [beside(background, lambda c: c.enqueue(flows.gated, "a", GATE, id=job_id)) for _ in "12"]  # fmt: skip
        assert [job.created for job in jobs] == [True, False]
        assert not suspects(background)  # all of these were answers
        held.open()
        client.handle("r").signal(reply, "yes")
        all_done(sql, 2)
    assert executions(sql, "a") == [1]
    assert len(born(sql)) == 2


# -- not taken: an ordinary start ----------------------------------------------------------------------------------------

ORDINARY: dict[str, tuple[Sending, dict[str, Any]]] = {
    "a run for later": (lambda c: c.start(flows.quick_steps, 1, delay=0.01), {}),
    "a run that is signalled along": (
        lambda c: c.start(awaits_reply, with_signal=(reply, "yes")),
        {},
    ),
    "a run of a worker without eager dispatch": (
        lambda c: c.start(flows.quick_steps, 1),
        {"eager": False},
    ),
    "a job for later": (lambda c: c.enqueue(pays, "a", delay=0.01), {}),
    "a unique job": (lambda c: c.enqueue(pays, "a", unique=Unique(key="k")), {}),
    "a job with a key": (lambda c: c.enqueue(pays, "a", serial_key="k"), {}),
    "a job of a worker without eager dispatch": (lambda c: c.enqueue(pays, "a"), {"eager": False}),
    "a run with sealed payloads": (
        lambda c: c.start(renews, 0),
        {"payloads": Payloads([Compression(at_least=1)])},
    ),
    "a job with sealed payloads": (
        lambda c: c.enqueue(pays, "a"),
        {"payloads": Payloads([Compression(at_least=1)])},
    ),
}


@pytest.mark.parametrize("case", ORDINARY)
def test_what_may_not_begin_here_now_is_an_ordinary_start(
    case: str, working: Working, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker does not even ask for it, but where only the database can tell."""
    send, settings = ORDINARY[case]
    asked: list[str] = []
    monkeypatch.setattr(eager_client, "reach", asked.append)
    with working(*FLOWS, **settings) as background:
        beside(background, send)
        all_done(sql)
        ((_, owner, number),) = born(sql)
        assert (owner, number) == (None, 0)
        assert not suspects(background)
    assert asked == (["enqueue.taken"] if case == "a job with a key" else [])


@pytest.mark.parametrize("case", [it for it in ORDINARY if "later" in it or "unique" in it])
def test_the_database_knows_it_too(
    case: str, working: Working, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a worker asks for: what may not run now has no owner."""
    monkeypatch.setattr(EagerStarts, "is_wanted", lambda *_: True)
    monkeypatch.setattr(
        EagerStarts,
        "take_slot",
        lambda self, job: self._attempts.take_slot(job["name"], job["queue"]),
    )
    send, settings = ORDINARY[case]
    with working(*FLOWS, **settings) as background:
        beside(background, send)
        all_done(sql)
    ((_, owner, number),) = born(sql)
    assert (owner, number) == (None, 0)


STRANGE: dict[str, tuple[Sending, tuple[str, ...], dict[str, Any]]] = {
    "workflow": (lambda c: c.start(renews, 0), FLOWS[:1], {}),
    "workflow's queue": (lambda c: c.start(renews, 0, queue="side"), FLOWS, {}),
    "workflows": (lambda c: c.start(renews, 0), FLOWS, {"run_workflows": False}),
    "activity": (lambda c: c.enqueue(pays, "a"), FLOWS[:1], {}),
    "activity's queue": (lambda c: c.enqueue(pays, "a", queue="side"), FLOWS, {}),
    "activities": (lambda c: c.enqueue(pays, "a"), FLOWS, {"run_activities": False}),
}


@pytest.mark.parametrize("what", STRANGE)
def test_what_this_worker_does_not_run_is_left_to_others(
    what: str, working: Working, sql: Sql
) -> None:
    send, modules, settings = STRANGE[what]
    with working(*modules, **settings) as background:
        beside(background, send)
        ((_, owner, number),) = born(sql)
        assert (owner, number) == (None, 0)
    sql.execute("select durable.advance_clock('1 minute')")  # who does not know it puts it off
    with working(*FLOWS, queues={"default": 1, "side": 1}):
        all_done(sql)


def test_what_may_be_rolled_back_is_an_ordinary_start(
    working: Working, system_url: str, sql: Sql
) -> None:
    with working(*FLOWS) as background:

        async def within(client: AsyncClient) -> None:
            for key, keep in (("lost", False), ("kept", True)):
                async with await psycopg.AsyncConnection.connect(system_url) as theirs:
                    await client.enqueue(pays, key, connection=theirs)
                    await client.start(renews, 0, connection=theirs)
                    if not keep:
                        await theirs.rollback()

        beside(background, within)
        all_done(sql, 2)
    assert (executions(sql, "lost"), executions(sql, "kept")) == ([], [1])
    assert [owner for _, owner, _ in born(sql)] == [None, None]


def test_what_belongs_to_a_recovery_is_an_ordinary_start(working: Working, sql: Sql) -> None:
    with working(*FLOWS) as background:

        async def recover(client: AsyncClient) -> None:
            async with client.recovery("a bad release"):
                await client.start(renews, 0)
                await client.enqueue(pays, "a")

        beside(background, recover)
        all_done(sql, 2)
    assert [owner for _, owner, _ in born(sql)] == [None, None]


def test_a_pause_of_which_the_worker_has_not_heard_holds(
    working: Working, client: Client, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database decides, and the slot that was kept for the job is free again."""
    monkeypatch.setattr(queue_rules, "PACE_S", 3600.0)
    with working(*FLOWS, notify=False, queues={"default": 1}) as background:
        slots = background.worker.attempts.slots
        eventually(lambda: background.worker.intake.passes > 3)  # the rules were asked for before
        client.queue("default").pause("the provider is down")
        handle = beside(background, lambda c: c.enqueue(pays, "a"))
        assert not slots.any_special
        assert (handle.state, born(sql)) == ("available", [("job", None, 0)])
        client.queue("default").resume()
        assert client.job(handle.job_id).result(timeout=30) == "a"
        eventually(lambda: background.call(lambda: slots._queues["default"].free) == 1)
        assert not suspects(background)


def test_without_a_free_slot_a_job_waits_its_turn(
    working: Working, client: Client, sql: Sql
) -> None:
    with (
        working(*FLOWS, queues={"default": 1}) as background,
        gate(os.environ["SYSTEM_DATABASE_URL"], GATE) as held,
    ):
        beside(background, lambda c: c.enqueue(flows.gated, "a", GATE))
        second = beside(background, lambda c: c.enqueue(pays, "b"))
        assert second.state == "available"
        assert [owner is None for _, owner, _ in born(sql)] == [False, True]
        held.open()
        all_done(sql, 2)


def test_while_others_wait_for_the_queue_a_job_waits_too(
    working: Working, client: Client, sql: Sql
) -> None:
    """Else those who sit beside the worker would take each slot as it becomes free."""
    with working(*FLOWS, queues={"default": 1}) as background:
        queue = background.worker.attempts.slots._queues["default"]

        async def crowd(client: AsyncClient) -> str:
            queue.backlogged = True
            return str((await client.enqueue(pays, "late")).state)

        assert beside(background, crowd) == "available"
        all_done(sql)


def test_with_a_full_cache_a_run_is_for_everybody(working: Working, sql: Sql) -> None:
    with working(*FLOWS, max_cached_runs=1) as background:

        async def two(client: AsyncClient) -> None:
            for name in ("a", "b"):
                await client.start(awaits_reply, id=name)

        beside(background, two)
        assert [number for _, _, number in born(sql)] == [1, 0]


def test_a_worker_that_was_declared_dead_takes_nothing(working: Working, sql: Sql) -> None:
    with working(*FLOWS) as background:
        worker = background.worker

        async def between_two_beats(client: AsyncClient) -> None:
            async with worker._keeping.lock:
                sql.execute("update durable.workers set state = 'dead', buried_at = durable.now()")
                await client.start(flows.quick_steps, 1)
                await client.enqueue(pays, "a")
                await worker.housekeeping.beat()

        beside(background, between_two_beats)
        assert [owner for _, owner, _ in born(sql)] == [None, None]
        all_done(sql, 2)  # it lives again


# -- the worker's life --------------------------------------------------------------------------------------------------


def test_the_client_of_a_worker_that_does_not_work_is_one_like_any_other(
    system_url: str, sql: Sql
) -> None:
    """Before the start, after the end; and begins things at once again when the worker does."""

    async def live() -> None:
        worker = Worker(system_url, modules=list(FLOWS), **SHORT)
        client = worker.client
        assert client is worker.client
        before = await client.start(renews, 0)
        async with worker:
            assert await before.result(timeout=30) == 0
            assert await (await client.start(renews, 0)).result(timeout=30) == 0
        after = await client.start(renews, 0)
        async with worker:
            assert await after.result(timeout=30) == 0
            assert await (await client.enqueue(pays, "a")).result(timeout=30) == "a"
        assert client._session._connection is None  # the worker has closed it

    asyncio.run(live())
    assert [owner is None for _, owner, _ in born(sql)] == [True, False, True, False]


def test_a_worker_that_never_worked_closes_its_client(system_url: str) -> None:
    async def live() -> None:
        worker = Worker(system_url, modules=list(FLOWS))
        await worker.client.start(renews, 0)
        await worker.stop()
        assert worker.client._session._connection is None

    asyncio.run(live())


def test_on_another_loop_it_is_a_client_like_any_other(
    working: Working, client: Client, sql: Sql
) -> None:
    """A turn of a run must not be taken in somebody else's thread."""
    with working(*FLOWS) as background:

        async def elsewhere() -> None:
            theirs = background.worker.client
            await theirs.start(renews, 0)
            await theirs.enqueue(pays, "a")
            with pytest.raises(TimeoutError, match="it goes on"):
                await lives_there.result(timeout=0.05)
            await theirs.close()

        lives_there = beside(background, lambda c: c.start(awaits_reply, id="r"))
        beside(background, lambda c: c.close())  # a connection is its loop's
        asyncio.run(elsewhere())
        client.handle("r").signal(reply, "yes")
        all_done(sql, 3)
    assert [owner for _, owner, _ in born(sql)][1:] == [None, None]


def test_the_callers_context_is_the_callers_alone(working: Working) -> None:
    """As with a claim: neither a job nor a run sees the context variables of whoever started it."""
    with working(*FLOWS) as background:

        async def ask(client: AsyncClient) -> list[Any]:
            WHOSE.set("the caller's")
            job = await client.enqueue(tells_whose)
            run = await client.start(tells_whose_here)
            return [await job.result(timeout=30), await run.result(timeout=30)]

        assert beside(background, ask) == [None, [None, None]]
