"""The workflow that runs a DAG: an ordinary deterministic one, so history, retries, signals, operations and replay are those of code.

It knows nothing but the stored definition. Activities are called by name with JSON values, so what it does never depends on what the
process has imported, and a worker with the code of the steps is needed only where the steps run.

A step's end is taken as soon as its future has one, and wakes the loop, which starts what became ready. The cost of a turn is that of what ended in it, not of
the steps of the DAG. And the table is right at any moment: an operation on a step (see step_operations.py) that comes in the same turn as the last end finds it in the
table, and the run still open.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from durable.authoring import wait_until
from durable.core.futures import DurableFuture, OperationFuture, SignalFuture
from durable.core.loop import current
from durable.dag import sagas, step_operations
from durable.dag.expansion import StepResults, added_steps
from durable.dag.expressions import BadReference, Values
from durable.dag.failures import described
from durable.dag.format import Step
from durable.dag.model import INTERPRETER, edges_of
from durable.dag.nested import TELLS, start_nested
from durable.dag.rollback import Unit
from durable.dag.scheduler import FINAL, Scheduler, Status
from durable.dag.signatures import as_text
from durable.dag.step_calls import Again, Named
from durable.dag.step_options import activity_options
from durable.dag.step_waits import Held, awaited
from durable.dag_errors import DagFailed, InvalidDag
from durable.definitions import ActivityCall, workflow
from durable.errors import InvalidOption, PayloadError
from durable.handlers import query
from durable.saga import undisturbed

MAX_RUNNING = 1_000
"""Activities of one DAG at once; the others wait for a place."""


@workflow(name=INTERPRETER)
async def run_dag(definition: dict[str, Any]) -> Any:
    """Run a stored definition; the result is the table of its steps, or the definition's output.

    Raises DagFailed if a step failed and the definition says so.
    """
    interpretation = Interpretation(definition)

    @query
    def steps() -> dict[str, Any]:
        return interpretation.table()

    @query
    def shape() -> dict[str, Any]:
        return interpretation.shape()

    step_operations.register(interpretation)
    sagas.register(interpretation.saga)
    result = await interpretation.run()
    return interpretation.saga.told(result) if TELLS in definition else result


class _Mapping:
    """A map step under way."""

    def __init__(self, elements: list[Any], limit: int) -> None:
        self.elements = elements
        self.limit = limit
        self.waiting = deque(range(len(elements)))
        self.running = 0
        self.results: list[Any] = [None] * len(elements)
        self.undone = set(self.waiting)
        self.failure: dict[str, Any] | None = None

    def may_start(self) -> bool:
        return bool(self.waiting) and self.running < self.limit and self.failure is None

    def begin_again(self) -> None:
        """What has no result yet shall be called once more; what has keeps it."""
        self.waiting = deque(sorted(self.undone))
        self.running = 0
        self.failure = None


class _Call(NamedTuple):
    """A future's step; in a map, the number of the element. `key`: the call as the world knows it, over all retries; `run_id`: who made it."""

    step: str
    number: int | None
    key: str
    run_id: str


class Interpretation:
    """One DAG under way."""

    def __init__(self, definition: Mapping[str, Any]) -> None:
        self.steps: dict[str, Step] = {step["name"]: step for step in definition["steps"]}
        self.scheduler = Scheduler(edges_of(definition["steps"]))
        self.results = StepResults()
        self.failures: dict[str, dict[str, Any]] = {}
        self.by_hand: dict[str, dict[str, Any]] = {}
        """What was done to a step from outside."""
        self.early: dict[str, tuple[Status, Any]] = {}
        """Completions of steps that have not begun."""
        self.may_be_held = definition["on_failure"] == "wait"
        self.given_up = False
        self.saga = sagas.DagSaga(self, definition["on_failure"])
        self.context = definition["context"]
        self._definition = definition
        self._activities: dict[str, Named] = {}
        self._maps: dict[str, _Mapping] = {}
        self._added: dict[str, list[str]] = {}
        self._ready: deque[str] = deque()
        self._running: dict[DurableFuture[Any], _Call] = {}
        self._stopping: set[str] = set()
        self._first_calls: dict[str, str] = {}
        """By call id: the idempotency key of a call that did not complete, for those that follow it."""
        self._tries: dict[str, int] = {}
        self._news = asyncio.Event()

    def table(self) -> dict[str, Any]:
        """Every step with its status, and result, failure, cause and what else there is to say of it."""
        halts = self.saga.why_halted()
        columns: tuple[tuple[str, Mapping[str, Any]], ...] = (
            ("result", self.results),
            ("failure", self.failures),
            ("cause", self.scheduler.cause),
            ("by", self.by_hand),
            ("halt", halts),
            ("undo", dict(self.saga.rollback.rows())),
            ("added", self._added),
        )
        return {
            name: {
                "status": "halted" if name in halts else status,
                **{key: of[name] for key, of in columns if name in of},
            }
            for name, status in self.scheduler.status.items()
        }

    def shape(self) -> dict[str, Any]:
        """The steps as they are stored, those that were added included, and by step the names of those that it added."""
        return {"steps": list(self.steps.values()), "added": self._added}

    async def run(self) -> Any:
        """Until every step has ended, and nobody is waited for to retry one; what is to be undone is undone then. Gives the definition's output, or the table.

        Raises DagFailed if a step failed and the definition says so, and BadReference if its output cannot be made. When the run is cancelled, so are its activities.
        """
        try:
            await self._run_steps()
            failed = self._definition["on_failure"] != "complete" and self._with_status("failed")
            if not failed:
                return self._result()
        except (asyncio.CancelledError, BadReference) as stopped:
            await undisturbed(self.saga.unwind())
            if self.saga.rollback.failures:
                raise self._failed([]) from stopped
            raise
        await undisturbed(self.saga.unwind())
        raise self._failed(failed)

    def _with_status(self, status: Status) -> list[str]:
        return [name for name, it in self.scheduler.status.items() if it == status]

    def _result(self) -> Any:
        if "output" in self._definition:
            return Values(self.results, self.context).resolve(self._definition["output"])
        return self.table()

    async def _run_steps(self) -> None:
        self._ready.extend(self.scheduler.begin())
        self._start_ready()
        while not self.scheduler.done or self._is_held():
            if self.scheduler.done:
                await wait_until(Held(self.failures, lambda: not self._is_held()))
            else:
                await self._news.wait()
                self._news.clear()
            self._start_ready()

    def _failed(self, failed: list[str]) -> DagFailed:
        undo_failures = self.saga.rollback.reported_failures()
        return DagFailed(self._definition["name"], failed, self.table(), undo_failures)

    def _is_held(self) -> bool:
        """Whether all has ended and a failed step is left to an operator."""
        held = self.may_be_held and not self.given_up
        return held and self.scheduler.done and bool(self.failures)

    async def stop(self, *, awaited: bool) -> None:
        """End the run's steps; `awaited`: not before all that is under way has ended."""
        for future, call in list(self._running.items()):
            if not self.saga.is_compensation(future):
                sagas.stop_call(future, self.steps[call.step], awaited=awaited)
        while self._running:
            await self._news.wait()
            self._news.clear()
        self.saga.resume()
        for name, status in self.scheduler.status.items():
            if status not in FINAL:
                self.scheduler.status[name] = "cancelled"

    # -- what starts ----------------------------------------------------------------------------------------------------

    def _start_ready(self) -> None:
        while self._ready or self._has_cancelled_kept_back():
            if len(self._running) >= MAX_RUNNING or self.saga.halts:
                return
            name = self._ready.popleft()
            # What was ended by hand meanwhile is not started.
            if self.scheduler.status[name] != "running" or self.saga.keeps_back(name):
                continue
            try:
                self._start(name, self.steps[name])
            except (BadReference, PayloadError, InvalidOption) as error:
                self.fail(name, described(error))

    def _has_cancelled_kept_back(self) -> bool:
        """End what a saga keeps back when nothing is under way; whether another step is ready because of that."""
        if not self._running and not self.saga.halts:
            for name in self.saga.give_up_kept_back():
                self.end(name, "cancelled")
        return bool(self._ready)

    def is_through(self, name: str) -> bool:
        """Whether it only has to end: a map that starts no further element, a step that has added others."""
        state = self._maps.get(name)
        ended = state is not None and (not state.waiting or state.failure is not None)
        return ended or name in self._added

    def is_stopping(self, name: str) -> bool:
        return name in self._stopping

    def _start(self, name: str, step: Step) -> None:
        if name in self._maps:
            self._go_on(name, step)
            return
        if name in self._added:
            self._end_expansion(name)
            return
        values = Values(self.results, self.context)
        if "when" in step and not values.holds(step["when"]):
            self.end(name, "skipped")
        elif "guard" in step and not values.holds(step["guard"]["if"]):
            self.complete(name, values.resolve(step["guard"]["otherwise"]))
        elif name in self.early:
            self.complete_by_hand(name, *self.early.pop(name))
        elif "branch" in step:
            self.complete(name, values.resolve(step["branch"]["on"]))
        elif "wait" in step:
            self._follow(awaited(name, step["wait"]), _Call(name, None, name, ""))
        elif "map" in step:
            self._begin_map(name, step, values.resolve(step["map"]["over"]))
        else:
            self._call(name, step, None, values)

    def _begin_map(self, name: str, step: Step, elements: Any) -> None:
        if not isinstance(elements, list):
            raise BadReference(f"over is {type(elements).__name__}, not a list")
        if not elements:
            self.complete(name, [])
            return
        self._maps[name] = _Mapping(elements, step["map"]["max_concurrency"])
        self._go_on(name, step)

    def _go_on(self, name: str, step: Step) -> None:
        """Start elements of a map while there is room, here and in the run; the map waits in line for the rest."""
        state = self._maps[name]
        if name in self._stopping:
            state.waiting.clear()
        while state.may_start() and len(self._running) < MAX_RUNNING:
            number = state.waiting.popleft()
            values = Values(self.results, self.context, state.elements[number])
            try:
                self._call(name, step, number, values)
                state.running += 1
            except (BadReference, PayloadError, InvalidOption) as error:
                state.failure = {**described(error), "item": number}
        if state.may_start():
            self._ready.append(name)
        elif not state.running:
            self._end_map(name, state)

    def _call(self, name: str, step: Step, number: int | None, values: Values) -> None:
        arguments = values.resolve(step["args"])
        key = name if number is None else f"{name}[{number}]"
        tries = self._tries[key] = self._tries.get(key, 0) + 1
        call_id = key if tries == 1 else f"{key}#{tries}"
        run = current()
        assert run is not None
        self.saga.called(Unit(name, number), arguments)
        future: DurableFuture[Any]
        if "dag" in step:
            future = start_nested(run_dag, step, arguments, call_id)
        else:
            future = self._activity(step, key, call_id)(**arguments)
        self._follow(future, _Call(name, number, key, str(run.run_id)))

    def _activity(self, step: Step, key: str, call_id: str) -> ActivityCall[..., Any]:
        called = step["activity"]
        activity = self._activities.get(called)
        if activity is None:
            activity = self._activities[called] = Named(called)
        call = activity.options(**activity_options(step.get("options", {})), id=call_id)
        first = self._first_calls.get(key)
        return call if first is None else Again(call, first)

    def call_again(self, unit: Unit) -> None:
        """Call a unit that failed once more, as the same call to the world."""
        name, number, _ = unit
        item = None if number is None else self._maps[name].elements[number]
        self._call(name, self.steps[name], number, Values(self.results, self.context, item))

    def follow_beside(self, future: DurableFuture[Any], unit: Unit) -> None:
        """A unit is under way as long as this call for it is."""
        self._follow(future, _Call(unit.step, unit.item, unit.id, ""))

    def _follow(self, future: DurableFuture[Any], call: _Call) -> None:
        self._running[future] = call
        future.add_done_callback(self._take)

    # -- what ends ------------------------------------------------------------------------------------------------------

    def _take(self, future: asyncio.Future[Any]) -> None:
        call = self._running.pop(future, None)  # type: ignore[call-overload]
        if call is None:  # somebody has ended the step meanwhile
            return
        self._news.set()
        unit, failure = Unit(call.step, call.number), _failure(future, self.steps[call.step])
        if self.saga.decides(future, unit, failure):
            return
        if failure is not None and isinstance(future, OperationFuture) and future.seq:
            self._first_calls.setdefault(call.key, f"{call.run_id}/{future.seq}")
        if failure is None:
            self.settle(unit, self.saga.answered(unit, future.result()), None)
        elif not self.saga.holds(future, unit, failure):
            self.settle(unit, None, failure)

    def settle(self, unit: Unit, value: Any, failure: dict[str, Any] | None) -> None:
        """A step, or an element of a map, has ended for good."""
        name, number, _ = unit
        if failure is None:
            self.saga.completed(unit, value)
        if number is not None:
            self._take_element(name, number, value, failure)
        elif name in self._stopping:
            self.end(name, "cancelled")
        elif failure is not None:
            self.fail(name, failure)
        elif "expand" in self.steps[name]:
            self._expand(name, value)
        else:
            self.complete(name, value)

    def _expand(self, name: str, returned: Any) -> None:
        try:
            added = added_steps(name, returned, self.steps, self.scheduler, self.context)
        except InvalidDag as error:
            self.fail(name, _refused(error))
            return
        if not added:
            self.complete(name, {})
            return
        self.steps |= added
        self._added[name] = list(added)
        self._ready.extend(self.scheduler.extend(name, edges_of(list(added.values()))))

    def _end_expansion(self, name: str) -> None:
        added, status = self._added[name], self.scheduler.status
        if any(status[it] not in FINAL for it in added):  # one was taken back in this very turn
            return
        failed = [it for it in added if status[it] == "failed"]
        if failed:
            said = f"{len(failed)} of the {len(added)} steps that it added failed: {', '.join(failed[:10])}"
            self.fail(name, {"type": "DagFailed", "message": said})
        elif any(status[it] == "cancelled" for it in added):
            self.end(name, "cancelled")
        else:
            self.results.expanded[name] = added
            self.end(name, "completed")

    def _take_element(
        self, name: str, number: int, value: Any, failure: dict[str, Any] | None
    ) -> None:
        state = self._maps[name]
        state.running -= 1
        if failure is None:
            state.results[number] = value
            state.undone.discard(number)
        elif state.failure is None:
            state.failure = {**failure, "item": number}
        self._ready.append(name)
        self._news.set()

    def _end_map(self, name: str, state: _Mapping) -> None:
        if self.scheduler.status[name] != "running":
            return
        if name in self._stopping:
            self.end(name, "cancelled")
        elif state.failure is None:
            self.complete(name, state.results)
        else:
            self.fail(name, state.failure)

    def complete(self, name: str, value: Any) -> None:
        self.results[name] = value
        self.end(name, "completed", as_text(value) if "branch" in self.steps[name] else None)

    def fail(self, name: str, failure: dict[str, Any]) -> None:
        self.failures[name] = failure
        self.end(name, "failed")

    def end(self, name: str, status: Status, chosen: str | None = None) -> None:
        self._stopping.discard(name)
        self.saga.ended(name)
        self._ready.extend(self.scheduler.settle(name, status, chosen=chosen))
        self._news.set()

    # -- what others do to a step: see step_operations.py -------------------------------------------------------------------

    def complete_by_hand(self, name: str, status: Status, payload: Any) -> None:
        """End a step that has not ended; what it was doing is given up."""
        for future in self._stop_starting(name):
            del self._running[future]
            if not future.cancel() and isinstance(future, SignalFuture):
                future.put_back()
        if status == "completed":
            self.saga.completed_by_hand(name, payload)
            self.complete(name, payload)
        elif status == "failed":
            text = payload if isinstance(payload, str) else json.dumps(payload)
            self.fail(name, {"type": "StepFailed", "message": text})
        else:
            self.end(name, status)

    def cancel(self, name: str) -> None:
        """Give up a step that has not ended. Activities that are to be waited for (`cancellation="wait"`) end first."""
        calls = self._stop_starting(name)
        self._stopping.add(name)
        for future in calls:
            sagas.stop_call(future, self.steps[name], awaited="undo" in self.steps[name])
            if future.done():
                self._take(future)
        if self.scheduler.status[name] not in FINAL and not self._calls_of(name):
            self.end(name, "cancelled")

    def retry(self, names: Sequence[str]) -> list[str]:
        """Take back how steps ended, and what was cancelled because of it; gives all that is taken back."""
        revived: dict[str, None] = {}
        inside = [it for name in names for it in self._to_retry(name)]
        around = [it for name in inside for it in self.scheduler.added_by(name)]
        kept_back, cancelled = self.saga.retried([*names, *inside, *around])
        self._ready.extend(kept_back)
        inside += [it for name in cancelled for it in self._to_retry(name)]
        for name in inside:
            if self.scheduler.status[name] not in FINAL:  # taken back with one before it
                continue
            ready, taken_back = self.scheduler.retry(name)
            self._ready.extend(ready)
            revived.update(dict.fromkeys(taken_back))
        for name in (*names, *revived):
            self.failures.pop(name, None)
            if name in self._maps:
                self._maps[name].begin_again()
        self.given_up = False
        self._news.set()
        return list(revived)

    def _to_retry(self, name: str) -> list[str]:
        """The step; in place of one that has added others, those of them that did not complete."""
        status, cause = self.scheduler.status, self.scheduler.cause
        inside = [
            it
            for it in self._added.get(name, ())
            if status[it] in ("failed", "cancelled") and it not in cause
        ]
        return [found for it in inside for found in self._to_retry(it)] or [name]

    def give_up(self) -> None:
        """Wait for no operator any more."""
        self.given_up = True
        self._news.set()

    def _stop_starting(self, name: str) -> list[DurableFuture[Any]]:
        """Start nothing more of a step, and cancel what it has added; gives what it has under way."""
        for each in self._added.get(name, ()):
            if self.scheduler.status[each] not in FINAL:
                self.cancel(each)
        while name in self._ready:
            self._ready.remove(name)
        return self._calls_of(name)

    def _calls_of(self, name: str) -> list[DurableFuture[Any]]:
        return [future for future, call in self._running.items() if call.step == name]


def _failure(future: asyncio.Future[Any], step: Step) -> dict[str, Any] | None:
    """How what a step waited for failed; None if it completed."""
    if future.cancelled():
        return {"type": "CancelledError", "message": "the activity was cancelled"}
    error = future.exception()
    if error is None:
        return None
    if "wait" in step:
        waited = timedelta(microseconds=step["wait"]["timeout_us"])
        return {"type": "TimeoutError", "message": f"nobody completed it within {waited}"}
    return described(error)


def _refused(error: InvalidDag) -> dict[str, Any]:
    """The failure of a step that returned steps which cannot be added; of many problems, the first."""
    said = f"it returned steps that cannot be added; problems: {len(error.problems)}"
    return {"type": "InvalidDag", "message": said, "problems": error.problems[:100]}
