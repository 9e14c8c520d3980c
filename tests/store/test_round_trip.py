"""A statement and its hint in one round trip: two transactions, each prepared once, and nothing left behind for who comes next."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, LiteralString

import psycopg
import pytest

from durable.errors import DurableError
from durable.store import round_trip
from durable.store.calls import Call
from durable.store.client_session_async import AsyncClientSession
from durable.store.client_session_sync import ClientSession

PREPARED: LiteralString = "select count(*)::int as n from pg_prepared_statements where statement like '%%' || %(part)s || '%%'"


@pytest.fixture
def session(database_url: str) -> Iterator[ClientSession]:
    with ClientSession(database_url, "round trips", notify=True) as session:
        yield session


@pytest.fixture
def listener(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("listen durable")
        yield connection


def call(statement: LiteralString, hint: str | None = None, **parameters: Any) -> Call[Any]:
    return Call(statement, parameters, lambda rows: rows, hint)


def heard(listener: psycopg.Connection[Any]) -> list[str]:
    return [it.payload for it in listener.notifies(timeout=5, stop_after=1)]


def test_the_hint_comes_with_the_statement_and_is_a_transaction_of_its_own(
    session: ClientSession, listener: psycopg.Connection[Any]
) -> None:
    """C4: what it tells of has been committed when it leaves. Here that fails, and the hint leaves all the same."""
    with pytest.raises(DurableError, match="division by zero"):
        session.execute(call("select 1 / %(by)s::int as it", "jobs:nothing", by=0))
    assert heard(listener) == ["jobs:nothing"]
    assert session.execute(call("select 1 / %(by)s::int as it", by=1)) == [{"it": 1}]


def test_a_hint_that_cannot_be_given_harms_nothing(
    session: ClientSession, listener: psycopg.Connection[Any]
) -> None:
    """PostgreSQL refuses one of 8,000 bytes. The statement is committed by then, and polling finds it."""
    assert session.execute(call("select 1 as it", "x" * 8_000)) == [{"it": 1}]
    assert session.execute(call("select 2 as it", "jobs:short")) == [{"it": 2}]
    assert heard(listener) == ["jobs:short"]


def test_a_break_over_the_hint_does_not_hide_what_was_done(
    session: ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The statement is committed and answered by then: it is neither sent again nor reported as unknown."""
    monkeypatch.setattr(
        round_trip, "_NOTIFY", b"select pg_terminate_backend(pg_backend_pid()), $1::text"
    )
    assert session.execute(call("select pg_backend_pid() as pid, 1 as it", "x"))[0]["it"] == 1
    assert session.execute(call("select 2 as it")) == [{"it": 2}]


def test_a_session_that_must_not_hint_sends_none(
    database_url: str, listener: psycopg.Connection[Any]
) -> None:
    with ClientSession(database_url, "silent", notify=False) as silent:
        assert silent.execute(call("select 1 as it", "jobs:default")) == [{"it": 1}]
    listener.execute("notify durable, 'the end'")
    assert heard(listener) == ["the end"]


def test_a_statement_that_comes_often_is_prepared_once_also_if_it_fails_at_first(
    session: ClientSession,
) -> None:
    for by in (1, 0, 1, 1, 0, 1, 0, 1):
        divided = call("select 1 / %(by)s::int as marked", by=by)
        if by:
            assert session.execute(divided) == [{"marked": 1}]
        else:
            with pytest.raises(DurableError):
                session.execute(divided)
    assert session.execute(call(PREPARED, part="as marked")) == [{"n": 1}]


@pytest.mark.parametrize(("notify", "times"), [(True, 4), (False, 20)])
def test_a_session_that_may_be_anothers_is_left_clean(
    database_url: str, notify: bool, times: int
) -> None:
    """A transaction pooler hands it on: after a short command always, and after any without hints."""
    with ClientSession(database_url, "pooled", notify=notify) as pooled:
        for _ in range(times):
            pooled.execute(call("select 1 as kept", "jobs:default"))
        assert pooled.execute(call(PREPARED, part="")) == [{"n": 0}]


def test_a_statement_that_cannot_be_parsed_is_an_error_each_time(session: ClientSession) -> None:
    for _ in range(7):
        with pytest.raises(DurableError, match="no_such"):
            session.execute(call("select durable.no_such(%(it)s::int)", it=1))
    assert session.execute(call("select 1 as it")) == [{"it": 1}]


def test_values_of_another_type_are_another_statement(session: ClientSession) -> None:
    for given in (1, 70_000, 2**40, "text", None, [1, 2]):
        (row,) = session.execute(call("select %(it)s as it", it=given))
        assert row == {"it": given}


def test_a_name_that_comes_twice_is_one_parameter(session: ClientSession) -> None:
    (row,) = session.execute(
        call("select %(a)s::int + %(b)s::int + %(a)s::int as it, '100%%' as all", a=1, b=10)
    )
    assert row == {"it": 12, "all": "100%"}


def test_statements_without_end_are_not_all_kept(
    session: ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(round_trip, "_PREPARED_FROM", 1)
    monkeypatch.setattr(round_trip, "_PREPARED_AT_MOST", 5)
    for number in range(20):
        statement = "select 0" + " + 1" * number + " as ever"
        assert session.execute(call(statement)) == [{"ever": number}]
    assert session.execute(call(PREPARED, part="as ever")) == [{"n": 5}]


def test_large_values_go_and_come(session: ClientSession) -> None:
    """More than the socket takes at once, in both directions."""
    text = "x" * 20_000_000
    assert session.execute(call("select %(it)s::text as it", "jobs:large", it=text)) == [
        {"it": text}
    ]


def test_an_answer_that_nobody_waits_for_reaches_nobody_else(database_url: str) -> None:
    async def main() -> None:
        async with AsyncClientSession(database_url, "cancelled", notify=True) as session:
            await session.execute(call("select 1 as it"))
            slow = asyncio.create_task(
                session.execute(call("select pg_sleep(60), 2 as it", "jobs:never"))
            )
            await asyncio.wait([slow], timeout=0.05)
            slow.cancel()
            with pytest.raises(asyncio.CancelledError):
                await slow
            assert await session.execute(call("select 3 as it", "jobs:default")) == [{"it": 3}]

    asyncio.run(main())
