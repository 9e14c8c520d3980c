"""What an activity may answer besides a result or an exception: `Snooze`, `Cancel`, `Retry`. Return it, or raise it from deep inside.

They derive from BaseException, so that `except Exception` in the activity lets a raised one pass. A return annotation may name them
(`-> Receipt | Snooze`); they are no part of the result's type.
"""

from __future__ import annotations

from datetime import timedelta

from durable.errors import InvalidOption

_LONGEST_S = timedelta(days=3650).total_seconds()


class ActivityOutcome(BaseException):
    """The base of the three; not for use."""


class Snooze(ActivityOutcome):
    """Not now: run again after `delay` (timedelta, or seconds). The attempt does not count, and is not an error (S127).

    In a workflow the call goes on waiting. Time limits over all attempts together still hold. Raises InvalidOption unless
    the delay is from 0 to ten years.
    """

    def __init__(self, delay: timedelta | float) -> None:
        self.delay_s = _seconds("Snooze", delay)
        super().__init__(f"snoozes for {self.delay_s:g} s")


class Cancel(ActivityOutcome):
    """Never mind: it makes no sense to do this, now or later. There is no further attempt, whatever the retry policy says.

    A job ends as `cancelled`; in a workflow the call raises ActivityError with `retry_state` "cancelled". Either way the
    error's cause is JobCancelled with the `reason`.
    """

    def __init__(self, reason: str) -> None:
        self.reason = str(reason)
        super().__init__(self.reason)


class Retry(ActivityOutcome):
    """It failed, and is worth another attempt after `delay` (timedelta, or seconds; None: what the retry policy says).

    The attempt counts and `reason` is kept as its error. When it was the last attempt, the job is discarded (the call
    fails). Raises InvalidOption unless the delay is from 0 to ten years.
    """

    def __init__(self, delay: timedelta | float | None = None, reason: str = "") -> None:
        self.delay_s = None if delay is None else _seconds("Retry", delay)
        self.reason = reason or "the activity asked for another attempt"
        super().__init__(self.reason)


def _seconds(name: str, delay: timedelta | float) -> float:
    number = delay.total_seconds() if isinstance(delay, timedelta) else delay
    known = isinstance(number, int | float) and not isinstance(number, bool)
    if not known or not 0 <= number <= _LONGEST_S:
        raise InvalidOption(
            f"{name}({delay!r}): give a timedelta or seconds, from 0 to ten years, as the delay"
        )
    return float(number)
