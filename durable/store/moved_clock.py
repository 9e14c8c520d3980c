"""Moving the database's clock, for tests (C19)."""

from __future__ import annotations

from datetime import datetime, timedelta

from durable.store.calls import Call, from_us
from durable.store.queries import load_queries

_SQL = load_queries("moved_clock.sql")


def advance(by: timedelta) -> Call[datetime]:
    """Move the clock by a time; answers the time then."""

    def decode(rows: list[dict[str, int]]) -> datetime:
        at = from_us(rows[0]["now_us"])
        assert at is not None
        return at

    return Call(_SQL["advance"], {"by": by}, decode)


def skip() -> Call[bool]:
    """Move the clock to what is due next if nothing can run now; answers whether it moved."""
    return Call(_SQL["skip"], {}, lambda rows: bool(rows and rows[0]["moved"]))
