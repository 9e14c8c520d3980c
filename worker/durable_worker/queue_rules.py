"""What this worker must know of its queues beforehand: which have limits, and how many slots the operator gives it.

The claim itself needs nothing of it: it asks the database every time. But what a turn of a run schedules is started here without a claim (eager dispatch),
which would pass every limit; so queues with limits, and paused ones, get no eager attempts. A change is heard of by a hint, and by asking once a second.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from durable.errors import DatabaseUnavailable
from durable.store import engine
from durable.store.session import ConnectionLost, DatabaseRefused, Session
from durable_worker.slots import Slots

logger = logging.getLogger("durable.worker")

PACE_S = 1.0


class QueueRules:
    """Keeps `slots` in step with the rows of the worker's queues."""

    def __init__(self, session: Session, queues: Sequence[str], slots: Slots) -> None:
        self._session = session
        self._queues = list(queues)
        self._slots = slots
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """Somebody has configured a queue."""
        self._changed.set()

    async def run(self) -> None:
        """Ask for ever."""
        while True:
            try:
                async with self._session.lock:
                    await self.learn()
            except (ConnectionLost, DatabaseUnavailable, DatabaseRefused) as error:
                logger.warning("queues: %s", error)
            try:
                await asyncio.wait_for(self._changed.wait(), PACE_S)
            except TimeoutError:
                continue
            self._changed.clear()

    async def learn(self) -> None:
        """Ask once."""
        rules = await engine.queue_rules(self._session, self._queues)
        self._slots.obey({rule.name: (rule.special, rule.slots) for rule in rules})
