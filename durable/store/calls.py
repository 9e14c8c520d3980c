"""The client's operations on the database, each described once: a statement, its parameters, and what its rows mean.

Both clients execute these values and nothing else, so there is one description of every operation and no hand-written twin. Nothing here
does I/O. A decoder raises the domain error that an answer stands for; by then the statement has taken effect.

Every operation may be sent again after a lost answer: ids (run, signal, job, command) are made before the first attempt, and the SQL
functions recognise one that they have seen.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, LiteralString, TypeVar

from durable.descriptions import (
    CancelReceipt,
    HistoryEvent,
    MoveReceipt,
    PendingJob,
    RunDescription,
    SignalEvidence,
    SignalReceipt,
)
from durable.errors import (
    WorkflowAlreadyExists,
    WorkflowClosed,
    WorkflowNotFound,
)
from durable.ids import uuid7
from durable.refusals import steps
from durable.store.queries import load_queries
from durable.store.shards import shard_of

T = TypeVar("T")
D = TypeVar("D")
Row = dict[str, Any]

_SQL = load_queries("client.sql")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One statement to execute, and the meaning of its rows. `hint`: whom it will most likely have to wake, told in the same round trip."""

    statement: LiteralString
    parameters: Mapping[str, Any]
    decode: Callable[[list[Row]], T]
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class Sent(Generic[T]):
    """An answer, and who may be asleep and should look: the hints of C4."""

    answer: T
    hints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Started:
    """The run that a start gave; `created` is False when it existed before.

    `taken_us`: since when the worker that `taken_at_once` named owns it; `taken_body` is then its first event's body, as JSON text.
    """

    run_id: str
    created: bool
    taken_us: int | None = None
    taken_body: str | None = None


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How a run stands. `body` and `payload` (JSON text) are those of its last event once it is closed."""

    run_id: str
    workflow: str
    version: int
    status: str
    body: dict[str, Any]
    payload: str | None


@dataclass(frozen=True, slots=True)
class Definition:
    """What a worker has registered under a name; `schema` is the JSON Schema of the arguments or payload, `options` those of a job."""

    name: str
    version: int
    queue: str | None
    schema: dict[str, Any]
    options: dict[str, Any]


# -- writing ----------------------------------------------------------------------------------------------------------


def start_run(
    workflow_id: str, workflow: str, queue: str, given: Mapping[str, Any]
) -> Call[Sent[Started]]:
    """Start a run, or find the one of that id. `given`: the other parameters of durable.start_run.

    Raises WorkflowAlreadyExists when the policies refuse.
    """

    def decode(rows: list[Row]) -> Sent[Started]:
        row = rows[0]
        if row["outcome"] == "refused":
            msg = (
                f"a workflow with the id {workflow_id!r} exists already and is {row['status']}; "
                "use another id, its handle, or on_running= / on_closed="
            )
            raise WorkflowAlreadyExists(msg)
        created = row["outcome"] == "started"
        started = Started(row["run_id"], created, row.get("taken_us"), row.get("taken_body"))
        return Sent(started, (hint,) if created and started.taken_us is None else ())

    hint = f"runs:{queue}"

    parameters = {
        "on_end": None,
        **given,
        "shard": shard_of(workflow_id),
        "run_id": str(uuid7()),
        "workflow_id": workflow_id,
        "workflow": workflow,
        "queue": queue,
        "taker": None,
    }
    return Call(_SQL["start_run"], parameters, decode, hint)


def taken_at_once(call: Call[T], worker_id: str) -> Call[T]:
    """The start of a run or an enqueue of a job, to be that worker's from the beginning if it may run now; nobody is woken then."""
    return replace(call, parameters={**call.parameters, "taker": worker_id}, hint=None)


def send_signal(
    workflow_id: str,
    name: str,
    payload: str,
    dedupe_key: str | None,
    actor: str | None,
    headers: str | None = None,
) -> Call[Sent[SignalReceipt]]:
    """Signal the newest run of an id. Raises WorkflowNotFound, or WorkflowClosed (the attempt is kept as evidence, C11)."""
    signal_id = str(uuid7())

    def decode(rows: list[Row]) -> Sent[SignalReceipt]:
        row = rows[0]
        if row["status"] == "unknown":
            raise not_found(workflow_id)
        if row["status"] in ("dropped", "late"):
            msg = (
                f"workflow {workflow_id!r} takes no signal {name!r} any more: {row['reason']}; "
                "the attempt is kept as evidence"
            )
            raise WorkflowClosed(msg, steps("workflow_closed", workflow_id, None))
        receipt = SignalReceipt(signal_id, row["run_id"], row["status"])
        return Sent(receipt, (_owner_or_queue(row),) if row["status"] == "buffered" else ())

    parameters = {
        "shard": shard_of(workflow_id),
        "workflow_id": workflow_id,
        "signal_id": signal_id,
        "name": name,
        "payload": payload,
        "dedupe_key": dedupe_key,
        "actor": actor,
        "headers": headers,
    }
    return Call(_SQL["send_signal"], parameters, decode)


def request_cancel(
    workflow_id: str, reason: str | None, actor: str | None
) -> Call[Sent[CancelReceipt]]:
    """Ask the newest run of an id to stop (C9). Raises WorkflowNotFound or WorkflowClosed."""

    def decode(rows: list[Row]) -> Sent[CancelReceipt]:
        row = rows[0]
        _refuse_unless_open(workflow_id, row["status"])
        return Sent(CancelReceipt(row["run_id"], row["status"]), (_owner_or_queue(row),))

    return Call(_SQL["request_cancel"], _command(workflow_id, reason, actor), decode)


def terminate_run(workflow_id: str, reason: str | None, actor: str | None) -> Call[Sent[str]]:
    """End the newest run of an id by force; answers its run id. Raises WorkflowNotFound or WorkflowClosed."""

    def decode(rows: list[Row]) -> Sent[str]:
        row = rows[0]
        _refuse_unless_open(workflow_id, row["status"])
        told = _json(row["pushes"]) or ()
        return Sent(row["run_id"], tuple(it if ":" in it else f"worker:{it}" for it in told))

    return Call(_SQL["terminate_run"], _command(workflow_id, reason, actor), decode)


def move_run(
    workflow_id: str, build: str | None, reason: str | None, actor: str | None
) -> Call[Sent[MoveReceipt]]:
    """Pin the newest run of an id to a build, or free it (None). Raises WorkflowNotFound or WorkflowClosed."""

    def decode(rows: list[Row]) -> Sent[MoveReceipt]:
        row = rows[0]
        _refuse_unless_open(workflow_id, row["status"])
        told = (f"worker:{row['owner']}",) if row["owner"] else ()
        receipt = MoveReceipt(row["run_id"], row["status"], row["was"], build, row["served"])
        return Sent(receipt, (*told, f"runs:{row['queue']}"))

    parameters = {**_command(workflow_id, reason, actor), "build": build}
    return Call(_SQL["move_run"], parameters, decode)


def _command(workflow_id: str, reason: str | None, actor: str | None) -> dict[str, Any]:
    return {
        "shard": shard_of(workflow_id),
        "workflow_id": workflow_id,
        "reason": reason,
        "actor": actor,
        "command_id": str(uuid7()),
    }


def notify(hint: str) -> Call[None]:
    """Tell whoever listens that there may be something to do (C4)."""
    return Call(_SQL["notify"], {"hint": hint}, lambda _: None)


def _owner_or_queue(row: Row) -> str:
    return f"worker:{row['owner']}" if row["owner"] else f"queue:{row['queue']}"


def _refuse_unless_open(workflow_id: str, status: str) -> None:
    if status == "unknown":
        raise not_found(workflow_id)
    if status == "closed":
        msg = f"workflow {workflow_id!r} has ended already; there is nothing left to stop"
        raise WorkflowClosed(msg, steps("workflow_closed", workflow_id, None))


def not_found(workflow_id: str) -> WorkflowNotFound:
    return WorkflowNotFound(
        f"no workflow has the id {workflow_id!r} in this database; `durable list` shows those that exist"
    )


# -- reading ----------------------------------------------------------------------------------------------------------


def read_outcome(workflow_id: str, run_id: str | None) -> Call[RunOutcome]:
    """How a run stands: the newest of the id, or `run_id` and what continues it. Raises WorkflowNotFound."""

    def decode(rows: list[Row]) -> RunOutcome:
        row = _one_run(rows, workflow_id)
        return RunOutcome(
            row["run_id"],
            row["workflow"],
            row["version"],
            row["status"],
            _json(row["body"]) or {},
            row["payload"],
        )

    return Call(_SQL["read_outcome"], _run(workflow_id, run_id), decode)


def describe_run(workflow_id: str, run_id: str | None) -> Call[RunDescription]:
    """Raises WorkflowNotFound."""
    return Call(
        _SQL["describe_run"],
        _run(workflow_id, run_id),
        lambda rows: _record(RunDescription, _one_run(rows, workflow_id)),
    )


def list_runs(**filters: Any) -> Call[list[RunDescription]]:
    """The newest runs that pass the filters: status, operator_status, workflow, queue, id_prefix, where (None: any), limit."""
    return Call(
        _SQL["list_runs"],
        {"where": None, **filters},
        lambda rows: [_record(RunDescription, row) for row in rows],
    )


def read_history(workflow_id: str, run_id: str | None, after: int = 0) -> Call[list[HistoryEvent]]:
    """The events after number `after`. Empty when there is no such run: every run has a first event."""
    parameters = {**_run(workflow_id, run_id), "after": after}
    return Call(
        _SQL["read_history"], parameters, lambda rows: [_record(HistoryEvent, row) for row in rows]
    )


def read_signals(workflow_id: str, run_id: str | None) -> Call[list[SignalEvidence]]:
    return Call(
        _SQL["read_signals"],
        _run(workflow_id, run_id),
        lambda rows: [_record(SignalEvidence, row) for row in rows],
    )


def read_pending(workflow_id: str, run_id: str | None) -> Call[list[PendingJob]]:
    return Call(
        _SQL["read_pending"],
        _run(workflow_id, run_id),
        lambda rows: [_record(PendingJob, row) for row in rows],
    )


def read_definition(kind: str, name: str, version: int | None = None) -> Call[Definition | None]:
    """That version of a definition, or the one that a start by name takes: the newest that live workers have."""
    parameters = {"kind": kind, "name": name, "version": version}
    return Call(_SQL["read_definition"], parameters, lambda rows: _first(Definition, rows))


def list_versions(workflow: str) -> Call[list[int]]:
    """The versions of a workflow that workers have registered."""
    return Call(
        _SQL["list_versions"], {"name": workflow}, lambda rows: [row["version"] for row in rows]
    )


def list_definitions(kind: str) -> Call[list[str]]:
    return Call(
        _SQL["list_definitions"], {"kind": kind}, lambda rows: [row["name"] for row in rows]
    )


# -- the operator's overview, as plain rows ---------------------------------------------------------------------------


def _overview(name: str) -> Call[list[Row]]:
    return Call(_SQL[name], {}, lambda rows: [_decoded(row) for row in rows])


def read_clock() -> Call[list[Row]]:
    return _overview("read_clock")


def list_workers() -> Call[list[Row]]:
    return _overview("list_workers")


def list_backlog() -> Call[list[Row]]:
    return _overview("list_backlog")


def list_builds_without_worker() -> Call[list[Row]]:
    return _overview("list_builds_without_worker")


def count_reviews() -> Call[list[Row]]:
    return _overview("count_reviews")


# -- rows to values ---------------------------------------------------------------------------------------------------

_JSON = frozenset(
    {
        "attributes", "memo", "actor", "waiting_on", "review", "body", "payload", "errors", "heartbeat", "note", "schema",
        "queues", "info", "headers", "options", "meta", "arguments", "result", "paused", "before", "after", "filter", "detail",
    }
)  # fmt: skip
_TIMES = frozenset(
    {
        "at", "created_at", "started_at", "closed_at", "ready_at", "cancel_requested_at", "next_at", "deadline_at",
        "scheduled_at", "finished_at", "beat_at", "now", "begun_at", "ended_at",
    }
)  # fmt: skip


def _run(workflow_id: str, run_id: str | None) -> dict[str, Any]:
    return {"shard": shard_of(workflow_id), "workflow_id": workflow_id, "run_id": run_id}


def _one_run(rows: list[Row], workflow_id: str) -> Row:
    if not rows:
        raise not_found(workflow_id)
    return rows[0]


def _first(cls: type[D], rows: list[Row]) -> D | None:
    return _record(cls, rows[0]) if rows else None


def _record(cls: type[D], row: Row) -> D:
    """Build a description whose field names are the statement's column names."""
    decoded = _decoded(row)
    if decoded.get("errors", ...) is None:
        decoded["errors"] = []
    names = {field.name for field in fields(cls)}  # type: ignore[arg-type]
    return cls(**{name: value for name, value in decoded.items() if name in names})


def _decoded(row: Row) -> Row:
    return {name: _value(name, value) for name, value in row.items()}


def _value(name: str, value: Any) -> Any:
    if name in _JSON:
        return _json(value)
    return from_us(value) if name in _TIMES else value


def _json(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def from_us(us: int | None) -> datetime | None:
    """A time of the database, in UTC."""
    return None if us is None else _EPOCH + timedelta(microseconds=us)
