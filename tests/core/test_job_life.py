"""The table of a job's life: complete, closed where it must be, and shown as it is."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest

from durable.core.job_life import (
    BEFORE_START,
    ENDED,
    PERMITTED,
    STATES,
    TRANSITIONS,
    UNFINISHED,
    diagram,
    held_states,
    refusal_of_unique_states,
)

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "jobs.md"
BY_HAND = "retried by hand"


def test_each_change_is_listed_once_and_each_state_is_reached() -> None:
    assert len(PERMITTED) == len(TRANSITIONS)
    assert {after for _, after in PERMITTED} == set(STATES)


def test_nothing_leaves_an_ended_state_but_by_hand() -> None:
    assert {each.by for each in TRANSITIONS if each.before in ENDED} == {BY_HAND}


def test_the_documented_diagram_is_that_of_the_table() -> None:
    assert f"```mermaid\n{diagram()}\n```" in GUIDE.read_text(encoding="utf-8")


@pytest.mark.parametrize("size", range(len(STATES) + 1))
def test_a_permitted_set_of_unique_states_is_never_entered_again(size: int) -> None:
    """But from the outside by hand; or, for jobs that have started, without a key, which the first start takes away."""
    for states in combinations(STATES, size):
        if refusal_of_unique_states(states) is None:
            held = held_states(states)
            entered = [
                each
                for each in TRANSITIONS
                if each.before not in (None, *held) and each.after in held and each.by != BY_HAND
            ]
            assert set(states) == BEFORE_START or entered == []
            assert set(states) >= BEFORE_START


def test_the_default_is_permitted() -> None:
    assert refusal_of_unique_states(UNFINISHED) is None
