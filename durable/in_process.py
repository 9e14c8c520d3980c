"""`durable.local(activity)`: an activity that the worker of the run runs itself, without a queue."""

from __future__ import annotations

import json
from typing import Any, Generic, ParamSpec, TypeVar

from durable.core import interception
from durable.core.futures import ActivityFuture
from durable.core.interception import OutboundCall
from durable.core.loop import current
from durable.core.plans import LocalPlan, RunDefaults
from durable.core.policy import LIBRARY_DEFAULT, RetryPolicy, merge
from durable.definitions import Activity, ActivityCall
from durable.errors import InvalidOption

P = ParamSpec("P")
R = TypeVar("R")


class LocalCall(Generic[P, R]):
    """An activity that will run in the worker's own process; calling it inside a workflow starts it."""

    def __init__(self, call: ActivityCall[P, R]) -> None:
        self._call = call
        self._plans: dict[str, LocalPlan] = {}

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> ActivityFuture[R]:
        """Start the activity; await the future for its result.

        Raises NotInWorkflow outside a workflow, PayloadError if an argument does not fit its annotation.
        """
        run = current()
        if run is None:
            self._call.activity._refuse_outside()
        plan = self._plans.get(run.defaults.retry) or self._plan(run.defaults)
        if interception.workflow:
            return interception.starting(
                OutboundCall("local", self._call.activity.name, args, kwargs),
                lambda call: run.call_locally(plan, call.args, call.kwargs),
            )
        return run.call_locally(plan, args, kwargs)

    def _plan(self, defaults: RunDefaults) -> LocalPlan:
        activity, options = self._call.activity, self._call.options_given
        of_workflow = json.loads(defaults.retry)
        policy = merge(options.retry, RetryPolicy.from_body(of_workflow) if of_workflow else None)
        body: dict[str, Any] = {"name": activity.name}
        if retry := _beyond_default(policy):
            body["retry"] = retry
        if timeouts := options.timeouts.to_body():
            body["timeouts"] = timeouts
        plan = LocalPlan(activity, body, options.cancellation or "try", options.id)
        return self._plans.setdefault(defaults.retry, plan)


def _beyond_default(policy: RetryPolicy) -> dict[str, Any]:
    default = LIBRARY_DEFAULT.to_body()
    return {key: value for key, value in policy.to_body().items() if default[key] != value}


_calls: dict[Any, Any] = {}
"""Of activities as they are declared; those with options of their own may be many."""


def local(activity: ActivityCall[P, R]) -> LocalCall[P, R]:
    """The activity, run by the worker that runs the workflow: `await durable.local(charge)(order)`, also with `.options(...)`.

    No job row and no queue: its outcome is recorded with the run's next commit, which makes it the cheapest recorded step. For short work that needs no
    other machine. It runs at least once: when the worker dies before that commit, another one runs it again. Retries, timeouts and
    cancellation are the activity's; `queue`, `priority`, `schedule_to_start` and `heartbeat_timeout` mean nothing here. Each worker runs at
    most `local_slots` at a time.

    Raises InvalidOption for what is no activity, or a transactional one.
    """
    if not isinstance(activity, ActivityCall):
        raise InvalidOption(
            f"durable.local takes a function decorated with @activity, not {activity!r}"
        )
    if activity.activity.transactional:
        raise InvalidOption(
            f"activity {activity.activity.name!r} is transactional, and its transaction records a job's outcome; call it as a job: {activity.activity.name}(...)"
        )
    if not isinstance(activity, Activity):
        return LocalCall(activity)
    known: LocalCall[P, R] | None = _calls.get(activity)
    if known is None:
        known = _calls[activity] = LocalCall(activity)
    return known
