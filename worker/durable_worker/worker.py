"""The worker: composes the loops, starts and stops them.

    committer     groups what is ready into transactions            committer.py (the hard one)
    runs          live workflows, turn by turn                       runs.py
    attempts      activities running here                            attempts.py
    intake        claims and reads what there is to do               intake.py
    housekeeping  lease, takeover, deadlines                         housekeeping.py
    duties        what one worker does for all                       duties.py
    hints         NOTIFY, received and sent                          wakeup.py
    watchdog      who blocks the loop                                watchdog.py

All of it runs on one asyncio loop in one thread (plus a pool for synchronous activities); more cores take more processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import os
from collections.abc import Callable, Coroutine, Iterable, Mapping
from importlib import import_module
from types import ModuleType, TracebackType
from typing import Any, Self, TypeVar

from durable import definitions, telemetry
from durable.client_async import AsyncClient
from durable.core.names import checked_name
from durable.dag.interpreter import run_dag
from durable.definitions import Activity, Workflow, described
from durable.errors import DatabaseUnavailable, InvalidOption
from durable.ids import uuid7
from durable.modules import defined_in
from durable.payload_codecs import Payloads, default_payloads
from durable.signals import Signal, registered_signals
from durable.store import engine
from durable.store.engine import Registration
from durable.store.session import ConnectionLost, DatabaseRefused, Session
from durable_worker.attempts import Attempts
from durable_worker.clock import DatabaseClock
from durable_worker.committer import Committer
from durable_worker.duties import Duties
from durable_worker.eager_client import EagerClient, EagerStarts
from durable_worker.housekeeping import Housekeeping
from durable_worker.intake import INBOX, JOBS, QUERIES, RUNS, Intake
from durable_worker.local_activities import LocalActivities
from durable_worker.questions import Questions
from durable_worker.queue_rules import QueueRules
from durable_worker.retention import Retention
from durable_worker.runs import Runs
from durable_worker.scheduling import Scheduling, declare
from durable_worker.settings import WorkerSettings
from durable_worker.transactions import TransactionalAttempts
from durable_worker.wakeup import Hints, listen
from durable_worker.watchdog import Watchdog

logger = logging.getLogger("durable.worker")

_K = TypeVar("_K")

_HINTED = {
    "worker": (INBOX,),
    "runs": (RUNS,),
    "jobs": (JOBS,),
    "queue": (RUNS, INBOX),
    "queries": (QUERIES,),
}
"""What each kind of hint says there may be: new runs, jobs, a message for a run that had no owner when it was sent (it may have one now), questions."""

_Definition = TypeVar("_Definition", Workflow[..., Any], Activity[..., Any])


class Worker:
    """Runs workflows and activities until stopped.

    `async with Worker(url, modules=[shop]):` runs in the background until the block ends. `url` defaults to DURABLE_DATABASE_URL.
    Give `workflows` and `activities` (exactly those), or `modules` (everything decorated in them; names or module objects), or
    neither (everything registered so far). `payloads`: see `durable.use_payloads`, which says what holds otherwise. Other keywords are fields of WorkerSettings.

    Raises InvalidOption for unusable settings, DatabaseUnavailable when the database cannot be reached, SchemaOutOfDate when it is not
    migrated.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        workflows: Iterable[Workflow[..., Any]] | None = None,
        activities: Iterable[Activity[..., Any]] | None = None,
        modules: Iterable[str | ModuleType] | None = None,
        settings: WorkerSettings | None = None,
        payloads: Payloads | None = None,
        **overrides: Any,
    ) -> None:
        self.settings = _settings(settings, overrides)
        self.worker_id = str(uuid7())
        self._url = _database_url(url)
        self._payloads = payloads
        self._client: EagerClient | None = None
        found = _definitions(workflows, activities, modules)
        if not any(it is not run_dag for kind in found for it in kind):
            raise InvalidOption(
                "nothing to run: no @workflow and no @activity in the given modules; name the modules that define them"
            )
        self._workflows = _by_name("workflow", found[0], lambda w: (w.name, w.version))
        self._activities = _by_name("activity", found[1], lambda a: a.name)
        self._tasks: list[asyncio.Task[None]] = []
        self._starts: EagerStarts | None = None
        self._failure: BaseException | None = None
        self._collapsing: asyncio.Task[None] | None = None
        self._stopped = asyncio.Event()
        self._hurried = asyncio.Event()

    @property
    def client(self) -> AsyncClient:
        """A client of the same database, for the loop that the worker runs on: what it starts or enqueues, and may run now, begins here at once if it can.

        Without a hint and a claim that is about a millisecond sooner; and `handle.result()` is told of the end. The worker closes it.
        """
        if self._client is None:
            self._client = EagerClient(
                self._url, notify=self.settings.notify, payloads=self._payloads
            )
            self._client.starts = self._starts
        return self._client

    # -- start ------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect, register, and begin to work in the background."""
        self._compose()
        try:
            await self._sign_on()
        except BaseException:
            await self._close_sessions()
            raise
        self._watchdog.start()
        if self._client is not None:
            self._client.starts = self._starts
        loops: dict[str, Coroutine[Any, Any, None]] = {
            "committer": self.committer.run(),
            "intake": self.intake.run(),
            "housekeeping": self.housekeeping.run(),
            "hints": self._hints.run(),
            "duties": self.duties.run(),
            "queues": self.queue_rules.run(),
        }
        if self.settings.notify:
            queues = list(self.settings.queues)
            loops["listener"] = listen(self._listening, self.worker_id, queues, self._woken)
        for name, loop in loops.items():
            task = asyncio.get_running_loop().create_task(loop)
            task.set_name(f"durable-{name}")
            task.add_done_callback(self._loop_ended)
            self._tasks.append(task)

    async def _sign_on(self) -> None:
        await engine.check_schema(self._keeping)
        await self._register()
        await self.housekeeping.beat()
        await engine.announce(
            self._keeping, self.worker_id, self.settings.build, json.dumps(self._versions())
        )

    def _open_sessions(self, url: str) -> None:
        self._committing = Session(url, "durable-commit")
        self._taking = Session(url, "durable-intake")
        self._keeping = Session(url, "durable-housekeeping")
        self._listening = Session(url, "durable-listen")
        for session in (self._committing, self._taking, self._keeping):
            session.payloads = self._payloads or default_payloads()
        self._serving = Session(url, "durable-duties")

    def _compose(self) -> None:
        settings, url, owner = self.settings, self._url, self.worker_id
        self.clock = DatabaseClock()
        self._open_sessions(url)
        self._watchdog = Watchdog(settings.block_warning_s)
        self._hints = Hints(self._keeping, owner, enabled=settings.notify)
        self.committer = Committer(
            self._committing, owner, self.clock,
            hint=self._tell, broken=self._connection_broke, ended=self._attempts_ended,
        )  # fmt: skip
        self.runs = Runs(
            self.committer, self.clock, max_cached=settings.max_cached_runs, watch=self._watchdog.watch, due=self._due,
            hint=self._tell,
        )  # fmt: skip
        self.runs.eager = settings.eager
        self.runs.telemetry = telemetry.active()
        self._transactions = TransactionalAttempts(
            url,
            owner,
            settings.transaction_connections,
            settings.transaction_warning_s,
            self._payloads or default_payloads(),
        )
        self.attempts = Attempts(
            self.committer,
            self.clock,
            self._activities if settings.run_activities else {},
            settings.queues,
            worker_name=settings.name,
            freed=self._slot_freed,
            due=self._due,
            hint=self._tell,
            transactions=self._transactions,
        )
        self.queue_rules = QueueRules(self._keeping, list(settings.queues), self.attempts.slots)
        self.runs.attempts = self.attempts
        self.local_activities = LocalActivities(
            self.clock,
            settings.local_slots,
            deliver=self.runs.deliver_local,
            show=self.runs.show,
        )
        self.runs.local_activities = self.local_activities
        self.attempts.deliver_outcome = self.runs.deliver_outcome
        self.runs.answering = questions = self._questions()
        self.intake = Intake(
            self._taking,
            settings,
            owner,
            self._workflows,
            self.runs,
            self.attempts,
            self.committer,
            self.clock,
            questions,
            broken=self._connection_broke,
        )
        self.housekeeping = Housekeeping(
            self._keeping, settings, owner, self.runs, self.attempts, self.committer, self.clock,
            duties=self._serving, declared_dead=self._declared_dead, wake=self.intake.wake,
        )  # fmt: skip
        self._compose_duties()
        self._starts = EagerStarts(
            owner,
            settings,
            self._workflows,
            self.runs,
            self.attempts,
            suspect=self._connection_broke,
        )
        self.housekeeping.under_way = self._starts.under_way

    def _compose_duties(self) -> None:
        settings, owner = self.settings, self.worker_id
        scheduling = Scheduling(self._serving, owner, tell=self._tell)
        retention = Retention(self._serving, owner, gap_s=settings.retention_gap_s)
        rounds = {
            "rescue": self.housekeeping.rescue,
            "schedules": scheduling.round,
            "retention": retention.round,
        }
        self.duties = Duties(self._serving, owner, settings.lease_s, rounds)

    def _questions(self) -> Questions:
        return Questions(
            self._taking,
            self.worker_id,
            list(self.settings.queues),
            self._workflows,
            self.committer,
            live=self.runs.get,
            drop=self.runs.drop_tainted,
            wake=lambda: self.intake.wake(QUERIES),
        )

    async def _register(self) -> None:
        registrations = [
            Registration("workflow", w.name, w.version, w.queue, json.dumps(described(w)))
            for w in self._workflows.values()
        ]
        registrations += [
            Registration(
                "activity",
                a.name,
                1,
                a.queue,
                json.dumps(described(a)),
                json.dumps(a.job_options()),
            )
            for a in self._activities.values()
        ]
        registrations += [
            Registration("signal", s.name, 1, None, json.dumps(s.described()))
            for s in self._signals()
        ]
        if registrations:
            await engine.register_definitions(self._keeping, registrations)
        await declare(self._keeping, [*self._workflows.values(), *self._activities.values()])

    def _versions(self) -> dict[str, list[int]]:
        """The versions of each workflow that this worker runs."""
        versions: dict[str, list[int]] = {}
        for name, version in self._workflows if self.settings.run_workflows else ():
            versions.setdefault(name, []).append(version)
        return versions

    def _signals(self) -> Iterable[Signal[Any]]:
        """The signals of the applications that run here: one of each name, those declared beside the workflows first."""
        packages = {w.fn.__module__.partition(".")[0] for w in self._workflows.values()}
        ordered = sorted(registered_signals(), key=lambda s: s.module.partition(".")[0] in packages)
        return {signal.name: signal for signal in ordered}.values()

    # -- what the loops tell each other -----------------------------------------------------------

    def _woken(self, hint: str) -> None:
        kind = hint.partition(":")[0]
        if kind == "worker":
            self.housekeeping.ask_cancels()
        elif kind == "queues":
            self.queue_rules.changed()
            return
        self.intake.wake(*_HINTED.get(kind, ()))

    def _tell(self, hint: str) -> None:
        """Give a hint, to ourselves without a detour: a child here closes, and its parent lives here too."""
        if hint == f"worker:{self.worker_id}":
            self._woken(hint)
        else:
            self._hints.give(hint)

    def _due(self, at_us: int) -> None:
        self.intake.due(at_us)

    def _attempts_ended(self) -> None:
        """Ends are recorded: where a limit counts attempts, another may start."""
        if self.attempts.slots.any_special:
            self.intake.wake(JOBS)

    def _slot_freed(self) -> None:
        self.intake.wake(JOBS)

    def _connection_broke(self) -> None:
        self.housekeeping.suspect()

    def _declared_dead(self) -> None:
        """The lease lapsed and others may have taken over: forget everything, and find out what is still ours (C2)."""
        logger.error("this worker's lease had lapsed; it drops what it held and goes on")
        self.runs.forget_all()
        self.attempts.forget_all()
        self.housekeeping.suspect()

    def _loop_ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and self._failure is None:
            logger.critical("our bug: %s ended: %r", task.get_name(), error, exc_info=error)
            self._failure = error
            self._collapsing = asyncio.ensure_future(self._collapse())

    async def _collapse(self) -> None:
        """A loop met a bug. Half a worker with a valid lease would hold its work for ever: end the rest, let others take over at once."""
        await self._end()
        self.runs.forget_all()
        self._stopped.set()

    # -- stop -------------------------------------------------------------------------------------

    async def wait(self) -> None:
        """Return when the worker cannot go on: one of its loops met a bug. Raises what ended it."""
        await self._stopped.wait()
        if self._failure is not None:
            raise self._failure

    async def stop(self) -> None:
        """Stop claiming, let running attempts end within the grace, give everything back, sign off."""
        if self._collapsing is not None:
            await self._collapsing
        if not self._tasks:
            await self._close_client()
            return
        self.intake.stopping = True
        self.attempts.starting = False
        self.local_activities.starting = False
        self.intake.wake()
        await asyncio.wait(self._intake_task(), timeout=5.0)
        self.attempts.release_held(everything=True)
        await self._hand_back()
        await self._finish_attempts()
        await self._hand_back()  # what local activities kept here until now
        await self._drain()
        await self._end()

    def _intake_task(self) -> list[asyncio.Task[None]]:
        return [task for task in self._tasks if task.get_name() == "durable-intake"]

    async def _finish_attempts(self) -> None:
        finished = asyncio.ensure_future(self._idle())
        hurried = asyncio.ensure_future(self._hurried.wait())
        await asyncio.wait(
            [finished, hurried],
            timeout=self.settings.shutdown_grace_s,
            return_when=asyncio.FIRST_COMPLETED,
        )
        finished.cancel()
        hurried.cancel()
        self.attempts.hurry()
        self.local_activities.hurry()
        with contextlib.suppress(TimeoutError):  # those in threads do not hear it
            await asyncio.wait_for(self._idle(), 0.5)

    async def _idle(self) -> None:
        await self.attempts.idle.wait()
        await self.local_activities.idle.wait()

    def hurry(self) -> None:
        """Do not wait for running attempts any longer (second SIGTERM)."""
        self._hurried.set()

    async def _hand_back(self) -> None:
        """Let turns in flight commit and release every run at once: others go on with them while our attempts end.

        Bounded, because the lease covers what is left.
        """
        deadline = asyncio.get_running_loop().time() + 5.0
        while asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0)
            busy = self.runs.evict_parked()
            if not busy and not self._starts_under_way():
                break
            await asyncio.sleep(0.005)

    async def _drain(self) -> None:
        try:
            await asyncio.wait_for(self.committer.drained(), 5.0)
        except TimeoutError:
            logger.warning(
                "stopping with writes that the database did not take; the lease covers them"
            )

    def _starts_under_way(self) -> bool:
        """Whether the client may be getting something for us just now."""
        return self._starts is not None and bool(self._starts.under_way)

    def _leave_client(self) -> None:
        """The client beside us is one like any other from now on."""
        if self._starts is not None:
            self._starts.working = False
        if self._client is not None:
            self._client.starts = None

    async def _end(self) -> None:
        self._leave_client()
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        try:
            await self.duties.leave()
            unknown = self._starts_under_way() or self.housekeeping.doubts
            finished = not len(self.attempts) and not len(self.runs) and not unknown
            await engine.leave(self._keeping, self.worker_id, finished=finished)
        except (ConnectionLost, DatabaseUnavailable, DatabaseRefused) as error:
            logger.warning("could not sign off: %s", error)
        await self._close_sessions()
        await self._transactions.close()
        self.attempts.close()
        await self.attempts.processes.close()
        self.local_activities.close()
        self._watchdog.stop()

    async def _close_sessions(self) -> None:
        sessions = self._committing, self._taking, self._keeping, self._listening, self._serving
        for session in sessions:
            await session.close()
        self._leave_client()
        self._starts = None
        await self._close_client()

    async def _close_client(self) -> None:
        if self._client is not None:
            await self._client.close()

    async def __aenter__(self) -> Self:
        """Start; see `start`."""
        await self.start()
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """Stop; see `stop`."""
        await self.stop()


def _settings(settings: WorkerSettings | None, overrides: Mapping[str, Any]) -> WorkerSettings:
    known = {field.name for field in dataclasses.fields(WorkerSettings)}
    unknown = sorted(set(overrides) - known)
    if unknown:
        raise InvalidOption(
            f"Worker has no option {unknown[0]!r}; there are: {', '.join(sorted(known))}"
        )
    merged = dataclasses.replace(settings or WorkerSettings(), **overrides)
    if merged.build is not None:
        checked_name("build", merged.build)
    for queue, slots in merged.queues.items():
        if not queue or slots < 0:
            raise InvalidOption(f"queue {queue!r}: needs a name and a number of slots of 0 or more")
    for option in ("local_slots", "transaction_connections"):
        if getattr(merged, option) < 1:
            raise InvalidOption(f"{option} is {getattr(merged, option)}; give a number from 1")
    return merged


def _database_url(url: str | None) -> str:
    found = url or os.environ.get("DURABLE_DATABASE_URL")
    if not found:
        raise InvalidOption("no database: pass url=, or set DURABLE_DATABASE_URL")
    return found


def _definitions(
    workflows: Iterable[Workflow[..., Any]] | None,
    activities: Iterable[Activity[..., Any]] | None,
    modules: Iterable[str | ModuleType] | None,
) -> tuple[list[Workflow[..., Any]], list[Activity[..., Any]]]:
    """Return what the worker shall know: exactly the given ones, those of the modules, or all registered."""
    if modules is not None:
        imported = [import_module(m) if isinstance(m, str) else m for m in modules]
        return (
            [
                *defined_in(definitions.registered_workflows(), imported),
                *(workflows or ()),
                run_dag,
            ],
            [*defined_in(definitions.registered_activities(), imported), *(activities or ())],
        )
    if workflows is None and activities is None:
        return list(definitions.registered_workflows()), list(definitions.registered_activities())
    return list(workflows or ()), list(activities or ())


def _by_name(
    kind: str, found: Iterable[_Definition], name: Callable[[_Definition], _K]
) -> dict[_K, _Definition]:
    """Index definitions. Raises InvalidOption when two different ones have one name."""
    index: dict[_K, _Definition] = {}
    for definition in found:
        other = index.setdefault(name(definition), definition)
        if other is not definition and other.fn is not definition.fn:
            raise definitions.defined_twice(kind, other, definition)
    return index
