"""How long a loop waits before it asks a database, or starts a child, again that has failed it several times in a row."""

from __future__ import annotations

import random

_MOST_DOUBLINGS = 30  # an outage of days counts thousands of failures, and 2**1024 is no float


def pause_s(failures: int, first_s: float, longest_s: float) -> float:
    """Seconds: doubled with each failure up to `longest_s`, with jitter, so that those who failed together do not come back together."""
    doubled_s = first_s * 2.0 ** min(failures, _MOST_DOUBLINGS)
    return min(longest_s, doubled_s) * random.uniform(0.5, 1.5)  # noqa: S311 - jitter
