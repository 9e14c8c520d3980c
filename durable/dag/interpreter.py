"""The workflow that runs a DAG: an ordinary deterministic one, so history, retries, signals, operations and replay are those of code.

It knows nothing but the stored definition. Activities are called by name with JSON values, so what it does never depends on what the
process has imported, and a worker with the code of the steps is needed only where the steps run.

Each activity's future puts its step into a queue when it ends; the loop takes what is there and asks the scheduler what became ready. The cost of a
turn is that of what ended in it, not of the steps of the DAG.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Any

from durable.core.futures import OperationFuture
from durable.dag.expansion import added_steps
from durable.dag.expressions import BadReference, Values
from durable.dag.format import Step
from durable.dag.model import edges_of
from durable.dag.nested import start_nested
from durable.dag.scheduler import Scheduler, Status
from durable.dag.signatures import as_text
from durable.dag.step_options import activity_options
from durable.dag_errors import DagFailed, InvalidDag
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
async def run_dag(definition: dict[str, Any]) -> Any:
    """Run a stored definition; the result is the table of its steps, or the definition's output.

    Raises DagFailed if a step failed and the definition says so.
    """
    interpretation = Interpretation(definition)

    @query
    def steps() -> dict[str, Any]:
        return interpretation.table()

    await interpretation.run()
    table = interpretation.table()
    failed = [name for name, row in table.items() if row["status"] == "failed"]
    if failed and definition["on_failure"] == "fail":
        raise DagFailed(definition["name"], failed, table)
    return interpretation.output(definition["output"]) if "output" in definition else table


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
        self._added: dict[str, list[str]] = {}
        self._ready: deque[str] = deque()
        self._running: dict[OperationFuture[Any], tuple[str, int | None]] = {}
        self._ended: asyncio.Queue[OperationFuture[Any]] = asyncio.Queue()

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

    def output(self, stored: Any) -> Any:
        """A value of the definition with what it refers to. Raises BadReference."""
        return Values(self.results, self._context).resolve(stored)

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
        if name in self._added:
            self._end_expansion(name)
            return
        values = Values(self.results, self._context)
        if "when" in step and not values.holds(step["when"]):
            self._end(name, "skipped")
        elif "guard" in step and not values.holds(step["guard"]["if"]):
            self._complete(name, values.resolve(step["guard"]["otherwise"]))
        elif "branch" in step:
            chosen = values.resolve(step["branch"]["on"])
            self._complete(name, chosen, chosen=as_text(chosen))
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
        arguments = values.resolve(step["args"])
        call_id = name if number is None else f"{name}[{number}]"
        future: OperationFuture[Any]
        if "dag" in step:
            future = start_nested(run_dag, step, arguments, call_id)
        else:
            options = activity_options(step.get("options", {}))
            future = self._activity(step["activity"]).options(**options, id=call_id)(**arguments)
        self._running[future] = (name, number)
        future.add_done_callback(self._ended.put_nowait)

    def _activity(self, called: str) -> _Named:
        activity = self._activities.get(called)
        if activity is None:
            activity = self._activities[called] = _Named(called)
        return activity

    # -- what ends ------------------------------------------------------------------------------------------------------

    def _take(self, future: OperationFuture[Any]) -> None:
        name, number = self._running.pop(future)
        failure = _failure(future)
        if number is not None:
            self._take_element(name, number, future, failure)
        elif failure is not None:
            self._fail(name, failure)
        elif "expand" in self.steps[name]:
            self._expand(name, future.result())
        else:
            self._complete(name, future.result())

    def _expand(self, name: str, returned: Any) -> None:
        try:
            added = added_steps(name, returned, self.steps, self._added, self._context)
        except InvalidDag as error:
            self._fail(name, _refused(error))
            return
        if not added:
            self._complete(name, {})
            return
        self.steps |= added
        self._added[name] = list(added)
        self._ready.extend(self.scheduler.extend(name, edges_of(list(added.values()))))

    def _end_expansion(self, name: str) -> None:
        added = self._added[name]
        failed = [it for it in added if self.scheduler.status[it] == "failed"]
        if failed:
            said = f"{len(failed)} of the {len(added)} steps that it added failed: {', '.join(failed[:10])}"
            self._fail(name, {"type": "DagFailed", "message": said})
        else:
            self._complete(name, {it: self.results.get(it) for it in added})

    def _take_element(
        self, name: str, number: int, future: OperationFuture[Any], failure: dict[str, Any] | None
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


def _failure(future: OperationFuture[Any]) -> dict[str, Any] | None:
    """How an activity that has ended failed; None if it completed."""
    if future.cancelled():
        return {"type": "CancelledError", "message": "the activity was cancelled"}
    error = future.exception()
    return None if error is None else _described(error)


def _refused(error: InvalidDag) -> dict[str, Any]:
    """The failure of a step that returned steps which cannot be added; of many problems, the first."""
    said = f"it returned steps that cannot be added; problems: {len(error.problems)}"
    return {"type": "InvalidDag", "message": said, "problems": error.problems[:100]}


def _described(error: BaseException) -> dict[str, Any]:
    """A failure as a row of the table; the same in every process, whether or not it has the exception's class."""
    cause = error.__cause__ if isinstance(error, DurableError) and error.__cause__ else error
    if isinstance(cause, RemoteError):
        kind, message = cause.type_name.rpartition(":")[2], cause.message
    else:
        kind, message = type(cause).__qualname__, str(cause)
    more = {"attempt": error.attempt} if isinstance(error, ActivityError) else {}
    return {"type": kind, "message": message, **more}
