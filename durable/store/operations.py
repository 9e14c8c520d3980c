"""What operators do to runs and activities, as calls like those of `calls.py`: a statement, its parameters, and what its answer means."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn
from uuid import UUID, uuid5

from durable.core.rewind import Rewind
from durable.descriptions import BatchProgress, CommandRecord, RewindReceipt
from durable.errors import OperationRefused, WorkflowClosed
from durable.ids import uuid7
from durable.refusals import REFUSALS, steps
from durable.store.arrays import plain, quoted
from durable.store.calls import Call, Row, Sent, not_found
from durable.store.calls import _record as record
from durable.store.queries import load_queries
from durable.store.shards import SHARD_KEYS, shard_of

_SQL = load_queries("operations.sql")
_SHARDS = plain(SHARD_KEYS)


@dataclass(frozen=True, slots=True)
class Order:
    """Who commands what, and why. `run_id`: only this run, not the newest. `actor` is JSON text. Sent again under the same `command_id` it is done once."""

    workflow_id: str
    reason: str | None
    actor: str | None
    command_id: str
    run_id: str | None = None
    batch_id: str | None = None

    def parameters(self) -> dict[str, Any]:
        return {
            "shard": shard_of(self.workflow_id),
            "workflow_id": self.workflow_id,
            "run_id": self.run_id,
            "reason": self.reason,
            "actor": self.actor,
            "command_id": self.command_id,
            "batch_id": self.batch_id,
        }


def order(workflow_id: str, reason: str | None, actor: str | None) -> Order:
    return Order(workflow_id, reason, actor, str(uuid7()))


def order_in_batch(workflow_id: str, run_id: str, batch: BatchProgress) -> Order:
    """The batch's command to this run: always the same one."""
    command_id = str(uuid5(UUID(batch.batch_id), run_id))
    actor = None if batch.actor is None else json.dumps(batch.actor)
    return Order(workflow_id, batch.reason, actor, command_id, run_id, batch.batch_id)


def encoded(value: Any) -> str:
    """One of our own documents as JSON text."""
    return json.dumps(value)


def decoded(text: str) -> Any:
    return json.loads(text)


def refuse(code: str, workflow_id: str, seq: int | None = None) -> NoReturn:
    """Raise the error that a code stands for; its message ends with what is legal."""
    if code == "unknown":
        raise not_found(workflow_id)
    legal = steps(code, workflow_id, seq)
    message = f"workflow {workflow_id!r} {REFUSALS[code].text}; you can: {', '.join(legal)}"
    if code == "workflow_closed":
        raise WorkflowClosed(message, legal)
    raise OperationRefused(message, code, legal)


def _done(given: Order, seq: int | None, rows: list[Row]) -> Sent[str]:
    row = rows[0]
    if row["code"] != "accepted":
        refuse(row["code"], given.workflow_id, seq)
    return Sent(row["run_id"], _hints(row))


def _hints(row: Row) -> tuple[str, ...]:
    told = json.loads(row["pushes"] or "[]")
    return tuple(it if ":" in it else f"worker:{it}" for it in told)


def pause_run(given: Order) -> Call[Sent[str]]:
    """Hold a run; answers its run id. Raises WorkflowNotFound, WorkflowClosed, OperationRefused."""
    return Call(_SQL["pause_run"], given.parameters(), lambda rows: _done(given, None, rows))


def resume_run(given: Order) -> Call[Sent[str]]:
    """Let a run go on; answers its run id. Raises as `pause_run`."""
    return Call(_SQL["resume_run"], given.parameters(), lambda rows: _done(given, None, rows))


def stop_in_batch(
    given: Order, action: str, signal: str | None, payload: str | None
) -> Call[Sent[str]]:
    """Cancel, terminate or signal this very run. Raises as `pause_run`."""
    parameters = {**given.parameters(), "action": action, "signal": signal, "payload": payload}
    return Call(_SQL["stop_in_batch"], parameters, lambda rows: _done(given, None, rows))


def move_in_batch(given: Order, build: str | None) -> Call[Sent[str]]:
    """Pin this very run to a build, or free it (None). Raises as `pause_run`."""
    parameters = {**given.parameters(), "build": build}
    return Call(_SQL["move_in_batch"], parameters, lambda rows: _done(given, None, rows))


def act_on_activity(
    given: Order,
    seq: int,
    action: str,
    payload: str | None = None,
    failure: dict[str, Any] | None = None,
) -> Call[Sent[str]]:
    """Do something to the activity that event `seq` scheduled; answers the run id. Raises as `pause_run`."""
    parameters = {
        **given.parameters(),
        "seq": seq,
        "action": action,
        "payload": payload,
        "failure": None if failure is None else json.dumps(failure),
    }
    return Call(_SQL["act_on_activity"], parameters, lambda rows: _done(given, seq, rows))


@dataclass(frozen=True, slots=True)
class RewindOptions:
    """`action`: reset, retry, undo or fork. `fork_id`: the id of the fork. `ask`: an update that the new run is asked at once, by name and arguments as JSON text; its id
    is `ask_id`, or the command's.
    """

    action: str
    reapply_signals: bool = True
    original_due: bool = False
    fork_id: str | None = None
    ask: tuple[str, str] | None = None
    ask_id: str | None = None


def rewind_run(given: Order, plan: Rewind, options: RewindOptions) -> Call[Sent[RewindReceipt]]:
    """Make another run with this one's history up to a point. Raises as `pause_run`."""

    def decode(rows: list[Row]) -> Sent[RewindReceipt]:
        row = rows[0]
        if row["code"] != "accepted":
            refuse(row["code"], given.workflow_id)
        receipt = RewindReceipt(
            options.fork_id or given.workflow_id,
            row["next_run_id"],
            row["run_id"],
            plan.event,
            plan.discarded,
            row["resent"],
        )
        return Sent(receipt, _hints(row))

    return Call(_SQL["rewind_run"], _rewind(given, plan, options, None), decode)


def refuse_rewind(given: Order, options: RewindOptions, code: str) -> Call[Sent[RewindReceipt]]:
    """Record that there is no such point; raises the refusal. The answer to the same command stands, if there was one."""
    nowhere = Rewind(0, 0, 0, [], [], [], [], [], [], [], False, [], {})
    parameters = _rewind(given, nowhere, options, code)

    def decode(rows: list[Row]) -> NoReturn:
        refuse(rows[0]["code"], given.workflow_id)

    return Call(_SQL["rewind_run"], parameters, decode)


def _rewind(
    given: Order, plan: Rewind, options: RewindOptions, refusal: str | None
) -> dict[str, Any]:
    fork_id = options.fork_id
    ask, payload = options.ask or (None, None)
    return {
        **given.parameters(),
        "action": options.action,
        "refusal": refusal,
        "next": str(uuid7()),
        "fork_shard": None if fork_id is None else shard_of(fork_id),
        "fork_id": fork_id,
        "event": plan.event or None,
        "cut": plan.cut,
        "turn": plan.turn,
        "redeliver": plain(plan.redeliver),
        "updates": plain(plan.updates),
        "activities": plain(plan.activities),
        "keys": quoted([None if fork_id else key for key in plan.keys]),
        "timers": plain(plan.timers),
        "children": plain(plan.children),
        "stopping": plain(plan.stopping),
        "cancelled": plan.cancelled,
        "origins": json.dumps(plan.origins),
        "discarded": json.dumps(plan.discarded),
        "reapply": options.reapply_signals,
        "original_due": options.original_due,
        "ask": ask,
        "payload": payload,
        "ask_id": options.ask_id,
    }


# -- reading ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ScheduledActivity:
    """The activity that an event scheduled, and what a worker has registered of it: `schema` is that of its arguments, empty when none has."""

    name: str
    schema: dict[str, Any]


def read_scheduled_activity(workflow_id: str, seq: int) -> Call[ScheduledActivity | None]:
    """None: there is no such activity."""

    def decode(rows: list[Row]) -> ScheduledActivity | None:
        if not rows:
            return None
        return ScheduledActivity(rows[0]["name"], json.loads(rows[0]["schema"] or "{}"))

    parameters = {"shard": shard_of(workflow_id), "workflow_id": workflow_id, "seq": seq}
    return Call(_SQL["read_scheduled_activity"], parameters, decode)


def list_commands(
    workflow_id: str | None,
    limit: int,
    *,
    batch_id: str | None = None,
    subject: str | None = None,
    recovery_id: str | None = None,
    accepted: bool | None = None,
) -> Call[Sequence[CommandRecord]]:
    """The newest commands that pass every given condition, to one name or to all. What stands under no run is on shard 0."""
    shards = _SHARDS if workflow_id is None else plain(sorted({0, shard_of(workflow_id)}))
    parameters = {
        "shards": shards,
        "workflow_id": workflow_id,
        "batch_id": batch_id,
        "subject": subject,
        "recovery_id": recovery_id,
        "accepted": accepted,
        "limit": limit,
    }
    return Call(_SQL["list_commands"], parameters, lambda rows: [_command(row) for row in rows])


def _command(row: Row) -> CommandRecord:
    name, seq, subject = row["workflow_id"], row["seq"], row["subject"]
    code = row["code"]
    if code == "already_requested" and row["action"] == "signal":
        code = "unchanged"  # a duplicate: there is nothing to stop
    legal = () if row["accepted"] else steps(code, name, seq, subject)
    return record(CommandRecord, {**row, "next_steps": legal})


# -- batches ----------------------------------------------------------------------------------------------------------


def newest_bound() -> str:
    """An id beyond those of all runs made up to now."""
    return str(UUID(int=uuid7().int | (1 << 80) - 1))


def count_matching(filter_: str, bound: str) -> Call[int]:
    """How many runs pass a filter."""
    parameters = {"filter": filter_, "bound": bound}
    return Call(_SQL["count_matching"], parameters, lambda rows: int(rows[0]["matching"]))


def list_matching(
    filter_: str, bound: str, reached: str | None, limit: int
) -> Call[list[tuple[str, str]]]:
    """The next runs of a batch: (run id, workflow id), newest first."""
    parameters = {"filter": filter_, "bound": bound, "reached": reached, "limit": limit}
    return Call(
        _SQL["list_matching"],
        parameters,
        lambda rows: [(row["run_id"], row["workflow_id"]) for row in rows],
    )


def begin_batch(given: BatchProgress) -> Call[None]:
    """Write down what is going to be done. An id that exists is left as it is."""
    options = dict(given.options)
    value = options.pop("value", None)
    parameters = {
        "batch_id": given.batch_id,
        "action": given.action,
        "filter": json.dumps(given.filter),
        "options": json.dumps(options),
        "payload": None if value is None else json.dumps(value),
        "reason": given.reason,
        "actor": None if given.actor is None else json.dumps(given.actor),
        "bound": given.bound,
        "matched": given.matched,
    }
    return Call(_SQL["begin_batch"], parameters, lambda _: None)


def advance_batch(batch_id: str, reached: str | None, *, finished: bool) -> Call[None]:
    """All runs down to `reached` are done."""
    parameters = {"batch_id": batch_id, "reached": reached, "finished": finished}
    return Call(_SQL["advance_batch"], parameters, lambda _: None)


def read_batches(batch_id: str | None = None, limit: int = 1) -> Call[Sequence[BatchProgress]]:
    """How far the newest batches are, or one."""
    parameters = {"batch_id": batch_id, "limit": limit}
    return Call(_SQL["read_batches"], parameters, lambda rows: [_batch(row) for row in rows])


def _batch(row: Row) -> BatchProgress:
    batch = record(BatchProgress, row)
    if (payload := row["payload"]) is None:
        return batch
    return replace(batch, options={**batch.options, "value": json.loads(payload)})
