"""Interceptors of workflow code: what the core calls around a run's code and around what that starts. None by default, and then nothing is called."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, Protocol, TypeVar

F = TypeVar("F")


@dataclass(frozen=True, slots=True)
class WorkflowExecution:
    """A run's code about to begin, live or in replay."""

    name: str
    workflow_id: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OutboundCall:
    """Something that workflow code starts."""

    kind: Literal["activity", "local", "child"]
    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


class WorkflowInterceptor(Protocol):
    """Around workflow code. It runs in replay too, so it must be deterministic like the workflow itself: no clock, no I/O, no randomness but the durable ones.

    Adding one that gives durable commands of its own changes what old runs do: guard that with `durable.patched(...)`.
    """

    async def execute(
        self, call: WorkflowExecution, next: Callable[[WorkflowExecution], Awaitable[Any]]
    ) -> Any:
        """Around the whole run; `await next(call)` runs it. What is returned or raised is the run's outcome."""
        return await next(call)

    def start(self, call: OutboundCall, next: Callable[[OutboundCall], F]) -> F:
        """Around each activity, local activity and child that the code starts; `next(call)` gives its future."""
        return next(call)


workflow: tuple[WorkflowInterceptor, ...] = ()
"""The process's own, outermost first; set by `durable.use_interceptors`."""


def executing(
    call: WorkflowExecution, innermost: Callable[[WorkflowExecution], Awaitable[Any]]
) -> Any:
    """The coroutine that runs the code within the interceptors."""
    step = innermost
    for it in reversed(workflow):
        step = partial(it.execute, next=step)
    return step(call)


def starting(call: OutboundCall, innermost: Callable[[OutboundCall], F]) -> F:
    """What starting something gives, through the interceptors."""
    step = innermost
    for it in reversed(workflow):
        step = partial(it.start, next=step)
    return step(call)
