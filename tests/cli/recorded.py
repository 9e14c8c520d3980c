"""Runs with histories in a database, without a worker: what a worker would have written is written with SQL."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from durable.core.execution import Execution
from durable.definitions import Workflow
from durable.ids import uuid7
from durable.store.shards import shard_of
from tests.client.database import Database
from tests.core.simulation import Simulation


class Named(Simulation):
    """A simulation of a run with an id of its own."""

    def __init__(self, workflow: Workflow[..., Any], workflow_id: str, *args: Any) -> None:
        self.workflow_id = workflow_id
        super().__init__(
            workflow, *args, start={"workflow_id": workflow_id}, run_id=UUID(str(uuid7()))
        )

    def fresh(self) -> Execution:
        return Execution(self.workflow, self.run_id, self.workflow_id)


def store(database: Database, sim: Named, *, build: str | None = None) -> None:
    """The run as it stands."""
    shard, closed = shard_of(sim.workflow_id), sim.decision.closed
    database.rows(
        "insert into durable.runs (shard, run_id, workflow_id, workflow, version, status, closed_at, epoch, last_seq, turn, pinned, build, created_at)"
        " values (%s, %s, %s, %s, %s, %s, case when %s then durable.now() end, 1, %s, %s, %s, %s, durable.now())",
        shard, sim.run_id, sim.workflow_id, sim.workflow.name, sim.workflow.version, "completed" if closed else "running", closed,
        len(sim.history), sim.history[-1].turn, build is not None, build,
    )  # fmt: skip
    for it in sim.history:
        database.rows(
            "insert into durable.history values (%s, %s, %s, %s, %s, durable.from_us(%s), %s::jsonb, %s::json)",
            shard, sim.run_id, it.seq, it.turn, it.type, it.at_us, json.dumps(it.body), it.payload,
        )  # fmt: skip


def under_way(workflow: Workflow[..., Any], workflow_id: str, *args: Any) -> Named:
    """A run whose first activity has completed, if it has one."""
    sim = Named(workflow, workflow_id, *args)
    sim.turn()
    if sim.activities:
        sim.turn(sim.perform(sim.activities[0]))
    return sim


def ended(workflow: Workflow[..., Any], workflow_id: str, *args: Any) -> Named:
    """A run that went to its end."""
    sim = Named(workflow, workflow_id, *args)
    sim.run()
    return sim
