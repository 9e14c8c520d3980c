"""What is on record besides histories, and recoveries, each described once, as those of calls.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from durable.descriptions import CancelRequest, Evidence, RecoveryRecord, SignalReceipt
from durable.ids import uuid7
from durable.store.arrays import plain
from durable.store.calls import Call, Row, Sent
from durable.store.calls import _record as record
from durable.store.queries import load_queries
from durable.store.shards import shard_of

_SQL = load_queries("evidence.sql")


def read_evidence(workflow_id: str, run_id: str | None, limit: int) -> Call[Sequence[Evidence]]:
    """The newest first, of one run or of all runs of the id."""
    given = {**_of(workflow_id), "run_id": run_id, "limit": limit}
    return Call(_SQL["read_evidence"], given, lambda rows: [record(Evidence, row) for row in rows])


def read_cancel_requests(workflow_id: str) -> Call[Sequence[CancelRequest]]:
    """All requests to stop the runs of an id, in their order."""
    return Call(
        _SQL["read_cancel_requests"],
        _of(workflow_id),
        lambda rows: [record(CancelRequest, row) for row in rows],
    )


def note_ambiguous(
    signal: Call[Sent[SignalReceipt]], runs: Sequence[tuple[str, str]], reason: str
) -> Call[int]:
    """Note a signal that meant several runs with each of them: (run id, workflow id). It wakes nobody."""
    given = {
        **{key: signal.parameters[key] for key in _SIGNAL},
        "shards": plain([shard_of(workflow_id) for _, workflow_id in runs]),
        "runs": plain([run_id for run_id, _ in runs]),
        "reason": reason,
    }
    return Call(_SQL["note_ambiguous"], given, lambda rows: int(rows[0]["noted"]))


_SIGNAL = ("signal_id", "name", "dedupe_key", "payload", "actor")


# -- recoveries ---------------------------------------------------------------------------------------------------------


def begin_recovery(reason: str, actor: str | None) -> tuple[str, Call[None]]:
    """The id of a new recovery, and the call that begins it."""
    recovery_id = str(uuid7())
    given = {"recovery_id": recovery_id, "reason": reason, "actor": actor}
    return recovery_id, Call(_SQL["begin_recovery"], given, lambda _: None)


def end_recovery(recovery_id: str, note: str | None) -> Call[bool]:
    """Whether there is one. One that has ended stays as it is."""
    return Call(_SQL["end_recovery"], {"recovery_id": recovery_id, "note": note}, bool)


def read_recoveries(recovery_id: str | None, limit: int) -> Call[Sequence[RecoveryRecord]]:
    """The newest first, or the one of that id."""
    given = {"recovery_id": recovery_id, "limit": limit}
    return Call(
        _SQL["read_recoveries"], given, lambda rows: [record(RecoveryRecord, row) for row in rows]
    )


def name_recovery(recovery_id: str | None) -> Call[list[Row]]:
    """Have the commands of the open transaction belong to a recovery, or to none any more."""
    return Call(_SQL["name_recovery"], {"recovery_id": recovery_id or ""}, lambda rows: rows)


def _of(workflow_id: str) -> dict[str, Any]:
    return {"shard": shard_of(workflow_id), "workflow_id": workflow_id}
