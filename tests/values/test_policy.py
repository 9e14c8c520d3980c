from __future__ import annotations

import json
import math
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable.completion_errors import TransactionMisused
from durable.core.policy import (
    LIBRARY_DEFAULT,
    RetryPolicy,
    Timeouts,
    delay_s,
    merge,
    why_final,
)
from durable.errors import InvalidOption, NonRetryable, PayloadError, RemoteError

SECOND = timedelta(seconds=1)


class Declined(ValueError):
    pass


class HardDeclined(Declined):
    pass


durations = st.timedeltas(min_value=timedelta(microseconds=1), max_value=timedelta(days=3650))
policies = st.builds(
    RetryPolicy,
    max_attempts=st.none() | st.integers(0, 2**31 - 1),
    initial_interval=st.none() | durations,
    backoff_coefficient=st.none() | st.floats(1, 1e6),
    max_interval=st.none() | durations,
    jitter=st.none() | st.sampled_from(["full", "none"]) | st.floats(0, 1),
    non_retryable=st.none() | st.lists(st.sampled_from([Declined, KeyError, "a:B"])).map(tuple),
)


@given(policies)
def test_retry_policy_survives_its_body(policy: RetryPolicy) -> None:
    assert RetryPolicy.from_body(json.loads(json.dumps(policy.to_body()))) == policy


@given(policies, policies)
def test_merge_takes_the_first_set_value_of_each_field_c6(
    call: RetryPolicy, activity: RetryPolicy
) -> None:
    merged = merge(call, None, activity)
    for name in RetryPolicy.__slots__:
        candidates = [getattr(p, name) for p in (call, activity, LIBRARY_DEFAULT)]
        assert getattr(merged, name) == next(value for value in candidates if value is not None)


def test_the_library_default_is_the_contracts_c6() -> None:
    assert merge().to_body() == {
        "max_attempts": 5,
        "initial_interval_s": 1.0,
        "backoff_coefficient": 2.0,
        "max_interval_s": 60.0,
        "jitter": "full",
        "non_retryable": [],
    }


def test_an_empty_tuple_and_a_zero_are_set_values() -> None:
    activity = RetryPolicy(max_attempts=3, non_retryable=(Declined,))
    merged = merge(RetryPolicy(max_attempts=0, non_retryable=()), activity)
    assert (merged.max_attempts, merged.non_retryable) == (0, ())


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"max_attempts": -1}, "max_attempts"),
        ({"max_attempts": 1.5}, "max_attempts"),
        ({"max_attempts": True}, "max_attempts"),
        ({"max_attempts": 2**31}, "max_attempts"),
        ({"initial_interval": timedelta(0)}, "initial_interval"),
        ({"initial_interval": 5}, "initial_interval"),
        ({"max_interval": -SECOND}, "max_interval"),
        ({"max_interval": timedelta.max}, "max_interval"),
        ({"backoff_coefficient": 0.5}, "backoff_coefficient"),
        ({"backoff_coefficient": math.nan}, "backoff_coefficient"),
        ({"backoff_coefficient": math.inf}, "backoff_coefficient"),
        ({"jitter": "some"}, "jitter"),
        ({"jitter": 1.1}, "jitter"),
        ({"jitter": True}, "jitter"),
        ({"non_retryable": ValueError}, "non_retryable"),
        ({"non_retryable": "ValueError"}, "non_retryable"),
        ({"non_retryable": (int,)}, "non_retryable"),
        ({"non_retryable": ("",)}, "non_retryable"),
    ],
)
def test_bad_retry_options_are_named(options: dict[str, Any], name: str) -> None:
    with pytest.raises(InvalidOption, match=f"retry.{name} is "):
        RetryPolicy(**options)


@pytest.mark.parametrize(
    ("jitter", "attempt", "random_unit", "expected"),
    [
        ("none", 1, 0.0, 1.0),
        ("none", 2, 0.0, 2.0),
        ("none", 6, 0.0, 32.0),
        ("none", 7, 0.0, 60.0),
        ("none", 10**9, 0.0, 60.0),
        ("full", 3, 0.25, 1.0),
        ("full", 3, 0.0, 0.0),
        ("full", 3, 1.0, 4.0),
        (0.5, 3, 0.0, 2.0),
        (0.5, 3, 1.0, 4.0),
        (0.0, 3, 0.5, 4.0),
    ],
)
def test_delay(jitter: Any, attempt: int, random_unit: float, expected: float) -> None:
    assert delay_s(RetryPolicy(jitter=jitter), attempt, random_unit) == expected


@given(policies, st.integers(1, 2**31), st.floats(0, 1))
def test_no_delay_leaves_its_bounds(policy: RetryPolicy, attempt: int, random_unit: float) -> None:
    cap = merge(policy).max_interval
    assert cap is not None
    assert 0 <= delay_s(policy, attempt, random_unit) <= cap.total_seconds()


def chained() -> BaseException:
    return ExceptionGroup("both", [OSError("x"), ExceptionGroup("inner", [HardDeclined("no")])])


ENOUGH, NEVER = "max_attempts", "non_retryable"


@pytest.mark.parametrize(
    ("policy", "attempt", "failure", "expected"),
    [
        (RetryPolicy(max_attempts=3), 2, ValueError(), None),
        (RetryPolicy(max_attempts=3), 3, ValueError(), ENOUGH),
        (RetryPolicy(max_attempts=1), 1, ValueError(), ENOUGH),
        (RetryPolicy(max_attempts=0), 10**9, ValueError(), None),
        (RetryPolicy(), 4, ValueError(), None),
        (RetryPolicy(), 5, ValueError(), ENOUGH),
        (RetryPolicy(), 5, NonRetryable("stop"), NEVER),
        (RetryPolicy(), 1, NonRetryable("stop"), NEVER),
        (RetryPolicy(), 1, PayloadError("result", "is no int", "Return one."), NEVER),
        (RetryPolicy(), 1, TransactionMisused("commits"), NEVER),
        (RetryPolicy(non_retryable=(Declined,)), 1, HardDeclined(), NEVER),
        (RetryPolicy(non_retryable=(HardDeclined,)), 1, Declined(), None),
        (RetryPolicy(non_retryable=("Declined",)), 1, HardDeclined(), NEVER),
        (RetryPolicy(non_retryable=("builtins.ValueError",)), 1, Declined(), NEVER),
        (RetryPolicy(non_retryable=(Declined,)), 1, chained(), NEVER),
        (RetryPolicy(non_retryable=(KeyError,)), 1, chained(), None),
        (RetryPolicy(non_retryable=(ExceptionGroup,)), 1, chained(), NEVER),
        (RetryPolicy(), 1, ExceptionGroup("g", [NonRetryable("stop")]), NEVER),
        (RetryPolicy(non_retryable=("shop:Gone",)), 1, RemoteError("shop:Gone", "m"), NEVER),
    ],
)
def test_why_it_is_not_tried_again_c6_c7(
    policy: RetryPolicy, attempt: int, failure: BaseException, expected: str | None
) -> None:
    assert why_final(policy, attempt, failure) == expected


@given(
    st.builds(
        Timeouts,
        start_to_close=st.none() | durations,
        schedule_to_close=st.none() | durations,
        schedule_to_start=st.none() | durations,
        heartbeat=st.none() | durations,
    )
)
def test_timeouts_survive_their_body(timeouts: Timeouts) -> None:
    assert Timeouts.from_body(json.loads(json.dumps(timeouts.to_body()))) == timeouts


@pytest.mark.parametrize("bad", [timedelta(0), -SECOND, 5, timedelta.max])
@pytest.mark.parametrize("name", Timeouts.__slots__)
def test_bad_timeouts_are_named(name: str, bad: Any) -> None:
    with pytest.raises(InvalidOption, match=f"timeouts.{name} is "):
        Timeouts(**{name: bad})


@pytest.mark.parametrize("cls", [RetryPolicy, Timeouts])
def test_a_key_of_a_newer_release_is_refused_not_dropped(cls: Any) -> None:
    with pytest.raises(InvalidOption, match="unknown key phase_of_moon"):
        cls.from_body({"phase_of_moon": 1})


@pytest.mark.parametrize("bad", ["1", True, 0, -1, math.nan, 1e12])
def test_a_body_with_a_bad_duration_is_refused(bad: Any) -> None:
    with pytest.raises(InvalidOption):
        Timeouts.from_body({"heartbeat_s": bad})
