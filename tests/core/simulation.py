"""The world around one run, in memory: a clock, jobs, timers and senders, all under the test's control.

`Simulation` records every turn it makes the run take. `check()` then proves what replay promises: from every
prefix of the history, a new execution takes the next recorded turn exactly as the first one did.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from durable.core import events as e
from durable.core.events import Event, Message
from durable.core.execution import Decision, Execution
from durable.definitions import Workflow, registered_activities
from durable.failure import decode_failure, encode_failure
from durable.payload import value_codec
from durable.signals import Signal

START_US = 1_700_000_000_000_000
RUN_ID = UUID("0190a0b0-0000-7000-8000-000000000001")
SECOND = 1_000_000


class Turn(NamedTuple):
    inbound: list[Message]
    now_us: int
    events: list[Event]


class Simulation:
    """One run of a workflow. Nothing happens by itself; `run()` does all that is due until nothing is."""

    def __init__(
        self,
        workflow: Workflow[..., Any],
        *args: Any,
        start: dict[str, Any] | None = None,
        run_id: UUID = RUN_ID,
        **kwargs: Any,
    ) -> None:
        self.workflow = workflow
        self.run_id = run_id
        self.now_us = START_US
        body = {
            "workflow": workflow.name, "version": workflow.version, "semantics": 1, "workflow_id": "wf",
            "queue": "default", "priority": 5, "actor": "tester", **(start or {}),
        }  # fmt: skip
        payload = workflow.arguments.encode(args, kwargs)
        self.history = [Event(1, 0, e.WORKFLOW_STARTED, self.now_us, body, payload)]
        self.turns: list[Turn] = []
        self.warnings: list[str] = []
        self.decision = Decision([], False, [], [])
        self.execution = self.fresh()
        self.execution.replay(self.history)

    def fresh(self) -> Execution:
        return Execution(self.workflow, self.run_id, "wf")

    # -- one turn -------------------------------------------------------------------------------------------------------

    def turn(self, *inbound: Message, after_us: int = 1_000) -> list[Event]:
        """Activate with these messages."""
        self.now_us += after_us
        self.decision = self.execution.activate(inbound, self.now_us)
        self.warnings += self.decision.warnings
        if self.decision.events:
            self.turns.append(Turn(list(inbound), self.now_us, self.decision.events))
        self.history += self.decision.events
        for expected, event in enumerate(self.history, 1):
            assert event.seq == expected
        return self.decision.events

    def message(self, type: str, payload: str | None = None, **body: Any) -> Message:
        return Message(type, self.now_us, body, payload)

    def completed(self, event: Event | int | str, value: Any = None) -> Message:
        ref = self.find(event).seq
        return self.message(e.ACTIVITY_COMPLETED, json.dumps(value), ref=ref, attempt=1)

    def failed(
        self, event: Event | int | str, error: BaseException, retry_state: str = "max_attempts"
    ) -> Message:
        ref = self.find(event).seq
        failure = json.loads(json.dumps(encode_failure(error)))
        return self.message(
            e.ACTIVITY_FAILED, ref=ref, attempt=1, failure=failure, retry_state=retry_state
        )

    def child_ended(
        self, index: int, type: str, payload: str | None = None, **body: Any
    ) -> Message:
        """What the database tells of the child that was started as number `index`."""
        started = [it for it in self.history if it.type == e.CHILD_STARTED]
        return self.message(type, payload, ref=started[index].seq, run_id="child", **body)

    def local_ended(
        self, call_id: str, value: Any = None, *, error: BaseException | None = None, **body: Any
    ) -> Message:
        """What the worker tells of a local activity that is due; with `delay_us` that it backs off."""
        future = self.execution.locals[call_id]
        body = {**future.body, "attempt": future.attempt, **body}
        if error is None and "failure" not in body:
            return self.message(e.LOCAL_ACTIVITY_COMPLETED, json.dumps(value), **body)
        body.setdefault("failure", json.loads(json.dumps(encode_failure(error or RuntimeError()))))
        if "delay_us" in body:
            return self.message(e.LOCAL_ACTIVITY_BACKED_OFF, **body)
        return self.message(e.LOCAL_ACTIVITY_FAILED, **{"retry_state": "max_attempts", **body})

    def fired(self, event: Event) -> Message:
        return Message(
            e.TIMER_FIRED, max(self.now_us, event.body["fire_at_us"]), {"ref": event.seq}
        )

    def signalled(self, signal: Signal[Any], value: Any, signal_id: str = "s") -> Message:
        return self.message(
            e.SIGNAL_RECEIVED, signal.codec.encode(value), name=signal.name, signal_id=signal_id
        )

    def updating(self, name: str, *args: Any, update_id: str = "u", **kwargs: Any) -> Message:
        """A request for an update, with its arguments by position or by name."""
        payload = json.dumps(kwargs or list(args))
        return self.message(e.UPDATE_REQUESTED, payload, update_id=update_id, name=name)

    def refused(self, update_id: str = "u") -> BaseException:
        """What the requester of an update of the last turn is told."""
        assert self.execution.verdicts is not None
        return decode_failure(self.execution.verdicts.refused[update_id])

    def ask(self, name: str, *args: Any) -> Any:
        """Query the run as it stands."""
        return json.loads(self.execution.query(name, json.dumps(list(args))))

    def cancelling(self, reason: str | None = None) -> Message:
        return self.message(e.CANCEL_REQUESTED, reason=reason)

    def find(self, which: Event | int | str) -> Event:
        """An event by itself, by seq, or an activity by its id."""
        if isinstance(which, Event):
            return which
        return next(it for it in self.history if which in (it.seq, it.body.get("id")))

    # -- what is open ---------------------------------------------------------------------------------------------------

    def open(self, type: str) -> list[Event]:
        closed = {it.body["ref"] for it in self.history if "ref" in it.body}
        return [it for it in self.history if it.type == type and it.seq not in closed]

    @property
    def activities(self) -> list[Event]:
        return self.open(e.ACTIVITY_SCHEDULED)

    @property
    def timers(self) -> list[Event]:
        return sorted(self.open(e.TIMER_STARTED), key=lambda it: (it.body["fire_at_us"], it.seq))

    # -- going on by itself ---------------------------------------------------------------------------------------------

    def run(self, limit: int = 1_000) -> Simulation:
        """Run activities (oldest first, one per turn), then fire timers, until closed or waiting for somebody."""
        if not self.turns:
            self.turn()
        for _ in range(limit):
            if self.decision.closed:
                break
            if self.activities:
                self.turn(self.perform(self.activities[0]))
            elif self.execution.locals:
                self.turn(self.perform_locally(next(iter(self.execution.locals))))
            elif self.timers:
                self.fire()
            else:
                break
        return self

    def fire(self) -> list[Event]:
        """Let the next timer fire, at its time."""
        timer = self.timers[0]
        self.now_us = max(self.now_us, timer.body["fire_at_us"])
        return self.turn(self.fired(timer), after_us=0)

    def perform(self, event: Event) -> Message:
        """What the activity's own function answers."""
        activity = next(it for it in registered_activities() if it.name == event.body["name"])
        args, kwargs = activity.arguments.decode(event.payload or "{}")
        try:
            value = activity.fn(*args, **kwargs)
            value = asyncio.run(value) if asyncio.iscoroutine(value) else value
        except Exception as error:
            return self.failed(event, error)
        return self.message(
            e.ACTIVITY_COMPLETED, activity.arguments.result.encode(value), ref=event.seq, attempt=1
        )

    def perform_locally(self, call_id: str) -> Message:
        """What the local activity's own function answers."""
        future = self.execution.locals[call_id]
        args, kwargs = future.target.arguments.decode(future.payload)
        try:
            value = future.target.fn(*args, **kwargs)
            value = asyncio.run(value) if asyncio.iscoroutine(value) else value
        except Exception as error:
            return self.local_ended(call_id, error=error)
        return self.local_ended(call_id, value)

    # -- the outcome ----------------------------------------------------------------------------------------------------

    @property
    def types(self) -> list[str]:
        return [it.type for it in self.history]

    @property
    def outcome(self) -> str:
        return self.history[-1].type

    @property
    def result(self) -> Any:
        assert self.outcome == e.WORKFLOW_COMPLETED, self.failure
        return self.workflow.arguments.result.decode(self.history[-1].payload or "null")

    @property
    def failure(self) -> BaseException:
        assert self.outcome == e.WORKFLOW_FAILED, self.types
        return decode_failure(self.history[-1].body["failure"])

    # -- the proof ------------------------------------------------------------------------------------------------------

    def check(self) -> Simulation:
        """Replay every prefix of the history, as JSON would carry it, and take the next recorded turn from there."""
        history = as_stored(self.history)
        for done, turn in enumerate(self.turns):
            seen = [it for it in history if it.turn <= done]
            execution = self.fresh()
            execution.replay(seen)
            assert (execution.last_seq, execution.turn, execution.closed) == (
                seen[-1].seq,
                done,
                False,
            )
            again = execution.activate(turn.inbound, turn.now_us)
            assert without_traces(again.events) == without_traces(turn.events)
            execution.evict()
        whole = self.fresh()
        whole.replay(history)
        assert (whole.last_seq, whole.closed) == (history[-1].seq, self.decision.closed)
        assert whole.now_us == self.execution.now_us
        assert whole.waiting_on() == self.execution.waiting_on()
        whole.evict()
        return self


def as_stored(history: Sequence[Event]) -> list[Event]:
    """The rows after a round trip through the database."""
    bodies = json.loads(json.dumps([it.body for it in history]))
    return [it._replace(body=body) for it, body in zip(history, bodies, strict=True)]


def without_traces(events: Sequence[Event]) -> list[Any]:
    """Events without tracebacks, whose text depends on how the code was called."""
    return [(*it[:4], _untraced(it.body), it.payload) for it in as_stored(events)]


def _untraced(body: Any) -> Any:
    if isinstance(body, dict):
        return {
            key: _untraced(value)
            for key, value in body.items()
            if key not in ("traceback", "notes", "state")
        }
    return [_untraced(it) for it in body] if isinstance(body, list) else body


def simulate(workflow: Workflow[..., Any], *args: Any, **kwargs: Any) -> Simulation:
    """Run a workflow to its end (or until it waits for somebody) and check every replay of it."""
    return Simulation(workflow, *args, **kwargs).run().check()


def value(value: Any, annotation: Any = Any) -> str:
    return value_codec(annotation).encode(value)


Script = Callable[[Simulation], None]
