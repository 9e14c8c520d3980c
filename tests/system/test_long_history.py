"""A loop that never ends: the worker's log warns once in the run's life, `describe` for as long as it lasts; a checkpoint renews it."""

from __future__ import annotations

import logging

import pytest

from durable.client_sync import Client
from durable.core.history_length import LONG_HISTORY
from durable.handles_sync import Handle
from tests.system import flows, long_flows
from tests.system.conftest import Working
from tests.system.processes import FLOWS
from tests.waiting import eventually

LONG = "tests.system.long_flows"


def grow(handle: Handle[None], events: int) -> None:
    """Signal it until its history has that many."""
    while (seen := handle.describe().last_seq) < events:
        handle.signal(flows.go, 1)
        eventually(lambda: handle.describe().last_seq > seen)


def position(client: Client) -> tuple[int, int]:
    newest = client.handle("r").describe()
    return newest.generation, newest.last_seq


def test_the_log_warns_once_and_describe_as_long_as_it_is_so(
    working: Working, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "durable.worker"):
        with working(FLOWS, LONG, lease_s=1e7):
            handle = client.start(long_flows.fills_its_history, 1_200, id="f")
            grow(handle, LONG_HISTORY - 3_000)
            assert "its history has" not in caplog.text
            assert handle.describe().warnings == ()
            grow(handle, LONG_HISTORY)
            grow(handle, handle.describe().last_seq + 1)
        assert caplog.text.count("its history has") == 1
        with working(FLOWS, LONG, lease_s=1e7):  # replays
            grow(handle, handle.describe().last_seq + 1)
    assert caplog.text.count("its history has") == 1
    (warning,) = handle.describe().warnings
    assert "continue as new" in warning


def test_a_loop_with_a_checkpoint_renews_itself_and_loses_nothing(
    working: Working, client: Client
) -> None:
    with working(FLOWS, LONG, lease_s=1e7):
        handle = client.start(long_flows.renews_itself, 1_000, id="r")
        for _ in range(16):
            before = position(client)
            handle.signal(flows.go, 1)
            eventually(lambda before=before: position(client) != before)  # type: ignore[misc]
        assert handle.result(timeout=60) == 8
    newest = client.handle("r").describe()
    assert newest.generation >= 1
    assert newest.last_seq < LONG_HISTORY
