"""`durable.testing.environment`: real runs on a real database, with the waiting taken out (C19)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from durable.testing import Environment, assert_enqueued, environment
from tests.testing import kit_flows


@pytest.fixture(scope="module")
def env() -> Iterator[Environment]:
    with environment(modules=[kit_flows]) as started:
        yield started


def test_a_month_and_two_retries_pass_in_no_time(env: Environment) -> None:
    began = env.advance(timedelta(0))
    handle = env.client.start(kit_flows.sleeps_for_long, id="month")
    assert env.result(handle) >= 30
    passed = env.advance(timedelta(0)) - began
    assert timedelta(days=30, hours=10) < passed < timedelta(days=30, hours=11)


def test_jobs_for_later_and_time_moved_by_hand(env: Environment) -> None:
    job = env.client.enqueue(kit_flows.post_card, "ann", delay=timedelta(days=3))
    assert_enqueued(kit_flows.post_card, client=env.client)
    env.advance(timedelta(days=2))
    assert job.describe().state == "scheduled"
    assert env.result(job) == "hi, ann"
