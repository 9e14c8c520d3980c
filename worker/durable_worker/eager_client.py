"""The client that lives beside a worker: what it starts begins here at once (*eager start*).

The problem. A start that any worker may take costs three hand-overs: the row is written, a hint wakes a worker, the worker claims the row. When client and worker share
a process, the last two only find out what is known already.

The solution. The statement that inserts the row names this worker as its owner, as if it had been claimed in the same moment, so there is nothing that others could
take and nobody to wake. The database still decides (`p_taker` in 0003_api.sql and 0011_jobs.sql): it does so only for what may run now, on a queue without limits, and for a worker that
is alive. Whatever is not taken is an ordinary start.

What can fail. When the answer is lost the row may be ours without our knowing: the worker then compares what it holds with the database (`suspect`), and gives it
back; but not what is still `under_way`, which would begin twice. A worker that stops lets those calls end before it signs off, or leaves them to its lease. When the
process dies between the commit and the beginning, the lease ends and others take over, as with a claim.

What begins here begins in the worker's own context, not in the caller's: what a web request has in its context variables is none of the activity's business, and a
claimed one would not see it either.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from weakref import WeakValueDictionary

from durable.client_async import AsyncClient
from durable.core.events import WORKFLOW_STARTED, Event
from durable.definitions import Workflow
from durable.errors import WorkflowAlreadyExists
from durable.outcomes import LAST_POLL_S, Waiting, has_ended
from durable.payload_codecs import default_payloads
from durable.store.batch import RunCommit
from durable.store.calls import Call, RunOutcome, Sent, Started, read_outcome, taken_at_once
from durable.store.client_session_async import AsyncTransaction
from durable.store.engine import ClaimedJob, ClaimedRun
from durable.store.job_calls import Enqueued
from durable_worker.attempts import Attempts
from durable_worker.faults import reach
from durable_worker.runs import LiveRun, Runs
from durable_worker.settings import WorkerSettings


class EagerStarts:
    """What a worker takes on from the client beside it, while it works."""

    def __init__(
        self,
        worker_id: str,
        settings: WorkerSettings,
        workflows: Mapping[tuple[str, int], Workflow[..., Any]],
        runs: Runs,
        attempts: Attempts,
        *,
        suspect: Callable[[], None],
    ) -> None:
        self.worker_id = worker_id
        self._settings = settings
        self._workflows = workflows if settings.run_workflows else {}
        self._runs = runs
        self._attempts = attempts
        self.suspect = suspect
        self.under_way: set[str] = set()
        self.working = True
        self.loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        self._waiting: WeakValueDictionary[str, asyncio.Future[RunOutcome]] = WeakValueDictionary()
        runs.closed = self._closed

    @contextlib.contextmanager
    def expecting(self, its_id: str) -> Iterator[None]:
        """While a run or job may become ours, but nobody knows yet."""
        self.under_way.add(its_id)
        try:
            yield
        except WorkflowAlreadyExists:  # an answer, and a frequent one
            raise
        except BaseException:
            self.suspect()
            raise
        finally:
            self.under_way.discard(its_id)

    def is_wanted(self, start: Mapping[str, Any]) -> bool:
        """Whether a run that is started with these parameters would begin here."""
        return (
            self._settings.eager
            and self._attempts.starting
            and (start["workflow"], start["version"]) in self._workflows
            and start["queue"] in self._settings.queues
            and not start["delay_s"]
            and len(self._runs) < self._settings.max_cached_runs
        )

    def begin_run(self, start: Mapping[str, Any], started: Started) -> None:
        """Take on a run that is ours since it was inserted."""
        assert started.taken_us is not None
        name, version = start["workflow"], start["version"]
        body = json.loads(started.taken_body or "{}")
        first = Event(1, 0, WORKFLOW_STARTED, started.taken_us, body, start["payload"])
        claimed = ClaimedRun(
            start["shard"], started.run_id, start["workflow_id"], name, version, 1, 1, 0, start["queue"], start["priority"], reviewed=False,
        )  # fmt: skip
        self._context.copy().run(self._adopt, claimed, self._workflows[name, version], first)

    def _adopt(self, claimed: ClaimedRun, workflow: Workflow[..., Any], first: Event) -> None:
        run = self._runs.adopt(claimed, workflow, [first])
        if run is not None:
            self._runs.wake(run)

    def take_slot(self, job: Mapping[str, Any]) -> bool:
        """Reserve a slot for a job that is enqueued with these parameters, if it would begin here."""
        plain = job["key"] is None and job["at_us"] is None and not job["delay_s"]
        return (
            plain and self._settings.eager and self._attempts.take_slot(job["name"], job["queue"])
        )

    def return_slot(self, queue: str) -> None:
        """The job is not ours."""
        self._context.copy().run(self._attempts.return_slot, queue)

    def begin_job(self, job: Mapping[str, Any], taken_us: int) -> None:
        """Begin a job that is ours since it was inserted."""
        shard, job_id, name, queue = job["shard"], job["job_id"], job["name"], job["queue"]
        claimed = ClaimedJob(
            shard, job_id, 0, "job", name, queue, 1, job["input"], job["options"], None, None, None, taken_us, taken_us, None,
        )  # fmt: skip
        self._context.copy().run(self._attempts.start_taken, claimed)

    def has_job(self, job_id: str) -> bool:
        """Whether the job is executed here."""
        return (job_id, 0) in self._attempts.held()

    def has_run(self, run_id: str) -> bool:
        """Whether the run lives here."""
        return self._runs.get(run_id) is not None

    async def end_of(self, run_id: str, timeout_s: float) -> RunOutcome | None:
        """Wait for so long until the run's last turn is durable, and tell how it ended."""
        end = self._waiting.setdefault(run_id, self.loop.create_future())
        await asyncio.wait([end], timeout=timeout_s)
        return end.result() if end.done() else None

    def _closed(self, run: LiveRun, commit: RunCommit) -> None:
        end = self._waiting.get(run.run_id)
        if end is not None and not end.done():
            last, version = commit.events[-1], run.execution.version
            end.set_result(
                RunOutcome(run.run_id, run.name, version, commit.status, last.body, last.payload)
            )


class EagerClient(AsyncClient):
    """See the module. Without `starts`, while the worker does not work, it is a client like any other."""

    starts: EagerStarts | None = None

    def _beside(self, connection: AsyncTransaction | None) -> EagerStarts | None:
        """Who takes on what is sent now. Not what may be rolled back; and what is sealed is read by those who have the key, from the database."""
        payloads = self._session.payloads or default_payloads()
        alone = connection is None and self._session.recovery is None and not payloads.active
        return self._here() if alone else None

    def _here(self) -> EagerStarts | None:
        """The worker's side, to be touched on its loop alone."""
        starts = self.starts
        return starts if starts is None or starts.loop is asyncio.get_running_loop() else None

    async def _start_run(
        self, call: Call[Sent[Started]], connection: AsyncTransaction | None
    ) -> Started:
        starts = self._beside(connection)
        if (
            starts is None
            or "with_actor" in call.parameters
            or not starts.is_wanted(call.parameters)
        ):
            return await super()._start_run(call, connection)
        with starts.expecting(call.parameters["run_id"]):
            started = await self._send(taken_at_once(call, starts.worker_id), None)
        reach("start.taken")
        if started.taken_us is not None and starts.working:
            starts.begin_run(call.parameters, started)
        elif started.created:
            starts.suspect()  # it may be that the first answer was lost, or the worker has ended
        return started

    async def _enqueue(
        self, call: Call[Sent[Enqueued]], connection: AsyncTransaction | None
    ) -> Enqueued:
        starts = self._beside(connection)
        if starts is None or not starts.take_slot(call.parameters):
            return await super()._enqueue(call, connection)
        queue = call.parameters["queue"]
        try:
            with starts.expecting(call.parameters["job_id"]):
                made = await self._send(taken_at_once(call, starts.worker_id), None)
        except BaseException:
            starts.return_slot(queue)
            raise
        reach("enqueue.taken")
        if made.taken_us is not None and starts.working:
            starts.begin_job(call.parameters, made.taken_us)
            return made
        starts.return_slot(queue)
        if made.state == "executing" and not starts.has_job(made.job_id):
            starts.suspect()  # it may be that the first answer was lost, or the worker has ended
        return made

    async def _outcome(self, workflow_id: str, run_id: str | None, waiting: Waiting) -> RunOutcome:
        """What ends here need not be read. Somebody else may end it too, so look now and then."""
        starts, call = self._here(), read_outcome(workflow_id, run_id)
        while run_id is not None and starts is not None and starts.has_run(run_id):
            if (left_s := waiting.left_s()) <= 0:
                break
            outcome = await starts.end_of(run_id, min(left_s, LAST_POLL_S))
            if outcome is None:
                outcome = await self._execute(call)
            if has_ended(outcome):
                return outcome
        return await super()._outcome(workflow_id, run_id, waiting)
