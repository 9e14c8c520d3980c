"""The database's time, extended with this machine's monotonic clock between round trips (C19).

Used to stamp events only. What is due, lapsed or late is decided in SQL.
"""

from __future__ import annotations

import time


class DatabaseClock:
    """Knows the database's time to within a round trip; never goes backwards."""

    def __init__(self) -> None:
        self._offset_us = time.time_ns() // 1000 - time.monotonic_ns() // 1000
        self._latest_us = 0

    def learn(self, now_us: int) -> None:
        """Take over a time that the database has just told."""
        self._offset_us = now_us - time.monotonic_ns() // 1000

    def now_us(self) -> int:
        """Return the present in microseconds since the epoch."""
        now_us = time.monotonic_ns() // 1000 + self._offset_us
        self._latest_us = max(self._latest_us, now_us)
        return self._latest_us
