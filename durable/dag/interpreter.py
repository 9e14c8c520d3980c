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

from durable.core.futures import ActivityFuture
from durable.core.policy import RetryPolicy, Timeouts
from durable.dag.expressions import BadReference, Values
from durable.dag.model import Step, edges_of
from durable.dag.scheduler import Scheduler, Status
from durable.dag_errors import DagFailed
from durable.definitions import Activity, workflow
from durable.errors import ActivityError, DurableError, PayloadError, RemoteError
from durable.handlers import query
from durable.options import ActivityOptions
from durable.payload import ArgumentsCodec, ValueCodec

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

    await interpretation.run()
    table = interpretation.table()
    failed = [name for name, row in table.items() if row["status"] == "failed"]
    if failed and definition["on_failure"] == "fail":
        raise DagFailed(definition["name"], failed, table)
    return table


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

    def may_start(self) -> bool:
        more = self.started < len(self.elements) and self.running < self.limit
        return more and self.failure is None


class Interpretation:
    """One DAG under way."""

    def __init__(self, definition: Mapping[str, Any]) -> None:
        self.steps: dict[str, Step] = {step["name"]: step for step in definition["steps"]}
        self.scheduler = Scheduler(edges_of(definition["steps"]))
        self.results: dict[str, Any] = {}
        self.failures: dict[str, dict[str, Any]] = {}
        self._context = definition["context"]
        self._activities: dict[str, _Named] = {}
        self._maps: dict[str, _Mapping] = {}
        self._ready: deque[str] = deque()
        self._running: dict[ActivityFuture[Any], tuple[str, int | None]] = {}
        self._ended: asyncio.Queue[ActivityFuture[Any]] = asyncio.Queue()

    def table(self) -> dict[str, Any]:
        """Every step with its status, and result, failure and cause where it has them."""
        columns = (
            ("result", self.results),
            ("failure", self.failures),
            ("cause", self.scheduler.cause),
        )
        return {
            name: {"status": status, **{key: of[name] for key, of in columns if name in of}}
            for name, status in self.scheduler.status.items()
        }

    async def run(self) -> None:
        """Until every step has ended. When the run is cancelled, so are its activities."""
        self._ready.extend(self.scheduler.begin())
        try:
            self._start_ready()
            while not self.scheduler.done:
                self._take(await self._ended.get())
                while not self._ended.empty():
                    self._take(self._ended.get_nowait())
                self._start_ready()
        except asyncio.CancelledError:
            await self._cancel()
            raise

    async def _cancel(self) -> None:
        """Those that are to be waited for end first."""
        for future in list(self._running):
            future.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    # -- what starts ----------------------------------------------------------------------------------------------------

    def _start_ready(self) -> None:
        while self._ready and len(self._running) < MAX_RUNNING:
            name = self._ready.popleft()
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
        called = step["activity"]
        activity = self._activities.get(called)
        if activity is None:
            activity = self._activities[called] = _Named(called)
        arguments = values.resolve(step["args"])
        call_id = name if number is None else f"{name}[{number}]"
        call = activity.options(**_options(step.get("options", {})), id=call_id)
        future = call(**arguments)
        self._running[future] = (name, number)
        future.add_done_callback(self._ended.put_nowait)

    # -- what ends ------------------------------------------------------------------------------------------------------

    def _take(self, future: ActivityFuture[Any]) -> None:
        name, number = self._running.pop(future)
        failure = _failure(future)
        if number is not None:
            self._take_element(name, number, future, failure)
        elif failure is None:
            self._complete(name, future.result())
        else:
            self._fail(name, failure)

    def _take_element(
        self, name: str, number: int, future: ActivityFuture[Any], failure: dict[str, Any] | None
    ) -> None:
        state = self._maps[name]
        state.running -= 1
        if failure is None:
            state.results[number] = future.result()
        elif state.failure is None:
            state.failure = {**failure, "item": number}
        self._ready.append(name)

    def _end_map(self, name: str, state: _Mapping) -> None:
        if self.scheduler.status[name] != "running":
            return
        if state.failure is None:
            self._complete(name, state.results)
        else:
            self._fail(name, state.failure)

    def _complete(self, name: str, value: Any, *, chosen: str | None = None) -> None:
        self.results[name] = value
        self._end(name, "completed", chosen)

    def _fail(self, name: str, failure: dict[str, Any]) -> None:
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
