"""One run: history in, decision out (C1, C3, C13). The replay machine.

The problem. A workflow's state is a suspended coroutine, which cannot be stored. What can be stored is everything that
ever came in. Feed it in again, in the same order and the same portions, and the same coroutine stands at the same line.

What does not work. Memoizing the results of steps by name or position, without an order between them: two executions then
differ in which of two activities "finished first". Comparing only the kind and name of each step: a run goes on with
the wrong arguments. Matching each command at the moment it is given: one that is cancelled in the same turn would have
to be un-matched. Letting author code see an error of ours as an exception: `except Exception` swallows it.

The solution. History is cut into turns. `activate` (live) and `replay` do the same three things with a turn: apply *all* its inbound
events to state, run the loop once until it is quiet, take the commands that the code gave. Live, the commands become the outbound
rows. In replay they are compared with them, kind, options and a digest of the arguments, and nothing has run meanwhile.
Both go through `_turn`; they differ only in what happens to the commands. Time is frozen per turn, and can be read back
from the turn's rows: it is the latest `at_us` among them (a turn with inbound rows alone lifts the last one).

The first turn may produce nothing at all: code that first waits for a signal. Then there is no row that could fix when it
ran, and the turn is provisional: when something arrives, the code runs again from the top, with that in its buffer, exactly
as a replay will. Nothing was decided, so nothing is lost.

Errors of ours (an undecodable stored payload, nondeterminism, a spinning loop) are raised out of `activate` and `replay`, whatever
the author's code catches; the execution is then unusable, and the worker parks the run (C8).

What can still fail. State outside the coroutine (globals, caches) is not ours to restore. Code that reads the wall clock or
the network directly is caught elsewhere, not here.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn
from uuid import UUID

from durable.core import events as e
from durable.core import interception, semantics
from durable.core.commands import Command
from durable.core.compare import pair
from durable.core.events import Event, Message
from durable.core.futures import OperationFuture
from durable.core.handlers import Handlers, Offer, Verdicts
from durable.core.history_length import LONG_HISTORY, long_history
from durable.core.local import LOCAL_EVENTS
from durable.core.loop import DurableTask
from durable.core.machine import (
    ARRIVALS,
    CLOSES,
    INBOUND,
    OUTBOUND,
    TERMINAL,
    ended_from_outside,
)
from durable.core.nothing import NO_ITEMS, NO_KEYS
from durable.core.plans import Definition, run_defaults
from durable.core.run import Run
from durable.core.stacks import awaited, stack_of
from durable.core.styles import as_coroutine
from durable.errors import ContinueAsNew, InternalError
from durable.failure import encode_failure, leaves


class Decision(NamedTuple):
    """What came out of a turn. No events: there is nothing to commit."""

    events: list[Event]
    closed: bool
    waiting_on: list[dict[str, Any]]
    warnings: list[str]


_event: Callable[..., Event] = tuple.__new__
"""Event(...) costs three times as much."""

_decision: Callable[..., Decision] = tuple.__new__

_RECORDED = OUTBOUND | {e.WORKFLOW_TERMINATED, e.WORKFLOW_TIMED_OUT, e.WORKFLOW_RESET}
"""What may follow the inbound rows of a recorded turn."""
_OFFERLESS = _RECORDED - {e.UPDATE_ACCEPTED}
"""The same for a turn to which no update was offered: nearly all turns."""

_NAMED = frozenset(
    ("workflow", "workflow_id", "version", "semantics", "queue", "priority", "retry", "on_exhausted", "origins")
)  # fmt: skip
"""What WorkflowStarted says that a run holds under a name of its own, and so not in `start`."""


def _offer(row: Event) -> Offer:
    """The offer that a replay makes for a recorded acceptance."""
    body = row.body
    payload = row.payload or "{}"
    return Offer(body["after"], body["update_id"], body["name"], payload, body.get("actor"))


class Execution(Run):
    """One run, live or replaying. Pure: history in, decision out.

    `closed`, `last_seq`, `turn` and `now_us` stand where history stands. Not thread-safe; all calls for one run come from
    one thread. An exception from `replay` or `activate` evicts it. One that is not closed must be evicted before it is
    dropped; until then it is kept alive.
    """

    __slots__ = ("_broken", "_input", "_offers", "outlives_its_end", "survivors", "verdicts")

    def __init__(self, definition: Definition, run_id: UUID, workflow_id: str) -> None:
        super().__init__(definition, run_id, workflow_id)
        self._input: str | None = None
        self._broken = False
        self._offers: list[Offer] = NO_ITEMS
        self.verdicts: Verdicts | None = None  # of the last turn to which updates were offered
        self.outlives_its_end = False  # keep what a closed run looked like, for queries
        self.survivors: list[str] = NO_ITEMS

    # -- the worker's side ----------------------------------------------------------------------------------------------

    def replay(self, history: Sequence[Event]) -> None:
        """Bring a new execution to where `history` ends; then it is live. May be fed in portions of whole turns.

        Raises NondeterminismError when the code gives other commands than history holds, PayloadError when it cannot
        read stored data, InternalError when the history itself is damaged.
        """
        self._enter()
        self.replaying = True
        at, end = 0, len(history)
        outer = self.loop.enter()
        try:
            while at < end:
                at = (
                    self._replay_turn(history, at)
                    if self.last_seq
                    else self._replay_start(history[at])
                )
        except BaseException:
            self.evict()
            raise
        finally:
            self.loop.leave(outer)
        self.replaying = False
        self._rest()

    def activate(self, inbound: Sequence[Message], now_us: int) -> Decision:
        """Run one live turn: apply `inbound`, run, decide (C1).

        A second cancel request is consumed without an event (C9). Raises PayloadError when stored data cannot be
        read, BlockingCall when the code spins.
        """
        self._enter()
        start: list[Event] = []
        if not self.last_seq and inbound and inbound[0].type == e.WORKFLOW_STARTED:
            start = [self._record_start(inbound[0])]
            inbound = inbound[1:]
        events = self._live_turn(inbound, now_us)
        warnings, self._warnings = self._warnings, NO_ITEMS
        self._rest()
        return _decision(
            Decision,
            (start + events if start else events, self.closed, self.waiting_on(), [*warnings]),
        )

    def query(self, name: str, payload: str) -> str:
        """Ask a query of the code as it stands after the last turn; `payload` and the answer are JSON text (C14).

        `__stack` and `__handlers` are there for every run. Raises UnknownQuery, PayloadError for arguments that do not
        fit, ReadOnlyViolation, and what the query raises; the run goes on unharmed.
        """
        if self._broken:
            raise InternalError(f"run {self.run_id} was evicted, and answers no query")
        if name in _BUILT_IN:
            return _BUILT_IN[name](self)
        outer = self.loop.enter()
        try:
            return (self.handlers or Handlers(self)).answer(name, payload)
        finally:
            self.loop.leave(outer)

    def evict(self) -> None:
        """Drop all coroutines without any durable effect: no command, no compensation (C12). Idempotent.

        `survivors` then names the lines of those that swallowed it and had to be left suspended for ever: a leak.
        """
        self.gate = "the run is being dropped from memory"
        self._broken = True
        self.survivors = [*self.survivors, *self.loop.tear_down()]
        self._forget_everything()

    def stacks(self) -> list[dict[str, Any]]:
        """For each task that has not ended: its name and the lines where it stands, outermost first."""
        return [
            {"task": task.get_name(), "lines": stack_of(task.get_coro())}
            for task in self.loop.tasks()
            if not task.done()
        ]

    def standing(self) -> list[dict[str, Any]]:
        """As `stacks`, with what each task waits for."""
        return [
            {
                "task": task.get_name(),
                "lines": stack_of(task.get_coro()),
                "waits_for": awaited(task),
            }
            for task in self.loop.tasks()
            if not task.done()
        ]

    def _enter(self) -> None:
        if self._broken:
            raise InternalError(
                f"run {self.run_id} was evicted, or an earlier turn raised; make a new Execution and replay"
            )
        self._broken = True  # until the call comes to its end

    def _rest(self) -> None:
        """The call has come to its end. What only a running turn needs is given back: the run may be parked for months."""
        self._broken = False
        if self.turn:
            self._input = None
        if not self._pending:
            self._pending.clear()  # which it was before; but emptied one by one, it keeps its room

    # -- turns ----------------------------------------------------------------------------------------------------------

    def _record_start(self, message: Message) -> Event:
        event = Event(1, 0, message.type, message.at_us, message.body, message.payload)
        self._replay_start(event)
        return event

    def _replay_start(self, event: Event) -> int:
        if event.type != e.WORKFLOW_STARTED or event.seq != 1 or event.turn != 0:
            self._damaged(
                event, "a history begins with WorkflowStarted as event 1, alone in turn 0"
            )
        start = event.body
        self._semantics = start.get("semantics", 1)
        semantics.check_known(self._semantics)
        self.last_seq = 1
        self.now_us = self.started_us = event.at_us
        self.version = start.get("version", 1)
        self.start = {key: start[key] for key in start if key not in _NAMED} or NO_KEYS
        self.defaults = run_defaults(
            start.get("queue", "default"),
            start.get("priority", 5),
            json.dumps(retry, sort_keys=True) if (retry := start.get("retry")) else "null",
            start.get("on_exhausted", "fail"),
        )
        self._input = event.payload
        self._begin_origins(start.get("origins") or ())
        return 1

    def _live_turn(self, inbound: Sequence[Message], now_us: int) -> list[Event]:
        events = [] if self.closed else self._inbound_rows(inbound)
        if self.closed or not (events or self._offers or self._main is None):
            return []
        if self._provisional:
            self._start_over()
        before_us = self.now_us
        self.now_us = max(now_us, events[-1].at_us if events else 0, before_us)
        outer = self.loop.enter()
        try:
            self._turn(events)
        except BaseException:
            self.evict()
            raise
        finally:
            self.loop.leave(outer)
        outbound = self._outbound_rows(self.last_seq + len(events))
        if not outbound and not events:
            self._provisional, self.now_us = not self.turn, before_us
            return []
        if not outbound:
            events[-1] = events[-1]._replace(at_us=self.now_us)
        events += outbound
        self._finish_turn(events[-1])
        return events

    def _replay_turn(self, history: Sequence[Event], at: int) -> int:
        """Replay the turn that begins at index `at`; the index of the next one."""
        turn = history[at].turn
        if turn != self.turn + 1 or history[at].seq != self.last_seq + 1 or self.closed:
            ended = " and closed the run" * self.closed
            self._damaged(
                history[at], f"turn {self.turn} with event {self.last_seq} was the last one{ended}"
            )
        middle = self._rows_of(turn, history, at, INBOUND)
        end = self._rows_of(turn, history, middle, _OFFERLESS)
        if end < len(history) and history[end].type == e.UPDATE_ACCEPTED:
            end = self._rows_of(turn, history, end, _RECORDED)
            self._offers = [
                _offer(row) for row in history[middle:end] if row.type == e.UPDATE_ACCEPTED
            ]
        if end < len(history) and history[end].turn == turn:
            self._damaged(history[end], "its number or type is not what can follow here")
        last = history[end - 1]
        self.now_us = max(self.now_us, last.at_us)
        if not ended_from_outside(last):
            self._replayed = (history, middle, end)
            self._turn(history[at:middle])
            self._compare(history[middle:end], last.seq + 1)
        self._finish_turn(last)
        return end

    def _rows_of(self, turn: int, history: Sequence[Event], at: int, types: frozenset[str]) -> int:
        """The index after this turn's rows of these types, numbered without gaps, from `at` on."""
        end = len(history)
        gap = history[0].seq
        while (
            at < end
            and (row := history[at]).turn == turn
            and row.type in types
            and row.seq - at == gap
        ):
            at += 1
        return at

    def _turn(self, inbound: Sequence[Event]) -> None:
        """What live and replay have in common: all events into state, then the loop, once."""
        main = self._main or self._begin()
        if self._offers:
            offers, self._offers = self._offers, NO_ITEMS
            self.handlers = handlers = self.handlers or Handlers(self)
            self.verdicts = handlers.take_turn(main, inbound, offers, self._apply)
        else:
            for event in inbound:
                self._apply(event)
            self.loop.run_until_quiet(len(inbound))
        if main.done():
            self._commands.append(self._closing_command(main))
        elif (
            self.locals
            and not self.turn
            and not self.replaying
            and not inbound
            and all(it.struck for it in self._commands)
        ):
            self._commands.append(Command(e.FIRST_TURN_TAKEN, {}))
        if self._poison is not None:
            raise self._poison

    def _begin(self) -> DurableTask[Any]:
        if not self.last_seq:
            raise InternalError(f"run {self.run_id} has no WorkflowStarted")
        args, kwargs = self.definition.arguments.decode(self._input or "{}")
        coro = self._code(args, kwargs)
        self._main = self.loop.create_task(coro, name="main", context=contextvars.Context())
        return self._main

    def _code(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        definition = self.definition
        if not interception.workflow:
            return as_coroutine(definition.style, definition.fn, args, kwargs)
        return interception.executing(
            interception.WorkflowExecution(definition.name, self.workflow_id, args, kwargs),
            lambda call: as_coroutine(
                definition.style, definition.fn, call.args, dict(call.kwargs)
            ),
        )

    def _start_over(self) -> None:
        """Undo a first turn that left no trace."""
        self.gate = "the first turn starts over"
        self.loop.tear_down()
        self._reset()

    def _apply(self, event: Event) -> None:
        close = CLOSES.get(event.type)
        if close is None:
            ARRIVALS[event.type](self, event)
            return
        ref = event.body["ref"]
        operation = self._pending.pop(ref, None)
        if operation is not None:
            close(operation, event)
        elif not 1 < ref < event.seq:
            self._damaged(event, f"it refers to event {ref}")
        # else evidence: the operation was settled before, by a cancel or an earlier answer

    def _inbound_rows(self, inbound: Sequence[Message]) -> list[Event]:
        """The messages as rows, without cancel requests after the first (C9), and without what ends a local activity that nobody called."""
        rows: list[Event] = []
        turn, seq, at_us, requested = (
            self.turn + 1,
            self.last_seq,
            self.now_us,
            self.cancel_requested,
        )
        for type_, sent_us, body, payload in inbound:
            if type_ not in INBOUND:
                if type_ == e.UPDATE_REQUESTED:
                    self._offers = self._offers or []
                    self._offers.append(
                        Offer(
                            seq,
                            body["update_id"],
                            body["name"],
                            payload or "{}",
                            body.get("actor"),
                        )
                    )
                    continue
                raise InternalError(f"{type_!r} is no inbound event that this release knows")
            if type_ == e.CANCEL_REQUESTED:
                if requested:
                    continue
                requested = True
            elif type_ in LOCAL_EVENTS and not self.expects_local(body):
                continue  # of a run that this one was reset from, whose code called something else
            seq += 1
            at_us = max(at_us, sent_us)
            rows.append(_event(Event, (seq, turn, type_, at_us, body, payload)))
        return rows

    def _outbound_rows(self, seq: int) -> list[Event]:
        """The commands of this turn as rows after number `seq`."""
        rows = []
        commands, self._commands = self._commands, []
        for command in commands:
            if command.struck:
                continue
            seq += 1
            operation = command.operation
            if operation is not None:
                operation.seq = seq
                self._pending[seq] = operation
            rows.append(
                _event(
                    Event,
                    (seq, self.turn + 1, command.type, self.now_us, command.body, command.payload),
                )
            )
        return rows

    def _finish_turn(self, last: Event) -> None:
        self.turn = last.turn
        if self.last_seq < LONG_HISTORY <= last.seq:
            self.warn(long_history(last.seq))  # in this turn alone: once in the run's life
        self.last_seq = last.seq
        if self._origins:
            self._leave_origin()
        self._replayed = ((), 0, 0)
        if last.type in TERMINAL:
            self.closed = True
            if not self.replaying:
                self._report_loose_ends()
            self.gate = "the run has closed"
            if not self.outlives_its_end:
                self.loop.tear_down()
                self._forget_everything()

    def _forget_everything(self) -> None:
        """Free what only a live run needs."""
        self._pending = {}
        self.locals = self._receivers = self._buffered = NO_KEYS
        self.conditions = self._unclaimed = NO_ITEMS
        self._commands = []

    # -- comparing (C13) ------------------------------------------------------------------------------------------------

    def _compare(self, recorded: Sequence[Event], next_seq: int) -> None:
        """Check the commands of this turn against its outbound rows, whose numbers they take."""
        commands, self._commands = self._commands, []
        pair(recorded, commands, self._pending, next_seq, self._standing_at)

    def _standing_at(self) -> str | None:
        """The line where the code waits instead of giving the next command."""
        assert self._main is not None
        lines = stack_of(self._main.get_coro())
        return lines[-1].partition(" in ")[0] if lines else None

    def _damaged(self, event: Event, why: str) -> NoReturn:
        raise InternalError(
            f"history of run {self.run_id}: event {event.seq} ({event.type}, turn {event.turn}) does not belong here: {why}"
        )

    # -- the end --------------------------------------------------------------------------------------------------------

    def _closing_command(self, main: DurableTask[Any]) -> Command:
        try:
            payload = self.definition.arguments.result.encode(main.result())
        except BaseException as error:
            return self._unsuccessful(error)
        return Command(e.WORKFLOW_COMPLETED, {}, payload)

    def _unsuccessful(self, error: BaseException) -> Command:
        """Continued or cancelled if that was asked for and nothing else went wrong, failed otherwise (C7, C9)."""
        wrong = [it for it in leaves(error) if not isinstance(it, asyncio.CancelledError)]
        if len(wrong) == 1 and isinstance(asked := wrong[0], ContinueAsNew):
            body: dict[str, Any] = {"workflow": asked.workflow, "version": asked.version}
            if unread := self.unread_signals():
                body["unread"] = unread
            return Command(e.WORKFLOW_CONTINUED, body, asked.payload)
        if self.cancel_requested and not wrong:
            return Command(e.WORKFLOW_CANCELLED, {"reason": self._cancel_reason})
        return Command(e.WORKFLOW_FAILED, {"failure": encode_failure(error)})

    def _report_loose_ends(self) -> None:
        """Nothing ends unseen: failed background tasks, results nobody awaited, work that was left pending."""
        for task in self.loop.tasks():
            if task is not self._main and task.done() and task._log_traceback:
                task._log_traceback = False
                self.warn(f"{task.get_name()} failed and nobody awaited it: {task.exception()!r}")
            elif task is not self._main and not task.done():
                name = task.get_name()
                caller = "; its caller is told" if name.startswith("update ") else ""
                self.warn(f"{name} was still running when the workflow returned{caller}")
        for future in self._unclaimed:
            if not future.observed:
                failed = not future.cancelled() and asyncio.Future.exception(future) is not None
                self.warn(
                    f"{future.id} ({future.line}) {'failed' if failed else 'ended'} and nobody awaited it"
                )
        for operation in (*self._pending.values(), *self.locals.values()):
            if isinstance(operation, OperationFuture):
                self.warn(
                    f"{operation.id} ({operation.line}) was still pending when the workflow returned"
                )


def _handler_names(execution: Execution) -> str:
    known = execution.handlers or Handlers(execution)
    return json.dumps({"queries": sorted(known.queries), "updates": sorted(known.updates)})


_BUILT_IN: dict[str, Callable[[Execution], str]] = {
    "__handlers": _handler_names,
    "__stack": lambda execution: json.dumps(execution.stacks()),
}
"""Queries of every run."""
