"""Group commit: everything that is ready goes into one transaction.

The problem. A step of a workflow is a handful of rows. Written alone they cost a round trip and a commit; a thousand concurrent runs would spend
their time waiting for the disk one after the other.

The solution. While one commit is in flight, whatever becomes ready gathers in a list; when the commit ends, the whole list is the next
batch. Nobody waits for a timer: a lone step commits at once, and under load batches grow by themselves to just the size that the database
can take. A batch is one call of one set-based SQL function per kind of write.

What does not work. Committing each run in its own transaction on many connections: more CPU per step in Python and in Postgres, and Python
is single-threaded anyway. A timer that waits for more: it delays the lone step.

What can fail, and what happens then.
* A fence is lost (another worker owns the run now): the function raises with the losers and nothing is written. The losers are told; the others
  commit again at once (C2).
* A poison row (a value that Postgres refuses: error classes 22, 23, 54): the batch is bisected until the poison stands alone; its run is told, its
  neighbours commit (C8). Any other refusal is about the server (read-only, out of disk, a migration under way): like a break.
* The connection breaks: whether the batch took effect is unknown. Committing it again would meet fences that its own success had moved, so every
  ticket is told `lost`: the worker drops those runs and reconciles with what the database says it holds.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from durable.errors import DatabaseUnavailable
from durable.store import engine, questions
from durable.store.batch import (
    Completion,
    Outcome,
    Parked,
    PutBack,
    Release,
    Retry,
    RunCommit,
    TokenTaken,
)
from durable.store.questions import Answer
from durable.store.session import ConnectionLost, DatabaseRefused, Session
from durable_worker.clock import DatabaseClock
from durable_worker.faults import reach

logger = logging.getLogger("durable.worker")

SideWrite = TokenTaken | Completion | Outcome | Retry | PutBack | Parked | Release | Answer
_SIDE_WRITES: dict[type[Any], Callable[..., Awaitable[Any]]] = {
    TokenTaken: engine.take_tokens,
    Completion: engine.complete_jobs,
    Outcome: engine.settle_jobs,
    Retry: engine.retry_jobs,
    PutBack: engine.put_back_jobs,
    Parked: engine.park_jobs,
    Release: engine.release_runs,
    Answer: questions.answer_queries,
}
_POINTS: dict[type[Any], str] = {
    Completion: "settle",
    Outcome: "settle",
    Retry: "retry",
    TokenTaken: "token",
    Parked: "park",
}


class Ticket(Protocol):
    """A turn waiting for its commit. Exactly one of the three answers is called, once."""

    commit: RunCommit

    def committed(self) -> None:
        """The turn is durable: its effects may begin."""

    def lost(self) -> None:
        """The run is not ours any more, or nobody knows: drop it."""

    def refused(self, error: Exception) -> None:
        """The database refuses this turn whoever commits it."""


class Committer:
    """Gathers writes and commits them in groups over one session."""

    MAX_BATCH = 1_000

    def __init__(
        self,
        session: Session,
        owner: str,
        clock: DatabaseClock,
        *,
        hint: Callable[[str], None],
        broken: Callable[[], None],
        ended: Callable[[], None],
    ) -> None:
        self._session = session
        self._owner = owner
        self._clock = clock
        self._hint = hint
        self._broken = broken
        self._ended = ended
        self._tickets: list[Ticket] = []
        self._side: dict[type[Any], list[Any]] = {kind: [] for kind in _SIDE_WRITES}
        self._gathered = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._pause_s = 0.0
        self.commits = 0
        self.turns = 0
        self.settled = 0

    def submit(self, ticket: Ticket) -> None:
        """Add a turn to the next batch."""
        self._tickets.append(ticket)
        self._wake()

    def write(self, record: SideWrite) -> None:
        """Add what is not a turn: an outcome for somebody else's run, a retry, a put-back, a release."""
        self._side[type(record)].append(record)
        self._wake()

    def _wake(self) -> None:
        self._gathered.set()
        self._idle.clear()

    async def run(self) -> None:
        """Commit for ever, one batch after the other."""
        while True:
            await self._gathered.wait()
            self._gathered.clear()
            await self._commit_gathered()
            if self._pause_s:
                await asyncio.sleep(self._pause_s * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
            if not self._gathered.is_set():
                self._idle.set()

    async def drained(self) -> None:
        """Wait until everything submitted so far has been written or refused."""
        await self._idle.wait()

    async def _commit_gathered(self) -> None:
        batch = self._tickets[: self.MAX_BATCH]
        del self._tickets[: self.MAX_BATCH]
        if self._tickets:
            self._gathered.set()
        if batch:  # one batch, then the rest: runs that never pause must not keep retries and releases waiting
            await self._commit(batch)
        for kind, waiting in self._side.items():
            if waiting:
                self._side[kind] = []
                await self._write(kind, waiting)

    async def _commit(self, batch: list[Ticket]) -> None:
        reach("commit.before")
        try:
            now_us, pushes = await engine.commit(
                self._session, self._owner, [ticket.commit for ticket in batch]
            )
            reach("commit.after")
        except engine.FenceLost as error:
            await self._commit_without(batch, error)
        except DatabaseRefused as error:
            if error.transient:
                self._lose(batch, error)
            else:
                await self._commit_halves(batch, error)
        except (ConnectionLost, DatabaseUnavailable) as error:
            self._lose(batch, error)
        else:
            self._clock.learn(now_us)
            self._finish(batch, pushes)

    def _finish(self, batch: list[Ticket], pushes: list[str]) -> None:
        self._pause_s = 0.0
        self.commits += 1
        self.turns += len(batch)
        for ticket in batch:
            self._answer(ticket)
        for push in pushes:
            self._hint(push)
        self._ended()

    def _answer(self, ticket: Ticket) -> None:
        try:
            ticket.committed()
        except Exception:
            logger.exception(
                "our bug: a committed turn could not take effect here; its run is given back"
            )
            ticket.lost()

    def _lose(self, batch: Sequence[Ticket], error: Exception) -> None:
        self._back_off(error)
        for ticket in batch:
            ticket.lost()

    def _back_off(self, error: Exception) -> None:
        logger.warning("the database did not answer, trying again: %s", error)
        self._pause_s = min(5.0, self._pause_s * 2 or 0.05)
        self._broken()

    async def _commit_without(self, batch: list[Ticket], error: engine.FenceLost) -> None:
        """Commit the batch again without its losers; where nobody knows which they are, by halves."""
        if not error.losers:
            await self._commit_halves(batch, error)
            return
        for position in error.losers:
            batch[position].lost()
        rest = [ticket for position, ticket in enumerate(batch) if position not in error.losers]
        if rest:
            await self._commit(rest)

    async def _commit_halves(self, batch: list[Ticket], error: Exception) -> None:
        """Bisect: the culprit ends up alone and is told; its neighbours commit."""
        if len(batch) > 1:
            middle = len(batch) // 2
            await self._commit(batch[:middle])
            await self._commit(batch[middle:])
        elif isinstance(error, DatabaseRefused):
            batch[0].refused(error)
        else:
            batch[0].lost()

    async def _write(self, kind: type[Any], records: list[Any]) -> None:
        reach(_POINTS.get(kind, "release") + ".before")
        try:
            answer = await _SIDE_WRITES[kind](self._session, self._owner, records)
            reach(_POINTS.get(kind, "release") + ".after")
        except (ConnectionLost, DatabaseUnavailable) as error:
            self._write_later(kind, records, error)
        except DatabaseRefused as error:
            if error.transient:
                self._write_later(kind, records, error)
            else:
                await self._write_halves(kind, records, error)
        else:
            self._pause_s = 0.0
            if kind in {Completion, Outcome}:
                self.settled += len(records)
                self._report_outcomes(records, *answer)
            self._ended()

    def _write_later(self, kind: type[Any], records: list[Any], error: Exception) -> None:
        self._side[kind][:0] = records
        self._gathered.set()
        self._back_off(error)

    async def _write_halves(
        self, kind: type[Any], records: list[Any], error: DatabaseRefused
    ) -> None:
        """Bisect: what the database refuses for its content ends up alone, and becomes a failure that says so."""
        if len(records) > 1:
            middle = len(records) // 2
            await self._write(kind, records[:middle])
            await self._write(kind, records[middle:])
            return
        logger.error("the database refused %r: %s", records[0], error)
        instead = _failed_instead(records[0], error)
        if instead is not None:
            self.write(instead)

    def _report_outcomes(
        self, outcomes: Sequence[Completion | Outcome], refused: list[int], wake: list[str]
    ) -> None:
        for position in refused:
            logger.warning("a late answer was refused and kept as evidence: %r", outcomes[position])
        for hint in wake:
            self._hint(hint)


def _failed_instead(record: SideWrite, error: DatabaseRefused) -> Outcome | None:
    """An attempt's end that cannot be stored becomes a failure that says so, so that the run is not left waiting."""
    refused = "the database refused what the attempt left"
    if not isinstance(record, Completion | Outcome | Retry) or (
        isinstance(record, Outcome)
        and record.body.get("failure", {}).get("message", "").startswith(refused)
    ):
        return None
    message = f"{refused} ({error.sqlstate}): {str(error).encode('ascii', 'replace').decode()}"
    failure = {"type": "durable.errors:PayloadError", "message": message}
    seq = 0 if isinstance(record, Completion) else record.seq
    body = {
        "ref": seq,
        "attempt": record.attempt,
        "failure": failure,
        "retry_state": "non_retryable",
    }
    return Outcome(record.shard, record.run_id, seq, record.attempt, "ActivityFailed", body, None)
