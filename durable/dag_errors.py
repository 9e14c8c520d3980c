"""The errors about declared workflows; part of the tree in errors.py, and as those they say whose fault each one is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from durable.errors import DurableError


class InvalidDag(DurableError, ValueError):
    """A DAG cannot be started. The author's fault; nothing was written.

    `.problems` has every problem that was found, a line each, naming the step.
    """

    def __init__(self, name: str, problems: Sequence[str]) -> None:
        super().__init__(f"dag {name!r} is not valid:\n" + "\n".join(f"- {it}" for it in problems))
        self.name = name
        self.problems = list(problems)


class DagFailed(DurableError):
    """A step of a DAG failed, and the DAG's `on_failure` is "fail". The step's fault.

    `.failed` names the failed steps, `.steps` is the table of all of them as JSON (see `durable.dag.Dag`).
    """

    def __init__(self, name: str, failed: Sequence[str], steps: Mapping[str, Any]) -> None:
        shown = ", ".join(failed[:10]) + (", ..." if len(failed) > 10 else "")
        super().__init__(f"dag {name!r}: {len(failed)} of {len(steps)} steps failed: {shown}")
        self.name = name
        self.failed = list(failed)
        self.steps = dict(steps)


class StepRefused(DurableError):
    """A step of a DAG is not in a state that allows what was asked for. The caller's; nothing was done.

    `.code`: "unknown_step", "bad_status", "step_ended", "step_not_ended", "step_cancelled" (because of another one) or "not_waiting". `.step`, `.status`: the step and how it stands.
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
