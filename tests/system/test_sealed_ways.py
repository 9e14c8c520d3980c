"""Payload codecs cover what local, transactional and elsewhere completed activities take and give."""

from __future__ import annotations

from typing import Any

import psycopg

from durable.client_sync import Client
from tests.system import sealed_ways_flows as flows
from tests.system.completion_flows import TOKENS
from tests.system.conftest import Working
from tests.system.sealed_flows import SECRET, Refused
from tests.system.test_sealed_payloads import MODULES, WITH_OLD, stored
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]


def token_for(sql: Sql, word: str) -> str:
    query = "select token from system.tokens where key = %s"
    return str(eventually(lambda: sql.execute(query, (str(len(word)),)).fetchall())[0][0])


def test_nothing_secret_reaches_the_database_and_replay_works(
    working: Working, system_url: str, sql: Sql
) -> None:
    """The run is replayed at the signal: a local activity's arguments are then concealed, and not compared."""
    sql.execute(TOKENS.encode())
    modules = (*MODULES, "tests.system.sealed_ways_flows")
    with (
        working(*modules, payloads=WITH_OLD, max_cached_runs=0),
        Client(system_url, payloads=WITH_OLD) as client,
    ):
        handle = client.start(flows.secret_ways, SECRET)
        eventually(lambda: handle.describe().last_seq >= 6)
        handle.signal(flows.go_on_with_ways, "go on")
        token = token_for(sql, SECRET)
        assert not client.heartbeat(token, SECRET).cancel_requested
        client.complete(token, f"{SECRET} from elsewhere")
        client.fail(token_for(sql, f"{SECRET}!"), Refused(SECRET))
        assert handle.result(30) == [
            f"{SECRET} echoed",
            f"{SECRET} echoed",
            SECRET,
            "go on",
            f"{SECRET} from elsewhere",
            SECRET,
        ]
    assert SECRET not in stored(sql)
