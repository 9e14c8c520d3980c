"""Histories made by running a workflow for real, without a database: every activity answers at once."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from durable.core import semantics
from durable.core.events import Event, Message
from durable.core.execution import Execution
from durable.definitions import Workflow

_AT_US = 1_700_000_000_000_000


def record(
    workflow: Workflow[..., Any], *arguments: Any, turns: int | None = None, sleeping: bool = False
) -> list[tuple[Any, ...]]:
    """The rows of a history as the database gives them, bodies as text: to the end, or to the end of turn `turns`.

    All activities scheduled in one turn complete together in the next.
    """
    payload = workflow.arguments.encode(arguments, {})
    start = Event(
        1,
        0,
        "WorkflowStarted",
        _AT_US,
        {
            "workflow": workflow.name,
            "version": 1,
            "semantics": semantics.CURRENT,
            "workflow_id": "recorded",
            "queue": "default",
            "priority": 0,
        },
        payload,
    )
    execution = Execution(workflow, UUID(int=1), "recorded")
    execution.replay([start])
    events, at_us = [start], _AT_US
    inbound: list[Message] = []
    while not execution.closed and execution.turn != turns:
        at_us += 1000
        decision = execution.activate(inbound, at_us)
        events += decision.events
        inbound = [
            _completed(event, at_us)
            for event in decision.events
            if event.type == "ActivityScheduled"
        ]
        assert inbound or execution.closed or execution.turn == turns, (
            "the workflow waits for something else"
        )
    assert not sleeping or events[-1].type == "TimerStarted"
    return [(e.seq, e.turn, e.type, e.at_us, json.dumps(e.body), e.payload) for e in events]


def _completed(event: Event, at_us: int) -> Message:
    return Message("ActivityCompleted", at_us + 500, {"ref": event.seq, "attempt": 1}, "1")
