"""The reads that explanations are made from: each one statement, so each a view of one moment."""

from __future__ import annotations

import json
from collections.abc import Sequence

from pydantic import TypeAdapter

from durable.core import diagnosis
from durable.core.causes import Explanation
from durable.core.facts import JobFacts, RunFacts, ScheduleFacts
from durable.store import job_calls, schedule_calls
from durable.store.calls import Call, Row, not_found
from durable.store.queries import load_queries
from durable.store.shards import shard_of

_SQL = load_queries("explanations.sql")
_RUN = TypeAdapter(RunFacts)
_JOB = TypeAdapter(JobFacts)
_SCHEDULE = TypeAdapter(ScheduleFacts)


def read_run_facts(
    workflow_id: str, run_id: str | None = None, calls: Sequence[str] | None = None
) -> Call[RunFacts]:
    """The newest run of an id, or that run; with `calls` only the jobs and children of these calls come along. Raises WorkflowNotFound."""

    def decode(rows: list[Row]) -> RunFacts:
        if not rows:
            raise not_found(workflow_id)
        return _RUN.validate_python(json.loads(rows[0]["facts"]))

    given = {
        "shard": shard_of(workflow_id),
        "workflow_id": workflow_id,
        "run_id": run_id,
        "calls": None if calls is None else list(calls),
    }
    return Call(_SQL["read_run_facts"], given, decode)


def explain_job(job_id: str) -> Call[Explanation]:
    """Raises JobNotFound."""

    def decode(rows: list[Row]) -> Explanation:
        if rows[0]["facts"] is None:
            raise job_calls.not_found(job_id)
        facts = _JOB.validate_python(json.loads(rows[0]["facts"]))
        return diagnosis.explain_job(facts, rows[0]["now_us"])

    return Call(_SQL["read_job_facts"], {"shard": shard_of(job_id), "job_id": job_id}, decode)


def explain_schedule(schedule_id: str) -> Call[Explanation]:
    """Raises ScheduleNotFound."""

    def decode(rows: list[Row]) -> Explanation:
        if not rows or rows[0]["facts"] is None:
            raise schedule_calls.not_found(schedule_id)
        facts = _SCHEDULE.validate_python(json.loads(rows[0]["facts"]))
        return diagnosis.explain_schedule(facts)

    return Call(_SQL["read_schedule_facts"], {"schedule_id": schedule_id}, decode)
