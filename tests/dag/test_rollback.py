"""The journal of what can be undone: the last completion first, each once, and failures do not stop it."""

from __future__ import annotations

import random

import pytest

from durable.dag.rollback import Rollback, Undo, Unit


def undo_of(step: str, item: int | None = None) -> Undo:
    return Undo(Unit(step, item), "shop.undo", {"result": 1}, {"queue": "q"})


@pytest.mark.parametrize("seed", range(50))
def test_the_order_is_the_reverse_of_completion_and_each_comes_once(seed: int) -> None:
    draw = random.Random(seed)
    completed = [undo_of(f"s{n}", draw.choice([None, n])) for n in range(draw.randint(0, 20))]
    draw.shuffle(completed)
    rollback = Rollback()
    for each in completed:
        rollback.completed(each)
    undone, failed = [], []
    while (undo := rollback.next()) is not None:
        assert rollback.status[undo.unit] == "undoing"
        undone.append(undo)
        if draw.random() < 0.3:
            rollback.failed(undo.unit, {"type": "Error", "message": undo.unit.id})
            failed.append(undo.unit.id)
        else:
            rollback.undone(undo.unit)
    assert undone == completed[::-1]
    assert [it["message"] for it in rollback.reported_failures()] == failed
    assert rollback.next() is None


def test_what_completes_during_a_rollback_is_undone_next() -> None:
    rollback = Rollback()
    for name in ("a", "b"):
        rollback.completed(undo_of(name))
    assert rollback.next() == undo_of("b")
    rollback.completed(undo_of("late"))
    assert [rollback.next(), rollback.next()] == [undo_of("late"), undo_of("a")]


def test_a_map_shows_the_worst_of_its_elements() -> None:
    rollback = Rollback()
    for item in range(2):
        rollback.completed(undo_of("m", item))
    assert dict(rollback.rows()) == {}
    rollback.next()
    rollback.undone(Unit("m", 1))
    assert dict(rollback.rows()) == {"m": "undone"}
    rollback.next()
    assert dict(rollback.rows()) == {"m": "undoing"}
    rollback.failed(Unit("m", 0), {"type": "Error", "message": "x"})
    assert dict(rollback.rows()) == {"m": "failed"}
    assert rollback.reported_failures() == [
        {"step": "m", "item": 0, "type": "Error", "message": "x"}
    ]


def test_an_undo_survives_json() -> None:
    for each in (undo_of("a"), undo_of("m", 3), undo_of("a").within(Unit("m", 3))):
        assert Undo.from_json(each.to_json()) == each


def test_what_is_undone_in_a_nested_dag_is_shown_with_the_step_that_it_is() -> None:
    rollback = Rollback()
    for inner in (undo_of("a"), undo_of("b", 2)):
        rollback.completed(inner.within(Unit("whole", 1)))
    undo = rollback.next()
    assert undo is not None
    assert undo.unit.id == "whole[1]/b[2]"
    rollback.failed(undo.unit, {"type": "Error", "message": "x"})
    assert dict(rollback.rows()) == {"whole": "failed"}
    (told,) = rollback.reported_failures()
    assert told == {"step": "whole", "item": 1, "inside": "b[2]", "type": "Error", "message": "x"}
