"""A run that manages a cluster for ever: concurrent updates under a lock, drained before it continues as new: `durable-worker samples.cluster`.

Handlers of updates run at the same time as each other and as the workflow itself. What must not interleave goes under an `asyncio.Lock`, which is
deterministic here. Before a run ends it waits for its handlers, or their callers would be told that their update was left unfinished.
"""

from __future__ import annotations

import asyncio

from pydantic import BaseModel

import durable
from durable import Signal, activity, workflow


class Cluster(BaseModel):
    nodes: dict[str, str] = {}
    rounds: int = 0


shut_down = Signal("shut_down_cluster")


@activity
async def allocate(nodes: list[str], task: str) -> None:
    """Where a real one talks to the machines."""


@activity
async def release(nodes: list[str]) -> None: ...


@workflow
async def manage_cluster(state: Cluster, changes_in_a_run: int = 100) -> Cluster:
    lock = asyncio.Lock()
    changes = 0

    @durable.query
    def nodes() -> dict[str, str]:
        return state.nodes

    @durable.update
    async def assign(task: str, count: int) -> list[str]:
        """Gives the task so many free nodes. Two at once must not take the same ones: choosing and allocating is one step."""
        nonlocal changes
        async with lock:
            free = [f"node-{n}" for n in range(25) if f"node-{n}" not in state.nodes][:count]
            await allocate(free, task)
            state.nodes.update(dict.fromkeys(free, task))
            changes += 1
            return free

    @assign.validator
    def enough_nodes(task: str, count: int) -> None:  # noqa: ARG001 - a validator takes what its update takes
        if count > 25 - len(state.nodes):
            raise ValueError(f"{25 - len(state.nodes)} nodes are free")

    @durable.update
    async def unassign(task: str) -> int:
        nonlocal changes
        async with lock:
            taken = [node for node, of in state.nodes.items() if of == task]
            await release(taken)
            for node in taken:
                del state.nodes[node]
            changes += 1
            return len(taken)

    ending = asyncio.ensure_future(shut_down.receive())
    try:
        await durable.wait_until(lambda: ending.done() or changes >= changes_in_a_run)
        await durable.wait_until(durable.handlers_finished)
    except (
        BaseException
    ):  # cancelled, or broken: what is allocated is given back, after the handlers have stopped
        await durable.shield(durable.wait_until(durable.handlers_finished))
        await release(list(state.nodes))
        raise
    if ending.done():
        await release(list(state.nodes))
        return state
    ending.cancel()
    state.rounds += 1
    return manage_cluster.continue_as_new(state, changes_in_a_run)
