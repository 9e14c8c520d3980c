"""What others may do to the steps of a run while it is open: complete, cancel and retry one, and give a held run up.

Each is an update of the interpreter, so it is validated before anything is recorded, idempotent under its id, in the order of the history, and replayed in its place. Whether
it is legal is asked of the table of steps. An end is never overwritten: a completion that comes after another end is refused, and so is the late outcome of what the step was
doing, because nobody listens to it any more. The same completion again gets the answer of the first.
"""

from __future__ import annotations

import json
from shlex import quote
from typing import TYPE_CHECKING, Any, get_args

from durable.authoring import info
from durable.dag.scheduler import FINAL, Completion
from durable.dag_errors import StepRefused
from durable.handlers import current_update, query, update

if TYPE_CHECKING:
    from durable.dag.interpreter import Interpretation

SHOWN = 100
"""So many of the other steps that an operation changed are named in its answer."""

Receipt = dict[str, Any]
"""`step`, its `status` now, and `others`: steps that were released, cancelled or revived by it."""


def register(dag: Interpretation) -> None:
    """Give the run its updates, and the queries by which clients know beforehand."""
    operations = StepOperations(dag)

    @update
    def complete_step(step: str, status: str, payload: Any = None) -> Receipt:
        return operations.complete(step, status, payload)

    @complete_step.validator
    def may_complete(step: str, status: str, payload: Any = None) -> None:
        operations.check_complete(step, status, payload)

    @update
    def cancel_step(step: str, reason: str) -> Receipt:
        return operations.cancel(step, reason)

    @cancel_step.validator
    def may_cancel(step: str, reason: str) -> None:  # noqa: ARG001
        operations.check_cancel(step)

    @update
    def retry_step(step: str | None, reason: str) -> Receipt:
        return operations.retry(step, reason)

    @retry_step.validator
    def may_retry(step: str | None, reason: str) -> None:  # noqa: ARG001
        operations.check_retry(step)

    @update
    def give_up(reason: str) -> None:  # noqa: ARG001
        dag.give_up()

    @give_up.validator
    def may_give_up(reason: str) -> None:  # noqa: ARG001
        operations.check_give_up()

    @query
    def may_retry_step(step: str | None) -> None:
        operations.check_retry(step)

    @query
    def completion(step: str, status: str, payload: Any = None) -> Receipt | None:
        return operations.first_answer(step, status, payload)


class StepOperations:
    """The operations on the steps of one run."""

    def __init__(self, dag: Interpretation) -> None:
        self._dag = dag
        self._status = dag.scheduler.status
        self._answers: dict[str, tuple[str, Receipt]] = {}
        """By step: what it was completed with, and what was answered."""

    # -- complete -------------------------------------------------------------------------------------------------------

    def check_complete(self, step: str, status: str, payload: Any) -> None:
        """Raises StepRefused."""
        self._check_open(step)
        now = self._known(step)
        if status not in get_args(Completion):
            text = f"a step cannot be completed as {status!r}"
            raise StepRefused(text, "bad_status", step, now, get_args(Completion))
        if (now in FINAL or step in self._dag.early) and not self.first_answer(
            step, status, payload
        ):
            shown = (
                now if now in FINAL else f"to be {self._dag.early[step][0]}, with another payload"
            )
            self._refuse(f"step {step!r} is {shown} already", "step_ended", step)

    def first_answer(self, step: str, status: str, payload: Any) -> Receipt | None:
        """What this very completion was answered when it came first."""
        given, answer = self._answers.get(step, ("", {}))
        return answer if given == _canonical(status, payload) else None

    def complete(self, step: str, status: str, payload: Any) -> Receipt:
        """A step that has not begun keeps it until its dependencies allow."""
        self.check_complete(step, status, payload)  # two of one turn
        if (answer := self.first_answer(step, status, payload)) is not None:
            return answer
        dag, chosen = self._dag, status
        self._note("complete_step", step, None)
        before = dict(self._status)
        if before[step] == "pending":
            dag.early[step] = (chosen, payload)  # type: ignore[assignment]
        else:
            dag.complete_by_hand(step, chosen, payload)  # type: ignore[arg-type]
        answer = self._receipt(step, before)
        self._answers[step] = (_canonical(status, payload), answer)
        return answer

    # -- cancel, retry, give up -----------------------------------------------------------------------------------------

    def check_cancel(self, step: str) -> None:
        """Raises StepRefused."""
        self._check_open(step)
        now = self._known(step)
        if now in FINAL and not (now == "cancelled" and self._is_by_hand(step)):
            self._refuse(f"step {step!r} is {now} already", "step_ended", step)

    def cancel(self, step: str, reason: str) -> Receipt:
        self.check_cancel(step)
        before = dict(self._status)
        if before[step] not in FINAL:
            self._note("cancel_step", step, reason)
            self._dag.cancel(step)
        return self._receipt(step, before)

    def check_retry(self, step: str | None) -> None:
        """`step` None: all that failed. Raises StepRefused."""
        self._check_open(step or "")
        if step is None:
            if not self._dag.failures:
                raise StepRefused("no step has failed", "step_not_ended", "", None, ())
            return
        now = self._known(step)
        if now not in FINAL:
            self._refuse(f"step {step!r} is {now}", "step_not_ended", step)
        if now == "cancelled" and (cause := self._root(step)) != step:
            text = f"step {step!r} was cancelled because of {cause!r}"
            raise StepRefused(text, "step_cancelled", step, now, self._legal(cause))
        if now not in ("failed", "cancelled"):
            self._refuse(f"step {step!r} is {now}", "step_ended", step)

    def retry(self, step: str | None, reason: str) -> Receipt:
        self.check_retry(step)
        names = list(self._dag.failures) if step is None else [step]
        before = dict(self._status)
        for name in self._dag.retry(names):
            if name not in self._dag.early:  # what was completed before its time still will be
                self._answers.pop(name, None)
                self._dag.by_hand.pop(name, None)
        for name in names:
            self._note("retry_step", name, reason)
        return self._receipt(names[0], before)

    def check_give_up(self) -> None:
        """Raises StepRefused."""
        if not self._dag.may_be_held:
            text = 'the run does not wait for an operator: its dag was not declared with on_failure="wait"'
            raise StepRefused(text, "not_waiting", "", None, (f"durable cancel {_id()}",))

    # -- what is so -----------------------------------------------------------------------------------------------------

    def _known(self, step: str) -> str:
        if step not in self._status:
            some = sorted(self._status)[:10]
            text = f"the dag has no step {step!r}; it has: {', '.join(some)}{', ...' if len(self._status) > 10 else ''}"
            raise StepRefused(text, "unknown_step", step, None, ())
        return self._status[step]

    def _check_open(self, step: str) -> None:
        if self._dag.saga.is_undone():
            text = "the run is being undone, or has been, so no step of it can change any more"
            raise StepRefused(text, "undoing", step, self._status.get(step), ())

    def _root(self, step: str) -> str:
        """The step because of which it was, in the end, cancelled: itself if by hand."""
        cause = self._dag.scheduler.cause
        while step in cause:
            step = cause[step]
        return step

    def _is_by_hand(self, step: str) -> bool:
        return self._dag.by_hand.get(step, {}).get("operation") == "cancel_step"

    def _refuse(self, text: str, code: str, step: str) -> None:
        raise StepRefused(text, code, step, self._status[step], self._legal(step))

    def _legal(self, step: str) -> list[str]:
        """The commands that the state of a step allows."""
        status, on = self._status[step], f"{quote(_id())} {quote(step)}"
        if status not in FINAL:
            complete, cancel = f"complete-step {on} JSON", f"cancel-step {on} --reason WHY"
            return [f"durable dag {complete}", f"durable dag {cancel}"]
        retry = [f"durable dag retry-step {on} --reason WHY"]
        return (
            retry
            if status == "failed" or (status == "cancelled" and self._root(step) == step)
            else []
        )

    def _note(self, operation: str, step: str, reason: str | None) -> None:
        """Who did what: part of the table."""
        made = current_update()
        said = {"operation": operation, "reason": reason, "actor": made and made.actor}
        self._dag.by_hand[step] = {key: it for key, it in said.items() if it is not None}

    def _receipt(self, step: str, before: dict[str, Any]) -> Receipt:
        others = [it for it, was in before.items() if it != step and self._status[it] != was]
        return {"step": step, "status": self._status[step], "others": others[:SHOWN]}


def _canonical(status: str, payload: Any) -> str:
    return json.dumps([status, payload], sort_keys=True)


def _id() -> str:
    return info().workflow_id
