"""Recorded histories against the code of this process: does it still do what it did? Nothing is executed but workflow code (C13)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from uuid import UUID

from durable.core.execution import Execution
from durable.definitions import Workflow
from durable.errors import (
    NewerSemantics,
    NondeterminismError,
    PayloadError,
    UnsafeWorkflow,
)
from durable.histories import RecordedHistory
from durable.payload_codecs import default_payloads

Kind = Literal["nondeterminism", "payload", "unsafe", "missing_version", "newer_semantics", "error"]

_KINDS: tuple[tuple[type[Exception], Kind], ...] = (
    (NondeterminismError, "nondeterminism"),
    (PayloadError, "payload"),
    (UnsafeWorkflow, "unsafe"),
    (NewerSemantics, "newer_semantics"),
)


@dataclass(frozen=True, slots=True)
class Incompatibility:
    """A run that the code could not go on with, and why.

    `kind`: nondeterminism (then `event`, `expected`, `got` and `line` are those of NondeterminismError), payload (stored data does not fit the
    code's types), unsafe (the code does what replay cannot repeat), missing_version (the code has the workflow and not this version),
    newer_semantics, error.
    """

    workflow_id: str
    run_id: str
    workflow: str
    version: int
    kind: Kind
    message: str
    event: int | None = None
    expected: Mapping[str, Any] | None = None
    got: Mapping[str, Any] | None = None
    line: str | None = None

    @property
    def likeness(self) -> tuple[Any, ...]:
        """Equal for runs that meet the same change."""
        shapes = [
            (it or {}).get(key) for it in (self.expected, self.got) for key in ("type", "name")
        ]
        text = None if self.kind == "nondeterminism" else self.message
        return (self.workflow, self.version, self.kind, self.line, text, *shapes)


@dataclass(slots=True)
class Report:
    """What was checked. `skipped`: runs of workflows that the code does not have, by name; `pinned`: runs that stay with another build."""

    checked: int = 0
    events: int = 0
    pinned: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    incompatible: list[Incompatibility] = field(default_factory=list)


def replay(
    history: RecordedHistory, workflow: Workflow[..., Any], until_turn: int | None = None
) -> Execution:
    """Run the workflow's code against the recorded turns (up to and with `until_turn`), and return the execution where they end.

    The caller evicts it. Raises what the code or the comparison raises: NondeterminismError, PayloadError, UnsafeWorkflow, ...
    """
    execution = begun(history, workflow)
    rows = [it for it in readable(history).events if until_turn is None or it.turn <= until_turn]
    execution.replay(rows)
    return execution


def begun(history: RecordedHistory, workflow: Workflow[..., Any]) -> Execution:
    """An execution of that run that has replayed nothing yet."""
    return Execution(workflow, UUID(history.run_id), history.workflow_id)


def readable(history: RecordedHistory) -> RecordedHistory:
    """The history with its payloads opened, by this process's codecs (`use_payloads`). Raises PayloadError, e.g. for a key that is not there."""
    payloads = default_payloads()
    events = tuple(
        it._replace(
            body=payloads.opened_body(it.body),
            payload=None if it.payload is None else payloads.opened(it.payload),
        )
        for it in history.events
    )
    return replace(history, events=events)


def incompatibility(
    history: RecordedHistory, workflow: Workflow[..., Any]
) -> Incompatibility | None:
    """Why the code cannot go on with this run; None: it can."""
    try:
        replay(history, workflow).evict()
        if len(history.events) == 1:  # nothing else has read what it was started with
            workflow.arguments.decode(readable(history).events[0].payload or "{}")
    except Exception as error:
        return _described(history, error)
    return None


def missing_version(
    workflow_id: str, run_id: str, workflow: str, version: int, known: list[int]
) -> Incompatibility:
    """The run's version is not in the code, other versions of its workflow are."""
    has = ", ".join(map(str, known))
    message = f"the code has version {has} of {workflow!r} and not version {version}: keep it until its runs have ended"
    return Incompatibility(workflow_id, run_id, workflow, version, "missing_version", message)


def _described(history: RecordedHistory, error: Exception) -> Incompatibility:
    kind = _kind_of(error)
    facts = (history.workflow_id, history.run_id, history.workflow, history.version)
    if isinstance(error, NondeterminismError):
        return Incompatibility(
            *facts, "nondeterminism", error.difference, error.event_seq, error.expected, error.got,
            error.line,
        )  # fmt: skip
    said = str(error) if kind != "error" else f"{type(error).__name__}: {error}"
    return Incompatibility(*facts, kind, said)


def _kind_of(error: Exception) -> Kind:
    for type_, kind in _KINDS:
        if isinstance(error, type_):
            return kind
    return "error"


class Verification:
    """Checks histories one by one against a set of workflows, and keeps the report."""

    def __init__(
        self,
        workflows: Mapping[tuple[str, int], Workflow[..., Any]],
        progress: Callable[[Report], None],
    ) -> None:
        self.report = Report()
        self._workflows = workflows
        self._progress = progress
        self._versions: dict[str, list[int]] = {}
        for name, version in sorted(workflows):
            self._versions.setdefault(name, []).append(version)

    def concerns(self, workflow_id: str, run_id: str, workflow: str, version: int) -> bool:
        """Whether the code has this run's workflow, so that its history is worth reading; what is said otherwise is in the report."""
        if (workflow, version) in self._workflows:
            return True
        if versions := self._versions.get(workflow):
            missing = missing_version(workflow_id, run_id, workflow, version, versions)
            self.report.checked += 1
            self.report.incompatible.append(missing)
        else:
            self.report.skipped[workflow] += 1
        return False

    def check(self, history: RecordedHistory) -> None:
        """Replay a history of a run that `concerns` the code."""
        found = incompatibility(history, self._workflows[history.workflow, history.version])
        if found is not None:
            self.report.incompatible.append(found)
        self.report.checked += 1
        self.report.events += len(history.events)
        self._progress(self.report)
