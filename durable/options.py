"""The options of activities and of child workflows: what may be said at the decorator and at the call."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from datetime import timedelta
from typing import Any, Literal

from durable.core.futures import Cancellation
from durable.core.names import checked_name, checked_priority
from durable.core.policy import LIBRARY_DEFAULT, LifeLimits, RetryPolicy, Timeouts, merge
from durable.errors import InvalidOption

OnExhausted = Literal["fail", "pause"]
"""What happens when an activity's attempts have run out. "fail": the workflow gets the failure. "pause": the run waits, needing review, until an
operator has the activity tried again, perhaps with another input, or gives its result or failure by hand."""


def checked_on_exhausted(value: Any) -> OnExhausted | None:
    """`value`, if it is one. Raises InvalidOption."""
    if value not in (None, "fail", "pause"):
        raise InvalidOption(f'on_exhausted is {value!r}; give "fail" or "pause"')
    chosen: OnExhausted | None = value
    return chosen


@dataclass(frozen=True, slots=True)
class ActivityOptions:
    """The options of an activity or of one call of it; None is unset. Raises InvalidOption on nonsense.

    queue: the queue its jobs wait in; by default the run's. priority: 0 (first) to 9 (last); by default the run's.
    retry: merged field by field, call over activity over workflow over library (C6). timeout: one attempt, from start
    to close. schedule_to_close: all attempts together. schedule_to_start: the wait for a worker. heartbeat_timeout: the
    longest silence between heartbeats. cancellation: see `Cancellation`. id: the call's id within the run.
    on_exhausted: see `OnExhausted`; by default the workflow's.
    """

    queue: str | None = None
    priority: int | None = None
    retry: RetryPolicy | None = None
    timeout: timedelta | None = None
    schedule_to_close: timedelta | None = None
    schedule_to_start: timedelta | None = None
    heartbeat_timeout: timedelta | None = None
    cancellation: Cancellation | None = None
    id: str | None = None
    on_exhausted: OnExhausted | None = None

    def __post_init__(self) -> None:
        checked_on_exhausted(self.on_exhausted)
        if self.queue is not None:
            checked_name("queue", self.queue)
        if self.id is not None:
            checked_name("id", self.id)
        if self.priority is not None:
            checked_priority("priority", self.priority)
        if self.cancellation not in (None, "try", "wait", "abandon"):
            raise InvalidOption(
                f'cancellation is {self.cancellation!r}; give "try", "wait" or "abandon"'
            )
        _ = self.timeouts

    @property
    def timeouts(self) -> Timeouts:
        return Timeouts(
            self.timeout, self.schedule_to_close, self.schedule_to_start, self.heartbeat_timeout
        )

    def over(self, base: ActivityOptions) -> ActivityOptions:
        """These options where they are set, those of `base` elsewhere; retry policies field by field."""
        given = {
            f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None
        }
        if self.retry is not None and base.retry is not None:
            given["retry"] = _over(self.retry, base.retry)
        return replace(base, **given)


def _over(first: RetryPolicy, second: RetryPolicy) -> RetryPolicy:
    return RetryPolicy.from_body({**second.to_body(), **first.to_body()})


def beyond_default(policy: RetryPolicy) -> dict[str, Any]:
    """What differs from the library's default, which is part of the semantics version: every event carries this."""
    default = LIBRARY_DEFAULT.to_body()
    return {key: value for key, value in policy.to_body().items() if default[key] != value}


def unless_fail(on_exhausted: str | None) -> dict[str, Any]:
    return {"on_exhausted": on_exhausted} if on_exhausted == "pause" else {}


def unless_empty(key: str, value: dict[str, Any]) -> dict[str, Any]:
    return {key: value} if value else {}


def job_options(options: ActivityOptions) -> dict[str, Any]:
    """The options of a job: retry policy and timeouts where they differ from the library's."""
    return {
        **unless_empty("retry", beyond_default(merge(options.retry))),
        **unless_empty("timeouts", options.timeouts.to_body()),
    }


ClosePolicy = Literal["terminate", "cancel", "abandon"]
"""What becomes of a child that is still open when its parent closes (C15). "terminate": ended by force, its own children by
their policies. "cancel": asked to stop. "abandon": nothing. Continue-as-new is no closing: the children go on, by themselves."""


@dataclass(frozen=True, slots=True)
class ChildOptions:
    """The options of a child workflow; None is unset. Raises InvalidOption on nonsense.

    id: its workflow id; by default the parent's, "/", and its place among the parent's calls. queue, priority: by default the
    workflow's own, else the parent's. close_policy: see `ClosePolicy`; by default "terminate". cancellation: see
    `Cancellation`; by default "wait", so that a child has compensated before its parent goes on. run_timeout,
    execution_timeout: by default the workflow's own; see `LifeLimits`. retry: how often the child as a whole is started again when it fails, each
    time as a new run under the same id; by default never. Not to be mixed up with `@workflow(retry=...)`, which is about its activities.
    """

    id: str | None = None
    queue: str | None = None
    priority: int | None = None
    close_policy: ClosePolicy | None = None
    cancellation: Cancellation | None = None
    run_timeout: timedelta | None = None
    execution_timeout: timedelta | None = None
    retry: RetryPolicy | None = None

    def __post_init__(self) -> None:
        for option in ("id", "queue"):
            if (value := getattr(self, option)) is not None:
                checked_name(option, value)
        if self.priority is not None:
            checked_priority("priority", self.priority)
        if self.close_policy not in (None, "terminate", "cancel", "abandon"):
            raise InvalidOption(
                f'close_policy is {self.close_policy!r}; give "terminate", "cancel" or "abandon"'
            )
        if self.cancellation not in (None, "try", "wait", "abandon"):
            raise InvalidOption(
                f'cancellation is {self.cancellation!r}; give "try", "wait" or "abandon"'
            )
        _ = self.limits

    @property
    def limits(self) -> LifeLimits:
        return LifeLimits(self.run_timeout, self.execution_timeout)
