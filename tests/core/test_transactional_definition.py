"""What `@activity(transactional=True)` asks of a function: the connection comes first, and callers never see it."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import durable
from durable import InvalidOption, activity, workflow
from tests.core.simulation import Simulation

Sql = psycopg.Connection[Any]


@activity(transactional=True)
def pay_transactionally(connection: Sql, account: str, *, cents: int = 5) -> str:
    return f"{account}: {cents}"


@activity(transactional=True)
async def pay_unannotated(connection: Any, account: str) -> str:
    return account


@workflow
async def pays_transactionally() -> str:
    return await pay_transactionally("ada", cents=7)


def test_callers_do_not_pass_the_connection() -> None:
    sim = Simulation(pays_transactionally)
    sim.turn()
    (event,) = sim.activities
    assert event.payload == '{"account":"ada","cents":7}'
    assert pay_transactionally.arguments.json_schema()["required"] == ["account"]
    assert pay_transactionally.transactional


def test_no_annotation_is_needed() -> None:
    assert pay_unannotated.arguments.json_schema()["required"] == ["account"]


def test_a_function_without_a_place_for_the_connection_is_refused() -> None:
    def nothing() -> None: ...
    def by_name(*, connection: Sql) -> None: ...
    def not_first(account: str, connection: Sql) -> None: ...
    async def of_the_other_kind(connection: Sql) -> None: ...
    def of_the_other_kind_too(connection: psycopg.AsyncConnection[Any]) -> None: ...

    for fn in (nothing, by_name, not_first, of_the_other_kind, of_the_other_kind_too):
        with pytest.raises(InvalidOption, match="transactional"):
            activity(transactional=True)(fn)  # type: ignore[arg-type]


def test_it_is_no_local_activity() -> None:
    with pytest.raises(InvalidOption, match="transactional"):
        durable.local(pay_transactionally)
