"""Duties that one worker does for all: rescue, schedules, retention. Any worker takes them over; nobody is a leader.

A duty is held under a lease and fenced by its epoch (see migrations/0008_schedules.sql), so that a worker that was away for a while and believes it still
holds one writes nothing. All of them would be correct with several holders; they are held so that fifty idle workers do not ask the same
questions fifty times. Staging what is due is not among them: every worker does it with the poll that it makes anyway, rows are taken with
SKIP LOCKED, and a hand-over would make timers late by a lease.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping

from durable.errors import DatabaseUnavailable
from durable.store import duties
from durable.store.duties import Duty
from durable.store.session import ConnectionLost, DatabaseRefused, Session

logger = logging.getLogger("durable.worker")

Round = Callable[[Duty], Awaitable[float]]
"""Does what a duty is about once, and answers the seconds until the next time."""

_LONGEST_GAP_S = 1.0


class Duties:
    """Takes duties and does them, over a session of its own: a pass over many schedules must not hold up the heartbeat."""

    def __init__(
        self, session: Session, owner: str, lease_s: float, rounds: Mapping[str, Round]
    ) -> None:
        self._session = session
        self._owner = owner
        self._lease_s = lease_s
        self._rounds = rounds
        self.held: dict[str, Duty] = {}

    async def run(self) -> None:
        """Take and do, for ever."""
        await asyncio.gather(self._take(), *(self._do(name) for name in self._rounds))

    async def _take(self) -> None:
        while True:
            try:
                async with self._session.lock:
                    taken = await duties.take_duties(self._session, self._owner, self._lease_s)
                for name in taken.keys() - self.held.keys():
                    logger.info("took over the duty %s", name)
                self.held = taken
            except (ConnectionLost, DatabaseUnavailable, DatabaseRefused) as error:
                logger.warning("duties: %s", error)
            gap_s = min(self._lease_s / 3, _LONGEST_GAP_S)
            await asyncio.sleep(gap_s * random.uniform(0.8, 1.2))  # noqa: S311 - jitter

    async def _do(self, name: str) -> None:
        while True:
            wait_s = min(self._lease_s / 3, 0.25)
            if duty := self.held.get(name):
                wait_s = max(await self._once(duty), 0.02)
            await asyncio.sleep(wait_s)

    async def _once(self, duty: Duty) -> float:
        try:
            async with self._session.lock:
                return await self._rounds[duty.name](duty)
        except (ConnectionLost, DatabaseUnavailable) as error:
            logger.warning("%s: %s", duty.name, error)
        except DatabaseRefused as error:
            if duties.is_duty_lost(error):
                self.held.pop(duty.name, None)
            else:
                logger.warning("%s: %s", duty.name, error)
        return 0.5

    async def leave(self) -> None:
        """Leave what we hold to others at once. Call it when `run` has ended."""
        self.held = {}
        await duties.drop_duties(self._session, self._owner)
