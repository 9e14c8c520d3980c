"""Values of every kind through arguments, results, signals and exceptions; and code that will not end cannot hold a worker."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from durable.client_sync import Client
from durable.errors import PayloadError
from durable.handles_sync import Handle
from tests.system import value_flows as flows
from tests.system.conftest import Working
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]
MODULES = ("tests.system.flows", "tests.system.value_flows")


@pytest.mark.parametrize("cached", [0, 100])
def test_everything_arrives_as_it_was(
    working: Working, client: Client, sql: Sql, cached: int
) -> None:
    with working(*MODULES, max_cached_runs=cached):
        handle = client.start(flows.passes_everything, flows.EVERYTHING)
        handle.signal(flows.all_kinds, flows.EVERYTHING)
        eventually(lambda: _after_a_minute(sql, handle) != "running")
        result = handle.result(30)
    assert result.content == flows.EVERYTHING
    assert type(result.content.pet) is flows.Dog
    assert type(result) is flows.Crate[flows.Everything]


def _after_a_minute(sql: Sql, handle: Handle[Any]) -> str:
    """Let retries be due, and look."""
    sql.execute("select durable.advance_clock('1 minute')")
    return handle.describe().status


def test_a_wrong_number_of_arguments_is_an_error_everywhere(
    working: Working, client: Client
) -> None:
    with pytest.raises(PayloadError, match="too many positional arguments"):
        client.start(flows.swallows_its_cancel, 1)  # type: ignore[arg-type]
    with pytest.raises(PayloadError, match="value"):
        client.start(flows.passes_everything)
    with working(*MODULES):
        said = client.start(flows.calls_with_too_many).result(30)
    assert "too many positional arguments" in said
    assert "same" in said


def test_code_that_swallows_cancel_and_eviction_holds_no_worker(
    working: Working, client: Client
) -> None:
    with working(*MODULES, max_cached_runs=0):  # evicted, swallowing, after every turn
        stubborn = [client.start(flows.swallows_its_cancel) for _ in range(5)]
        eventually(lambda: all(it.describe().operator_status == "waiting" for it in stubborn))
        for handle in stubborn:
            handle.cancel("please")
        eventually(lambda: all(len(it.history()) >= 5 for it in stubborn))
        other = client.start(flows.calls_with_too_many)
        assert other.result(30)  # others are served
        for handle in stubborn:
            assert handle.describe().status == "running"  # its code's choice
            handle.terminate("enough")
    # and the worker has stopped
