"""Ids made by the client stay in the order in which they were made."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from uuid import RFC_4122, UUID

import pytest

from durable.ids import many_uuid7, uuid7


def test_ids_are_of_version_7_and_of_this_moment() -> None:
    before_ms = time.time_ns() // 1_000_000
    made = [uuid7(), *(UUID(bytes=each) for each in many_uuid7(100))]
    after_ms = time.time_ns() // 1_000_000
    assert {(each.version, each.variant) for each in made} == {(7, RFC_4122)}
    assert {before_ms, after_ms} >= {made[0].int >> 80}
    assert len({each.int & (1 << 62) - 1 for each in made}) == 101, "the rest is random"


def test_each_is_greater_than_those_before() -> None:
    """Also those that are made within a moment: the jobs of a serial key are in the order of their ids."""
    made: list[UUID] = []
    for _ in range(200):
        made += [uuid7(), *(UUID(bytes=each) for each in many_uuid7(256)), uuid7()]
    assert made == sorted(set(made))


def test_a_clock_that_is_set_back_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    first = uuid7()
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    made = [first, uuid7(), *(UUID(bytes=each) for each in many_uuid7(5_000)), uuid7()]
    assert made == sorted(set(made))
    assert made[-1].int >> 80 > first.int >> 80, "4,096 to a millisecond"


def test_threads_never_share_one() -> None:
    def made(_: int) -> list[UUID]:
        return [uuid7() for _ in range(500)]

    with ThreadPoolExecutor(8) as pool:
        each = list(pool.map(made, range(8)))
    heads = [one.int >> 64 for some in each for one in some]
    assert len(heads) == len(set(heads)), "not even their ordered halves"
