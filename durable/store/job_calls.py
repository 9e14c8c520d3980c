"""The client's operations on standalone jobs; each is a value as in calls.py, and may be sent again as those may."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from durable.core.job_life import JobState
from durable.descriptions import GroupDescription, JobDescription, JobReceipt
from durable.ids import uuid7
from durable.job_errors import JobNotFound, JobRefused
from durable.refusals import REFUSALS, steps
from durable.store.calls import Call, Row, Sent, _first, _record
from durable.store.queries import load_queries
from durable.store.shards import shard_of

_SQL = load_queries("jobs.sql")


@dataclass(frozen=True, slots=True)
class Enqueued:
    """The job that an enqueue gave. `outcome`: created; existing (this id came before); conflict or replaced (another job has the unique key).

    `taken_us`: since when the worker that `calls.taken_at_once` named executes it.
    """

    job_id: str
    state: JobState
    outcome: str
    taken_us: int | None = None


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """How a standalone job stands. `result_text` is JSON text."""

    state: str
    name: str
    attempt: int
    result_text: str | None
    errors: list[dict[str, Any]]


# -- writing ----------------------------------------------------------------------------------------------------------


def enqueue_job(job_id: str, given: Mapping[str, Any], *, fresh: bool) -> Call[Sent[Enqueued]]:
    """Enqueue one job. `given`: the parameters of durable.enqueue_jobs that all jobs of a set share, its `input` and its unique `key`.

    `fresh`: the id was made for this call, so that a job which has it already is this one, made before the answer was lost.
    """

    def decode(rows: list[Row]) -> Sent[Enqueued]:
        row = rows[0]
        if fresh and row["outcome"] == "existing":
            row = {**row, "outcome": "created"}
        moved = row["outcome"] in ("created", "replaced") and row["taken_us"] is None
        return Sent(Enqueued(**row), (hint,) if moved else ())

    hint = f"jobs:{given['queue']}"
    parameters = {**given, "shard": shard_of(job_id), "job_id": job_id, "taker": None}
    return Call(_SQL["enqueue_jobs"], parameters, decode, hint)


def enqueue_chain(jobs: str, queue: str) -> Call[Sent[None]]:
    """Enqueue the first of a chain of jobs, described as a JSON array; each brings the next."""
    hint = f"jobs:{queue}"
    return Call(_SQL["enqueue_chain"], {"jobs": jobs}, lambda _: Sent(None, (hint,)), hint)


def cancel_job(job_id: str, reason: str | None, actor: str | None) -> Call[Sent[JobReceipt]]:
    """Raises JobNotFound."""

    def decode(rows: list[Row]) -> Sent[JobReceipt]:
        row = _known(rows[0], job_id)
        told = row["owner"] is not None and row["status"] in ("requested", "already_requested")
        receipt = JobReceipt(job_id, row["status"], row["state"])
        return Sent(receipt, (f"worker:{row['owner']}",) if told else ())

    return Call(_SQL["cancel_job"], {**_command(job_id, actor), "reason": reason}, decode)


def retry_job(job_id: str, actor: str | None) -> Call[Sent[None]]:
    """Raises JobNotFound, and JobRefused when it executes or its unique key is another's."""

    def decode(rows: list[Row]) -> Sent[None]:
        row = _known(rows[0], job_id)
        _refuse(job_id, row["status"])
        return Sent(None, (f"jobs:{row['queue']}",))

    return Call(_SQL["retry_job"], _command(job_id, actor), decode)


def delete_job(job_id: str, actor: str | None) -> Call[Sent[None]]:
    """Raises JobNotFound, and JobRefused when it executes."""

    def decode(rows: list[Row]) -> Sent[None]:
        _refuse(job_id, _known(rows[0], job_id)["status"])
        return Sent(None)

    return Call(_SQL["delete_job"], _command(job_id, actor), decode)


def edit_job(
    job_id: str,
    changes: Mapping[str, Any],
    text: str | None,
    reason: str | None,
    actor: str | None,
) -> Call[Sent[None]]:
    """Change a waiting job; `text` are other arguments. Raises JobNotFound and JobRefused."""

    def decode(rows: list[Row]) -> Sent[None]:
        row = _known(rows[0], job_id)
        _refuse(job_id, row["status"])
        return Sent(None, (f"jobs:{row['queue']}",) if row["state"] == "available" else ())

    parameters = {"changes": json.dumps(changes), "input": text, "reason": reason}
    return Call(_SQL["edit_job"], {**_command(job_id, actor), **parameters}, decode)


def count_jobs(filter_: Mapping[str, Any]) -> Call[int]:
    """How many jobs pass a filter."""
    parameters = {"filter": json.dumps(filter_)}
    return Call(_SQL["count_jobs"], parameters, lambda rows: int(rows[0]["matching"]))


def act_on_jobs(batch_id: str, limit: int) -> Call[Sent[bool]]:
    """One pass of a batch over at most `limit` jobs; answers whether it was the last."""
    parameters = {"batch_id": batch_id, "limit": limit}
    return Call(
        _SQL["act_on_jobs"], parameters, lambda rows: Sent(rows[0]["ended"], tuple(rows[0]["wake"]))
    )


def _command(job_id: str, actor: str | None) -> dict[str, Any]:
    return {**_job(job_id), "actor": actor, "command_id": str(uuid7())}


def _known(row: Row, job_id: str) -> Row:
    if row["status"] == "unknown":
        raise not_found(job_id)
    return row


_CODES = {
    "executing": "job_executing",
    "conflict": "unique_key_taken",
    "ended": "job_ended",
    "waiting": "job_waiting",
}


def _refuse(job_id: str, status: str) -> None:
    code = _CODES.get(status, status)
    if code in REFUSALS:
        legal = ", ".join(steps(code, job_id, None))
        raise JobRefused(f"job {job_id} {REFUSALS[code].text}; you can: {legal}")


def not_found(job_id: str) -> JobNotFound:
    return JobNotFound(
        f"no job has the id {job_id} in this database; `durable job list` shows those that exist"
    )


# -- reading ----------------------------------------------------------------------------------------------------------


def read_job_outcome(job_id: str) -> Call[JobOutcome]:
    """Raises JobNotFound."""
    return Call(
        _SQL["read_job_outcome"], _job(job_id), lambda rows: _found(JobOutcome, rows, job_id)
    )


def describe_job(job_id: str) -> Call[JobDescription]:
    """Raises JobNotFound."""
    return Call(
        _SQL["describe_job"], _job(job_id), lambda rows: _found(JobDescription, rows, job_id)
    )


def describe_group(group_id: str) -> Call[GroupDescription]:
    """Raises JobNotFound."""

    def decode(rows: list[Row]) -> GroupDescription:
        if not rows:
            raise JobNotFound(f"no group of jobs has the id {group_id} in this database")
        return _record(GroupDescription, rows[0])

    parameters = {"shard": shard_of(group_id), "group_id": group_id}
    return Call(_SQL["describe_group"], parameters, decode)


def list_jobs(filters: Mapping[str, Any]) -> Call[list[JobDescription]]:
    """The newest jobs that pass the filters: states, name, queue, tags, meta, arguments (None: any), limit."""
    return Call(
        _SQL["list_jobs"], filters, lambda rows: [_record(JobDescription, row) for row in rows]
    )


def _job(job_id: str) -> dict[str, Any]:
    return {"shard": shard_of(job_id), "job_id": job_id}


def _found(cls: type[Any], rows: list[Row], job_id: str) -> Any:
    found = _first(cls, rows)
    if found is None:
        raise not_found(job_id)
    return found
