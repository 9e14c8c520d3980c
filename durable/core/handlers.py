"""Queries and updates: closures of a workflow that others may call (C14).

The problem. A query reads the state of a suspended coroutine, and must leave no trace in it: what it changed would not be there when the run is
replayed. An update changes the run's state and answers; it must be validated before anything is recorded, and still replay in its place.

What does not work. Recording the request and then a rejection: a caller that is refused a thousand times would fill the history. Validating
before the turn begins: of two updates in one turn the second would be judged by a state that the first has already changed. An
inbound row that is taken out again when its validator refuses: the numbers of the rows behind it are in use by then.

The solution. A request is an *offer* and no row. It takes its place in the loop's queue, among the effects of the turn's inbound events, in the order of
arrival (C1). When its place comes, the validator is asked, read-only; if it agrees, UpdateAccepted becomes a command like any other and
the handler's first steps run at once, before anybody else's, so that the next validator sees them. If it refuses, nothing has happened.
UpdateAccepted carries the arguments and its place (`after`: the inbound row before it), so replay makes the same offers from the turn's outbound rows, and asks
no validator. A turn in which nothing but refused offers arrived never was.

An offer without a handler waits until the loop is quiet and is then tried once more: the handler may be registered in this very turn, as for an
update that is sent with the start. An offer whose turn comes after the workflow's end is left alone: the database answers it, or hands it to the successor.

Read-only code runs with every durable call refused (the run's gate) and with a queue that takes nothing: even `event.set()` of plain asyncio, if somebody waits
for it, would wake tasks in a turn that no history knows. Such code may have changed something by then; the execution is *tainted*, and
its owner drops it after the turn: replay brings back what was.

What can still fail. A query or validator that appends to a list of the workflow changes the live state and nobody sees it, until a replay
does without. Authors must not.
"""

from __future__ import annotations

import contextvars
import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context, ContextVar
from dataclasses import dataclass, field
from types import CellType, CodeType, FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple

from durable.core import events as e
from durable.core.commands import Command
from durable.core.styles import Style, as_coroutine
from durable.errors import (
    ContinueAsNew,
    DurableError,
    Evicted,
    PayloadError,
    UnknownQuery,
    UnknownUpdate,
)
from durable.failure import encode_failure
from durable.payload import ArgumentsCodec

if TYPE_CHECKING:
    from durable.core.loop import DurableTask
    from durable.core.run import Run

_QUERY = "a query must only read state; it may not start, cancel, wake or draw anything durable"
_VALIDATOR = "an update's validator must only read state; it may not start, cancel, wake or draw anything durable"


class UpdateInfo(NamedTuple):
    """The update whose handler is calling; `durable.current_update()`. `actor`: who requested it, if that is known."""

    id: str
    name: str
    actor: Any = None


current_update: ContextVar[UpdateInfo | None] = ContextVar("durable_update", default=None)


class Offer(NamedTuple):
    """An update that asks to be accepted, after the inbound row of that number. `payload`: its arguments, by name or position."""

    after: int
    update_id: str
    name: str
    payload: str
    actor: Any = None


class Verdicts(NamedTuple):
    """What became of a turn's offers that were not accepted: failures by update id; ids that were left to the database."""

    refused: dict[str, dict[str, Any]]
    left: set[str]


class QueryHandler(NamedTuple):
    """A registered query."""

    name: str
    fn: Callable[..., Any]
    arguments: ArgumentsCodec
    context: Context


@dataclass(slots=True)
class UpdateHandler:
    """A registered update."""

    name: str
    fn: Callable[..., Any]
    style: Style
    arguments: ArgumentsCodec
    context: Context = field(default_factory=contextvars.copy_context)
    validator: Callable[..., Any] | None = None


class Handlers:
    """The handlers of one run, by name, and the updates that are under way."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.queries: dict[str, QueryHandler] = {}
        self.updates: dict[str, UpdateHandler] = {}
        self.running: dict[str, Offer] = {}
        self._late: list[Offer] = []
        self._accepted = 0
        self._verdicts = Verdicts({}, set())
        self._main: Any = None

    # -- queries --------------------------------------------------------------------------------------------------------

    def answer(self, name: str, payload: str) -> str:
        """Ask a query; its result as JSON text. Raises UnknownQuery, PayloadError, and what the query raises."""
        handler = self.queries.get(name)
        if handler is None:
            raise UnknownQuery(_unknown("query", name, self._run, self.queries))
        args, kwargs = handler.arguments.decode(_by_name(handler.arguments, payload))
        value = self._run.read_only(_QUERY, handler.context, handler.fn, args, kwargs)
        return handler.arguments.result.encode(value)

    # -- updates: one turn ----------------------------------------------------------------------------------------------

    def take_turn(
        self,
        main: DurableTask[Any],
        inbound: Sequence[e.Event],
        offers: Sequence[Offer],
        apply: Callable[[e.Event], None],
    ) -> Verdicts:
        """The turn of a run to which updates are offered: apply the events, with each offer in its place, then run the loop."""
        run, loop, self._main = self._run, self._run.loop, main
        self._verdicts, self._accepted = Verdicts({}, set()), 0
        waiting = deque(offers)
        self._queue(waiting, run.last_seq)
        for event in inbound:
            apply(event)
            self._queue(waiting, event.seq)
        if not inbound and run.turn:
            loop.run_queue(len(offers))
            if not self._accepted:  # this turn never was: no predicate may see its time
                return self._judge_late()
        loop.run_until_quiet(len(inbound) + len(offers))
        while self._try_late():
            loop.run_until_quiet(0)
        return self._judge_late()

    def _queue(self, waiting: deque[Offer], seq: int) -> None:
        while waiting and waiting[0].after <= seq:
            self._run.loop.call_soon(self._consider, waiting.popleft())

    def _try_late(self) -> bool:
        """Offers whose handler may be there now; whether any was accepted."""
        late, self._late, before = self._late, [], self._accepted
        for offer in late:
            self._consider(offer)
        return self._accepted > before

    def _judge_late(self) -> Verdicts:
        for offer in self._late:
            error = UnknownUpdate(_unknown("update", offer.name, self._run, self.updates))
            self._verdicts.refused[offer.update_id] = encode_failure(error)
        self._late = []
        return self._verdicts

    def _consider(self, offer: Offer) -> None:
        """The offer's place has come."""
        handler = self.updates.get(offer.name)
        if self._main.done():
            self._verdicts.left.add(offer.update_id)
        elif handler is None:
            self._late.append(offer)
        elif self._run.replaying or self._agrees(handler, offer):
            self._accept(handler, offer)

    def _agrees(self, handler: UpdateHandler, offer: Offer) -> bool:
        try:
            args, kwargs = handler.arguments.decode(_by_name(handler.arguments, offer.payload))
            if handler.validator is not None:
                validator = handler.validator
                self._run.read_only(_VALIDATOR, handler.context, validator, args, kwargs)
        except Exception as error:
            self._verdicts.refused[offer.update_id] = encode_failure(error)
            return False
        return True

    def _accept(self, handler: UpdateHandler, offer: Offer) -> None:
        """Record it, and run the handler up to its first wait."""
        run = self._run
        try:  # decoded once more: the validator had the first copy and may have changed it
            payload = _by_name(handler.arguments, offer.payload)
            args, kwargs = handler.arguments.decode(payload)
        except PayloadError as error:  # in replay: the code has changed
            run.spoil(error)
            return
        self._accepted += 1
        body: dict[str, Any] = {
            "update_id": offer.update_id,
            "name": offer.name,
            "after": offer.after,
        }
        if offer.actor is not None:
            body["actor"] = offer.actor
        run.emit(Command(e.UPDATE_ACCEPTED, body, payload))
        context = handler.context.copy()
        context.run(current_update.set, UpdateInfo(offer.update_id, offer.name, offer.actor))
        self.running[offer.update_id] = offer
        coro = self._carry_out(handler, offer, args, kwargs)
        run.loop.begin_task(coro, f"update {offer.name!r} ({offer.update_id})", context)

    async def _carry_out(
        self,
        handler: UpdateHandler,
        offer: Offer,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        """Run the handler; its outcome is the update's, and never the run's."""
        body: dict[str, Any] = {"update_id": offer.update_id, "name": offer.name}
        try:
            value = await as_coroutine(handler.style, handler.fn, args, kwargs)
            outcome = Command(e.UPDATE_COMPLETED, body, handler.arguments.result.encode(value))
        except (Evicted, GeneratorExit, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            failure = encode_failure(_no_end(error) if type(error) is ContinueAsNew else error)
            outcome = Command(e.UPDATE_FAILED, {**body, "failure": failure})
        del self.running[offer.update_id]
        self._run.emit(outcome)


def _no_end(_error: ContinueAsNew) -> DurableError:
    return DurableError(
        "an update cannot continue the run as new: have it set a flag that the workflow's own code waits for"
    )


# -- arguments ------------------------------------------------------------------------------------------------------------

_codecs: dict[CodeType, ArgumentsCodec] = {}


def codec_of(fn: Any, name: str) -> ArgumentsCodec:
    """The codec of a closure's arguments and result, made once for all runs whose code it belongs to."""
    if (known := _codecs.get(fn.__code__)) is None:
        known = _codecs[fn.__code__] = ArgumentsCodec(_without_state(fn), name=name)
    return known


def _without_state(fn: FunctionType) -> FunctionType:
    """The function with its types, and without the values of the one run that it was made in: it is kept for ever."""
    cells = tuple(map(_types_alone, fn.__closure__ or ()))
    bare = FunctionType(fn.__code__, fn.__globals__, fn.__name__, fn.__defaults__, cells)
    bare.__kwdefaults__ = fn.__kwdefaults__
    bare.__annotations__ = fn.__annotations__
    return bare


def _types_alone(cell: CellType) -> CellType:
    try:
        return cell if isinstance(cell.cell_contents, type) else CellType()
    except ValueError:  # a cell that is still empty
        return cell


def _by_name(arguments: ArgumentsCodec, payload: str) -> str:
    """The arguments as an object by name; a caller that does not know the names gives an array. Raises PayloadError."""
    if not payload.startswith("["):
        return payload
    values, names = json.loads(payload), arguments.positional
    if len(values) > len(names):
        raise PayloadError(
            "arguments",
            f"{len(values)} were given by position, and {arguments.name} takes {len(names)}",
            f"It takes: {', '.join(names) or 'nothing'}.",
        )
    return json.dumps(dict(zip(names, values, strict=False)), ensure_ascii=False)


def _unknown(kind: str, name: str, run: Run, known: Mapping[str, Any]) -> str:
    there = f"it has: {', '.join(sorted(known))}" if known else "it has none"
    return (
        f"workflow {run.definition.name!r} ({run.workflow_id}) has no {kind} {name!r} now; {there}"
    )
