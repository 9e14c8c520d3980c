"""How long a history may get before somebody should know."""

from __future__ import annotations

LONG_HISTORY = 10_000
"""From how many events on a run had better continue as new: replaying them takes about a second. Part of semantics version 1: code may decide by it."""


def long_history(events: int) -> str:
    """The warning about a history of so many events."""
    return (
        f"its history has {events:,} events, all of which are replayed whenever another worker takes it: "
        "let the workflow continue as new (durable.checkpoint, durable.continue_as_new)"
    )
