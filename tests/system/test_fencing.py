"""Two workers want the same runs; one of them only believes that it owns them (C2, C5)."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from durable.client_sync import Client
from durable.core.events import Event
from durable.store import engine
from durable.store.batch import RunCommit
from durable.store.session import Session
from tests.system import flows
from tests.system.conftest import Working
from tests.system.gates import gate
from tests.system.invariants import assert_sound
from tests.system.processes import Fleet
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]

DECLARE_DEAD = (
    "update durable.workers set lease_until = durable.now() - interval '1 s' where name = %s"
)


def owner_name(sql: Sql, workflow_id: str) -> str | None:
    row = sql.execute(
        "select w.name from durable.runs r join durable.workers w on w.worker_id = r.owner where workflow_id = %s",
        (workflow_id,),
    ).fetchone()
    return row[0] if row else None


def types(client: Client, workflow_id: str) -> list[str]:
    return [event.type for event in client.handle(workflow_id).history()]


def evidence(sql: Sql, kind: str) -> list[dict[str, Any]]:
    return [
        row[0]
        for row in sql.execute(
            "select body from durable.evidence where kind = %s order by at", (kind,)
        )
    ]


def test_a_late_answer_of_a_worker_taken_for_dead_is_refused_and_kept(
    working: Working, system_url: str, client: Client, sql: Sql
) -> None:
    """C5: the zombie's answer changes nothing; the attempt after it counts 2; both executions had one idempotency key."""
    with working(name="zombie", lease_s=60.0), gate(system_url, 1) as held:
        handle = client.start(flows.one_gated, 1, id="fought-over")
        held.wait_for(1)
        with working(name="heir"):
            sql.execute(DECLARE_DEAD, ("zombie",))
            eventually(lambda: owner_name(sql, "fought-over") == "heir")
            held.wait_for(2)
            before = types(client, "fought-over")
            held.open()
            assert handle.result(timeout=30) == "first"
            (late,) = eventually(lambda: evidence(sql, "OutcomeRefused"))
    assert before == ["WorkflowStarted", "ActivityScheduled"]
    assert (late["type"], late["attempt"]) == ("ActivityCompleted", 1)
    executions = sql.execute(
        "select attempt, idempotency_key from system.executions where name = 'gated' order by id"
    ).fetchall()
    assert [attempt for attempt, _ in executions] == [1, 2]
    assert len({key for _, key in executions}) == 1
    (completed,) = (
        e for e in handle.history() if e.type == "ActivityCompleted" and e.body["ref"] == 2
    )
    assert completed.body["attempt"] == 2
    assert_sound(sql)


def test_a_late_answer_that_comes_first_does_not_count(
    working: Working, system_url: str, client: Client, sql: Sql
) -> None:
    """C5: the zombie answers while the heir's attempt still runs; only the heir's answer enters the history."""
    with (
        gate(system_url, 21) as first,
        gate(system_url, 22) as second,
        working(name="zombie", lease_s=60.0),
    ):
        handle = client.start(flows.which_attempt_counts, 20, id="w")
        first.wait_for(1)
        with working(name="heir"):
            sql.execute(DECLARE_DEAD, ("zombie",))
            second.wait_for(1)
            before = types(client, "w")
            first.open()
            eventually(lambda: evidence(sql, "OutcomeRefused"))
            assert types(client, "w") == before
            second.open()
            assert handle.result(timeout=30) == 2
    assert_sound(sql)


def test_a_commit_with_an_old_epoch_writes_nothing(
    system_url: str, client: Client, sql: Sql
) -> None:
    """C2: everything else about it is right: the expected last event, the run, its being open."""
    asyncio.run(commit_with_an_old_epoch(system_url, client, sql))


async def commit_with_an_old_epoch(url: str, client: Client, sql: Sql) -> None:
    handle = client.start(flows.listens, 1, id="l")
    loser, winner = str(uuid4()), str(uuid4())
    session = Session(url, "fencing")
    for worker in (loser, winner):
        await engine.beat(session, worker, worker, "alive", "{}", "{}", 60.0)
    (old,) = await engine.claim_runs(session, loser, ["default"], 10)
    sql.execute(DECLARE_DEAD, (loser,))
    await engine.bury_dead_workers(session, 10)
    (new,) = await engine.claim_runs(session, winner, ["default"], 10)
    assert new.epoch > old.epoch
    for worker, epoch in ((loser, old.epoch), (winner, old.epoch), (loser, new.epoch)):
        with pytest.raises(engine.FenceLost) as lost:
            await engine.commit(session, worker, [one_turn(new, epoch)])
        assert lost.value.losers == {0}
        assert types(client, "l") == ["WorkflowStarted"]
    assert await engine.claim_runs(session, loser, ["default"], 10) == []
    await engine.commit(session, winner, [one_turn(new, new.epoch)])
    await session.close()
    assert types(client, "l") == ["WorkflowStarted", "CancelRequested"]
    assert handle.describe().last_seq == 2


def one_turn(run: engine.ClaimedRun, epoch: int) -> RunCommit:
    event = Event(run.last_seq + 1, run.turn + 1, "CancelRequested", 1, {"reason": None})
    last_seq = run.last_seq + 1
    return RunCommit(
        run.shard, run.run_id, epoch, run.last_seq, last_seq, run.turn + 1, "running", None, [event]
    )


def test_a_frozen_worker_loses_its_runs_and_goes_on_with_others_when_it_thaws(
    fleet: Fleet, system_url: str, client: Client, sql: Sql
) -> None:
    """C2: SIGSTOP beyond the lease, SIGCONT while the heir is at work: the loser writes nothing into those runs."""
    zombie = fleet.hire(system_url, options=("--name", "zombie")).ready()
    with gate(system_url, 1) as held:
        handles = [client.start(flows.one_gated, 1, id=f"r-{n}") for n in range(20)]
        held.wait_for(20)
        zombie.freeze()
        heir = fleet.hire(system_url, options=("--name", "heir")).ready()
        eventually(lambda: all(owner_name(sql, h.workflow_id) == "heir" for h in handles))
        zombie.thaw()
        held.wait_for(40)
        held.open()
        for handle in handles:
            assert handle.result(timeout=30) == "first"
    eventually(lambda: "lease had lapsed" in zombie.log())
    attempts = sql.execute(
        "select body ->> 'attempt' from durable.history where type = 'ActivityCompleted' and body ->> 'ref' = '2'"
    ).fetchall()
    assert attempts == [("2",)] * 20
    heir.stop()
    assert client.start(flows.steps, 2, id="afterwards").result(timeout=30) == ["0", "1"]
    assert not zombie.ended()
    assert_sound(sql)


def test_workers_that_take_each_others_runs_all_the_time_lose_and_repeat_nothing(
    working: Working, client: Client, sql: Sql
) -> None:
    """C2: both workers are declared dead again and again in the middle of their turns, and every run ends right."""
    with working(name="one", lease_s=1.5), working(name="two", lease_s=1.5):
        handles = [client.start(flows.interleaving, n, id=f"i-{n}") for n in range(100)]
        for first in range(0, 100, 10):
            sql.execute(DECLARE_DEAD, (("one", "two")[first // 10 % 2],))
            for handle in handles[first : first + 10]:
                handle.signal(flows.go, 1)
            for handle in handles[first : first + 10]:
                handle.result(timeout=60)
    assert_sound(sql)
