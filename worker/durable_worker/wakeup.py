"""Wake-up hints: NOTIFY received and sent, coalesced (C4).

NOTIFY takes a lock that is global to the database when its transaction commits, so it stays out of the big transaction and is sent at most
once in a window per hint. A receiver that was woken polls again at growing gaps, which covers what was swallowed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from durable.errors import DatabaseUnavailable
from durable.store import engine
from durable.store.session import ConnectionLost, DatabaseRefused, Session
from durable_worker.backoff import pause_s

logger = logging.getLogger("durable.worker")

WINDOW_S = 0.005


class Hints:
    """Sends hints to other workers, at most one per window and hint."""

    def __init__(self, session: Session, owner: str, *, enabled: bool) -> None:
        self._session = session
        self._mine = f"worker:{owner}"
        self._enabled = enabled
        self._sent_at: dict[str, float] = {}
        self._waiting: dict[str, None] = {}
        self._gathered = asyncio.Event()

    def give(self, hint: str) -> None:
        """Send `hint` soon, unless it was sent just now or is meant for this worker."""
        if not self._enabled or hint == self._mine:
            return
        now = asyncio.get_running_loop().time()
        if now - self._sent_at.get(hint, -1.0) >= WINDOW_S:
            self._sent_at[hint] = now
            self._waiting[hint] = None
            self._gathered.set()

    async def run(self) -> None:
        """Send what gathers. A hint that cannot be sent is dropped: it is only a hint."""
        while True:
            await self._gathered.wait()
            self._gathered.clear()
            waiting, self._waiting = self._waiting, {}
            try:
                for hint in waiting:
                    async with self._session.lock:
                        await engine.notify(self._session, hint)
            except (ConnectionLost, DatabaseUnavailable, DatabaseRefused) as error:
                logger.debug("hint not sent: %s", error)
            if len(self._sent_at) > 1_000:
                self._sent_at.clear()


async def listen(
    session: Session, owner: str, queues: list[str], woken: Callable[[str], None]
) -> None:
    """Listen for hints that concern this worker and pass them on, reconnecting for ever."""
    mine = {
        f"worker:{owner}",
        "queues",
        *(f"{kind}:{queue}" for kind in ("queue", "runs", "jobs", "queries") for queue in queues),
    }

    def hear(hint: str) -> None:
        if hint in mine:
            woken(hint)

    failures = 0
    while True:
        try:
            await engine.listen(session)
            failures = 0
            woken("listening")  # for what was sent while nobody listened
            await session.listen(hear)
        except (ConnectionLost, DatabaseUnavailable, DatabaseRefused) as error:
            failures += 1
            logger.warning("not listening for hints, polling goes on: %s", error)
        await session.close()
        await asyncio.sleep(pause_s(failures, 0.1, 5.0))
