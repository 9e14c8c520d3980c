"""Decisions about slots: a table of policies, and what holds for any split of time into passes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durable.core.schedule_policy import (
    MOST_BUFFERED,
    MOST_IN_A_PASS,
    OVERLAPS,
    WATCH_US,
    Asked,
    Ended,
    Overlap,
    Pass,
    Policy,
    State,
    decide,
    undecided,
)
from durable.core.schedule_times import Times

HOUR = 3_600_000_000
TIMES = Times(every_us=HOUR)


def made(state: State, now: int, **policy: Any) -> Pass:
    return decide("s", TIMES, Policy(**policy), state, now)


def said(given_pass: Pass) -> dict[int, str]:
    return {slot // HOUR: each.decision for slot, each in sorted(given_pass.verdicts.items())}


TABLE: list[tuple[Overlap, tuple[int, ...], tuple[int, ...], dict[int, str], dict[int, str]]] = [
    # overlap, open slots, buffered slots, what is decided at the third hour, what is stopped
    ("skip", (), (), {3: "started"}, {}),
    ("skip", (2,), (), {3: "skipped"}, {}),
    ("buffer_one", (), (), {3: "started"}, {}),
    ("buffer_one", (1,), (), {3: "buffered"}, {}),
    ("buffer_one", (1,), (2,), {3: "skipped"}, {}),
    ("buffer_one", (), (2,), {2: "started", 3: "buffered"}, {}),
    ("buffer_all", (1,), (2,), {3: "buffered"}, {}),
    ("buffer_all", (), (1, 2), {1: "started", 3: "buffered"}, {}),
    ("cancel", (), (), {3: "started"}, {}),
    ("cancel", (2,), (), {3: "buffered"}, {2: "cancel"}),
    ("cancel", (1,), (2,), {2: "skipped", 3: "buffered"}, {1: "cancel"}),
    ("cancel", (), (2,), {2: "skipped", 3: "started"}, {}),
    ("terminate", (1, 2), (), {3: "started"}, {1: "terminate", 2: "terminate"}),
    ("allow", (1, 2), (), {3: "started"}, {}),
]


@pytest.mark.parametrize(("overlap", "running", "waiting", "expected", "stops"), TABLE)
def test_overlap(
    overlap: Overlap,
    running: tuple[int, ...],
    waiting: tuple[int, ...],
    expected: dict[int, str],
    stops: dict[int, str],
) -> None:
    state = State(
        2 * HOUR,
        open=tuple(n * HOUR for n in running),
        buffered=tuple(Asked(n * HOUR) for n in waiting),
    )
    decided = made(state, 3 * HOUR, overlap=overlap)
    assert said(decided) == expected
    assert {slot // HOUR: how for slot, how in decided.stops.items()} == stops
    assert decided.cursor_us == 3 * HOUR


CAUGHT_UP: dict[Overlap, dict[int, str]] = {
    "skip": {1: "started", 2: "skipped", 3: "skipped"},
    "buffer_one": {1: "started", 2: "buffered", 3: "skipped"},
    "buffer_all": {1: "started", 2: "buffered", 3: "buffered"},
    "cancel": {1: "skipped", 2: "skipped", 3: "started"},
    "terminate": {1: "skipped", 2: "skipped", 3: "started"},
    "allow": {1: "started", 2: "started", 3: "started"},
}


@pytest.mark.parametrize("overlap", OVERLAPS)
def test_three_slots_of_a_downtime(overlap: Overlap) -> None:
    """A run that the next slot would stop at once does not begin."""
    decided = made(State(0), 3 * HOUR, overlap=overlap)
    assert said(decided) == CAUGHT_UP[overlap]
    assert decided.stops == {}


def test_the_catch_up_window() -> None:
    decided = made(State(0), 5 * HOUR + 1, overlap="allow", catch_up_us=HOUR)
    assert said(decided) == {1: "missed", 2: "missed", 3: "missed", 4: "missed", 5: "started"}
    assert said(made(State(4 * HOUR), 5 * HOUR, catch_up_us=0)) == {5: "started"}


def test_a_pause_and_what_passed_by() -> None:
    assert said(made(State(0, paused=True), 2 * HOUR)) == {1: "skipped", 2: "skipped"}
    assert said(made(State(0, passed_over_us=HOUR), 2 * HOUR)) == {1: "skipped", 2: "started"}


def test_what_was_asked_for_is_done_also_while_paused() -> None:
    asked = (Asked(5, "trigger"), Asked(7, "backfill", "allow"), Asked(9, "time"))
    decided = made(State(HOUR, paused=True, asked=asked), HOUR)
    assert {slot: each.decision for slot, each in decided.verdicts.items()} == {
        5: "started",
        7: "started",
        9: "skipped",
    }


def test_a_failure_pauses_what_asks_for_it() -> None:
    ended = (Ended(HOUR, "failed"),)
    waiting = (Asked(2 * HOUR),)
    decided = made(State(2 * HOUR, ended=ended, buffered=waiting), 3 * HOUR, pause_on_failure=True)
    assert decided.pause_note is not None
    assert said(decided) == {3: "skipped"}
    assert made(State(2 * HOUR, ended=ended), 3 * HOUR).pause_note is None
    cancelled = State(2 * HOUR, ended=(Ended(HOUR, "cancelled"),))
    assert made(cancelled, 3 * HOUR, pause_on_failure=True).pause_note is None


def test_when_to_look_again() -> None:
    assert made(State(0), HOUR).next_us == 2 * HOUR
    assert made(State(HOUR, buffered=(Asked(HOUR),), open=(1,)), HOUR).next_us == HOUR + WATCH_US
    assert made(State(HOUR, open=(1,)), HOUR, pause_on_failure=True).next_us == HOUR + WATCH_US
    ended = Times(every_us=HOUR, end_us=HOUR)
    assert decide("s", ended, Policy(), State(0), HOUR).next_us is None


def test_a_buffer_and_a_pass_are_bounded() -> None:
    full = tuple(Asked(n) for n in range(MOST_BUFFERED))
    decided = made(State(HOUR, open=(5,), buffered=full), 2 * HOUR, overlap="buffer_all")
    assert said(decided) == {2: "skipped"}
    long = made(State(0), 2 * MOST_IN_A_PASS * HOUR)
    assert len(long.verdicts) == MOST_IN_A_PASS
    assert (long.cursor_us, long.next_us) == (MOST_IN_A_PASS * HOUR, 2 * MOST_IN_A_PASS * HOUR)


def test_jitter_delays_the_start_and_not_the_slot() -> None:
    times = Times(every_us=HOUR, jitter_us=HOUR // 2)
    decided = decide("s", times, Policy(), State(0), HOUR)
    due = decided.next_us
    assert due is not None
    assert HOUR < due < 1.5 * HOUR
    assert decided.verdicts == {}
    assert list(decide("s", times, Policy(), State(0), due).verdicts) == [HOUR]


def test_undecided_slots_say_when_there_are_too_many() -> None:
    assert undecided(TIMES, 0, 3 * HOUR, 10) == [HOUR, 2 * HOUR, 3 * HOUR]
    assert len(undecided(TIMES, 0, 100 * HOUR, 10)) == 11


STEPS = st.lists(
    st.tuples(st.integers(1, 9 * HOUR), st.booleans(), st.booleans()), min_size=1, max_size=25
)


@given(
    STEPS,
    st.sampled_from(OVERLAPS),
    st.sampled_from([0, HOUR // 2, 3 * HOUR]),
    st.sampled_from([HOUR, 10**15]),
)
@settings(max_examples=150, deadline=None)
def test_no_slot_twice_and_none_lost_over_any_split_of_time(
    steps: list[tuple[int, bool, bool]], overlap: Overlap, jitter: int, catch_up: int
) -> None:
    """Each step: time passes, perhaps the open runs end, perhaps the schedule is paused or resumed. Every slot gets a first decision
    exactly once, and is started at most once; at most one run is open unless overlap is allowed."""
    times, policy = Times(every_us=HOUR, jitter_us=jitter), Policy(overlap, catch_up)
    state, now = State(0), 0
    first: list[int] = []
    started: list[int] = []
    for passed, runs_end, toggled in steps:
        now += passed
        running = () if runs_end else state.open
        state = replace(state, open=running, paused=state.paused != toggled)
        decided = decide("s", times, policy, state, now)
        waiting = {each.slot_us: each for each in state.buffered}
        open_now = {slot for slot in running if decided.stops.get(slot) != "terminate"}
        for slot, verdict in sorted(decided.verdicts.items()):
            if slot not in waiting:
                first.append(slot)
            waiting.pop(slot, None)
            if verdict.decision == "started":
                started.append(slot)
                open_now.add(slot)
            elif verdict.decision == "buffered":
                waiting[slot] = Asked(slot)
        assert overlap == "allow" or len(open_now) <= 1
        assert decided.cursor_us >= state.cursor_us
        state = replace(
            state,
            cursor_us=decided.cursor_us,
            open=tuple(open_now),
            buffered=tuple(waiting.values()),
        )
    assert first == [HOUR * n for n in range(1, len(first) + 1)]  # none twice, none left out
    assert state.cursor_us == (first[-1] if first else 0)
    assert now - state.cursor_us < 2 * HOUR  # and none is late
    assert len(started) == len(set(started))


def test_times_that_were_changed_hold_until_the_change() -> None:
    """Changed at half past three from hourly to two-hourly, and again at seven to never; nobody has looked since noon."""
    before = ((TIMES, 3 * HOUR + HOUR // 2), (Times(every_us=2 * HOUR), 7 * HOUR))
    never = Times(listed_us=(10**15,))
    decided = decide("s", never, Policy("allow"), State(0, before=before), 9 * HOUR)
    assert said(decided) == {1: "started", 2: "started", 3: "started", 4: "started", 6: "started"}
    assert decided.cursor_us == 7 * HOUR
    early = decide("s", never, Policy("allow"), State(0, before=before), 5 * HOUR)
    assert (list(said(early)), early.cursor_us) == ([1, 2, 3, 4], 4 * HOUR)
    quiet = decide(
        "s", Times(every_us=5 * HOUR), Policy(), State(3 * HOUR, before=before[:1]), 4 * HOUR
    )
    assert (said(quiet), quiet.cursor_us, quiet.next_us) == ({}, 3 * HOUR + HOUR // 2, 5 * HOUR)
