"""Ids made by the client stay in the order in which they were made."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import RFC_4122, UUID

import pytest

from durable import ids
from durable.ids import many_uuid7, uuid7
from tests.waiting import eventually


def test_ids_are_of_version_7_and_of_this_moment() -> None:
    before_ms = time.time_ns() // 1_000_000
    made = [uuid7(), *(UUID(bytes=each) for each in many_uuid7(100))]
    after_ms = time.time_ns() // 1_000_000
    assert {(each.version, each.variant) for each in made} == {(7, RFC_4122)}
    assert before_ms <= made[0].int >> 80 <= after_ms + 5
    assert len({each.int & (1 << 62) - 1 for each in made}) == 101, "the rest is random"


def test_each_is_greater_than_those_before() -> None:
    """Also those that are made within a moment: the jobs of a serial key are in the order of their ids."""
    made: list[UUID] = []
    for _ in range(200):
        made += [uuid7(), *(UUID(bytes=each) for each in many_uuid7(256)), uuid7()]
    assert made == sorted(set(made))


@pytest.fixture
def now_ns(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """A clock in the far future, so that what other tests have made is long past."""
    now = [(time.time_ns() + 86_400 * 10**9)]
    monkeypatch.setattr(time, "time_ns", lambda: now[0])
    yield now
    now[0] -= 86_400 * 10**9
    uuid7()


def test_a_clock_that_is_set_back_a_little_changes_nothing(now_ns: list[int]) -> None:
    first = uuid7()
    now_ns[0] -= 9 * 10**9
    made = [first, uuid7(), *(UUID(bytes=each) for each in many_uuid7(5_000)), uuid7()]
    assert made == sorted(set(made))
    assert made[-1].int >> 80 > first.int >> 80, "4,096 to a millisecond"


def test_after_a_larger_step_back_ids_are_of_the_present_again(now_ns: list[int]) -> None:
    """What was made in the meantime is not in the future for as long as the clock was wrong."""
    uuid7()
    now_ns[0] -= 3_600 * 10**9
    assert uuid7().int >> 80 == now_ns[0] // 1_000_000


def test_a_child_that_was_forked_under_the_lock_makes_ids() -> None:
    with ids._lock:
        child = os.fork()
        if not child:
            uuid7()
            os._exit(0)
    eventually(lambda: os.waitpid(child, os.WNOHANG)[0] == child, 10, what="the child has ended")


def test_threads_never_share_one() -> None:
    def made(_: int) -> list[UUID]:
        return [uuid7() for _ in range(500)]

    with ThreadPoolExecutor(8) as pool:
        each = list(pool.map(made, range(8)))
    heads = [one.int >> 64 for some in each for one in some]
    assert len(heads) == len(set(heads)), "not even their ordered halves"
