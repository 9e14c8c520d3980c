"""The options of activities: what may be said at the decorator and at the call."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from datetime import timedelta

from durable.core.futures import Cancellation
from durable.core.names import checked_name, checked_priority
from durable.core.policy import RetryPolicy, Timeouts
from durable.errors import InvalidOption


@dataclass(frozen=True, slots=True)
class ActivityOptions:
    """The options of an activity or of one call of it; None is unset. Raises InvalidOption on nonsense.

    queue: the queue its jobs wait in; by default the run's. priority: 0 (first) to 9 (last); by default the run's.
    retry: merged field by field, call over activity over workflow over library (C6). timeout: one attempt, from start
    to close. schedule_to_close: all attempts together. schedule_to_start: the wait for a worker. heartbeat_timeout: the
    longest silence between heartbeats. cancellation: see `Cancellation`. id: the call's id within the run.
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

    def __post_init__(self) -> None:
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
