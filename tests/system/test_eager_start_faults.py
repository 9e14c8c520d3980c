"""Eager start when something goes wrong: the worker stops or ends with calls under way, answers are lost, callers give up, processes die.

Whatever was taken is done all the same, once: here, or by others.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from durable import (
    DatabaseUnavailable,
)
from durable.client_async import AsyncClient
from durable.client_sync import Client
from durable_worker import Worker
from tests.system.background import SHORT, Background
from tests.system.conftest import Working
from tests.system.eager_births import (
    FLOWS,
    GATE,
    HELD,
    SENDINGS,
    Sql,
    all_done,
    beside,
    born,
    executions,
    has_looked,
    held_up,
    owner_of,
    sending,
    two_wait,
    watch_births,
)
from tests.system.eager_flows import (
    awaits_reply,
    compares,
    renews,
    reply,
)
from tests.system.gates import Gate, gate
from tests.system.invariants import assert_sound
from tests.system.processes import ROOT, import_path
from tests.system.proxy import Proxy
from tests.waiting import eventually, eventually_async

DECLARE_DEAD = (
    "update durable.workers set lease_until = durable.now() - interval '1 s' where name = 'victim'"
)


@pytest.fixture(autouse=True)
def births(system_url: str, sql: Sql) -> None:
    watch_births(sql)


# -- the worker stops or ends ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", SENDINGS)
def test_a_worker_that_stops_waits_for_what_may_become_its_own(
    what: str, working: Working, system_url: str, sql: Sql
) -> None:
    """And gives it back."""
    held_up(sql)
    with gate(system_url, GATE) as held, working(*FLOWS, lease_s=3600.0) as background:
        call = sending(background, SENDINGS[what])
        held.wait_for(1)
        stopping = asyncio.run_coroutine_threadsafe(background.worker.stop(), background.loop)
        eventually(lambda: not background.worker.attempts.starting)
        held.open()
        call.result(30)
        stopping.result(30)
        assert sql.execute("select state from durable.workers").fetchall() == [("gone",)]
        assert executions(sql, "a") == []
        assert sql.execute(HELD.encode()).fetchall() == []
    with working(*FLOWS):
        all_done(sql)
    assert executions(sql, "a" if what == "enqueue" else "first") == [1]


@pytest.mark.parametrize("what", SENDINGS)
def test_what_becomes_the_own_of_a_worker_that_has_ended_is_found_by_others(
    what: str, working: Working, system_url: str, sql: Sql
) -> None:
    """A worker that met a bug does not wait. The statement takes effect when it is gone; its caller hears of it over another connection."""
    held_up(sql)
    worker = Worker(system_url, modules=FLOWS, **{**SHORT, "lease_s": 3600.0})

    async def live(held: Gate) -> Any:
        await worker.start()
        call = asyncio.ensure_future(SENDINGS[what](worker.client))
        await asyncio.to_thread(held.wait_for, 1)
        worker._loop_ended(await broken_loop())
        with pytest.raises(RuntimeError, match="our bug"):
            await worker.wait()
        states = sql.execute("select state from durable.workers").fetchall()
        assert states == [("stopping",)]  # not "gone": others look for what it may have left
        await asyncio.to_thread(two_wait, sql)
        held.open()
        made = await call
        await worker.stop()
        return made

    with gate(system_url, GATE) as held:
        assert asyncio.run(live(held)).created
    assert (worker.worker_id in [owner for _, owner, _ in born(sql)], len(born(sql))) == (True, 1)
    with working(*FLOWS):
        all_done(sql)
    assert len(executions(sql, "a" if what == "enqueue" else "first")) == 1


@pytest.mark.parametrize("what", SENDINGS)
def test_a_worker_that_is_ending_begins_nothing(
    what: str, working: Working, system_url: str, sql: Sql
) -> None:
    """The answer comes while it signs off after a bug: what it got is its lease's, and nobody could write down how it ended here."""
    held_up(sql)
    worker = Worker(system_url, modules=FLOWS, **{**SHORT, "lease_s": 3600.0})

    begun: list[tuple[int, int]] = []

    async def live(held: Gate) -> None:
        await worker.start()
        call = asyncio.ensure_future(SENDINGS[what](worker.client))
        await asyncio.to_thread(held.wait_for, 1)

        async def be_slow() -> None:
            held.open()
            await call
            begun.append((len(worker.runs), len(worker.attempts)))

        worker.duties.leave = be_slow  # type: ignore[method-assign]
        worker._loop_ended(await broken_loop())
        with pytest.raises(RuntimeError, match="our bug"):
            await worker.wait()
        assert (await call).created
        assert begun == [(0, 0)]
        later = await worker.client.start(renews, 0)
        await worker.stop()
        assert owner_of(sql, later.run_id) is None  # it is a client like any other by now

    with gate(system_url, GATE) as held:
        asyncio.run(live(held))
    assert sql.execute("select key from system.executions").fetchall() == []
    with working(*FLOWS):
        all_done(sql, 2)
    assert len(executions(sql, "a" if what == "enqueue" else "first")) == 1


@pytest.mark.parametrize("what", SENDINGS)
def test_what_takes_effect_when_its_caller_and_its_worker_have_gone(
    what: str, working: Working, system_url: str, sql: Sql
) -> None:
    """The connection broke twice, so that the caller was told that nobody knows; then the worker stopped in all order."""
    held_up(sql)

    async def live(held: Gate) -> None:
        async with Worker(system_url, modules=FLOWS, **{**SHORT, "lease_s": 3600.0}) as worker:
            call = asyncio.ensure_future(SENDINGS[what](worker.client))
            await asyncio.to_thread(held.wait_for, 1)
            await worker.client.close()
            await asyncio.to_thread(two_wait, sql)
            await worker.client.close()
            with pytest.raises(DatabaseUnavailable, match="unknown"):
                await call
        assert sql.execute("select state from durable.workers").fetchall() == [("stopping",)]

    with gate(system_url, GATE) as held:
        asyncio.run(live(held))
    eventually(lambda: born(sql), what="it takes effect after all")
    with working(*FLOWS):
        all_done(sql)
    assert len(executions(sql, "a" if what == "enqueue" else "first")) == 1


async def broken_loop() -> asyncio.Task[None]:
    """A loop of a worker's that has met a bug."""

    async def meet_a_bug() -> None:
        raise RuntimeError("our bug")

    task = asyncio.create_task(meet_a_bug())
    await asyncio.wait([task])
    return task


# -- what goes wrong between the database and the caller -----------------------------------------------------------------


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("what", SENDINGS)
def test_an_answer_that_is_lost(
    what: str, moment: Any, cable: Proxy, system_url: str, client: Client, sql: Sql
) -> None:
    """The caller hears that it was made, and it is done: once."""
    background = Background(Worker(cable.url, modules=FLOWS, **{**SHORT, "lease_s": 60.0}))
    background.begin()
    try:
        beside(background, lambda c: c.start(renews, 0))  # the connection is open
        has_looked(background)
        cut = cable.cut("durable client", 1, moment)
        assert beside(background, SENDINGS[what]).created
        assert cut.done.wait(20)
        all_done(sql, 2)
    finally:
        background.end()
    assert executions(sql, "a" if what == "enqueue" else "first") == [1]
    assert len(born(sql)) == 2
    assert_sound(sql)


@pytest.mark.parametrize("on_running", ["existing", "fail", "terminate"])
def test_a_start_that_is_sent_again_while_the_first_is_under_way_finds_itself(
    on_running: Any, system_url: str, client: Client, sql: Sql
) -> None:
    """Any client's: it is no other start that it meets, to be refused by or to terminate."""
    held_up(sql)

    async def live(held: Gate) -> Any:
        async with AsyncClient(system_url) as sender:
            call = asyncio.ensure_future(sender.start(awaits_reply, id="r", on_running=on_running))
            await asyncio.to_thread(held.wait_for, 1)
            await sender._session.close()  # the server does not notice
            await asyncio.to_thread(two_wait, sql)
            held.open()
            return await call

    with gate(system_url, GATE) as held:
        handle = asyncio.run(live(held))
    assert handle.created
    assert sql.execute("select run_id::text, status from durable.runs").fetchall() == [
        (handle.run_id, "running")
    ]


@pytest.mark.parametrize("what", SENDINGS)
def test_a_caller_who_is_cancelled_as_the_answer_comes(
    what: str, working: Working, client: Client, sql: Sql
) -> None:
    """It is in the database, and nobody here knows: it goes back, and is done once."""
    made = f"select 1 from system.births where kind = '{'job' if what == 'enqueue' else 'run'}'"
    with working(*FLOWS, lease_s=60.0) as background:

        async def give_up(client: AsyncClient) -> None:
            call = asyncio.ensure_future(SENDINGS[what](client))
            starts = background.worker._starts
            assert starts is not None
            while not starts.under_way:
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            eventually(
                lambda: sql.execute(made.encode()).fetchall()
            )  # the loop stands still meanwhile
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call

        beside(background, lambda c: c.jobs(queue="default"))  # the connection is open
        has_looked(background)
        beside(background, give_up)
        ((_, owner, _),) = born(sql)
        assert owner == background.worker.worker_id
        all_done(sql)
        slots = background.worker.attempts.slots._queues["default"]
        eventually(lambda: background.call(lambda: slots.free == slots.slots))
    assert executions(sql, "a" if what == "enqueue" else "first") == [1]


@pytest.mark.parametrize("what", SENDINGS)
def test_what_is_under_way_is_not_given_back_however_long_the_answer_takes(
    what: str, working: Working, client: Client, sql: Sql
) -> None:
    """It would be claimed here with the same attempt number, and run beside itself when the answer comes."""
    with working(*FLOWS, lease_s=60.0) as background:
        keeping = background.worker.housekeeping
        looks = 0
        compare = keeping._compare

        def counted(rows: Any) -> None:
            nonlocal looks
            looks += 1
            compare(rows)
            keeping.suspect()

        async def late(client: AsyncClient) -> Any:
            keeping._compare = counted  # type: ignore[method-assign]
            keeping.suspect()
            execute = client._session.execute

            async def slowly(call: Any) -> Any:
                answer = await execute(call)
                before = looks

                async def looked() -> bool:
                    return looks >= before + 4

                await eventually_async(looked)
                return answer

            client._session.execute = slowly  # type: ignore[method-assign]
            try:
                return await SENDINGS[what](client)
            finally:
                client._session.execute = execute  # type: ignore[method-assign]

        assert beside(background, late).created
        all_done(sql)
        assert len(born(sql)) == 1
        if what == "start":
            assert sql.execute("select epoch from durable.runs").fetchall() == [(1,)]
        else:
            assert sql.execute("select note from durable.jobs").fetchall() == [(None,)]
    assert executions(sql, "a" if what == "enqueue" else "first") == [1]


# -- the process dies -----------------------------------------------------------------------------------------------------


def spawn(url: str, what: str, **env: str) -> subprocess.Popen[bytes]:
    """A process with a worker in it that starts something through it."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.system.eager_process", url, what],
        env={**os.environ, "PYTHONPATH": import_path(), "SYSTEM_DATABASE_URL": url, **env},
        cwd=ROOT,
    )


@pytest.mark.parametrize("what", ["start", "enqueue"])
def test_a_process_dies_between_the_commit_and_the_beginning(
    what: str, working: Working, system_url: str, client: Client, sql: Sql
) -> None:
    """SIGKILL: what it had taken is others' when its lease is over."""
    victim = spawn(system_url, what, DURABLE_CRASH_AT=f"{what}.taken")
    assert victim.wait(60) == -signal.SIGKILL
    ((_, owner, number),) = born(sql)
    assert (owner is not None, number) == (True, 1)
    assert sql.execute("select key from system.executions").fetchall() == []
    sql.execute(DECLARE_DEAD)
    with working(*FLOWS):
        if what == "start":
            client.handle("r").signal(reply, "yes")
        all_done(sql)
    keys = sql.execute("select count(*) from system.executions").fetchall()
    assert keys == [(1,)]
    assert_sound(sql)


def test_replay_gives_the_run_what_its_first_life_saw(
    working: Working, system_url: str, client: Client, sql: Sql
) -> None:
    """Begun from the answer, gone on with from the history: the same arguments, actor and headers, in the same order and of the same types."""
    victim = spawn(system_url, "start")
    try:
        eventually(lambda: "ActivityCompleted" in [e.type for e in client.handle("r").history()]
                   if born(sql) else False, 60.0, what="its first life")  # fmt: skip
    finally:
        victim.kill()
        victim.wait(60)
    sql.execute(DECLARE_DEAD)
    client.handle("r").signal(reply, "yes")
    with working(*FLOWS):
        first, again = client.handle("r", compares).result(timeout=30)
    assert first == again
    assert_sound(sql)
