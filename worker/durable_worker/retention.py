"""The duty of retention: goes round what is over and prunes what the rules say, a bounded pass at a time.

There is no index of closed runs by time, which every close would pay for; the walk is along the primary key, whose order is about that of creation, and
ends where everything is younger than the shortest rule. What it has seen it looks at again in the next round.
"""

from __future__ import annotations

import logging

from durable.store import duties
from durable.store.duties import Duty
from durable.store.retention_calls import ROWS, SCAN
from durable.store.session import Session
from durable.store.shards import SHARD_KEYS

logger = logging.getLogger("durable.worker")

_BETWEEN_PASSES_S = 0.05


class Retention:
    """One shard's part at a time; a round is over after the last one."""

    def __init__(self, session: Session, owner: str, *, gap_s: float) -> None:
        self._session = session
        self._owner = owner
        self._gap_s = gap_s
        self._shard = 0
        self._after: dict[str, str | None] = {}
        self._done: set[str] = set()
        self._pruned = 0

    async def round(self, duty: Duty) -> float:
        """One pass. Returns the seconds until the next."""
        if self._shard == 0 and not self._after and not await duties.has_rules(self._session):
            return self._gap_s
        shard = SHARD_KEYS[self._shard]
        for kind in ("run", "job"):
            if kind in self._done:
                continue
            last_id, pruned, _ = await duties.prune(
                self._session,
                self._owner,
                duty.epoch,
                kind,
                shard,
                self._after.get(kind),
                SCAN,
                ROWS,
            )
            self._pruned += pruned
            self._after[kind] = last_id
            if last_id is None:
                self._done.add(kind)
        if len(self._done) == 2:
            self._shard, self._after, self._done = self._shard + 1, {}, set()
        if self._shard < len(SHARD_KEYS):
            return _BETWEEN_PASSES_S if self._after else 0.0
        return await self._finish(duty)

    async def _finish(self, duty: Duty) -> float:
        slots = await duties.prune_slots(self._session, self._owner, duty.epoch, SCAN)
        if self._pruned or slots:
            logger.info("pruned %s runs and jobs, %s slots", self._pruned, slots)
        self._shard = self._pruned = 0
        return self._gap_s
