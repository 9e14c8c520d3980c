"""`@workflow` and `@activity`: what authors' functions become, and the register of them.

The decorators keep the function as `.fn` and its types: `Workflow[P, R]` and `Activity[P, R]` have the parameters of the function,
and R is what it gives in the end, whether it is written with `async def`, as a generator or with plain `def`.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Coroutine, Generator
from datetime import timedelta
from functools import update_wrapper
from types import FunctionType
from typing import Any, Generic, Literal, NoReturn, ParamSpec, Protocol, TypeVar, overload

from durable.activity_modes import check_process, chunk_of
from durable.core import interception
from durable.core.children import ChildFuture
from durable.core.futures import ActivityFuture, Cancellation
from durable.core.interception import OutboundCall
from durable.core.loop import current
from durable.core.names import checked_name, checked_priority
from durable.core.plans import ActivityPlan, ChildPlan, RunDefaults
from durable.core.policy import LifeLimits, RetryPolicy, Timeouts, merge
from durable.core.scan import live_scope, scan
from durable.core.styles import Style, style_of
from durable.errors import ActorRequired, InvalidOption, NotInWorkflow, UnsafeWorkflow
from durable.options import (
    ActivityOptions,
    ChildOptions,
    ClosePolicy,
    OnExhausted,
    beyond_default,
    checked_on_exhausted,
    job_options,
    unless_empty,
    unless_fail,
)
from durable.payload import ArgumentsCodec
from durable.schedules import Schedule, checked_declaration
from durable.transactional import TransactionalDecorator, connection_parameter
from durable.unique import Unique

P = ParamSpec("P")
R = TypeVar("R")

DEFAULTS_KEY = "x-durable"
"""Where a registered schema keeps what else somebody without the code has to know about a definition."""

# -- activities -------------------------------------------------------------------------------------------------------


class ActivityCall(Generic[P, R]):
    """An activity with options; calling it inside a workflow starts it."""

    def __init__(self, activity: Activity[P, R], options: ActivityOptions) -> None:
        self.activity = activity
        self.options_given = options
        self._plans: dict[RunDefaults, ActivityPlan] = {}

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> ActivityFuture[R]:
        """Start the activity; await the future for its result.

        Raises NotInWorkflow outside a workflow, PayloadError if an argument does not fit its annotation.
        """
        run = current()
        if run is None:
            self.activity._refuse_outside()
        plan = self._plans.get(run.defaults) or self._plan(run.defaults)
        if interception.workflow:
            return interception.starting(
                OutboundCall("activity", plan.name, args, kwargs),
                lambda call: run.start_activity(plan, call.args, call.kwargs),
            )
        return run.start_activity(plan, args, kwargs)

    def _plan(self, defaults: RunDefaults) -> ActivityPlan:
        options, activity = self.options_given, self.activity
        workflow_retry = json.loads(defaults.retry)
        of_workflow = RetryPolicy.from_body(workflow_retry) if workflow_retry else None
        body = {
            "name": activity.name,
            "queue": options.queue or defaults.queue,
            "priority": defaults.priority if options.priority is None else options.priority,
            **unless_empty("retry", beyond_default(merge(options.retry, of_workflow))),
            **unless_empty("timeouts", options.timeouts.to_body()),
            **unless_fail(options.on_exhausted or defaults.on_exhausted),
            **dict.fromkeys(
                ("id", "digest", "line"), ""
            ),  # filled in per call; here they give the copy its size
        }
        plan = ActivityPlan(
            activity.name, body, activity.arguments, options.cancellation or "try", options.id
        )
        return self._plans.setdefault(defaults, plan)


class Activity(ActivityCall[P, R]):
    """A function that workflows start as a job of a queue.

    `.fn` is the plain function, `.arguments` encodes its arguments and `.arguments.result` what it returns.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        name: str | None,
        options: ActivityOptions,
        *,
        require_actor: bool = False,
        transactional: bool = False,
        process: bool = False,
        chunk_size: int | None = None,
        chunk_wait: timedelta | None = None,
        unique: Unique | None = None,
    ) -> None:
        super().__init__(self, options)
        self.process = process
        self.require_actor = require_actor
        self.transactional = transactional
        self.fn = fn
        self.name = checked_name("the activity's name", fn.__name__ if name is None else name)
        injected = (connection_parameter(fn, self.name),) if transactional else ()
        self.arguments = ArgumentsCodec(fn, name=self.name, injected=injected)
        self.is_async = inspect.iscoroutinefunction(fn)
        self.chunk = chunk_of(self.name, fn, chunk_size, chunk_wait)
        if process:
            check_process(self.name, fn, transactional=transactional)
        if self.chunk and (process or transactional):
            raise InvalidOption(
                f"activity {self.name!r}: chunk_size goes with neither process nor transactional"
            )
        self.unique = unique
        if unique is not None:
            unique.check_fields(self.name, self.arguments.parameters)
        self.schedule: Schedule | None = None
        update_wrapper(self, fn)

    @property
    def can_be_stopped(self) -> bool:
        """Whether an attempt ends when it is told to: a coroutine or a process does, a thread only at its next heartbeat."""
        return self.is_async or self.process

    @property
    def queue(self) -> str | None:
        return self.options_given.queue

    @property
    def priority(self) -> int | None:
        return self.options_given.priority

    @property
    def retry(self) -> RetryPolicy | None:
        return self.options_given.retry

    @property
    def timeouts(self) -> Timeouts:
        return self.options_given.timeouts

    @property
    def cancellation(self) -> Cancellation:
        return self.options_given.cancellation or "try"

    def job_options(self) -> dict[str, Any]:
        """What a job of it carries besides its arguments, its priority, and what makes it unique: for those who enqueue it by name."""
        unique = {} if self.unique is None else {"unique": self.unique.to_body()}
        return {**job_options(self.options_given), "priority": self.priority or 0, **unique}

    def options(
        self,
        *,
        queue: str | None = None,
        priority: int | None = None,
        retry: RetryPolicy | None = None,
        timeout: timedelta | None = None,
        schedule_to_close: timedelta | None = None,
        schedule_to_start: timedelta | None = None,
        heartbeat_timeout: timedelta | None = None,
        cancellation: Cancellation | None = None,
        id: str | None = None,
        on_exhausted: OnExhausted | None = None,
    ) -> ActivityCall[P, R]:
        """The same activity with other options for this call; what is not given stays. See `ActivityOptions`."""
        given = ActivityOptions(
            queue,
            priority,
            retry,
            timeout,
            schedule_to_close,
            schedule_to_start,
            heartbeat_timeout,
            cancellation,
            id,
            on_exhausted,
        )
        return ActivityCall(self, given.over(self.options_given))

    def _refuse_outside(self) -> NoReturn:
        name = self.name
        raise NotInWorkflow(
            f"activity {name!r} was called outside a workflow, where nothing can record it. To run the plain function:"
            f" {name}.fn(...). To run it as a job of its own: client.enqueue({name}, ...). To run it as a step: call it"
            " inside a workflow"
        )

    def __repr__(self) -> str:
        return f"<activity {self.name!r}>"


class _ActivityDecorator(Protocol):
    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Activity[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Activity[P, R]: ...
    def __call__(self, fn: Any, /) -> Any: ...


@overload
def activity(fn: Callable[P, Coroutine[Any, Any, R]], /) -> Activity[P, R]: ...
@overload
def activity(fn: Callable[P, R], /) -> Activity[P, R]: ...
@overload
def activity(
    *,
    name: str | None = None,
    queue: str | None = None,
    priority: int | None = None,
    retry: RetryPolicy | None = None,
    timeout: timedelta | None = None,
    schedule_to_close: timedelta | None = None,
    schedule_to_start: timedelta | None = None,
    heartbeat_timeout: timedelta | None = None,
    cancellation: Cancellation | None = None,
    on_exhausted: OnExhausted | None = None,
    require_actor: bool = False,
    transactional: Literal[False] = False,
    process: bool = False,
    chunk_size: int | None = None,
    chunk_wait: timedelta | None = None,
    unique: Unique | None = None,
    schedule: Schedule | None = None,
) -> _ActivityDecorator: ...
@overload
def activity(
    *,
    transactional: Literal[True],
    name: str | None = None,
    queue: str | None = None,
    priority: int | None = None,
    retry: RetryPolicy | None = None,
    timeout: timedelta | None = None,
    schedule_to_close: timedelta | None = None,
    schedule_to_start: timedelta | None = None,
    heartbeat_timeout: timedelta | None = None,
    cancellation: Cancellation | None = None,
    on_exhausted: OnExhausted | None = None,
    require_actor: bool = False,
    unique: Unique | None = None,
    schedule: Schedule | None = None,
) -> TransactionalDecorator: ...
def activity(
    fn: Any = None,
    /,
    *,
    name: str | None = None,
    require_actor: bool = False,
    transactional: bool = False,
    process: bool = False,
    chunk_size: int | None = None,
    chunk_wait: timedelta | None = None,
    unique: Unique | None = None,
    schedule: Schedule | None = None,
    **options: Any,
) -> Any:
    """Make a function an activity: `@activity` or `@activity(queue=..., retry=..., timeout=..., ...)`.

    The function may be sync (it runs in a thread) or async. `name` defaults to its `__name__` and must stay the same while runs
    that use it are alive. With `require_actor` it is not enqueued anonymously. With `transactional` its first parameter is the psycopg connection (an
    AsyncConnection for `async def`) of the transaction that also records its outcome: exactly once (C5). Callers do not pass it. With `process` a plain
    function runs in a process of its own instead of a thread: for work that computes, and that is killed when it times out or is cancelled. With `chunk_size` its list may be
    that of several jobs, joined up to so many items; see docs/guide/jobs.md. `unique` is what its enqueues say unless they say something else. `schedule` has workers
    enqueue it as a job of its own at times: `schedule=durable.cron("0 9 * * *")`. The other options are those of `ActivityOptions`. Raises InvalidOption on an impossible
    option, or if another function has the name.
    """

    def decorate(fn: Any) -> Any:
        made: Activity[..., Any] = Activity(
            fn,
            name,
            given,
            require_actor=require_actor,
            transactional=transactional,
            process=process,
            chunk_size=chunk_size,
            chunk_wait=chunk_wait,
            unique=unique,
        )
        return _register(_activities, _scheduled(made, schedule), "activity")

    given = ActivityOptions(**options)
    return decorate if fn is None else decorate(fn)


# -- workflows --------------------------------------------------------------------------------------------------------


class WorkflowCall(Generic[P, R]):
    """A workflow with options; calling it inside a workflow starts a child."""

    def __init__(self, workflow: Workflow[P, R], options: ChildOptions) -> None:
        self.workflow = workflow
        self.options_given = options
        self._plans: dict[RunDefaults, ChildPlan] = {}

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> ChildFuture[R]:
        """Start the workflow as a child of the calling one; await the future for its result.

        Raises NotInWorkflow outside a workflow, PayloadError if an argument does not fit its annotation.
        """
        run = current()
        if run is None:
            self.workflow._refuse_outside()
        if self.workflow.require_actor and run.start.get("actor") is None:
            raise ActorRequired("workflow", self.workflow.name)
        plan = self._plans.get(run.defaults) or self._plan(run.defaults)
        if interception.workflow:
            return interception.starting(
                OutboundCall("child", plan.name, args, kwargs),
                lambda call: run.start_child(plan, call.args, call.kwargs),
            )
        return run.start_child(plan, args, kwargs)

    def _plan(self, defaults: RunDefaults) -> ChildPlan:
        options, workflow = self.options_given, self.workflow
        priority = workflow.priority if options.priority is None else options.priority
        body = {
            "workflow": workflow.name,
            "version": workflow.version,
            "queue": options.queue or workflow.queue or defaults.queue,
            "priority": defaults.priority if priority is None else priority,
            "close_policy": options.close_policy or "terminate",
            **({"pinned": True} if workflow.pinned else {}),
            **({} if workflow.retry is None else {"retry": workflow.retry.to_body()}),
            **unless_fail(workflow.on_exhausted),
            **workflow.limits.to_body(),
            **options.limits.to_body(),
            **({} if options.retry is None else {"child_retry": options.retry.to_body()}),
        }
        cancellation = options.cancellation or "wait"
        plan = ChildPlan(
            workflow.name, body, workflow.arguments, cancellation, options.id, options.retry
        )
        return self._plans.setdefault(defaults, plan)


class Workflow(WorkflowCall[P, R]):
    """A workflow function. `.fn` is the plain function, `.style` how it is written, `(name, version)` its identity."""

    def __init__(
        self,
        fn: Callable[..., Any],
        name: str | None,
        version: int,
        queue: str | None,
        priority: int | None,
        retry: RetryPolicy | None,
        *,
        require_actor: bool = False,
        on_exhausted: OnExhausted | None = None,
        limits: LifeLimits | None = None,
        pinned: bool = False,
    ) -> None:
        super().__init__(self, ChildOptions())
        self.fn = fn
        self.name = checked_name("the workflow's name", fn.__name__ if name is None else name)
        self.version = checked_version("version", version)
        self.style: Style = style_of(fn)
        _refuse_unsafe(self.name, fn)
        self.queue = None if queue is None else checked_name("queue", queue)
        self.priority = None if priority is None else checked_priority("priority", priority)
        self.retry = retry
        self.require_actor = require_actor
        self.on_exhausted = checked_on_exhausted(on_exhausted)
        self.limits = limits or LifeLimits()
        self.pinned = pinned
        self.arguments = ArgumentsCodec(fn, name=self.name)
        self.schedule: Schedule | None = None
        update_wrapper(self, fn)

    def options(
        self,
        *,
        id: str | None = None,
        queue: str | None = None,
        priority: int | None = None,
        close_policy: ClosePolicy | None = None,
        cancellation: Cancellation | None = None,
        run_timeout: timedelta | None = None,
        execution_timeout: timedelta | None = None,
        retry: RetryPolicy | None = None,
    ) -> WorkflowCall[P, R]:
        """The same workflow with options for this child. See `ChildOptions`."""
        given = ChildOptions(
            id, queue, priority, close_policy, cancellation, run_timeout, execution_timeout, retry
        )
        return WorkflowCall(self, given)

    def continue_as_new(self, *args: P.args, **kwargs: P.kwargs) -> NoReturn:
        """`durable.continue_as_new`, with checked types: the calling run ends, and this workflow goes on under its id."""
        run = current()
        if run is None:
            raise NotInWorkflow(f"{self.name}.continue_as_new works inside a workflow only")
        run.continue_as_new(self.name, self.version, self.arguments, args, kwargs)

    def _refuse_outside(self) -> NoReturn:
        name = self.name
        raise NotInWorkflow(
            f"workflow {name!r} was called outside a workflow, where nothing can record it. To start a run:"
            f" client.start({name}, ...). To run the plain function, in a test: {name}.fn(...)"
        )

    def __repr__(self) -> str:
        return f"<workflow {self.name!r} version {self.version}>"


def checked_version(option: str, value: Any) -> int:
    """`value` if it can be the version of a workflow. Raises InvalidOption, naming `option`."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 2**31:
        raise InvalidOption(f"{option} is {value!r}; give a whole number from 1")
    return value


def _refuse_unsafe(name: str, fn: Any) -> None:
    """Raises UnsafeWorkflow with everything in the function that replay could not repeat (C13)."""
    plain = inspect.unwrap(fn)
    if not isinstance(plain, FunctionType):
        return
    findings = scan(plain.__code__, live_scope(plain))
    if errors := [each._asdict() for each in findings if each.level == "error"]:
        raise UnsafeWorkflow(name, errors)


class _WorkflowDecorator(Protocol):
    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Workflow[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, Generator[Any, Any, R]], /) -> Workflow[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Workflow[P, R]: ...
    def __call__(self, fn: Any, /) -> Any: ...


@overload
def workflow(fn: Callable[P, Coroutine[Any, Any, R]], /) -> Workflow[P, R]: ...
@overload
def workflow(fn: Callable[P, Generator[Any, Any, R]], /) -> Workflow[P, R]: ...
@overload
def workflow(fn: Callable[P, R], /) -> Workflow[P, R]: ...
@overload
def workflow(
    *,
    name: str | None = None,
    version: int = 1,
    queue: str | None = None,
    priority: int | None = None,
    retry: RetryPolicy | None = None,
    require_actor: bool = False,
    on_exhausted: OnExhausted | None = None,
    run_timeout: timedelta | None = None,
    execution_timeout: timedelta | None = None,
    pinned: bool = False,
    schedule: Schedule | None = None,
) -> _WorkflowDecorator: ...
def workflow(
    fn: Any = None,
    /,
    *,
    name: str | None = None,
    version: int = 1,
    queue: str | None = None,
    priority: int | None = None,
    retry: RetryPolicy | None = None,
    require_actor: bool = False,
    on_exhausted: OnExhausted | None = None,
    run_timeout: timedelta | None = None,
    execution_timeout: timedelta | None = None,
    pinned: bool = False,
    schedule: Schedule | None = None,
) -> Any:
    """Make a function a workflow: `@workflow` or `@workflow(name=..., version=..., ...)`.

    The function may be `async def`, a generator, or plain `def`. `name` defaults to its `__name__`; several versions of one name may be
    registered at once: runs stay with theirs, a start by name takes the newest. A `pinned` workflow's runs stay with the worker build
    (`durable-worker --build`) that took their first turn. `queue` and `priority` are what
    its runs are started with, `retry` and `on_exhausted` hold for its activities where they do not say (C6; see `OnExhausted`). With `require_actor` a start without an
    actor is refused (ActorRequired), by clients, parents and the SQL API alike. `run_timeout` and `execution_timeout` end a run that takes
    longer, as `LifeLimits` says. `schedule` has workers start it at times: `schedule=durable.cron("0 9 * * *", timezone="Europe/Berlin")`.
    Raises InvalidOption on an
    impossible option, or if another function has the name and version, and UnsafeWorkflow with all that the function does and replay
    could not repeat: clock, entropy, I/O, threads, blocking calls (C13).
    """

    def decorate(fn: Any) -> Any:
        made: Workflow[..., Any] = Workflow(
            fn,
            name,
            version,
            queue,
            priority,
            retry,
            require_actor=require_actor,
            on_exhausted=on_exhausted,
            pinned=pinned,
            limits=limits,
        )
        return _register(_workflows, _scheduled(made, schedule), "workflow")

    limits = LifeLimits(run_timeout, execution_timeout)
    return decorate if fn is None else decorate(fn)


# -- the register -----------------------------------------------------------------------------------------------------

_Key = tuple[str, int, str]

_workflows: dict[_Key, Workflow[..., Any]] = {}
_activities: dict[_Key, Activity[..., Any]] = {}


def described(it: Workflow[..., Any] | Activity[..., Any]) -> dict[str, Any]:
    """What is registered for those without the code: the schema of the arguments, and under DEFAULTS_KEY the defaults of a start,
    and the schema of an activity's result.
    """
    defaults: dict[str, Any] = {"require_actor": True} if it.require_actor else {}
    if isinstance(it, Activity):
        defaults["result"] = it.arguments.result.json_schema()
    else:
        defaults |= unless_fail(it.on_exhausted)
        defaults |= it.limits.to_body()
        if it.pinned:
            defaults["pinned"] = True
    return {**it.arguments.json_schema(), **({DEFAULTS_KEY: defaults} if defaults else {})}


def registered_workflows(module: str | None = None) -> list[Workflow[..., Any]]:
    """All decorated workflows, or those that a module defines."""
    return [it for it in _workflows.values() if module in (None, it.fn.__module__)]


def registered_activities(module: str | None = None) -> list[Activity[..., Any]]:
    """All decorated activities, or those that a module defines."""
    return [it for it in _activities.values() if module in (None, it.fn.__module__)]


def _scheduled(it: Any, schedule: Schedule | None) -> Any:
    it.schedule = schedule
    checked_declaration(it)
    return it


def _register(register: dict[_Key, Any], it: Any, kind: str) -> Any:
    """Keep a definition by its name and the file it is in. Which of two applications' `charge` is meant, a worker's modules say."""
    key = (it.name, getattr(it, "version", 1), _file(it.fn))
    other = register.get(key)
    if other is not None and not _same_place(other.fn, it.fn):
        raise defined_twice(kind, other, it)
    register[key] = it
    return it


def defined_twice(kind: str, one: Any, other: Any) -> InvalidOption:
    """The error about two definitions of one name where one is needed."""
    return InvalidOption(
        f"{kind} {one.name!r} is defined twice: in {_place(one.fn)} and in {_place(other.fn)}."
        f" Give one of them another name=" + (" or version=" if kind == "workflow" else "")
    )


def _same_place(one: Any, other: Any) -> bool:
    """The same function imported again (a reload, or as __main__), or a local one, which only its caller can mean."""
    local = "<locals>" in one.__qualname__ or "<locals>" in other.__qualname__
    return local or one.__qualname__ == other.__qualname__


def _file(fn: Any) -> Any:
    return getattr(getattr(inspect.unwrap(fn), "__code__", None), "co_filename", fn.__module__)


def _place(fn: Any) -> str:
    return f"{fn.__module__}.{fn.__qualname__}"
