"""What a worker does beside its work: prove that it lives, take over from the dead, enforce deadlines, keep the database's view and its own in step.

The lease, heartbeats and the comparison with the database are each worker's own. The rescue of what the dead have left is a claimed duty (duties.py); it is
bounded per pass, and rows are taken with SKIP LOCKED, so that two who believe that it is theirs do no harm.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import socket
from collections.abc import Awaitable, Callable
from collections.abc import Set as AbstractSet

from durable.errors import DatabaseUnavailable
from durable.store import engine, questions
from durable.store.batch import PutBack, Release
from durable.store.duties import Duty
from durable.store.session import ConnectionLost, DatabaseRefused, Session
from durable_worker.attempts import Attempts
from durable_worker.clock import DatabaseClock
from durable_worker.committer import Committer
from durable_worker.runs import Runs
from durable_worker.settings import WorkerSettings

logger = logging.getLogger("durable.worker")

_BURY_LIMIT = 1_000
_EXPIRE_LIMIT = 200
_SWEEP_LIMIT = 1_000
_LATE_CLAIMS_LEASES = 4


class Housekeeping:
    """The periodic duties, over one session."""

    def __init__(
        self,
        session: Session,
        settings: WorkerSettings,
        owner: str,
        runs: Runs,
        attempts: Attempts,
        committer: Committer,
        clock: DatabaseClock,
        *,
        duties: Session,
        declared_dead: Callable[[], None],
        wake: Callable[[], None],
    ) -> None:
        self._session = session
        self._settings = settings
        self._owner = owner
        self._runs = runs
        self._attempts = attempts
        self._committer = committer
        self._clock = clock
        self._duties = duties
        self._declared_dead = declared_dead
        self._wake = wake
        self._queues = json.dumps(settings.queues)
        self._suspect = asyncio.Event()
        self._doubtful: set[engine.Held] = set()
        self._reconcile_at = 0.0
        self._jobs_until = 0.0
        self._sweep_at = 0.0
        self._next_full_round = 0.0
        self.state = "alive"
        self.takeovers = 0
        self.under_way: AbstractSet[str] = frozenset()  # runs and jobs that may become ours

    def suspect(self) -> None:
        """A connection broke: what the database believes may differ from what we hold."""
        self._suspect.set()

    @property
    def doubts(self) -> bool:
        """Whether something may be ours, or become it late, that we do not know of."""
        late = asyncio.get_running_loop().time() < self._jobs_until
        return late or self._suspect.is_set() or bool(self._doubtful)

    async def run(self) -> None:
        """Do all duties for ever, each at its own pace."""
        lease_s = self._settings.lease_s
        await asyncio.gather(
            self._repeat(lease_s / 3, self.beat),
            self._repeat(0.25, self._heartbeats),
            self._repeat(0.25, self._reconcile),
        )

    async def _repeat(self, interval_s: float, duty: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                async with self._session.lock:
                    await duty()
            except (ConnectionLost, DatabaseUnavailable, DatabaseRefused) as error:
                logger.warning("%s: %s", duty.__name__, error)
            await asyncio.sleep(interval_s * random.uniform(0.8, 1.2))  # noqa: S311 - jitter

    async def beat(self) -> None:
        """Renew the lease; if the database has declared this worker dead, say so."""
        info = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "runs": len(self._runs),
            "attempts": len(self._attempts),
            "run_workflows": self._settings.run_workflows,
        }
        alive, now_us = await engine.beat(
            self._session,
            self._owner,
            self._settings.name,
            self.state,
            self._queues,
            json.dumps(info),
            self._settings.lease_s,
        )
        self._clock.learn(now_us)
        if not alive:
            self._declared_dead()

    async def rescue(self, _duty: Duty) -> float:
        """Free what dead workers held, enforce deadlines, send late messages on. Answers when to do so again."""
        await self._take_over()
        now = asyncio.get_running_loop().time()
        if now >= self._sweep_at:
            self._sweep_at = now + self._settings.lease_s / 3
            await engine.sweep_orphans(self._duties, _SWEEP_LIMIT)
            await questions.forget_requests(self._duties, _SWEEP_LIMIT)
        return min(1.0, self._settings.lease_s / 3)

    async def _take_over(self) -> None:
        workers, runs, jobs = await engine.bury_dead_workers(self._duties, _BURY_LIMIT)
        if workers or runs or jobs:
            logger.warning(
                "took over from %s dead workers: %s runs, %s attempts", workers, runs, jobs
            )
            self.takeovers += runs + jobs
            self._wake()
        if await engine.expire_deadlines(
            self._duties, self._settings.deadline_grace_s, _EXPIRE_LIMIT
        ):
            self._wake()

    async def _heartbeats(self) -> None:
        """Store heartbeats soon; ask about every attempt at the pace of the lease, in case a hint was lost."""
        self._attempts.expire_silent()
        beats = self._attempts.heartbeats(dirty_only=not self._full_round_due())
        if not beats:
            return
        try:
            answers = await engine.heartbeat_jobs(
                self._session, self._owner, [beat for _, beat in beats]
            )
        except BaseException:
            self._attempts.keep_dirty(beats)
            raise
        for position, (attempt, _) in enumerate(beats):
            cancel_requested = answers.get(position)
            if cancel_requested:
                self._attempts.cancel(attempt.run_id, attempt.seq)
            elif cancel_requested is None:
                self._attempts.drop(attempt)

    def ask_cancels(self) -> None:
        """A hint says that some attempt here was told to stop: ask about all of them at the next round."""
        self._next_full_round = 0.0

    def _full_round_due(self) -> bool:
        now = asyncio.get_running_loop().time()
        if now < self._next_full_round:
            return False
        self._next_full_round = now + min(5.0, self._settings.lease_s / 3)
        return True

    async def _reconcile(self) -> None:
        """Compare what the database says is ours with what we hold: at the pace of the lease, and soon after a broken connection.

        A difference counts when it is seen twice in a row, for claims and commits are under way meanwhile. Jobs, which no index lists by owner, are looked at
        for some leases after a break: a claim that waited for a lock may take effect long after whoever sent it has given up.
        """
        loop_time = asyncio.get_running_loop().time()
        if self._suspect.is_set():
            self._jobs_until = loop_time + _LATE_CLAIMS_LEASES * self._settings.lease_s
        elif not self._doubtful and loop_time < self._reconcile_at:
            return
        self._reconcile_at = loop_time + self._settings.lease_s
        self._suspect.clear()
        jobs = bool(self._doubtful) or loop_time < self._jobs_until
        try:
            rows = await engine.owned(self._session, self._owner, jobs=jobs)
        except BaseException:
            self._suspect.set()  # nobody has looked yet
            raise
        self._compare(rows)

    def _compare(self, rows: list[engine.Held]) -> None:
        runs, attempts = self._runs.held(), self._attempts.held()
        unknown = {
            held
            for held in rows
            if held.run_id not in self.under_way
            and (
                runs.get(held.run_id)
                if held.kind == "run"
                else attempts.get((held.run_id, held.seq))
            )
            != held.number
        }
        ours = {held.run_id for held in rows if held.kind == "run"}
        zombies = {
            engine.Held("zombie", 0, run_id, epoch, 0)
            for run_id, epoch in runs.items()
            if run_id not in ours
        }
        for held in (unknown | zombies) & self._doubtful:
            self._settle_difference(held)
        self._doubtful = (unknown | zombies) - self._doubtful

    def _settle_difference(self, held: engine.Held) -> None:
        if held.kind == "zombie":
            self._runs.forget(held.run_id, held.number)
        else:
            self._give_back(held)

    def _give_back(self, held: engine.Held) -> None:
        logger.warning("giving back what a broken connection left: %s", held)
        if held.kind == "run":
            self._committer.write(Release(held.shard, held.run_id, held.number, 0.0, None))
        else:
            self._committer.write(
                PutBack(
                    held.shard, held.run_id, held.seq, held.number, 0.0, {"kind": "connection_lost"}
                )
            )
