"""The workflow that runs a DAG: an ordinary deterministic one, so history, retries, signals, operations and replay are those of code.

It knows nothing but the stored definition. Activities are called by name with JSON values, so what it does never depends on what the
process has imported, and a worker with the code of the steps is needed only where the steps run.

Each activity's future puts its step into a queue when it ends; the loop takes what is there and asks the scheduler what became ready. The cost of a
turn is that of what ended in it, not of the steps of the DAG.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Mapping
from typing import Any

from durable.attributes import MAX_DETAILS, set_details
from durable.core.futures import ActivityFuture
from durable.core.policy import RetryPolicy, Timeouts
from durable.dag.compensating import DEFAULT_RETRIES, arguments_of, give_up, read_decision
from durable.dag.expressions import BadReference, Values
from durable.dag.model import Step, edges_of
from durable.dag.rollback import Rollback, Undo, Unit
from durable.dag.scheduler import Scheduler, Status
from durable.dag_errors import DagFailed, Halt, NotHalted
from durable.definitions import Activity, workflow
from durable.errors import ActivityError, DurableError, PayloadError, RemoteError
from durable.handlers import query, update
from durable.options import ActivityOptions
from durable.payload import ArgumentsCodec, ValueCodec
from durable.saga import undisturbed

INTERPRETER = "durable.dag"
"""The reserved name of the workflow that runs DAGs."""

MAX_RUNNING = 1_000
"""Activities of one DAG at once; the others wait for a place."""

_JSON = ValueCodec(dict[str, Any], field="arguments")


@workflow(name=INTERPRETER)
async def run_dag(definition: dict[str, Any]) -> dict[str, Any]:
    """Run a stored definition; the result is the table of its steps. Raises DagFailed if a step failed and the definition says so."""
    interpretation = Interpretation(definition)

    @query
    def steps() -> dict[str, Any]:
        return interpretation.table()

    @update
    def resume() -> list[str]:
        """The steps at which it had halted."""
        return interpretation.resume()

    @resume.validator
    def is_halted() -> None:
        if not interpretation.halts:
            raise NotHalted(definition["name"])

    await interpretation.run()
    return interpretation.table()


def _by_parameter(**_arguments: Any) -> Any:
    """Stands for any activity."""


class _JsonArguments(ArgumentsCodec):
    """Takes the arguments by parameter name as the JSON values that they are."""

    def encode(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:  # noqa: ARG002
        return _JSON.encode(dict(kwargs))


class _Named(Activity[..., Any]):
    """An activity of which only the name is known."""

    def __init__(self, name: str) -> None:
        super().__init__(_by_parameter, name, ActivityOptions())
        self.arguments = _JsonArguments(_by_parameter, name=name)


class _Mapping:
    """A map step under way."""

    def __init__(self, elements: list[Any], limit: int) -> None:
        self.elements = elements
        self.limit = limit
        self.started = 0
        self.running = 0
        self.results: list[Any] = [None] * len(elements)
        self.failure: dict[str, Any] | None = None
        self.stopped = False

    def may_start(self) -> bool:
        more = self.started < len(self.elements) and self.running < self.limit
        return more and self.failure is None and not self.stopped


class Interpretation:
    """One DAG under way."""

    def __init__(self, definition: Mapping[str, Any]) -> None:
        self.steps: dict[str, Step] = {step["name"]: step for step in definition["steps"]}
        self.scheduler = Scheduler(edges_of(definition["steps"]))
        self.results: dict[str, Any] = {}
        self.failures: dict[str, dict[str, Any]] = {}
        self.rollback = Rollback()
        self.halts: dict[Unit, Halt] = {}
        self._name = definition["name"]
        self._fails = definition["on_failure"] == "fail"
        self._stopped_by: str | None = None
        self._cleaning: set[str] = set()
        self._cancelled = False
        self._compensating: dict[ActivityFuture[Any], dict[str, Any]] = {}
        self._retries: dict[Unit, int] = {}
        self._given: dict[Unit, dict[str, Any]] = {}
        self._context = definition["context"]
        self._activities: dict[str, _Named] = {}
        self._maps: dict[str, _Mapping] = {}
        self._ready: deque[str] = deque()
        self._running: dict[ActivityFuture[Any], Unit] = {}
        self._ended: asyncio.Queue[ActivityFuture[Any] | None] = asyncio.Queue()

    def table(self) -> dict[str, Any]:
        """Every step with its status, and result, failure, cause, halt and undo where it has them."""
        halts = {unit.step: halt for unit, halt in self.halts.items()}
        columns: tuple[tuple[str, Mapping[str, Any]], ...] = (
            ("result", self.results),
            ("failure", self.failures),
            ("cause", self.scheduler.cause),
            ("halt", {name: halt.reason for name, halt in halts.items()}),
            ("undo", dict(self.rollback.rows())),
        )
        return {
            name: {
                "status": "halted" if name in halts else status,
                **{key: of[name] for key, of in columns if name in of},
            }
            for name, status in self.scheduler.status.items()
        }

    async def run(self) -> None:
        """Until every step has ended; what is to be undone is undone then, before the failure or the cancellation goes on.

        Raises DagFailed if a step failed and the definition says so.
        """
        try:
            await self._run_steps()
        except asyncio.CancelledError as cancelled:
            await undisturbed(self._unwind())
            if self.rollback.failures:
                raise self._failed([]) from cancelled
            raise
        failed = [name for name in self.failures if self.scheduler.status[name] == "failed"]
        if failed and self._fails:
            await undisturbed(self._unwind())
            raise self._failed(failed)

    async def _run_steps(self) -> None:
        self._ready.extend(self.scheduler.begin())
        self._start_ready()
        while not self.scheduler.done:
            self._take(await self._ended.get())
            while not self._ended.empty():
                self._take(self._ended.get_nowait())
            self._start_ready()

    def _failed(self, failed: list[str]) -> DagFailed:
        return DagFailed(self._name, failed, self.table(), self.rollback.reported_failures())

    # -- what is taken back ---------------------------------------------------------------------------------------------

    async def _unwind(self) -> None:
        """End what is under way, in a cancelled run; then undo, the last completion first."""
        self._cancelled, saga = True, self._is_saga()
        for future, unit in list(self._running.items()):
            self._ask_to_end(future, self.steps[unit.step], saga)
        while self._running:
            self._take(await self._ended.get())
        self.resume()
        for name, status in self.scheduler.status.items():
            if status in ("pending", "running"):
                self.scheduler.status[name] = "cancelled"
        while (undo := self.rollback.next()) is not None:
            try:
                await self._call_undo(undo)
            except DurableError as error:
                self.rollback.failed(undo.unit, _described(error))
            else:
                self.rollback.undone(undo.unit)

    @staticmethod
    def _ask_to_end(future: ActivityFuture[Any], step: Step, saga: bool) -> None:
        """What may have to be undone is waited for, however it ends; and so is what may still use what others did, before that is undone."""
        abandoned = step.get("options", {}).get("cancellation") == "abandon"
        if "undo" in step and abandoned:
            return
        if abandoned or not saga:
            future.cancel()
        else:
            future.ask_to_end()

    def _is_saga(self) -> bool:
        return any("undo" in step for step in self.steps.values())

    def _call_undo(self, undo: Undo) -> ActivityFuture[Any]:
        call = self._activity(undo.activity).options(
            **_options(undo.options), id=f"{undo.unit.id}:undo"
        )
        return call(**undo.args)

    def _stop(self, failed: str) -> None:
        """A step has failed for good. Where something can be undone, nothing is started any more that would only have to be undone."""
        if self._fails and self._is_saga():
            self._stopped_by = failed

    def _cleans_up(self, name: str) -> bool:
        """Whether a failure let this step run, or one that it depends on: such steps start even when no others do."""
        for dep in self.steps[name]["deps"]:
            above = dep["step"]
            if above in self._cleaning or self.scheduler.status[above] in ("failed", "cancelled"):
                self._cleaning.add(name)
                return True
        return False

    # -- what halts -----------------------------------------------------------------------------------------------------

    def resume(self) -> list[str]:
        """Go on after the steps that have halted, which thereby complete."""
        halts, self.halts = self.halts, {}
        if halts:
            set_details(None)
        for unit, halt in halts.items():
            self._settle(unit, halt.value, None)
        self._ended.put_nowait(None)  # wakes the loop
        return [unit.id for unit in halts]

    # -- what starts ----------------------------------------------------------------------------------------------------

    def _start_ready(self) -> None:
        while self._ready and len(self._running) < MAX_RUNNING and not self.halts:
            name = self._ready.popleft()
            if name in self._maps:
                self._maps[name].stopped = self._stopped_by is not None
            elif self._stopped_by is not None and not self._cleans_up(name):
                self.scheduler.cause[name] = self._stopped_by
                self._end(name, "cancelled")
                continue
            try:
                self._start(name, self.steps[name])
            except (BadReference, PayloadError) as error:
                self._fail(name, _described(error))

    def _start(self, name: str, step: Step) -> None:
        if name in self._maps:
            self._go_on(name, step)
            return
        values = Values(self.results, self._context)
        if "when" in step and not values.holds(step["when"]):
            self._end(name, "skipped")
        elif "guard" in step and not values.holds(step["guard"]["if"]):
            self._complete(name, values.resolve(step["guard"]["otherwise"]))
        elif "branch" in step:
            chosen = values.resolve(step["branch"]["on"])
            self._complete(name, chosen, chosen=_as_text(chosen))
        elif "map" in step:
            self._begin_map(name, step, values.resolve(step["map"]["over"]))
        else:
            self._call(name, step, None, values)

    def _begin_map(self, name: str, step: Step, elements: Any) -> None:
        if not isinstance(elements, list):
            raise BadReference(f"over is {type(elements).__name__}, not a list")
        if not elements:
            self._complete(name, [])
            return
        self._maps[name] = _Mapping(elements, step["map"]["max_concurrency"])
        self._go_on(name, step)

    def _go_on(self, name: str, step: Step) -> None:
        """Start elements of a map while there is room, here and in the run; the map waits in line for the rest."""
        state = self._maps[name]
        while state.may_start() and len(self._running) < MAX_RUNNING:
            number = state.started
            state.started += 1
            values = Values(self.results, self._context, state.elements[number])
            try:
                self._call(name, step, number, values)
                state.running += 1
            except (BadReference, PayloadError) as error:
                state.failure = {**_described(error), "item": number}
        if state.may_start():
            self._ready.append(name)
        elif not state.running:
            self._end_map(name, state)

    def _call(self, name: str, step: Step, number: int | None, values: Values) -> None:
        unit, arguments = Unit(name, number), values.resolve(step["args"])
        self._begin(unit, step, unit.id, arguments)
        if "undo" in step or "compensate" in step:
            self._given[unit] = arguments

    def _begin(
        self, unit: Unit, called: Mapping[str, Any], call_id: str, arguments: Mapping[str, Any]
    ) -> ActivityFuture[Any]:
        """Call the activity of a step, or of its `compensate`."""
        options = _options(called.get("options", {}))
        future = self._activity(called["activity"]).options(**options, id=call_id)(**arguments)
        self._running[future] = unit
        future.add_done_callback(self._ended.put_nowait)
        return future

    def _activity(self, name: str) -> _Named:
        activity = self._activities.get(name)
        if activity is None:
            activity = self._activities[name] = _Named(name)
        return activity

    # -- what ends ------------------------------------------------------------------------------------------------------

    def _take(self, future: ActivityFuture[Any] | None) -> None:
        if future is None:
            return
        unit, failure = self._running.pop(future), _failure(future)
        halt = None if failure is None else _halt(future)
        if future in self._compensating:
            self._take_decision(unit, self._compensating.pop(future), future, failure)
        elif failure is None:
            self._settle(unit, future.result(), None)
        elif halt is not None:
            self.halts[unit] = halt
            set_details(f"halted at {unit.id}: {halt.reason}"[:MAX_DETAILS])
        elif self._cancelled:
            return  # cut off; `_unwind` says so
        elif "compensate" in self.steps[unit.step]:
            self._compensate(unit, failure)
        else:
            self._settle(unit, None, failure)

    def _compensate(self, unit: Unit, failure: dict[str, Any]) -> None:
        """Ask the step's `compensate` what is to become of a failure."""
        called = self.steps[unit.step]["compensate"]
        number = self._retries[unit] = self._retries.get(unit, 0) + 1
        given = arguments_of("compensate", called, error=failure, arguments=self._given[unit], context=self._context)  # fmt: skip
        try:
            future = self._begin(unit, called, f"{unit.id}:compensate:{number}", given)
        except PayloadError as error:
            self._settle(unit, None, {**failure, "compensation": _described(error)})
        else:
            self._compensating[future] = failure

    def _take_decision(
        self,
        unit: Unit,
        failure: dict[str, Any],
        future: ActivityFuture[Any],
        compensation: dict[str, Any] | None,
    ) -> None:
        """Do what `compensate` decided; when it failed itself, the step's failure stands and says so."""
        step, count = self.steps[unit.step], self._retries[unit]
        if compensation is None:
            try:
                decision = read_decision(future.result())
            except ValueError as error:
                compensation, decision = _described(error), give_up()
        else:
            decision = give_up()
        most = step["compensate"].get("retries", DEFAULT_RETRIES)
        if decision.decision == "continue":
            self._settle(unit, decision.value, None)
        elif decision.decision == "retry" and count <= most and not self._cancelled:
            self._begin(unit, step, f"{unit.id}:retry:{count}", self._given[unit])
        else:
            more = {} if compensation is None else {"compensation": compensation}
            self._settle(unit, None, {**failure, **more})

    def _settle(self, unit: Unit, value: Any, failure: dict[str, Any] | None) -> None:
        """A unit has ended for good."""
        if failure is None and (undo := self.steps[unit.step].get("undo")) is not None:
            offered = {
                "result": value,
                "arguments": self._given[unit],
                "context": self._context,
            }
            args = arguments_of("undo", undo, **offered)
            self.rollback.completed(Undo(unit, undo["activity"], args, undo.get("options", {})))
        if unit.item is not None:
            self._take_element(unit.step, unit.item, value, failure)
        elif failure is None:
            self._complete(unit.step, value)
        else:
            self._fail(unit.step, failure)

    def _take_element(
        self, name: str, number: int, value: Any, failure: dict[str, Any] | None
    ) -> None:
        state = self._maps[name]
        state.running -= 1
        if failure is None:
            state.results[number] = value
        elif state.failure is None:
            state.failure = {**failure, "item": number}
        self._ready.append(name)

    def _end_map(self, name: str, state: _Mapping) -> None:
        if self.scheduler.status[name] != "running":
            return
        if state.failure is not None:
            self._fail(name, state.failure)
        elif state.started < len(state.elements):
            self._end(name, "cancelled")
        else:
            self._complete(name, state.results)

    def _complete(self, name: str, value: Any, *, chosen: str | None = None) -> None:
        self.results[name] = value
        self._end(name, "completed", chosen)

    def _fail(self, name: str, failure: dict[str, Any]) -> None:
        if not self.failures:
            self._stop(name)
        self.failures[name] = failure
        self._end(name, "failed")

    def _end(self, name: str, status: Status, chosen: str | None = None) -> None:
        self._ready.extend(self.scheduler.settle(name, status, chosen=chosen))


def _options(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The stored options as `Activity.options` takes them."""
    given = {key: value for key, value in stored.items() if key not in ("retry", "timeouts")}
    if "retry" in stored:
        given["retry"] = RetryPolicy.from_body(stored["retry"])
    if "timeouts" in stored:
        limits = Timeouts.from_body(stored["timeouts"])
        given |= {
            "timeout": limits.start_to_close,
            "schedule_to_close": limits.schedule_to_close,
            "schedule_to_start": limits.schedule_to_start,
            "heartbeat_timeout": limits.heartbeat,
        }
    return given


def _failure(future: ActivityFuture[Any]) -> dict[str, Any] | None:
    """How an activity that has ended failed; None if it completed."""
    if future.cancelled():
        return {"type": "CancelledError", "message": "the activity was cancelled"}
    error = future.exception()
    return None if error is None else _described(error)


def _halt(future: ActivityFuture[Any]) -> Halt | None:
    """What an activity raised to stop the run."""
    cause = None if future.cancelled() else getattr(future.exception(), "__cause__", None)
    return cause if isinstance(cause, Halt) else None


def _described(error: BaseException) -> dict[str, Any]:
    """A failure as a row of the table; the same in every process, whether or not it has the exception's class."""
    cause = error.__cause__ if isinstance(error, DurableError) and error.__cause__ else error
    if isinstance(cause, RemoteError):
        kind, message = cause.type_name.rpartition(":")[2], cause.message
    else:
        kind, message = type(cause).__qualname__, str(cause)
    more = {"attempt": error.attempt} if isinstance(error, ActivityError) else {}
    return {"type": kind, "message": message, **more}


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
