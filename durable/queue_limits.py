"""What may be said of queues: their limits, how they stand, and why a job does not run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, get_args

from durable.errors import InvalidOption

RateKind = Literal["window", "bucket"]

ReasonCode = Literal[
    "executing", "finished", "completed_elsewhere", "job_paused", "scheduled", "retry", "unknown_activity", "no_worker", "queue_paused",
    "claim_disabled", "global_limit", "rate_limit", "key_limit", "key_rate_limit", "serial_predecessor", "no_free_slot",
]  # fmt: skip
"""Why a job is not running; the list is closed."""


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `limit` starts (weights count) in `period`, a timedelta or seconds.

    "window": in *any* period of that length, a sliding window. "bucket": a token bucket that fills at that pace up to `burst`
    (as many as `limit` if not given), so that after a quiet time so many may start at once. Raises InvalidOption.
    """

    limit: float
    period: timedelta | float
    kind: RateKind = "window"
    burst: float | None = None

    def __post_init__(self) -> None:
        for name, value in (
            ("limit", self.limit),
            ("period", self.period_s),
            ("burst", self.burst),
        ):
            if value is not None and not 0 < value < 1e12:
                raise InvalidOption(f"{name} of a rate limit is {value!r}; give a number above 0")
        if self.kind not in get_args(RateKind):
            raise InvalidOption(f"kind of a rate limit is {self.kind!r}; give 'window' or 'bucket'")
        if self.burst is not None and self.kind != "bucket":
            raise InvalidOption("only a bucket has a burst; give kind='bucket' or no burst")

    @property
    def period_s(self) -> float:
        """The period in seconds."""
        return self.period.total_seconds() if isinstance(self.period, timedelta) else self.period

    def as_body(self) -> dict[str, Any]:
        """As it is stored."""
        body = {"limit": self.limit, "period_s": self.period_s, "kind": self.kind}
        return body if self.burst is None else {**body, "burst": self.burst}

    @classmethod
    def from_body(cls, body: Mapping[str, Any] | None) -> RateLimit | None:
        """From what is stored."""
        if body is None:
            return None
        return cls(body["limit"], body["period_s"], body.get("kind", "window"), body.get("burst"))

    def __str__(self) -> str:
        burst = "" if self.burst is None else f", burst {self.burst:g}"
        return f"{self.limit:g} per {self.period_s:g} s ({self.kind}{burst})"


@dataclass(frozen=True, slots=True)
class QueueDescription:
    """A queue and its limits; None: no limit. `waiting` counts what could start now but for limits and slots, up to some thousands; `workers` serve it."""

    name: str
    paused_at: datetime | None
    pause_reason: str | None
    slots: int | None
    global_limit: int | None
    key_limit: int | None
    rate_limit: RateLimit | None
    key_rate_limit: RateLimit | None
    keyed: bool
    workers: int
    waiting: int


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason why a job is not running, as a sentence and as facts. `until`: when it ends by itself, if that is known."""

    code: ReasonCode
    message: str
    until: datetime | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


_SENTENCES: Mapping[ReasonCode, str] = {
    "executing": "it runs now: attempt {attempt}, on worker {worker}",
    "finished": "it has ended: {state}",
    "completed_elsewhere": "attempt {attempt} ended without an outcome, which comes from elsewhere",
    "job_paused": "the job itself is paused",
    "scheduled": "it is scheduled for {until}",
    "retry": "attempt {attempt} failed; the next one is due at {until}",
    "unknown_activity": "no worker that took it knows the activity: {message}",
    "no_worker": "no live worker serves queue {queue!r}",
    "queue_paused": "queue {queue!r} is paused{because}",
    "claim_disabled": "queue {queue!r} has no slots in any worker: it was given 0",
    "global_limit": "the queue's global limit is reached: {running} of {limit} run",
    "rate_limit": "the queue's rate of {limit:g} per {period_s:g} s is used up until {until}",
    "key_limit": "the limit of key {key!r} is reached: {running} of {limit} run",
    "key_rate_limit": "the rate of key {key!r}, {limit:g} per {period_s:g} s, is used up until {until}",
    "serial_predecessor": "job {job} of the same serial key {key!r} comes first; it is {state}",
    "no_free_slot": "nothing but slots: at least {before_at_least} jobs come before it",
}


def reason(code: ReasonCode, until: datetime | None, facts: Mapping[str, Any]) -> Reason:
    """Put a reason into words."""
    because = f": {facts['why']}" if facts.get("why") else ""
    shown = "?" if until is None else until.isoformat(timespec="milliseconds")
    message = _SENTENCES[code].format(**{**facts, "until": shown, "because": because})
    return Reason(code, message, until, facts)
