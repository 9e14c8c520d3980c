"""The intake loop: ask the database what there is to do, as often as it pays.

NOTIFY is only a hint (C4): this loop is correct without it. After work or a hint it asks again after a short gap, then after gaps that grow up to the slow
poll; the first cover the hints that senders swallow within their own coalescing window, and ask only for what the hints were about. The slow poll asks for
everything. A due time known beforehand (a timer, a retry) shortens the wait.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from durable.core.events import Event
from durable.definitions import Workflow
from durable.errors import DatabaseUnavailable
from durable.store import engine
from durable.store.batch import PutBack
from durable.store.questions import Question
from durable.store.session import ConnectionLost, DatabaseRefused, Session
from durable_worker.attempts import Attempts
from durable_worker.backoff import pause_s
from durable_worker.clock import DatabaseClock
from durable_worker.committer import Committer
from durable_worker.faults import reach
from durable_worker.questions import Questions
from durable_worker.runs import Runs
from durable_worker.settings import WorkerSettings
from durable_worker.slots import HOLD_S

logger = logging.getLogger("durable.worker")

RUNS, INBOX, JOBS, QUERIES = "runs", "inbox", "jobs", "queries"
ALL = frozenset({RUNS, INBOX, JOBS})

_GAP_GROWTH = 5
_INBOX_LIMIT = 2_000
_CLAIM_RUNS_GAP_S = 0.02
_STAGE_LIMIT = 32  # of each shard 4 at a time: about what a pass can claim, or the inbox fills when many wake at once


class Intake:
    """Claims runs and jobs, reads the inbox, and stages what is due, over one session."""

    def __init__(
        self,
        session: Session,
        settings: WorkerSettings,
        owner: str,
        workflows: Mapping[tuple[str, int], Workflow[..., Any]],
        runs: Runs,
        attempts: Attempts,
        committer: Committer,
        clock: DatabaseClock,
        questions: Questions,
        *,
        broken: Callable[[], None],
    ) -> None:
        self._questions = questions
        self._ask_at = 0.0
        self._session = session
        self._settings = settings
        self._owner = owner
        self._workflows = workflows
        self._runs = runs
        self._attempts = attempts
        self._committer = committer
        self._clock = clock
        self._broken = broken
        self._queues = list(settings.queues)
        self._wake = asyncio.Event()
        self._next_due_us: int | None = None
        self._stage_at = 0.0
        self._everything_at = 0.0
        self._claim_runs_at = 0.0
        self._wanted: set[str] = set()
        self._recent: set[str] = set()
        self._gap_s = settings.poll_s
        self.stopping = False
        self.passes = 0

    def wake(self, *kinds: str) -> None:
        """There may be work of these kinds (RUNS, INBOX, JOBS, QUERIES): ask for it now. None named: for all of it."""
        self._wanted.update(kinds or ALL)
        if RUNS in self._wanted:
            self._claim_runs_at = 0.0
        self._wake.set()

    def due(self, at_us: int) -> None:
        """Something will be due then: do not sleep longer."""
        if self._next_due_us is None or at_us < self._next_due_us:
            self._next_due_us = at_us
            self._wake.set()

    async def run(self) -> None:
        """Poll until stopped."""
        failures = 0
        while not self.stopping:
            try:
                found = await self.poll_once()
                failures = 0
            except (ConnectionLost, DatabaseUnavailable, DatabaseRefused) as error:
                failures += 1
                logger.warning("intake: %s", error)
                self._broken()  # a claim may have taken effect although its answer is lost
                await asyncio.sleep(pause_s(failures, 0.05, 5.0))
                continue
            if found:
                self._gap_s = self._settings.poll_min_s
            if found < self._settings.claim_limit:  # else there is more of it
                await self._rest()

    async def _rest(self) -> None:
        """Sleep until a hint, a due time or the next poll. Without news the gap grows threefold, up to the slow poll.

        Work that is found does not end the rest: what comes within the shortest gap is taken together.
        """
        try:
            async with asyncio.timeout(self._rest_s()):  # not wait_for: it needs a task more
                await self._wake.wait()
            # Those that end in this turn of the loop free their slots together.
            if len(self._attempts):
                await asyncio.sleep(0)
        except TimeoutError:
            self._gap_s = min(self._settings.poll_s, self._gap_s * _GAP_GROWTH)
        else:
            self._gap_s = self._settings.poll_min_s
        self._wake.clear()

    def _rest_s(self) -> float:
        rest_s = self._gap_s
        if self._next_due_us is not None:
            rest_s = min(rest_s, (self._next_due_us - self._clock.now_us()) / 1e6)
        if self._attempts.slots.holds():
            rest_s = min(rest_s, HOLD_S)
        return max(rest_s, 0.001)

    async def poll_once(self) -> int:
        """One pass: over what hints have named, or over everything. Returns how much was found."""
        self.passes += 1
        wanted = self._choose()
        found = await self._stage()
        if found:
            wanted = wanted | ALL
        asked = await self._take_questions(wanted) if self._settings.run_workflows else []
        if asked:
            wanted = wanted | {INBOX}
        if self._settings.run_workflows and wanted & {RUNS, INBOX}:
            found += await self._take_runs(wanted)
        if asked:
            await self._questions.hand_out(asked)
            found += len(asked)
        if self._settings.run_activities and JOBS in wanted:
            found += await self._take_jobs()
        return found

    def _choose(self) -> AbstractSet[str]:
        """What to ask for: what hints named, soon after that the same again, and everything once in a slow poll, however busy it is."""
        now = asyncio.get_running_loop().time()
        wanted, self._wanted = self._wanted, set()
        if now >= self._everything_at:
            self._everything_at = now + self._settings.poll_s
            self._recent = wanted
            return ALL
        self._recent |= wanted
        return wanted or self._recent or ALL

    async def _stage(self) -> int:
        """Stage what is due: when something is, and at every slow poll in case somebody else's work is."""
        loop_time = asyncio.get_running_loop().time()
        due = self._next_due_us is not None and self._next_due_us <= self._clock.now_us()
        if not due and loop_time < self._stage_at:
            return 0
        self._stage_at = loop_time + self._settings.poll_s
        self._next_due_us = None
        moved, next_due_us = await engine.stage_due(self._session, _STAGE_LIMIT)
        reach("stage.after")
        if moved:
            self._claim_runs_at = 0.0
        if next_due_us is not None:
            self.due(next_due_us)
            self._wake.clear()
        return moved

    async def _take_questions(self, wanted: AbstractSet[str]) -> list[Question]:
        """Queries, when a hint tells of one and at every slow poll. What was sent to a run before it was asked is read after this."""
        loop_time = asyncio.get_running_loop().time()
        if QUERIES not in wanted and loop_time < self._ask_at:
            return []
        self._ask_at = loop_time + self._settings.poll_s
        return await self._questions.take()

    async def _take_runs(self, wanted: AbstractSet[str]) -> int:
        crowded = len(self._runs) >= self._settings.max_cached_runs + self._settings.claim_limit
        claimed = await self._claim_runs() if RUNS in wanted and not crowded else []
        # crowded: ask again soon; but claims must not run ahead of commits, or memory knows no bound
        new = int(crowded)
        try:
            if INBOX in wanted or any(run.has_messages for run in claimed):
                new += await self._read_inbox(bool(claimed))
        finally:  # also when the connection breaks here: what was adopted is ours, and nobody else will wake it
            for run in claimed:
                live = self._runs.get(run.run_id)
                if live is not None and (live.fresh or live.pending):
                    self._runs.wake(live)
        self._runs.trim()
        return len(claimed) + new

    async def _read_inbox(self, claimed: bool) -> int:
        if not claimed and not len(self._runs):
            return 0
        self._runs.begin_read()
        rows = await engine.read_inbox(self._session, self._owner, self._queues, _INBOX_LIMIT)
        return self._runs.deliver(rows)

    async def _claim_runs(self) -> list[engine.ClaimedRun]:
        """Claim runs; while there are none, ask for them less often than for messages, unless a hint says there are."""
        loop_time = asyncio.get_running_loop().time()
        if loop_time < self._claim_runs_at:
            return []
        claimed = await engine.claim_runs(
            self._session, self._owner, self._queues, self._settings.claim_limit
        )
        if claimed:
            reach("claim_runs.after")
            await self._adopt(claimed)
        else:
            self._claim_runs_at = loop_time + min(_CLAIM_RUNS_GAP_S, self._settings.poll_s)
        return claimed

    async def _adopt(self, claimed: list[engine.ClaimedRun]) -> None:
        known = []
        for run in claimed:
            if (run.workflow, run.version) in self._workflows:
                known.append(run)
            else:
                self._runs.put_back_unknown(run, self._settings.name)
        if not known:
            return
        histories = await self._load([run for run in known if run.start is None])
        for run in known:
            history: list[Event] | Exception = [run.start] if run.start else histories[run.run_id]
            self._runs.adopt(run, self._workflows[run.workflow, run.version], history)

    async def _load(self, runs: list[engine.ClaimedRun]) -> dict[str, list[Event] | Exception]:
        return await engine.load_history(self._session, runs) if runs else {}

    async def _take_jobs(self) -> int:
        self._attempts.release_held()
        wanted = self._attempts.wanted()
        if not wanted:
            return 0
        begin = time.monotonic()
        aged = self._attempts.slots.aged()
        jobs = await engine.claim_jobs(self._session, self._owner, wanted, aged=aged)
        got = Counter([job.queue for job in jobs])
        self._attempts.slots.answered(wanted, got, time.monotonic() - begin)
        if jobs:
            reach("claim_jobs.after")
        for job in jobs:
            if self._attempts.starting:
                self._attempts.start_claimed(job)
            else:
                self._committer.write(
                    PutBack(
                        job.shard, job.run_id, job.seq, job.attempt, 0.0, {"kind": "worker_stopped"}
                    )
                )
        return len(jobs)
