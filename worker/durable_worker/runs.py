"""The runs that this worker owns, kept live between turns (sticky), and how a turn is taken.

A run is *parked* when nothing waits for it, *ready* when something arrived, and *committing* while its last turn is on its way to the database. A turn
is taken only when no commit of the run is in flight: what arrives meanwhile waits in `pending` and becomes one turn (C1: all of it is
applied, then the loop runs once).

Turns are taken from a plain callback of the worker's loop, never inside one of its tasks: the deterministic loop is then the only one with a current
task (see durable/core/loop.py).
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from pydantic_core import to_json

from durable.core.events import FIRST_TURN_TAKEN, UPDATE_REQUESTED, Event, Message
from durable.core.execution import Decision, Execution
from durable.core.handlers import Verdicts
from durable.core.local import LOCAL_ACTIVITY
from durable.core.nothing import NO_ITEMS, NO_KEYS, NO_NAMES
from durable.definitions import Workflow
from durable.failure import encode_failure
from durable.store.batch import Outcome, PutBack, Release, RunCommit
from durable.store.engine import ClaimedRun, InboxRow
from durable.store.questions import Question
from durable.telemetry import Telemetry
from durable_worker.clock import DatabaseClock
from durable_worker.committer import Committer, Ticket
from durable_worker.effects import add_effects, refuse_updates

logger = logging.getLogger("durable.worker")

_REVIEW_DELAY_S = 5.0  # doubled by the database with each time, up to 16-fold
_UNKNOWN_DELAY_S = 3.0


class Inbound(NamedTuple):
    """A message on its way into a run, and what its commit must remove: an inbox row, or the job of an attempt made here."""

    message: Message
    message_id: str | None = None
    done: Outcome | None = None


class LiveRun:
    """A run of ours with its coroutine."""

    __slots__ = (
        "committing",
        "epoch",
        "execution",
        "fresh",
        "held",
        "known",
        "last_seq",
        "locals",
        "name",
        "pending",
        "priority",
        "questions",
        "queue",
        "ready",
        "reviewed",
        "run_id",
        "shard",
        "shown",
        "workflow_id",
    )

    def __init__(self, claimed: ClaimedRun, execution: Execution) -> None:
        self.shard = claimed.shard
        self.run_id = claimed.run_id
        self.workflow_id = claimed.workflow_id
        self.name = claimed.workflow
        self.queue = claimed.queue
        self.priority = claimed.priority
        self.epoch = claimed.epoch
        self.last_seq = claimed.last_seq
        self.execution = execution
        self.pending: list[Inbound] = []
        self.known: set[str] = NO_NAMES  # message ids taken and not yet committed
        self.questions: list[tuple[int, Question]] = NO_ITEMS  # each with the turns it waits for
        self.committing = False
        self.ready = False
        self.locals: dict[str, Any] = NO_KEYS  # local activities that run here, by id
        self.held: list[Event] = NO_ITEMS  # a first turn that may wait for the next commit
        self.reviewed = claimed.reviewed
        self.shown = False  # that it waits for local activities
        self.fresh = (
            claimed.turn == 0 or claimed.reviewed
        )  # a turn, even an empty one, ends a review


class AttemptHandOver(Protocol):
    """Where eager activities go after their commit, and the slots they were promised."""

    def take_slot(self, name: str, queue: str) -> bool:
        """Reserve a slot for an attempt that this worker will run itself."""
        ...

    def return_slot(self, queue: str) -> None:
        """Give back a slot whose attempt never came."""

    def start_eager(self, run: LiveRun, event: Event) -> None:
        """Run the attempt that the event scheduled; its job row is ours already."""

    def cancel(self, run_id: str, seq: int) -> None:
        """Tell an attempt that runs here to stop (C9)."""

    def cancel_run(self, run_id: str) -> None:
        """Tell every attempt of a closed run to stop."""


class Answering(Protocol):
    """Where queries are answered (see questions.py)."""

    def turn_written(self, run: LiveRun) -> None:
        """One turn more is durable."""

    def run_left(self, run: LiveRun) -> None:
        """The run lives here no more."""


class LocalHandOver(Protocol):
    """Where local activities go, and are stopped."""

    def sync(self, run: LiveRun) -> None:
        """Begin what is due and does not run, stop what nobody waits for any more."""

    def stop(self, run: LiveRun) -> None:
        """Stop all of a run that is dropped or closed."""


class Runs:
    """The sticky cache: owned runs by id, least recently used first, and the queue of ready ones."""

    MAX_TURNS_IN_A_ROW = 200

    def __init__(
        self,
        committer: Committer,
        clock: DatabaseClock,
        *,
        max_cached: int,
        watch: Callable[[LiveRun | None], None],
        due: Callable[[int], None],
        hint: Callable[[str], None],
    ) -> None:
        self._committer = committer
        self._clock = clock
        self._max_cached = max_cached
        self._watch = watch
        self._due = due
        self._hint = hint
        self._runs: OrderedDict[str, LiveRun] = OrderedDict()
        self._ready: deque[LiveRun] = deque()
        self._turning = False
        self._reads = 0
        self._consumed: dict[
            str, int
        ] = {}  # message ids, by the number of reads begun before their commit ended
        self.attempts: AttemptHandOver
        self.answering: Answering
        self.local_activities: LocalHandOver
        self.eager = True
        self.closed: Callable[[LiveRun, RunCommit], None] | None = None
        self.telemetry: Telemetry | None = None

    def __len__(self) -> int:
        return len(self._runs)

    def get(self, run_id: str) -> LiveRun | None:
        """Return the live run, if it is owned and cached here."""
        return self._runs.get(run_id)

    # -- arrivals ---------------------------------------------------------------------------------

    def adopt(
        self,
        claimed: ClaimedRun,
        workflow: Workflow[..., Any],
        history: Sequence[Event] | Exception,
    ) -> LiveRun | None:
        """Bring a claimed run to life by replay. A run that cannot be read or replayed is parked for review (C8)."""
        execution = Execution(workflow, UUID(claimed.run_id), claimed.workflow_id)
        run = LiveRun(claimed, execution)
        self._watch(run)
        try:
            if isinstance(history, Exception):
                raise history
            execution.replay(history)
        except Exception as error:
            self._park(run, error)
            return None
        finally:
            self._watch(None)
        if (before := self._runs.get(run.run_id)) is not None:
            self._drop(before, [])  # a crash of the server lost our claim, and we claimed it again
        self._runs[run.run_id] = run
        if execution.locals:
            self.local_activities.sync(run)
        return run

    def begin_read(self) -> None:
        """The inbox is about to be read. What the read returns may have been consumed before it ends; see `deliver`."""
        self._reads += 1

    def deliver(self, rows: Sequence[InboxRow]) -> int:
        """Hand inbox messages to their runs, each once. Returns how many were new.

        A read that began before a commit ended may still see the messages that the commit consumed: those are remembered until a
        later read begins. The commit itself refuses to consume a message twice.
        """
        new = 0
        for row in rows:
            run = self._runs.get(row.run_id)
            if run is None or row.message_id in run.known or row.message_id in self._consumed:
                continue
            if isinstance(row.message, Exception):
                self._put_aside(run, row.message)
                continue
            run.known = run.known or set()
            run.known.add(row.message_id)
            run.pending.append(Inbound(row.message, row.message_id))
            self.wake(run)
            new += 1
        if self._consumed:
            self._consumed = {
                m: reads for m, reads in self._consumed.items() if reads >= self._reads
            }
        return new

    def _put_aside(self, run: LiveRun, error: Exception) -> None:
        """A message that cannot be read here (no key, no payload store): parked, visibly, for a worker that can (C8)."""
        if not run.committing:  # else the message comes again
            self._drop(run, ())
            self._park(run, error)

    def deliver_outcome(self, outcome: Outcome) -> bool:
        """Merge an attempt's outcome into its run's next turn, if the run lives here."""
        run = self._runs.get(outcome.run_id)
        if run is None:
            return False
        message = Message(outcome.type, self._clock.now_us(), outcome.body, outcome.payload)
        run.pending.append(Inbound(message, done=outcome))
        self.wake(run)
        return True

    def deliver_local(self, run: LiveRun, message: Message) -> None:
        """The outcome of a local activity: into its run's next turn, if that lives here still. Otherwise it is run again elsewhere."""
        if self._runs.get(run.run_id) is run:
            run.pending.append(Inbound(message))
            self.wake(run)

    def wake(self, run: LiveRun) -> None:
        """Put a run in the queue for a turn."""
        if run.ready or run.committing:
            return
        run.ready = True
        self._ready.append(run)
        if not self._turning:
            self._turning = True
            asyncio.get_running_loop().call_soon(self._take_turns)

    # -- turns ------------------------------------------------------------------------------------

    def _take_turns(self) -> None:
        for _ in range(min(len(self._ready), self.MAX_TURNS_IN_A_ROW)):
            run = self._ready.popleft()
            run.ready = False
            if self._runs.get(run.run_id) is run:
                self._take_turn(run)
        self._turning = bool(self._ready)
        if self._turning:
            asyncio.get_running_loop().call_soon(self._take_turns)

    def _take_turn(self, run: LiveRun) -> None:
        inbound, run.pending = run.pending, []
        if not inbound and not run.fresh:
            return
        run.fresh = False
        self._watch(run)
        began = 0.0 if self.telemetry is None else time.monotonic()
        try:
            decision = run.execution.activate([i.message for i in inbound], self._clock.now_us())
            if self.telemetry is not None and decision.events:
                took_s = time.monotonic() - began
                self.telemetry.turn_taken(run, took_s, len(decision.events), None)
            if run.execution.verdicts is not None:
                inbound = _without_left(inbound, run.execution.verdicts)
            for warning in decision.warnings:
                logger.warning("%s %s: %s", run.name, run.workflow_id, warning)
            self._submit(run, inbound, decision)
        except Exception as error:
            if self.telemetry is not None:
                self.telemetry.turn_taken(run, time.monotonic() - began, 0, error)
            self._drop(run, inbound)
            self._park(run, error)
            return
        finally:
            self._watch(None)

    def _submit(self, run: LiveRun, inbound: list[Inbound], decision: Decision) -> None:
        if not inbound and _may_wait(run, decision):
            run.held = decision.events
            self.local_activities.sync(run)
            return
        commit = self._begin_commit(run, decision.events)
        for item in inbound:
            if item.message_id is not None:
                commit.consumed.append(item.message_id)
            elif item.done is not None:
                commit.done.append((item.done.seq, item.done.attempt))
        verdicts, run.execution.verdicts = run.execution.verdicts, None
        if verdicts is not None and verdicts.refused:
            refuse_updates(commit, verdicts.refused)
        take_slot = self.attempts.take_slot if self.eager and not decision.closed else _no_slot
        for event in decision.events:
            add_effects(commit, event, run.queue, take_slot)
        commit.waiting_on = _shown(decision.waiting_on, commit)
        self._committer.submit(TurnTicket(self, run, commit, inbound))

    def show(self, run: LiveRun) -> None:
        """Write what a run waits for that only waits for local activities: what is short is not worth it (see `_shown`)."""
        if self._runs.get(run.run_id) is not run or run.shown or _in_turn(run):
            return
        commit = self._begin_commit(run, [])
        run.shown = True
        commit.waiting_on = to_json(run.execution.waiting_on()).decode()
        self._committer.submit(TurnTicket(self, run, commit, []))

    def _begin_commit(self, run: LiveRun, events: list[Event]) -> RunCommit:
        """The commit of a turn, with the one that may have waited for it."""
        execution = run.execution
        run.committing, run.shown = True, False
        return RunCommit(
            run.shard,
            run.run_id,
            run.epoch,
            run.last_seq,
            execution.last_seq,
            execution.turn,
            "running",
            None,
            run.held + events if run.held else events,
        )

    # -- answers from the committer ---------------------------------------------------------------

    def committed(self, ticket: TurnTicket) -> None:
        """The turn is durable: its effects begin (C3)."""
        run, commit = ticket.run, ticket.commit
        run.committing = False
        run.last_seq = commit.last_seq
        run.held = NO_ITEMS
        if commit.consumed:
            run.known = run.known.difference(commit.consumed) or NO_NAMES
            self._consumed.update(dict.fromkeys(commit.consumed, self._reads))
        for hint in commit.hints:
            self._hint(hint)
        if commit.status != "running":
            self._close(run, commit)
            return
        if self._runs.get(run.run_id) is not run:
            self._disown(run, commit)
            return
        if commit.jobs:
            self._begin_effects(run, commit)
        for seq in commit.activities_cancelled:
            self.attempts.cancel(run.run_id, seq)
        if run.locals or run.execution.locals:
            self.local_activities.sync(run)
        self._runs.move_to_end(run.run_id)
        if run.questions:
            self.answering.turn_written(run)
        if run.execution.tainted:
            self.drop_tainted(run)
            return
        if run.pending:
            self.wake(run)
        self.trim()

    def _disown(self, run: LiveRun, commit: RunCommit) -> None:
        """The run was dropped while its turn was under way (see `forget_all`), and the turn was written all the same: give back what it made ours."""
        for job in commit.jobs:
            if job.eager:
                self.attempts.return_slot(job.queue)
                note = {"kind": "lease_lapsed"}
                self._committer.write(PutBack(run.shard, run.run_id, job.seq, 1, 0.0, note))
        self._give_back(run, 0.0, None)

    def _begin_effects(self, run: LiveRun, commit: RunCommit) -> None:
        eager = {job.seq for job in commit.jobs if job.eager}
        for event in commit.events:
            if event.seq in eager:
                self.attempts.start_eager(run, event)
        for job in commit.jobs:
            if job.at_us is not None:
                self._due(job.at_us)
            elif not job.eager:
                self._hint(f"jobs:{job.queue}")

    def _close(self, run: LiveRun, commit: RunCommit) -> None:
        self._runs.pop(run.run_id, None)
        if self.closed is not None:
            self.closed(run, commit)
        if run.questions:
            self.answering.run_left(run)
        self.local_activities.stop(run)
        self._hand_outcomes(run.pending)
        run.execution.evict()
        self.attempts.cancel_run(run.run_id)
        if self.telemetry is not None:
            self.telemetry.run_closed(run, commit.status)
        logger.info("%s %s: %s", run.name, run.workflow_id, commit.status)

    def lost(self, ticket: TurnTicket) -> None:
        """The run has another owner, or nobody knows. Drop it; if it is still ours the release frees it for a replay."""
        self._drop(ticket.run, ticket.inbound, ticket.commit)
        self._give_back(ticket.run, 0.0, None)

    def refused(self, ticket: TurnTicket, error: Exception) -> None:
        """The database refuses this turn whoever commits it: a person must look (C8)."""
        self._drop(ticket.run, ticket.inbound, ticket.commit)
        self._park(ticket.run, error)

    def _drop(
        self, run: LiveRun, inbound: Sequence[Inbound], commit: RunCommit | None = None
    ) -> None:
        """Forget a run; outcomes of attempts made here go the ordinary way instead."""
        if commit is not None:
            for job in commit.jobs:
                if job.eager:
                    self.attempts.return_slot(job.queue)
        if self._runs.get(run.run_id) is run:
            del self._runs[run.run_id]
        if run.questions:
            self.answering.run_left(run)
        self.local_activities.stop(run)
        self._hand_outcomes([*inbound, *run.pending])
        run.pending.clear()
        run.execution.evict()

    def drop_tainted(self, run: LiveRun) -> None:
        """A query or validator touched what it may only read: have the state made anew from history."""
        if self._runs.get(run.run_id) is run and not run.committing:
            self._drop(run, ())
            self._give_back(run, 0.0, None)

    def _hand_outcomes(self, inbound: Sequence[Inbound]) -> None:
        for item in inbound:
            if item.done is not None:
                self._committer.write(item.done)

    # -- giving back ------------------------------------------------------------------------------

    def _give_back(
        self, run: LiveRun | ClaimedRun, delay_s: float | None, review: dict[str, Any] | None
    ) -> None:
        self._committer.write(Release(run.shard, run.run_id, run.epoch, delay_s, review))

    def _park(self, run: LiveRun, error: Exception) -> None:
        """Needs Review (C8): visible, tried again with back-off, nothing lost."""
        logger.error("%s %s needs review: %s", run.name, run.workflow_id, error)
        kind = "nondeterminism" if type(error).__name__ == "NondeterminismError" else "error"
        review = {"kind": kind, "failure": encode_failure(error)}
        self._give_back(run, _jittered(_REVIEW_DELAY_S), review)

    def put_back_unknown(self, claimed: ClaimedRun, worker: str) -> None:
        """A workflow that this worker's code does not have: others may, during a rolling deploy."""
        logger.warning("no workflow named %s (version %s) here", claimed.workflow, claimed.version)
        review = {
            "kind": "unknown_workflow",
            "message": f"worker {worker} has no workflow {claimed.workflow!r} version {claimed.version}",
        }
        self._give_back(claimed, _jittered(_UNKNOWN_DELAY_S), review)

    def trim(self) -> None:
        """Evict the least recently used parked runs beyond the bound (C12)."""
        surplus = len(self._runs) - self._max_cached
        if surplus <= 0:
            return
        for run in list(islice(filter(_is_parked, self._runs.values()), surplus)):
            self._evict(run)

    def _evict(self, run: LiveRun) -> None:
        del self._runs[run.run_id]
        due = bool(run.execution.locals)  # no message would make somebody claim it
        self.local_activities.stop(run)
        run.execution.evict()
        self._give_back(run, 0.0 if due else None, None)

    def evict_parked(self) -> int:
        """When the worker stops: give back every run that has no turn under way and no local activity running; returns how many still have a turn."""
        idle = [r for r in self._runs.values() if not _in_turn(r)]
        for run in idle:
            if not any(attempt.task for attempt in run.locals.values()):
                self._evict(run)
        return sum(_in_turn(run) for run in self._runs.values())

    def forget(self, run_id: str, epoch: int) -> None:
        """Drop a run that is not ours any more (it was terminated, say), unless a commit of it will find that out."""
        run = self._runs.get(run_id)
        if run is not None and run.epoch == epoch and not run.committing:
            self._drop(run, ())

    def forget_all(self) -> None:
        """Drop everything without a word to the database: it has declared this worker dead."""
        for run in list(self._runs.values()):
            self._drop(run, ())

    def held(self) -> dict[str, int]:
        """Return the epochs of the runs held, by run id."""
        return {run.run_id: run.epoch for run in self._runs.values()}


class TurnTicket(Ticket):
    """One turn on its way through the committer."""

    __slots__ = ("commit", "inbound", "run", "runs")

    def __init__(self, runs: Runs, run: LiveRun, commit: RunCommit, inbound: list[Inbound]) -> None:
        self.runs = runs
        self.run = run
        self.commit = commit
        self.inbound = inbound

    def committed(self) -> None:
        """See Ticket."""
        self.runs.committed(self)

    def lost(self) -> None:
        """See Ticket."""
        self.runs.lost(self)

    def refused(self, error: Exception) -> None:
        """See Ticket."""
        self.runs.refused(self, error)


def _shown(waits: list[dict[str, Any]], commit: RunCommit) -> str | None:
    """What `waiting_on` stores. A run that only waits for what is just being started here says so with its jobs' rows, or for local
    activities when they take long (see `Runs.show`).
    """
    if not waits or (
        commit.jobs
        and all(w["kind"] == "activity" for w in waits)
        and all(j.eager for j in commit.jobs)
    ):
        return None
    if not commit.jobs and all(w["kind"] == LOCAL_ACTIVITY for w in waits):
        return None
    return to_json(waits).decode()


def _is_parked(run: LiveRun) -> bool:
    return not (run.locals or _in_turn(run))


def _in_turn(run: LiveRun) -> bool:
    return bool(run.committing or run.ready or run.pending or run.fresh)


def _may_wait(run: LiveRun, decision: Decision) -> bool:
    """A first turn that only called local activities is written with the first outcome. (But a turn, even an empty one, ends a review.)"""
    events = decision.events
    return len(events) == 1 and events[0].type == FIRST_TURN_TAKEN and not run.reviewed


def _without_left(inbound: list[Inbound], verdicts: Verdicts) -> list[Inbound]:
    """Without the offers that came after the workflow's end: the database answers them, or hands them to the successor."""
    return [
        it
        for it in inbound
        if it.message.type != UPDATE_REQUESTED or it.message.body["update_id"] not in verdicts.left
    ]


def _no_slot(_name: str, _queue: str) -> bool:
    return False


def _jittered(delay_s: float) -> float:
    return delay_s * random.uniform(0.5, 1.5)  # noqa: S311 - jitter, not secrets
