"""What the core has to know of workflows and activities; the decorators of `durable.definitions` provide it."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

from durable.core.futures import Cancellation
from durable.core.local import LocalTarget
from durable.core.policy import RetryPolicy
from durable.core.styles import Style
from durable.payload import ArgumentsCodec


class Definition(Protocol):
    """What we need to know of a workflow; `durable.definitions.Workflow` is one."""

    @property
    def name(self) -> str: ...
    @property
    def fn(self) -> Callable[..., Any]: ...
    @property
    def style(self) -> Style: ...
    @property
    def arguments(self) -> ArgumentsCodec: ...


class ActivityPlan(NamedTuple):
    """All of an activity call that does not depend on its arguments; made once per activity and set of options.

    `body` holds name, queue, priority, retry and timeouts; it is copied, its members are shared and never changed.
    """

    name: str
    body: dict[str, Any]
    arguments: ArgumentsCodec
    cancellation: Cancellation = "try"
    id: str | None = None


class LocalPlan(NamedTuple):
    """All of a local activity's call that does not depend on its arguments; `body` holds name, retry and timeouts."""

    target: LocalTarget
    body: dict[str, Any]
    cancellation: Cancellation
    id: str | None


class ChildPlan(NamedTuple):
    """All of a child's start that does not depend on its arguments; `body` is copied and completed per call.

    `workflow_id` and `close_policy` are the caller's choice; without an id the child is named after its parent.
    """

    name: str
    body: dict[str, Any]
    arguments: ArgumentsCodec
    cancellation: Cancellation
    workflow_id: str | None
    retry: RetryPolicy | None = None


class RunDefaults(NamedTuple):
    """What the run gives to activities that do not say otherwise."""

    queue: str
    priority: int
    retry: str
    """RetryPolicy.to_body() of the workflow level as JSON text, so that plans can be cached by it."""
    on_exhausted: str = "fail"


run_defaults = lru_cache(maxsize=1024)(RunDefaults)
"""The same defaults are the same object: ten thousand parked runs need no tuple each."""
