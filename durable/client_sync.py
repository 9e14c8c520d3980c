# Generated from durable/client_async.py by tests/unasync.py; edit that file.

"""The synchronous client: start workflows, enqueue jobs, look at runs.

Every operation is one value of `durable.store.calls`, executed here; checks come before, from `durable.requests`. The synchronous
client is generated from this file by tests/unasync.py.
"""

from __future__ import annotations

import time
from asyncio import Future
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Any, Concatenate, Self, TypeVar, overload

from durable import grouping, requests, targets
from durable.attributes import Attributes
from durable.completing_sync import Completing
from durable.core.names import checked_name
from durable.dag.model import INTERPRETER, Dag
from durable.dag_steps_sync import DagSteps
from durable.definitions import Workflow, checked_version
from durable.descriptions import OperatorStatus, RunDescription, Status
from durable.errors import InvalidOption
from durable.evidence_sync import Evidencing
from durable.explaining_sync import Explaining
from durable.filters import compiled_filter
from durable.grouping import JobCall
from durable.groups_sync import Groups
from durable.handles_sync import Handle
from durable.interceptors import ClientRequest, sending
from durable.job_batches_sync import JobBatches
from durable.messages import UpdateRequest
from durable.outcomes import Waiting, has_ended
from durable.payload import ValueCodec
from durable.payload_codecs import Payloads, default_payloads
from durable.queues_sync import Queues
from durable.requests import OnClosed, OnRunning
from durable.retention_sync import Retention
from durable.scheduling_sync import Scheduling
from durable.signals import Signal
from durable.store import calls, sealed_calls, updates
from durable.store.calls import Call, Sent, Started
from durable.store.client_session_sync import ClientSession, Transaction

T = TypeVar("T")
R = TypeVar("R")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
V = TypeVar("V")


class Client(
    Groups,
    Completing,
    DagSteps,
    Retention,
    Scheduling,
    JobBatches,
    Queues,
    Evidencing,
    Explaining,
):
    """Talks to one database. Use it as a context manager, or call `close()`.

    `url` defaults to DURABLE_DATABASE_URL; a connection is opened by the first operation. `notify=False` sends no NOTIFY at all and prepares
    no statement: for transaction poolers (workers find everything by polling, C4). `payloads`: see `durable.use_payloads`. Threads or tasks may share a client; they take turns.

    Any operation may raise DatabaseUnavailable or SchemaOutOfDate. Operations with `connection=` join that connection's open transaction: they
    commit or roll back with the caller's own rows, and nothing is committed here.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        notify: bool = True,
        payloads: Payloads | None = None,
    ) -> None:
        self._session = ClientSession(requests.database_url(url), "durable client", notify=notify)
        self._session.payloads = payloads

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. Workflows go on; handles of this client open it again when used."""
        self._session.close()

    # Positional arguments are checked by type checkers, arguments by name when the call runs; both before anything is written.

    @overload
    def start(
        self,
        workflow: str,
        arguments: Mapping[str, Any] = ...,
        /,
        *,
        id: str | None = None,
        version: int | None = None,
        pinned: bool | None = None,
        queue: str | None = None,
        priority: int | None = None,
        delay: timedelta | float | None = None,
        attributes: Attributes | None = None,
        actor: Any = None,
        memo: Mapping[str, Any] | None = None,
        headers: Mapping[str, Any] | None = None,
        on_running: OnRunning = "existing",
        on_closed: OnClosed = "existing",
        with_signal: tuple[Signal[V], V] | tuple[str, Any] | None = None,
        with_update: UpdateRequest[Any] | None = None,
        run_timeout: timedelta | None = None,
        execution_timeout: timedelta | None = None,
        details: str | None = None,
        on_end: JobCall | None = None,
        connection: Transaction | None = None,
    ) -> Handle[Any]: ...

    @overload
    def start(
        self,
        workflow: Callable[..., Future[R]],
        /,
        *,
        id: str | None = None,
        version: int | None = None,
        pinned: bool | None = None,
        queue: str | None = None,
        priority: int | None = None,
        delay: timedelta | float | None = None,
        attributes: Attributes | None = None,
        actor: Any = None,
        memo: Mapping[str, Any] | None = None,
        headers: Mapping[str, Any] | None = None,
        on_running: OnRunning = "existing",
        on_closed: OnClosed = "existing",
        with_signal: tuple[Signal[V], V] | tuple[str, Any] | None = None,
        with_update: UpdateRequest[Any] | None = None,
        run_timeout: timedelta | None = None,
        execution_timeout: timedelta | None = None,
        details: str | None = None,
        on_end: JobCall | None = None,
        connection: Transaction | None = None,
        **arguments: Any,
    ) -> Handle[R]: ...

    @overload
    def start(
        self,
        workflow: Callable[Concatenate[A, ...], Future[R]],
        a: A,
        /,
        *,
        id: str | None = None,
        version: int | None = None,
        pinned: bool | None = None,
        queue: str | None = None,
        priority: int | None = None,
        delay: timedelta | float | None = None,
        attributes: Attributes | None = None,
        actor: Any = None,
        memo: Mapping[str, Any] | None = None,
        headers: Mapping[str, Any] | None = None,
        on_running: OnRunning = "existing",
        on_closed: OnClosed = "existing",
        with_signal: tuple[Signal[V], V] | tuple[str, Any] | None = None,
        with_update: UpdateRequest[Any] | None = None,
        run_timeout: timedelta | None = None,
        execution_timeout: timedelta | None = None,
        details: str | None = None,
        on_end: JobCall | None = None,
        connection: Transaction | None = None,
        **arguments: Any,
    ) -> Handle[R]: ...

    @overload
    def start(
        self,
        workflow: Callable[Concatenate[A, B, ...], Future[R]],
        a: A,
        b: B,
        /,
        *,
        id: str | None = None,
        version: int | None = None,
        pinned: bool | None = None,
        queue: str | None = None,
        priority: int | None = None,
        delay: timedelta | float | None = None,
        attributes: Attributes | None = None,
        actor: Any = None,
        memo: Mapping[str, Any] | None = None,
        headers: Mapping[str, Any] | None = None,
        on_running: OnRunning = "existing",
        on_closed: OnClosed = "existing",
        with_signal: tuple[Signal[V], V] | tuple[str, Any] | None = None,
        with_update: UpdateRequest[Any] | None = None,
        run_timeout: timedelta | None = None,
        execution_timeout: timedelta | None = None,
        details: str | None = None,
        on_end: JobCall | None = None,
        connection: Transaction | None = None,
        **arguments: Any,
    ) -> Handle[R]: ...

    @overload
    def start(
        self,
        workflow: Callable[Concatenate[A, B, C, ...], Future[R]],
        a: A,
        b: B,
        c: C,
        /,
        *more: Any,
        id: str | None = None,
        version: int | None = None,
        pinned: bool | None = None,
        queue: str | None = None,
        priority: int | None = None,
        delay: timedelta | float | None = None,
        attributes: Attributes | None = None,
        actor: Any = None,
        memo: Mapping[str, Any] | None = None,
        headers: Mapping[str, Any] | None = None,
        on_running: OnRunning = "existing",
        on_closed: OnClosed = "existing",
        with_signal: tuple[Signal[V], V] | tuple[str, Any] | None = None,
        with_update: UpdateRequest[Any] | None = None,
        run_timeout: timedelta | None = None,
        execution_timeout: timedelta | None = None,
        details: str | None = None,
        on_end: JobCall | None = None,
        connection: Transaction | None = None,
        **arguments: Any,
    ) -> Handle[R]: ...

    def start(
        self,
        workflow: Any,
        /,
        *args: Any,
        id: str | None = None,
        version: int | None = None,
        pinned: bool | None = None,
        queue: str | None = None,
        priority: int | None = None,
        delay: timedelta | float | None = None,
        attributes: Attributes | None = None,
        actor: Any = None,
        memo: Mapping[str, Any] | None = None,
        headers: Mapping[str, Any] | None = None,
        on_running: OnRunning = "existing",
        on_closed: OnClosed = "existing",
        with_signal: tuple[Signal[V], V] | tuple[str, Any] | None = None,
        with_update: UpdateRequest[Any] | None = None,
        run_timeout: timedelta | None = None,
        execution_timeout: timedelta | None = None,
        details: str | None = None,
        on_end: JobCall | None = None,
        connection: Transaction | None = None,
        **arguments: Any,
    ) -> Handle[Any]:
        """Start a workflow and return its handle; idempotent by `id` (C20).

        `workflow` is a workflow, or the name of one with its arguments as a mapping (checked against what this process has imported or what a
        worker has registered). A name means its newest version, `version` another one; `pinned` overrides the workflow's own (see `@workflow`).
        `id`: at most 1000 characters, a new UUID by default. `queue` and `priority` (0-9, 0 first) override the
        workflow's own. `delay`: seconds or timedelta before it may run. `attributes`: what `list(where=)` finds it by; `memo`: a JSON object kept
        beside the run; `details`: a line for people. `run_timeout`, `execution_timeout`: see `durable.core.policy.LifeLimits`. `actor`: who starts
        it, text, a mapping or a `context_type`; `headers`: JSON values by name, which travel with the run (see `acting_as`). What happens if the id is in use: `on_running` "existing"
        (its handle), "fail" or "terminate" (it is ended by force and another run starts); `on_closed` "existing", "new" (another run), "new_if_failed" (unless it completed) or "fail".
        `with_signal`: a Signal (or its name) and a value, `with_update`: an UpdateRequest; they go to the run that is started or found, in the same
        transaction, and the update finds the handlers that its first turn registers. `handle.update_handle(request)` waits for it.
        `on_end`: a job that the transaction which closes the run that is started here enqueues, however it ends; it acts for the same actor.

        Raises PayloadError, InvalidOption, ActorRequired, UnknownWorkflow, WorkflowAlreadyExists; nothing is written then.
        """
        target = self._workflow(workflow, version)
        options = requests.StartOptions(
            id,
            queue,
            priority,
            delay,
            attributes,
            actor,
            memo,
            headers,
            pinned,
            on_running,
            on_closed,
            run_timeout,
            execution_timeout,
            details,
            with_signal,
            with_update,
            on_end,
        )
        request = ClientRequest("start", target.name, id, args, arguments, actor, headers)
        return sending(request, partial(self._start, target, options, connection))

    def _start(
        self,
        target: requests.Target,
        options: requests.StartOptions,
        connection: Transaction | None,
        asked: ClientRequest,
    ) -> Handle[Any]:
        """What the interceptors have left of the request."""
        given = replace(options, actor=asked.actor, headers=asked.headers)
        after = grouping.following(given.on_end, asked.actor, asked.headers, self._session.sealer())
        workflow_id, start = requests.start(target, asked.args, asked.kwargs, given, after)
        call = self._accompanied(start, workflow_id, given)
        started = self._start_run(call, connection)
        return Handle(self, workflow_id, started.run_id, target.result, created=started.created)

    def _start_run(self, call: Call[Sent[Started]], connection: Transaction | None) -> Started:
        """A client beside a worker does more here."""
        return self._send(call, connection)

    def _outcome(self, workflow_id: str, run_id: str | None, waiting: Waiting) -> calls.RunOutcome:
        """Look until the run has ended. Raises WorkflowNotFound and TimeoutError. A client beside a worker may know without looking."""
        call = calls.read_outcome(workflow_id, run_id)
        while True:
            outcome = self._execute(call)
            if has_ended(outcome):
                return outcome
            time.sleep(waiting.gap_s())

    @overload
    def handle(self, workflow_id: str) -> Handle[Any]: ...

    @overload
    def handle(self, workflow_id: str, workflow: Callable[..., Future[R]]) -> Handle[R]: ...

    def handle(self, workflow_id: str, workflow: Any = None) -> Handle[Any]:
        """The handle of a workflow by its id; nothing is looked up yet. `workflow` gives its result a type.

        Raises InvalidOption when no workflow can have this id.
        """
        checked = requests.text("workflow_id", workflow_id, requests.MAX_ID)
        codec = workflow.arguments.result if isinstance(workflow, Workflow) else None
        return Handle(self, checked, None, codec)

    def list(
        self,
        *,
        status: Status | None = None,
        operator_status: OperatorStatus | None = None,
        workflow: str | None = None,
        queue: str | None = None,
        id_prefix: str | None = None,
        where: str | None = None,
        limit: int = 100,
    ) -> Sequence[RunDescription]:
        """The newest runs that pass every given filter, newest first. `limit`: 1 to 10,000. Raises InvalidOption.

        `where` is about attributes: `customer = "x" and amount > 5`; the language is in `durable.filters`.
        """
        call = calls.list_runs(
            status=None if status is None else requests.one_of("status", status, Status),
            operator_status=None
            if operator_status is None
            else requests.one_of("operator_status", operator_status, OperatorStatus),
            workflow=None if workflow is None else checked_name("workflow", workflow),
            queue=None if queue is None else checked_name("queue", queue),
            id_prefix=None
            if id_prefix is None
            else requests.text("id_prefix", id_prefix, requests.MAX_ID),
            where=None if where is None else compiled_filter(where),
            limit=requests.whole("limit", limit, 1, 10_000),
        )
        return self._execute(call)

    def delete_unused_payloads(self, older_than: timedelta = timedelta(days=1)) -> int:
        """Delete from the payload store what nothing in this database refers to any more (its runs were pruned). Returns how many.

        `older_than`: what was put more recently stays, for somebody may be about to refer to it. Reads every payload of the database. A store
        that several databases share must not be cleaned like this. Raises InvalidOption when there is no payload store.
        """
        payloads = self._session.payloads or default_payloads()
        if payloads.store is None:
            raise InvalidOption(
                "there is no payload store; give one to durable.use_payloads(store=...)"
            )
        used = self._execute(sealed_calls.payload_refs())
        older_than_s = requests.seconds("older_than", older_than)
        return payloads.store.delete_unused(used, older_than_s)

    # -- for handles and the command line -----------------------------------------------------------------------------

    def _workflow(self, workflow: Any, version: int | None) -> requests.Target:
        """What to start: the given definition, or by name the one imported here, or the one a worker has registered."""
        if workflow == INTERPRETER:
            raise targets.unchecked_dag()
        if version is not None:
            return self._version(workflow, checked_version("version", version))
        if isinstance(workflow, Dag):
            return self._dag(workflow)
        if not isinstance(workflow, str):
            return targets.of_workflow(workflow)
        if (local := targets.local_workflow(workflow)) is not None:
            return local
        definition = self._execute(calls.read_definition("workflow", workflow))
        if definition is None:
            known = self._execute(calls.list_definitions("workflow"))
            raise targets.unknown_workflow(workflow, known)
        return targets.of_definition(definition)

    def _dag(self, dag: Dag) -> requests.Target:
        """A DAG, checked against what is imported here or registered by a worker. Raises InvalidDag."""
        named = targets.not_imported(dag)
        there = self._execute(calls.list_definitions("activity")) if named else []
        asked = [calls.read_definition("activity", name) for name in {*named}.intersection(there)]
        found = [self._execute(each) for each in asked]
        return targets.of_dag(dag, [it for it in found if it is not None])

    def _accompanied(
        self, start: Call[Sent[Started]], workflow_id: str, given: requests.StartOptions
    ) -> Call[Sent[Started]]:
        """The start together with the signal and the update that it takes along, in one statement."""
        if given.with_signal is None and given.with_update is None:
            return start
        signal = None
        if given.with_signal is not None:
            name, payload, strict = self._signal_payload(*given.with_signal)
            signal = requests.signal(
                workflow_id, name, payload, None, given.actor, given.headers, require_actor=strict
            )
        offer = given.with_update
        update = None if offer is None else offer.call(workflow_id, given.actor)
        return updates.start_with(start, workflow_id, signal, update)

    def _version(self, workflow: Any, version: int) -> requests.Target:
        """That version of a workflow or of a name. Raises UnknownWorkflow when neither this process nor a worker has it."""
        if isinstance(workflow, str):
            name, local = workflow, targets.local_workflow(workflow, version)
        else:
            name = targets.of_workflow(workflow).name
            local = targets.another_version(workflow, version)
        if local is not None:
            return local
        definition = self._execute(calls.read_definition("workflow", name, version))
        if definition is not None:
            return targets.of_definition(definition)
        if versions := self._execute(calls.list_versions(name)):
            raise targets.unknown_version(name, version, versions)
        known = self._execute(calls.list_definitions("workflow"))
        raise targets.unknown_workflow(name, known)

    def _signal_payload(self, signal: Any, value: Any) -> tuple[str, str, bool]:
        """A signal's name, its value as JSON text, checked against its type, and whether it requires an actor."""
        if not isinstance(signal, str):
            return *targets.signal_payload(signal, value), signal.require_actor
        if (local := targets.local_signal(signal)) is not None:
            payload = targets.signal_payload(local, targets.fitting(local.codec, value))
            return *payload, local.require_actor
        definition = self._execute(calls.read_definition("signal", signal))
        if definition is None:
            known = self._execute(calls.list_definitions("signal"))
            raise targets.unknown_signal(signal, known)
        return signal, targets.checked_json(definition, value), targets.requires_actor(definition)

    def _handle_of(
        self, workflow_id: str, run_id: str | None, codec: ValueCodec | None
    ) -> Handle[Any]:
        return Handle(self, workflow_id, run_id, codec)

    def _result_codec(self, workflow_name: str, version: int) -> ValueCodec | None:
        local = targets.local_workflow(workflow_name, version)
        return None if local is None else local.result
