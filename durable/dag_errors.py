"""The errors about declared workflows; part of the tree in errors.py, and as those they say whose fault each one is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from durable.errors import DurableError, NonRetryable


class InvalidDag(DurableError, ValueError):
    """A DAG cannot be started. The author's fault; nothing was written.

    `.problems` has every problem that was found, a line each, naming the step.
    """

    def __init__(self, name: str, problems: Sequence[str]) -> None:
        super().__init__(f"dag {name!r} is not valid:\n" + "\n".join(f"- {it}" for it in problems))
        self.name = name
        self.problems = list(problems)


class DagFailed(DurableError):
    """A step of a DAG failed, and the DAG's `on_failure` is "fail": the step's fault. Or the run was cancelled and could not be undone wholly.

    `.failed` names the failed steps, `.steps` is the table of all of them as JSON (see `durable.dag.Dag`). `.undo_failures` has an object for each
    `undo` that failed: `step`, in a map `item`, `type` and `message`; what these should have undone is still done.
    """

    def __init__(
        self,
        name: str,
        failed: Sequence[str],
        steps: Mapping[str, Any],
        undo_failures: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        said = f"{len(failed)} of {len(steps)} steps failed: {_shown(failed)}" if failed else ""
        if undo_failures:
            places = _shown([str(it["step"]) for it in undo_failures])
            said += f"{'; ' if said else ''}{len(undo_failures)} could not be undone: {places}"
        super().__init__(f"dag {name!r}: {said}")
        self.name = name
        self.failed = list(failed)
        self.steps = dict(steps)
        self.undo_failures = [dict(it) for it in undo_failures]


class Halt(NonRetryable):
    """Raised by an activity of a DAG: stop here, and keep what has been done. Nobody's fault.

    The run starts no further step until it is resumed (`handle.update("resume")`); the step then counts as completed, with `value` as its result. Elsewhere
    than in a step of a DAG it is a failure that is not tried again.
    """

    def __init__(self, reason: str, value: Any = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.value = value


class NotHalted(DurableError):
    """A DAG was told to resume, and no step of it has halted. The caller's fault; nothing was written."""

    def __init__(self) -> None:
        super().__init__("the dag is not halted; its query `steps` says how its steps stand")


class StepRefused(DurableError):
    """A step of a DAG is not in a state that allows what was asked for. The caller's; nothing was done.

    `.code`: "unknown_step", "bad_status", "step_ended", "step_not_ended", "step_cancelled" (because of another one), "not_waiting" or "undoing". `.step`, `.status`: the step and how it stands.
    `.next_steps`: what is legal instead.
    """

    def __init__(
        self, message: str, code: str, step: str, status: str | None, next_steps: Sequence[str]
    ) -> None:
        legal = f"; you can: {', '.join(next_steps)}" if next_steps else ""
        super().__init__(message + legal)
        self.code = code
        self.step = step
        self.status = status
        self.next_steps = list(next_steps)


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
