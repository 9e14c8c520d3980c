from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Sequence
from typing import Any

import pytest

from durable import errors
from durable.failure import decode_failure, encode_failure

EXAMPLES: list[BaseException] = [
    errors.PayloadError("order.price", "it is NaN", "Use a number."),
    errors.NondeterminismError(
        event_seq=7,
        expected={"kind": "ActivityScheduled", "name": "charge"},
        got={"kind": "ActivityScheduled", "name": "ship"},
        line="shop.py:12",
    ),
    errors.WorkflowFailed("order-1", "run-1"),
    errors.WorkflowCancelled("order-1", "run-1", "changed my mind"),
    errors.WorkflowTerminated("order-1", "run-1", "stuck"),
    errors.ActivityError("charge", "3", 5, "max_attempts"),
    errors.ActivityTimeout("heartbeat", "charge", "3", 2),
    errors.ChildWorkflowError("invoice", "invoice-1", "run-2", "terminated", reason="stuck"),
    errors.RemoteError("shop:PaymentDeclined", "no money"),
    errors.NonRetryable("never"),
    errors.LeaseLost("gone"),
    errors.NewerSemantics(2, 1),
    errors.Evicted("evicted"),
    errors.ContinueAsNew("checkout", 2, "{}"),
]
CARRIED = [example for example in EXAMPLES if isinstance(example, Exception)]


def names(examples: Sequence[BaseException]) -> list[str]:
    return [type(example).__name__ for example in examples]


@pytest.mark.parametrize("example", EXAMPLES, ids=names(EXAMPLES))
@pytest.mark.parametrize("duplicate", [copy.copy, lambda e: pickle.loads(pickle.dumps(e))])
def test_copies_keep_message_attributes_notes_and_cause(
    example: BaseException, duplicate: Any
) -> None:
    original = copy.copy(example)
    original.__cause__ = ValueError("why")
    original.add_note("a note")
    twin = duplicate(original)
    assert type(twin) is type(example)
    assert str(twin) == str(example)
    assert vars(twin) == {**vars(example), "__notes__": ["a note"]}
    assert repr(twin.__cause__) == "ValueError('why')"


@pytest.mark.parametrize("example", CARRIED, ids=names(CARRIED))
def test_failures_carry_our_own_errors_whole(example: Exception) -> None:
    twin = decode_failure(encode_failure(example))
    assert type(twin) is type(example)
    assert str(twin) == str(example)
    assert vars(twin) == vars(example)


def test_cause_is_the_attribute_and_dunder_cause() -> None:
    error = errors.WorkflowFailed("order-1")
    error.__cause__ = ValueError("why")
    assert error.cause is error.__cause__


def test_an_activity_timeout_is_a_timeout_error_c10() -> None:
    with pytest.raises(TimeoutError) as caught:
        raise errors.ActivityTimeout("start_to_close", "charge", "3", 2)
    assert isinstance(caught.value, errors.ActivityError)
    assert str(caught.value) == "activity 'charge' exceeded its start_to_close timeout at attempt 2"


def test_except_exception_lets_control_flow_pass_c12() -> None:
    for control in (errors.Evicted, errors.ContinueAsNew):
        assert not issubclass(control, Exception)


def test_saga_failed_is_a_group_and_a_durable_error() -> None:
    failed: Any = errors.SagaFailed("2 compensations failed", [ValueError("a"), KeyError("b")])
    assert issubclass(errors.SagaFailed, errors.DurableError)
    matched, rest = failed.split(ValueError)
    assert type(matched) is type(rest) is errors.SagaFailed
    assert repr(pickle.loads(pickle.dumps(failed))) == repr(failed)


def test_nondeterminism_shows_both_sides_the_line_and_the_remedy_c13() -> None:
    text = str(EXAMPLES[1])
    for part in ("event 7", "name='charge'", "name='ship'", "shop.py:12", "durable.patched(id)"):
        assert part in text
    assert "differs in name: 'charge' -> 'ship'" in text
    assert "differs in kind" not in text


def test_nondeterminism_with_one_side_missing() -> None:
    error = errors.NondeterminismError(event_seq=3, expected=None, got={"kind": "TimerStarted"})
    assert "history says: nothing more here" in str(error)


def test_every_error_explains_itself() -> None:
    public = [
        cls
        for _, cls in inspect.getmembers(errors, inspect.isclass)
        if cls.__module__ == errors.__name__
    ]
    silent = [cls.__name__ for cls in public if not cls.__dict__.get("__doc__")]
    assert len(public) > 25
    assert silent == []
