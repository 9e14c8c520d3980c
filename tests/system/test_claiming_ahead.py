"""How many jobs a worker claims beyond its free slots (durable_worker/slots.py), by a clock of the test's own."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from durable.store.engine import ClaimedJob
from durable_worker import slots
from durable_worker.slots import Slots


class Clock:
    """Stands still until it is moved (s)."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(slots, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


def job(number: int) -> ClaimedJob:
    return ClaimedJob(
        0, str(number), 0, "job", "a", "q", 1, None, "{}", None, None, None, 0, 0, None
    )


def claim(counted: Slots, clock: Clock, took_s: float = 0.003) -> int:
    """Claim what is wanted, and get all of it. Returns how much that was."""
    wanted = counted.wanted()
    clock.now_s += took_s
    for number in range(wanted.get("q", 0)):
        counted.take(job(number))
    counted.answered(wanted, wanted, took_s)
    return wanted.get("q", 0)


def work(counted: Slots, clock: Clock, count: int, each_s: float) -> None:
    """The attempts of a lone slot, one after the other."""
    for _ in range(count):
        clock.now_s += each_s
        counted.give_back("q")


def test_what_ends_during_a_claim_decides_and_not_the_slots(clock: Clock) -> None:
    """One slot whose jobs take 50 us ends 60 of them while a claim is under way: it would stand still for most of the time if it held a few."""
    counted = Slots({"q": 1}, lambda: None)
    count = claim(counted, clock)
    for _ in range(60):
        work(counted, clock, count, 0.00005)
        count = claim(counted, clock)
    assert 100 < count <= 200


def test_where_jobs_take_long_nothing_is_held(clock: Clock) -> None:
    counted = Slots({"q": 1}, lambda: None)
    assert claim(counted, clock) == 1
    for _ in range(5):
        work(counted, clock, 1, 1.0)
        assert claim(counted, clock) == 1
        assert not counted.holds()


def test_there_is_a_most(clock: Clock) -> None:
    counted = Slots({"q": 1}, lambda: None)
    count = claim(counted, clock)
    for _ in range(60):
        work(counted, clock, count, 0.000001)
        count = claim(counted, clock)
    held = len(list(counted.held()))
    assert held == slots._MOST
