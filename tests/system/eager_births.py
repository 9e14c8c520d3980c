"""How runs and jobs come into the world, for the tests of eager start: a trigger writes down with which owner each was inserted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import psycopg

from durable.client_async import AsyncClient
from tests.system import flows
from tests.system.background import Background
from tests.system.eager_flows import pays
from tests.waiting import eventually

T = TypeVar("T")
Sql = psycopg.Connection[tuple[Any, ...]]
Sending = Callable[[AsyncClient], Awaitable[Any]]

FLOWS = ("tests.system.flows", "tests.system.eager_flows")
GATE, OTHER_GATE = 71, 72
WATCH = """
create table system.births (kind text, id uuid, owner uuid, number integer);
create function system.note_birth() returns trigger language plpgsql as $$
begin
    if tg_table_name = 'runs' then
        insert into system.births values ('run', new.run_id, new.owner, new.epoch);
    elsif new.kind = 'job' then
        insert into system.births values ('job', new.run_id, new.owner, new.attempt);
    end if;
    return null;
end $$;
create trigger birth after insert on durable.runs for each row execute function system.note_birth();
create trigger birth after insert on durable.jobs for each row execute function system.note_birth();
"""
HOLD_UP = """
create function system.hold_up() returns trigger language plpgsql as $$
begin
    perform pg_advisory_xact_lock_shared(71);
    return null;
end $$;
create trigger hold_up after insert on durable.runs for each row execute function system.hold_up();
create trigger hold_up after insert on durable.jobs for each row when (new.kind = 'job') execute function system.hold_up();
"""
WAITING = """
select count(*) from pg_stat_activity
 where datname = current_database() and application_name = 'durable client' and wait_event_type = 'Lock'
"""
HELD = """
select 'run', run_id from durable.runs where owner is not null
union all select 'job', run_id from durable.jobs where owner is not null
"""
ENDS = (
    "select count(*) from durable.runs where status = 'completed'",
    "select count(*) from durable.jobs where state = 'completed'",
)


def watch_births(sql: Sql) -> None:
    """Have it written down from now on; once the tables of the flows are there."""
    sql.execute(WATCH.encode())


def born(sql: Sql) -> list[tuple[Any, ...]]:
    """How all runs and jobs have come into the world: what, whose, and its epoch or attempt."""
    return sql.execute("select kind, owner::text, number from system.births").fetchall()


def sending(background: Background, ask: Callable[[AsyncClient], Awaitable[T]]) -> Future[T]:
    """Have the worker's client do something, on the worker's loop."""

    async def there() -> T:
        return await ask(background.worker.client)

    return asyncio.run_coroutine_threadsafe(there(), background.loop)


def beside(background: Background, ask: Callable[[AsyncClient], Awaitable[T]]) -> T:
    return sending(background, ask).result(30)


def executions(sql: Sql, key: str) -> list[int]:
    rows = sql.execute("select attempt from system.executions where key = %s order by id", (key,))
    return [attempt for (attempt,) in rows]


def all_done(sql: Sql, count: int = 1) -> None:
    """So many runs and jobs have completed, and nobody holds any."""
    eventually(
        lambda: sum(sql.execute(it.encode()).fetchall()[0][0] for it in ENDS) == count,
        what="all have completed",
    )
    eventually(lambda: sql.execute(HELD.encode()).fetchall() == [], what="nothing is held")


def suspects(background: Background) -> bool:
    """Whether the worker believes that something may be its own that it does not know of."""
    return bool(background.call(lambda: background.worker.housekeeping.doubts))


def has_looked(background: Background) -> None:
    """The worker has compared what it holds with the database; without a suspicion it does so again after a lease."""

    async def looked() -> float:
        async with background.worker._keeping.lock:  # held meanwhile
            return background.worker.housekeeping._reconcile_at

    eventually(lambda: beside(background, lambda _: looked()) > 0)


def owner_of(sql: Sql, its_id: Any) -> Any:
    """With which owner it was born."""
    ((owner,),) = sql.execute("select owner from system.births where id = %s", (its_id,)).fetchall()
    return owner


def held_up(sql: Sql) -> None:
    """From now on no run or job is there before the gate is open."""
    sql.execute(HOLD_UP.encode())


SENDINGS: dict[str, Sending] = {
    "start": lambda c: c.start(flows.one_gated, OTHER_GATE, id="r"),
    "enqueue": lambda c: c.enqueue(pays, "a"),
}


def two_wait(sql: Sql) -> None:
    """The statement was sent again, and both wait."""
    eventually(lambda: sql.execute(WAITING.encode()).fetchall() == [(2,)], what="it is sent again")
