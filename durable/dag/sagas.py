"""A DAG as a saga: what its run does with `compensate`, `undo` and `Halt`. The order of undoing is that of `rollback.py`; this is the part that calls.

A saga fails once: as soon as a step has failed for good in a DAG that fails with it, steps that are ready are kept back instead of started, for they would only have to be
undone. Those that the failure itself lets run (through an edge that says "continue") clean up, and do start. When nothing is under way any more, what is kept back is
cancelled, and the journal is undone. Until then an operator who retries the failed step lets everything go on as if nothing had been.

What is under way when a run is cancelled is asked to end and then awaited: its end may be a completion, which is undone too. What was cut off may have happened or
not, and `compensate` is asked as it is for a failure; if it says that the step is done, that is undone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from durable.attributes import MAX_DETAILS, set_details
from durable.core.futures import DurableFuture, OperationFuture
from durable.dag.compensating import (
    DEFAULT_RETRIES,
    Decision,
    arguments_of,
    give_up,
    read_decision,
)
from durable.dag.expressions import BadReference, Values
from durable.dag.failures import described
from durable.dag.nested import any_has, tells_undo
from durable.dag.rollback import Rollback, Undo, Unit, undo_id
from durable.dag.step_calls import Named
from durable.dag.step_options import activity_options
from durable.dag.step_waits import halted
from durable.dag_errors import Halt, NotHalted
from durable.errors import DurableError
from durable.handlers import update

if TYPE_CHECKING:
    import asyncio

    from durable.dag.format import Step
    from durable.dag.interpreter import Interpretation

Failure = dict[str, Any]

_CUT_OFF = {"type": "CancelledError", "message": "the run was cancelled while it was under way"}


def register(saga: DagSaga) -> None:
    """Give the run its update `resume`."""

    @update
    def resume() -> list[str]:
        """The steps at which it had halted."""
        return saga.resume()

    @resume.validator
    def is_halted() -> None:
        if not saga.halts:
            raise NotHalted


def beside(called: Mapping[str, Any], call_id: str, arguments: Mapping[str, Any]) -> Any:
    """Call the activity of a stored `undo` or `compensate`."""
    call = Named(called["activity"]).options(
        **activity_options(called.get("options", {})), id=call_id
    )
    return call(**arguments)


def stop_call(future: DurableFuture[Any], step: Step, *, awaited: bool) -> None:
    """Ask what is under way to end. `awaited`: its end counts, even if it is a completion; else it is given up as its `cancellation` says.

    What can be undone and is declared with `cancellation="abandon"` is not asked, only awaited.
    """
    abandoned = step.get("options", {}).get("cancellation") == "abandon"
    if awaited and isinstance(future, OperationFuture) and ("undo" in step or not abandoned):
        if not abandoned:
            future.ask_to_end()
    else:
        future.cancel()


class DagSaga:
    """What can be undone in one run, what has halted, and what is being compensated."""

    def __init__(self, dag: Interpretation, on_failure: str) -> None:
        self._dag = dag
        self._stops = on_failure == "fail"
        self.rollback = Rollback()
        self.halts: dict[Unit, tuple[Halt, DurableFuture[Any]]] = {}
        """What has halted, and the wait that shows it."""
        self.unwinding = False
        self._given: dict[Unit, dict[str, Any]] = {}
        """What calls were made with, as far as somebody may want to know."""
        self._compensating: dict[asyncio.Future[Any], Failure] = {}
        self._asked: dict[Unit, int] = {}
        self._retries: dict[Unit, int] = {}
        self._undos: dict[Unit, int] = {}
        self._kept: dict[str, None] = {}
        self._cancelled: list[str] = []
        self._cleaning: set[str] = set()
        self._looked_up = (0, False)

    # -- what completes ---------------------------------------------------------------------------------------------------

    def called(self, unit: Unit, arguments: dict[str, Any]) -> None:
        step = self._dag.steps[unit.step]
        if "undo" in step or "compensate" in step:
            self._given[unit] = arguments

    def answered(self, unit: Unit, answer: Any) -> Any:
        """The result in what a call answered. A nested DAG tells what of it there is to undo, which is noted."""
        step = self._dag.steps[unit.step]
        if "dag" not in step or not tells_undo(step):
            return answer
        for undo in answer["undo"]:
            self.rollback.completed(Undo.from_json(undo).within(unit))
        return answer["result"]

    def told(self, result: Any) -> Any:
        """What the run answers: its result, and to a DAG around it, what there is to undo."""
        return {"result": result, "undo": [it.to_json() for it in self.rollback.journal]}

    def completed(self, unit: Unit, value: Any) -> None:
        """Note what is to be called to undo it."""
        stored = self._dag.steps[unit.step].get("undo")
        if stored is not None:
            offered = {
                "result": value,
                "arguments": self._given[unit],
                "context": self._dag.context,
            }
            args = arguments_of("undo", stored, **offered)
            undo = Undo(unit, stored["activity"], args, stored.get("options", {}))
            self.rollback.completed(undo)

    def completed_by_hand(self, step: str, value: Any) -> None:
        """It is done, whoever did it, so it can be undone; the elements of a map one by one, as far as they completed by themselves."""
        unit, stored = Unit(step), self._dag.steps[step]
        if "undo" not in stored or "map" in stored:
            return
        if unit not in self._given:
            values = Values(self._dag.results, self._dag.context)
            try:
                self._given[unit] = values.resolve(stored["args"])
            except BadReference:
                self._given[unit] = {}
        self.completed(unit, value)

    # -- what fails -------------------------------------------------------------------------------------------------------

    def holds(self, future: asyncio.Future[Any], unit: Unit, failure: Failure) -> bool:
        """Whether a failure is not the end of a unit: it has halted, is cut off because the run ends, or is compensated."""
        step = self._dag.steps[unit.step]
        if self._dag.is_stopping(unit.step):
            return False
        if (halt := _halt(future)) is not None:
            self.halts[unit] = (halt, halted(unit.step))
            set_details(f"halted at {unit.id}: {halt.reason}"[:MAX_DETAILS])
            return True
        if "compensate" not in step:
            return self.unwinding
        told = dict(_CUT_OFF) if self.unwinding and _is_cut_off(future) else failure
        return self._compensate(unit, step["compensate"], told) or self.unwinding

    def _compensate(self, unit: Unit, called: Mapping[str, Any], failure: Failure) -> bool:
        number = self._asked[unit] = self._asked.get(unit, 0) + 1
        offered = {"error": failure, "arguments": self._given[unit], "context": self._dag.context}
        try:
            given = arguments_of("compensate", called, **offered)
            future = beside(called, f"{unit.id}:compensate:{number}", given)
        except DurableError as error:
            failure["compensation"] = described(error)
            return False
        self._compensating[future] = failure
        self._dag.follow_beside(future, unit)
        return True

    def decides(self, future: asyncio.Future[Any], unit: Unit, failed: Failure | None) -> bool:
        """Whether the future was that of a `compensate`. If so, what it decided is done; when it failed itself, the step's failure stands and says so."""
        failure = self._compensating.pop(future, None)
        if failure is None:
            return False
        decision = give_up()
        if failed is not None:
            failure = {**failure, "compensation": failed}
        else:
            try:
                decision = read_decision(future.result())
            except ValueError as error:
                failure = {**failure, "compensation": described(error)}
        if decision.decision == "continue":
            self._dag.settle(unit, decision.value, None)
        elif not self.unwinding and not self._runs_again(unit, decision):
            self._dag.settle(unit, None, failure)
        return True

    def is_compensation(self, future: asyncio.Future[Any]) -> bool:
        return future in self._compensating

    def _runs_again(self, unit: Unit, decision: Decision) -> bool:
        most = self._dag.steps[unit.step]["compensate"].get("retries", DEFAULT_RETRIES)
        tried = self._retries.get(unit, 0)
        stopped = self._dag.is_stopping(unit.step)
        if decision.decision != "retry" or tried >= most or stopped:
            return False
        self._retries[unit] = tried + 1
        self._dag.call_again(unit)
        return True

    # -- what is kept back --------------------------------------------------------------------------------------------------

    def is_saga(self) -> bool:
        """Whether something can be undone. Asked for each step that is ready after a failure, and looked up again when steps were added."""
        count, answer = self._looked_up
        if count != len(self._dag.steps):
            count, answer = len(self._dag.steps), any_has(self._dag.steps.values(), "undo")
            self._looked_up = (count, answer)
        return answer

    def keeps_back(self, step: str) -> bool:
        """Whether a step that is ready shall not start now, because another has failed and the run will be undone."""
        if not (self._stops and self._dag.failures and self.is_saga()):
            return False
        if self._dag.is_through(step) or self._cleans_up(step):
            return False
        self._kept[step] = None
        return True

    def _cleans_up(self, step: str) -> bool:
        """Whether a failure let this step run, or one that it depends on."""
        status = self._dag.scheduler.status
        above = [dep["step"] for dep in self._dag.steps[step]["deps"]]
        if any(it in self._cleaning or status[it] in ("failed", "cancelled") for it in above):
            self._cleaning.add(step)
        return step in self._cleaning

    def give_up_kept_back(self) -> list[str]:
        """What is kept back, to be cancelled now; its cause is the failure."""
        cause = next(iter(self._dag.failures), "")
        kept, self._kept = list(self._kept), {}
        for step in kept:
            self._dag.scheduler.cause[step] = cause
        self._cancelled += kept
        return kept

    def retried(self, steps: Iterable[str]) -> tuple[list[str], list[str]]:
        """Failed steps begin again. If no failure is left: the steps that were kept back, and those that were cancelled for being so."""
        again = set(steps)
        for unit in [it for it in self._retries if it.step in again]:
            del self._retries[unit]
        if not again >= set(self._dag.failures):
            return [], []
        kept, cancelled = list(self._kept), self._cancelled
        self._kept, self._cancelled = {}, []
        return kept, cancelled

    # -- what halts ---------------------------------------------------------------------------------------------------------

    def why_halted(self) -> dict[str, str]:
        """Steps and why they have halted."""
        return {unit.step: halt.reason for unit, (halt, _) in self.halts.items()}

    def resume(self) -> list[str]:
        """Go on after what has halted, which thereby completes."""
        halts, self.halts = self.halts, {}
        if halts:
            set_details(None)
        for unit, (halt, wait) in halts.items():
            wait.cancel()
            self._dag.settle(unit, halt.value, None)
        return [unit.id for unit in halts]

    def ended(self, step: str) -> None:
        """Somebody has ended a step; if it had halted, it has not any more."""
        for unit in [it for it in self.halts if it.step == step]:
            _, wait = self.halts.pop(unit)
            wait.cancel()
            if not self.halts:
                set_details(None)

    # -- what is undone -----------------------------------------------------------------------------------------------------

    def is_undone(self) -> bool:
        """Whether anything is being taken back, or has been."""
        return self.unwinding and bool(self.rollback.journal or self.rollback.status)

    async def unwind(self) -> None:
        """End what is under way; then undo what completed, the last first. Failures are collected."""
        self.unwinding = True
        if not self._dag.scheduler.done:
            reversible = any_has(self._dag.steps.values(), "undo", "compensate")
            await self._dag.stop(awaited=reversible)
        while (undo := self.rollback.next()) is not None:
            number = self._undos[undo.unit] = self._undos.get(undo.unit, 0) + 1
            call_id = undo_id(undo.unit, number)
            try:
                await beside(
                    {"activity": undo.activity, "options": undo.options}, call_id, undo.args
                )
            except DurableError as error:
                self.rollback.failed(undo.unit, described(error))
            else:
                self.rollback.undone(undo.unit)


def _is_cut_off(future: asyncio.Future[Any]) -> bool:
    return future.cancelled() or getattr(future.exception(), "retry_state", "") == "cancelled"


def _halt(future: asyncio.Future[Any]) -> Halt | None:
    """What an activity raised to stop the run."""
    cause = None if future.cancelled() else getattr(future.exception(), "__cause__", None)
    return cause if isinstance(cause, Halt) else None
