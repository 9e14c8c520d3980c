"""Interceptors: an application's own code around what clients send, around workflow code, and around activities.

Each gets what is about to happen and `next`, which does it; it may change the first, refuse (raise), and see what comes out. Several form a chain, the
first one outermost. They belong to the process: `durable.use_interceptors(...)`, best in the module that defines the workflows.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol, TypeVar

from durable.core import interception
from durable.core.interception import WorkflowInterceptor
from durable.errors import InvalidOption

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ClientRequest:
    """What a client is about to send. `name` is the workflow's, activity's or signal's, `id` the workflow id or job id, if one was given."""

    kind: Literal["start", "enqueue", "signal"]
    name: str
    id: str | None
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    actor: Any
    headers: Mapping[str, Any] | None


class ClientInterceptor(Protocol):
    """Around `start`, `enqueue` and `signal` of every client of the process, before values are checked and anything is written."""

    def send(self, request: ClientRequest, next: Callable[[ClientRequest], T]) -> T:
        """`next(request)` gives the handle or receipt; with AsyncClient an awaitable of it, so to look at it make this `async def` there."""
        return next(request)


@dataclass(frozen=True, slots=True)
class ActivityExecution:
    """An attempt about to run; `durable.activity_info()` says more."""

    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


class ActivityInterceptor(Protocol):
    """Around each attempt of an activity, local ones and standalone jobs included. Runs on the worker's event loop, also for sync functions: do not block."""

    async def execute(
        self, call: ActivityExecution, next: Callable[[ActivityExecution], Awaitable[Any]]
    ) -> Any:
        """`await next(call)` runs the function. What is returned is encoded as its result, what is raised counts as its failure."""
        return await next(call)


_client: tuple[ClientInterceptor, ...] = ()
_activity: tuple[ActivityInterceptor, ...] = ()
_observers: tuple[ClientInterceptor | None, ActivityInterceptor | None] = (None, None)
"""Telemetry's own, outermost whatever the application sets."""


def observe(client: ClientInterceptor | None, activity: ActivityInterceptor | None) -> None:
    """For telemetry: be around everything that the application's interceptors are around, and them."""
    global _observers
    _observers = client, activity


def use_interceptors(
    *,
    client: tuple[ClientInterceptor, ...] | list[ClientInterceptor] = (),
    workflow: tuple[WorkflowInterceptor, ...] | list[WorkflowInterceptor] = (),
    activity: tuple[ActivityInterceptor, ...] | list[ActivityInterceptor] = (),
) -> None:
    """Set the interceptors of this process, outermost first; those that were set before go. Raises InvalidOption for what is none."""
    global _client, _activity
    wanted = (
        ("client", client, "send"),
        ("workflow", workflow, "execute"),
        ("activity", activity, "execute"),
    )
    for kind, given, method in wanted:
        for it in given:
            if isinstance(it, type) or not callable(getattr(it, method, None)):
                raise InvalidOption(
                    f"{it!r} is no {kind} interceptor: give an object with {method}()"
                )
    _client, _activity = tuple(client), tuple(activity)
    interception.workflow = tuple(workflow)


def sending(request: ClientRequest, innermost: Callable[[ClientRequest], T]) -> T:
    """What sending gives, through the interceptors."""
    step = innermost
    for it in reversed(_client):
        step = partial(it.send, next=step)
    if (observer := _observers[0]) is not None:
        return observer.send(request, step)
    return step(request)


def attempting(
    call: ActivityExecution, innermost: Callable[[ActivityExecution], Awaitable[Any]]
) -> Awaitable[Any]:
    """The attempt, through the interceptors."""
    step = innermost
    for it in reversed(_activity):
        step = partial(it.execute, next=step)
    if (observer := _observers[1]) is not None:
        return observer.execute(call, step)
    return step(call)


def around_activities() -> bool:
    return bool(_activity) or _observers[1] is not None
