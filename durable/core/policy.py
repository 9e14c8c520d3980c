"""Retry policies and timeouts: plain values, merged field by field, and the arithmetic of the next
attempt (C6).

A field that is None is *unset*. `merge(call, activity, workflow)` takes the first set value of each
field and falls back to `LIBRARY_DEFAULT`, so a call that only says `max_attempts=1` keeps the
activity's intervals. Nothing here reads a clock or draws a random number: the caller passes the
number in, and it is recorded.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any, Literal

from durable.completion_errors import TransactionMisused
from durable.core.durations import duration_us
from durable.errors import InternalError, InvalidOption, NonRetryable, PayloadError
from durable.failure import failure_type_names, leaves, type_name

Jitter = Literal["full", "none"] | float

_LONGEST_S = timedelta(days=3650).total_seconds()


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how fast an activity is tried again (C6). Every field may be left unset (None).

    - max_attempts: attempts in all, the first one included; 1 means no retry, 0 means no bound.
    - initial_interval: the wait before the second attempt.
    - backoff_coefficient: each further wait is this many times longer; at least 1.
    - max_interval: no wait is longer.
    - jitter: "full" waits a random time between zero and the computed wait, "none" exactly that,
      and a fraction f from 0 to 1 takes off at most that part.
    - non_retryable: exception classes, or their names (`PaymentDeclined`, or
      `shop.payments:PaymentDeclined`), that are not tried again; subclasses count. Kept as names.

    Raises InvalidOption when a value makes no sense.
    """

    max_attempts: int | None = None
    initial_interval: timedelta | None = None
    backoff_coefficient: float | None = None
    max_interval: timedelta | None = None
    jitter: Jitter | None = None
    non_retryable: tuple[type[BaseException] | str, ...] | None = None

    def __post_init__(self) -> None:
        _check_count("retry.max_attempts", self.max_attempts)
        _check_duration("retry.initial_interval", self.initial_interval)
        _check_coefficient("retry.backoff_coefficient", self.backoff_coefficient)
        _check_duration("retry.max_interval", self.max_interval)
        _check_jitter("retry.jitter", self.jitter)
        object.__setattr__(self, "non_retryable", _type_names(self.non_retryable))

    def to_body(self) -> dict[str, Any]:
        """The JSON form: only the fields that are set, durations in seconds."""
        body = {
            "max_attempts": self.max_attempts,
            "initial_interval_s": _seconds(self.initial_interval),
            "backoff_coefficient": self.backoff_coefficient,
            "max_interval_s": _seconds(self.max_interval),
            "jitter": self.jitter,
            "non_retryable": None if self.non_retryable is None else list(self.non_retryable),
        }
        return {key: value for key, value in body.items() if value is not None}

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> RetryPolicy:
        """Read `to_body()` back. Raises InvalidOption on a key that this release does not know."""
        known = {
            "max_attempts", "initial_interval_s", "backoff_coefficient", "max_interval_s", "jitter", "non_retryable",
        }  # fmt: skip
        _refuse_unknown("retry", body, known)
        names = body.get("non_retryable")
        return cls(
            max_attempts=body.get("max_attempts"),
            initial_interval=_duration("retry.initial_interval_s", body.get("initial_interval_s")),
            backoff_coefficient=body.get("backoff_coefficient"),
            max_interval=_duration("retry.max_interval_s", body.get("max_interval_s")),
            jitter=body.get("jitter"),
            non_retryable=None if names is None else tuple(names),
        )


def merge(*policies: RetryPolicy | None) -> RetryPolicy:
    """The first set value of each field, most specific policy first, over `LIBRARY_DEFAULT`;
    all fields set (C6).
    """
    return RetryPolicy(**_first_set((*policies, LIBRARY_DEFAULT)))


def delay_s(policy: RetryPolicy, attempt: int, random_unit: float) -> float:
    """Seconds to wait after the failed attempt number `attempt` (from 1) before the next one.

    `random_unit` is the caller's random number in 0..1; the result is a pure function of it.
    """
    initial, coefficient, cap, jitter = _intervals(merge(policy))
    wait = min(cap, _grown(initial, coefficient, attempt - 1))
    part = {"full": 1.0, "none": 0.0}[jitter] if isinstance(jitter, str) else jitter
    return wait * (1.0 - part * (1.0 - random_unit))


def _intervals(full: RetryPolicy) -> tuple[float, float, float, Jitter]:
    first, coefficient, cap = full.initial_interval, full.backoff_coefficient, full.max_interval
    if first is None or coefficient is None or cap is None or full.jitter is None:
        raise InternalError(f"a merged retry policy has unset fields: {full}")
    return first.total_seconds(), coefficient, cap.total_seconds(), full.jitter


def _grown(initial_s: float, coefficient: float, times: int) -> float:
    try:
        return initial_s * coefficient ** max(times, 0)
    except OverflowError:
        return math.inf


def why_final(
    policy: RetryPolicy, attempt: int, failure: BaseException
) -> Literal["non_retryable", "max_attempts"] | None:
    """Why no further attempt follows the failed attempt number `attempt` (from 1); None if one does.

    A group is retried only if every leaf may be (C7). What does not fit its type, or has misused
    its transaction, will do so again whatever the policy says.
    """
    full = merge(policy)
    if isinstance(failure, PayloadError | TransactionMisused) or is_excluded(full, failure):
        return "non_retryable"
    return "max_attempts" if full.max_attempts and attempt >= full.max_attempts else None


def is_excluded(policy: RetryPolicy, failure: BaseException) -> bool:
    """Whether `non_retryable`, or a raised `NonRetryable`, rules out another attempt, whatever
    the count.
    """
    excluded = {*(policy.non_retryable or ()), type_name(NonRetryable)}
    groups = (failure, *leaves(failure))
    return any(not excluded.isdisjoint(failure_type_names(exc)) for exc in groups)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """The time limits of an activity (C6), each unset (None) or positive.

    start_to_close: one attempt. schedule_to_close: all attempts and the waits between them.
    schedule_to_start: waiting for a worker. heartbeat: between two calls of `durable.heartbeat()`.

    Raises InvalidOption on anything else.
    """

    start_to_close: timedelta | None = None
    schedule_to_close: timedelta | None = None
    schedule_to_start: timedelta | None = None
    heartbeat: timedelta | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            _check_duration(f"timeouts.{field.name}", getattr(self, field.name))

    def to_body(self) -> dict[str, Any]:
        """The JSON form: only the limits that are set, in seconds."""
        pairs = ((f"{f.name}_s", _seconds(getattr(self, f.name))) for f in fields(self))
        return {key: value for key, value in pairs if value is not None}

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Timeouts:
        """Read `to_body()` back. Raises InvalidOption on a key that this release does not know."""
        _refuse_unknown("timeouts", body, {f"{f.name}_s" for f in fields(cls)})
        return cls(**{key[:-2]: _duration(f"timeouts.{key}", value) for key, value in body.items()})


def _first_set(values: Iterable[RetryPolicy | None]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for value in values:
        for field in fields(RetryPolicy):
            if merged.get(field.name) is None and value is not None:
                merged[field.name] = getattr(value, field.name)
    return merged


def _type_names(classes: Any) -> tuple[str, ...] | None:
    if classes is None:
        return None
    if isinstance(classes, str | type) or not isinstance(classes, Iterable):
        raise _invalid(
            "retry.non_retryable", classes, "a tuple of exception classes or their names"
        )
    return tuple(_exception_name(cls) for cls in classes)


def _exception_name(cls: Any) -> str:
    if isinstance(cls, str) and cls:
        return cls
    if isinstance(cls, type) and issubclass(cls, BaseException):
        return type_name(cls)
    raise _invalid("retry.non_retryable", cls, "exception classes or their names")


def _check_count(option: str, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise _invalid(option, value, "a whole number from 1, or 0 for no bound")


def _check_coefficient(option: str, value: Any) -> None:
    if value is not None and not (_is_number(value) and 1 <= value < math.inf):
        raise _invalid(option, value, "a number from 1")


def _check_jitter(option: str, value: Any) -> None:
    if value is None or value in ("full", "none"):
        return
    if not (_is_number(value) and 0 <= value <= 1):
        raise _invalid(option, value, '"full", "none" or a fraction from 0 to 1')


def _check_duration(option: str, value: Any) -> None:
    if value is None:
        return
    if not isinstance(value, timedelta) or not 0 < value.total_seconds() <= _LONGEST_S:
        raise _invalid(option, value, "a positive timedelta of at most ten years")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _invalid(option: str, value: Any, allowed: str) -> InvalidOption:
    return InvalidOption(f"{option} is {value!r}; give {allowed}")


def _refuse_unknown(option: str, body: Mapping[str, Any], known: set[str]) -> None:
    if unknown := sorted(set(body) - known):
        raise InvalidOption(
            f"{option} has the unknown key {', '.join(unknown)}; a newer release wrote it: upgrade this process"
        )


def _seconds(value: timedelta | None) -> float | None:
    return None if value is None else value.total_seconds()


def _duration(option: str, seconds: Any) -> timedelta | None:
    if seconds is None:
        return None
    if not (_is_number(seconds) and 0 < seconds <= _LONGEST_S):
        raise _invalid(option, seconds, "a positive number of seconds, at most ten years")
    return timedelta(seconds=seconds)


LIBRARY_DEFAULT = RetryPolicy(
    max_attempts=5,
    initial_interval=timedelta(seconds=1),
    backoff_coefficient=2.0,
    max_interval=timedelta(seconds=60),
    jitter="full",
    non_retryable=(),
)


@dataclass(frozen=True, slots=True)
class LifeLimits:
    """How long a workflow may take; None: as long as it likes. Raises InvalidOption unless it is longer than 0.

    run_timeout: one run. execution_timeout: the whole chain of continue-as-new together. Both begin when the run may first run, and are kept
    by the database (C19): a run that exceeds one is closed with WorkflowTimedOut, whether or not a worker holds it. Its code is not told, so
    nothing is compensated: these are backstops. To compensate in time, use `asyncio.timeout` inside the workflow.
    """

    run_timeout: timedelta | None = None
    execution_timeout: timedelta | None = None

    def __post_init__(self) -> None:
        for option in ("run_timeout", "execution_timeout"):
            value = getattr(self, option)
            if value is not None and duration_us(option, value) <= 0:
                raise InvalidOption(f"{option} is {value!r}; give a timedelta longer than 0")

    def to_body(self) -> dict[str, float]:
        given = {"run_timeout_s": self.run_timeout, "execution_timeout_s": self.execution_timeout}
        return {
            key: duration_us(key, value) / 1e6 for key, value in given.items() if value is not None
        }
