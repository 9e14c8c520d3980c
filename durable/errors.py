"""Every error of `durable`, and whose fault each one is.

The tree has five branches by who has to act: the author of a workflow or activity, the caller of
`result()`, the workflow that awaited something, the operator, and us (`InternalError`). All of them
are `DurableError`, except the two that user code must never catch: `Evicted` and `ContinueAsNew`
are control flow and derive from BaseException, so that `except Exception` lets them pass (C12).

Messages say what happened, whose fault it is and what to do next. Attributes carry the same facts
for programs.

Copying and pickling keep the message, the attributes, the notes and the cause: `_Portable` rebuilds
an error without running its constructor, because constructors here compose messages and would
compose them twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def _rebuild(cls: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    """Make an instance of `cls` with these `args`, without running its `__init__`."""
    error = cls.__new__(cls, *args)
    error.args = args  # OSError.__new__ (a base of ActivityTimeout) leaves them empty
    return error


class _Portable(BaseException):
    """Keeps attributes and the cause through copy and pickle."""

    def __reduce__(self) -> tuple[Any, ...]:
        state = dict(self.__dict__)
        if self.__cause__ is not None:
            state["__cause__"] = self.__cause__
        return _rebuild, (type(self), self.args), state


class DurableError(_Portable, Exception):
    """The base of every error that `durable` raises on purpose."""

    @property
    def cause(self) -> BaseException | None:
        """The failure behind this one, rebuilt as far as possible; the same object as
        `__cause__`.
        """
        return self.__cause__


# -- the author's errors ---------------------------------------------------------------------------


class PayloadError(DurableError):
    """A value cannot be stored, or stored data does not fit the code (C18).

    The author's or caller's fault. `field` is the parameter name and path (`order.items.0.price`),
    `rule` what was broken, `remedy` what to do. Nothing was written.
    """

    def __init__(self, field: str, rule: str, remedy: str) -> None:
        super().__init__(f"{field}: {rule}. {remedy}")
        self.field = field
        self.rule = rule
        self.remedy = remedy


class NondeterminismError(DurableError):
    """The workflow's code no longer does what its history says (C13).

    The author's fault: the code changed under a running workflow, or it decides by something that
    differs between two executions. `event_seq` is the event where they part; `expected` describes
    what history holds there and `got` what the code gave (None: nothing); `line` is the source
    line, `file:number`, of the command. The run is parked, not lost (C8): deploy the code it was
    started with, or guard the change with `durable.patched(id)`.
    """

    def __init__(
        self,
        *,
        event_seq: int,
        expected: Mapping[str, Any] | None,
        got: Mapping[str, Any] | None,
        line: str | None = None,
    ) -> None:
        self.event_seq = event_seq
        self.expected = None if expected is None else dict(expected)
        self.got = None if got is None else dict(got)
        self.line = line
        super().__init__(self._text())

    @property
    def difference(self) -> str:
        """What differs, and where; the message without what to do about a parked run."""
        where = f" at {self.line}" if self.line else ""
        lines = [
            f"the code and the history part at event {self.event_seq}",
            f"  history says: {_one_line(self.expected)}",
            f"  the code gave{where}: {_one_line(self.got)}",
            *(f"  differs in {text}" for text in _differences(self.expected, self.got)),
            *_about_patches(self.expected),
        ]
        return "\n".join(lines)

    def _text(self) -> str:
        remedy = [
            "  The run is parked, nothing is lost. Deploy the code that it was started with,",
            "  guard the change with durable.patched(id), or reset or fork the run.",
        ]
        return "\n".join([self.difference, *remedy])


def _about_patches(expected: Mapping[str, Any] | None) -> list[str]:
    if expected is None or expected.get("type") != "PatchRecorded":
        return []
    patch = repr(expected["id"])
    return [
        f"  The run has the change {patch}, and this code does not ask for it here. If the code is older than the change, a newer",
        f"  worker will take the run. If durable.patched({patch}) was removed: put durable.deprecate_patch({patch}) in its place until no",
        "  open run has this mark. If it was moved, or its id is used for two changes: give each change an id of its own.",
    ]


def _one_line(command: Mapping[str, Any] | None) -> str:
    if command is None:
        return "nothing more here"
    return ", ".join(f"{key}={value!r}" for key, value in command.items())


def _differences(expected: Mapping[str, Any] | None, got: Mapping[str, Any] | None) -> list[str]:
    if expected is None or got is None:
        return []
    keys = dict.fromkeys((*expected, *got))
    absent = object()
    return [
        f"{key}: {_shown(expected, key)} -> {_shown(got, key)}"
        for key in keys
        if expected.get(key, absent) != got.get(key, absent)
    ]


def _shown(command: Mapping[str, Any], key: str) -> str:
    return repr(command[key]) if key in command else "(absent)"


class NotInWorkflow(DurableError):
    """A durable call was made outside a workflow.

    The author's fault. Inside a workflow the call starts something; outside it, use `f.fn(...)` to
    run the plain function, or a client's `start` or `enqueue`.
    """


class BlockingCall(DurableError):
    """Workflow code spins without waiting for anything durable, or loses an order that replay needs
    (C13).

    The author's fault. The message names the line or the durable replacement.
    """


class UnsafeWorkflow(DurableError):
    """Workflow code does what replay cannot repeat: clock, entropy, I/O, threads, blocking (C13).

    The author's fault. `findings` has all of them, each with `file`, `line`, `function`, `what`,
    `instead` and `level`. Raised at decoration, and at run time by the call itself, which has then
    not been made; there it also parks the run, even if the code catches it (C8): deploy corrected
    code to resume it.
    """

    def __init__(self, workflow: str, findings: Sequence[Mapping[str, Any]]) -> None:
        self.workflow = workflow
        self.findings = [dict(finding) for finding in findings]
        lines = [f"workflow {workflow!r} does what replay cannot repeat"]
        lines += [
            f"  {it['file']}:{it['line']}: {it['what']} (in {it['function']}). Use {it['instead']}"
            for it in self.findings
        ]
        lines.append(
            "  If its outcome cannot change what the workflow does: `with durable.unguarded():`"
        )
        super().__init__("\n".join(lines))


class InvalidOption(DurableError, ValueError):
    """An option (retry, timeout, queue, priority, id, ...) has a value that it cannot have.

    The author's fault. The message names the option, the value and the values allowed.
    """


class ActorRequired(DurableError):
    """Something that must not happen anonymously was asked for without an actor.

    The caller's fault: pass `actor=`, or call within `durable.acting_as(...)`. Nothing was written.
    `what` is "workflow", "activity" or "signal", `name` its name.
    """

    def __init__(self, what: str, name: str) -> None:
        super().__init__(
            f"{what} {name!r} requires an actor, and nobody acts here; pass actor=..., or call it within"
            " `with durable.acting_as(...)`"
        )
        self.what = what
        self.name = name


class NonRetryable(DurableError):
    """Raise it from an activity to say: trying again cannot help (C6).

    Not a fault of anybody's. The activity fails at once, whatever its retry policy; the workflow
    sees an `ActivityError` with this as its cause. Raise it `from` the error that made it clear.
    """


class LimitExceeded(DurableError):
    """Workflow code asks for more at once than a run may have.

    The author's fault. `limit` names the limit, `maximum` is its value; the message says what to do instead. Nothing was recorded.
    """

    def __init__(self, limit: str, maximum: int, remedy: str) -> None:
        super().__init__(f"{limit}: a run may have {maximum:,} at most. {remedy}")
        self.limit = limit
        self.maximum = maximum


class ReadOnlyViolation(DurableError):
    """A query, an update's validator or a wait_until predicate tried to change the run (C14).

    The author's fault: such code may only read state. The caller of the query or update is told;
    the run goes on unharmed. Do it in the update's handler, or in the workflow's own code.
    """


# -- what Client.result() raises -------------------------------------------------------------------


class WorkflowOutcome(DurableError):
    """A workflow closed without a result. The base of what `result()` raises.

    `workflow_id`, `run_id`, `reason` (given by whoever cancelled or terminated, or None).
    """

    outcome = "closed without a result"

    def __init__(
        self, workflow_id: str, run_id: str | None = None, reason: str | None = None
    ) -> None:
        tail = f": {reason}" if reason else ""
        super().__init__(f"workflow {workflow_id!r} {self.outcome}{tail}")
        self.workflow_id = workflow_id
        self.run_id = run_id
        self.reason = reason


class WorkflowFailed(WorkflowOutcome):
    """The workflow's code raised and nothing caught it (C7). The workflow's own fault; `.cause`
    is what it raised.
    """

    outcome = "failed"


class WorkflowTimedOut(WorkflowFailed, TimeoutError):
    """The workflow ran out of the time that it was started with; a `TimeoutError`, so `except TimeoutError` catches it.

    `kind` is `run` (this run's `run_timeout`) or `execution` (the whole chain of continue-as-new). Its code was not told and has compensated
    nothing. Nobody's fault by itself: the limit was too short, or something that it waited for never came.
    """

    def __init__(
        self,
        workflow_id: str,
        run_id: str | None = None,
        reason: str | None = None,
        kind: str = "run",
    ) -> None:
        self.outcome = f"exceeded its {kind} timeout"
        super().__init__(workflow_id, run_id, reason)
        self.kind = kind


class WorkflowCancelled(WorkflowOutcome):
    """Somebody asked the workflow to stop, and it did (C9). `reason` is theirs; its
    compensation has run.
    """

    outcome = "was cancelled"


class WorkflowTerminated(WorkflowOutcome):
    """An operator or a parent ended the workflow by force. Its code was not told, no
    compensation has run.
    """

    outcome = "was terminated"


# -- what a workflow sees --------------------------------------------------------------------------


class ActivityError(DurableError):
    """An activity failed for good: no retry is left, or the failure was not retryable (C6).

    The activity's fault; `.cause` is what it raised in its last attempt. `activity` is its name,
    `activity_id` its id within the run, `attempt` the number of the last attempt (from 1),
    `retry_state` why there was no further one (`max_attempts`, `non_retryable`, `timeout`, ...).
    """

    def __init__(
        self,
        activity: str,
        activity_id: str | None = None,
        attempt: int | None = None,
        retry_state: str | None = None,
        *,
        message: str | None = None,
    ) -> None:
        super().__init__(message or _activity_text(activity, attempt, retry_state))
        self.activity = activity
        self.activity_id = activity_id
        self.attempt = attempt
        self.retry_state = retry_state


def _activity_text(activity: str, attempt: int | None, retry_state: str | None) -> str:
    at = f" at attempt {attempt}" if attempt else ""
    why = f" ({retry_state})" if retry_state else ""
    return f"activity {activity!r} failed{at}{why}; the cause says why"


class ActivityTimeout(ActivityError, TimeoutError):
    """An activity ran out of time (C10); a `TimeoutError`, so `except TimeoutError` catches it.

    `kind` is `start_to_close`, `schedule_to_close`, `schedule_to_start` or `heartbeat`. Nobody's
    fault by itself: a heartbeat timeout means a lost worker or an activity that does not call
    `durable.heartbeat()` often enough, schedule_to_start that no worker serves the queue fast
    enough.
    """

    def __init__(
        self,
        kind: str,
        activity: str,
        activity_id: str | None = None,
        attempt: int | None = None,
        retry_state: str | None = "timeout",
    ) -> None:
        at = f" at attempt {attempt}" if attempt else ""
        message = f"activity {activity!r} exceeded its {kind} timeout{at}"
        super().__init__(activity, activity_id, attempt, retry_state, message=message)
        self.kind = kind


class ChildWorkflowError(DurableError):
    """A child workflow failed, was cancelled, terminated, or could not start (C15).

    The child's fault; `.cause` is what it raised. `outcome` is `failed`, `cancelled`, `terminated`
    or `rejected`.
    """

    def __init__(
        self,
        workflow: str,
        workflow_id: str,
        run_id: str | None = None,
        outcome: str = "failed",
        *,
        reason: str | None = None,
    ) -> None:
        tail = f": {reason}" if reason else ""
        verb = outcome if outcome == "failed" else f"was {outcome}"
        super().__init__(f"child workflow {workflow!r} ({workflow_id!r}) {verb}{tail}")
        self.workflow = workflow
        self.workflow_id = workflow_id
        self.run_id = run_id
        self.outcome = outcome
        self.reason = reason


class SagaFailed(DurableError, ExceptionGroup[Exception]):
    """One or more compensations of a saga failed; the others ran nevertheless.

    The members are the failures, in the order in which the compensations ran. What they should have
    undone stands: somebody has to look. The failure that started the unwinding is its `.cause` or
    its `__context__`.
    """

    def derive(self, excs: Any) -> Any:  # typeshed's overloads cannot be met by a subclass
        """Keep the class when the group is split by `except*`."""
        return SagaFailed(self.message, excs)


class RemoteError(DurableError):
    """Stands in for an exception whose class cannot be rebuilt here (not imported, gone, or no
    Exception).

    Nobody's fault: `type_name` is the original class as `module:qualname`, `message` its text.
    """

    def __init__(self, type_name: str, message: str) -> None:
        super().__init__(f"{type_name}: {message}" if message else type_name)
        self.type_name = type_name
        self.message = message


# -- the client's and the operator's errors --------------------------------------------------------


class WorkflowNotFound(DurableError):
    """No workflow has this id. The caller's fault: check the id and the database; `durable
    list` shows what exists.
    """

    code = "unknown_workflow"
    next_steps: Sequence[str] = ("durable list",)


class WorkflowAlreadyExists(DurableError):
    """A workflow of this id exists and the chosen policy refuses a second start (C20). The caller's
    choice: use another id, the handle of the existing one, or another id policy.
    """


class WorkflowClosed(DurableError):
    """The workflow has already ended and takes no signal, update, cancel or terminate. The
    caller came too late. `next_steps` is what is legal instead, where a command was refused.
    """

    code = "workflow_closed"

    def __init__(self, message: str, next_steps: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.next_steps = tuple(next_steps)


class OperationRefused(DurableError):
    """An operator's command cannot be done to this workflow or activity as it stands (C18). The caller's: `code` says why, from
    a closed list, and `next_steps` what is legal instead. The refusal is in the log of commands.
    """

    def __init__(self, message: str, code: str = "", next_steps: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.next_steps = tuple(next_steps)


class ScheduleNotFound(DurableError):
    """No schedule has this id, or it was deleted. The caller's fault; `durable schedule list` shows
    what exists.
    """


class ScheduleAlreadyExists(DurableError):
    """A schedule of this id exists and `on_existing="fail"` was asked for."""


class ScheduleChanged(DurableError):
    """Somebody else changed the schedule between a caller's look and its update: look again."""


class UnknownWorkflow(DurableError):
    """No workflow is registered under this name. The caller's typing error, or the module was
    not imported here.
    """


class UnknownActivity(DurableError):
    """No activity is registered under this name. The caller's typing error, or the module was
    not imported here.
    """


class UnknownSignal(DurableError):
    """No signal is declared under this name. The caller's typing error, or the module was not
    imported here.
    """


class QueryFailed(DurableError):
    """A query could not be answered; `.cause` is what its code raised, if it was that (C14). The
    run is unharmed.
    """


class UnknownQuery(QueryFailed):
    """The workflow has registered no query of this name, or not yet. The caller's typing error, or
    too early.
    """


class QueryTimeout(DurableError, TimeoutError):
    """Nobody answered a query in time (C10). The message says why: usually no worker serves the
    run's queue.
    """


class UpdateRejected(DurableError):
    """The workflow refused an update before anything was recorded (C14).

    The caller's fault: `.cause` is what the validator raised, or why the arguments do not fit.
    """


class UnknownUpdate(UpdateRejected):
    """The workflow has no update of this name, or not yet. The caller's typing error, or too
    early.
    """


class UpdateFailed(DurableError):
    """The handler of an accepted update raised; `.cause` is what. The workflow goes on."""


class UpdateUnfinished(WorkflowClosed):
    """The workflow ended while the handler of an accepted update was still running.

    The author's fault: wait for `durable.handlers_finished` before returning.
    """


class UnknownQueue(DurableError):
    """No queue has this name. The caller's typing error, or the operator has not created it."""


class SchemaOutOfDate(DurableError):
    """The database's tables are older or newer than this code. The operator's: run `durable
    migrate`, or deploy the release that the tables belong to.
    """


class DatabaseUnavailable(DurableError):
    """PostgreSQL does not answer. The operator's: is the server up, and is DURABLE_DATABASE_URL
    right?
    """


class EmbeddedPostgresError(DurableError):
    """The embedded PostgreSQL could not be found, started or stopped. The message holds the
    server's own words.
    """


class NewerSemantics(DurableError):
    """The run was started by a newer release of `durable`, whose rules this one does not know (C16).

    The operator's: let workers of the newer release run it. Nothing is lost meanwhile; the run is parked (C8).
    `version` is the run's semantics version, `known` the newest one of this release.
    """

    def __init__(self, version: int, known: int) -> None:
        super().__init__(
            f"the run follows semantics version {version}, and this release of durable knows versions up to {known}; "
            "upgrade the worker"
        )
        self.version = version
        self.known = known


class LeaseLost(DurableError):
    """This worker no longer owns the run or job; what it tried to write was refused and nothing was
    written (C2).

    Nobody's fault: it was too slow or cut off, and another worker took over. It drops its copy and
    carries on.
    """


class InternalError(DurableError):
    """A bug in `durable`: an invariant of ours does not hold. Not your fault; please report it
    with the message.
    """


# -- control flow: never caught by user code -------------------------------------------------------


class Evicted(_Portable):
    """A cached run is being dropped from memory; replay will bring it back (C12). Never catch
    it.
    """


class ContinueAsNew(_Portable):
    """Raised by `durable.continue_as_new(...)` to end this run and start its successor. Never catch
    it.

    `workflow`, `version` and `payload` (its arguments as JSON text) describe the successor.
    """

    def __init__(self, workflow: str, version: int, payload: str) -> None:
        super().__init__(f"continue as new: {workflow!r} version {version}")
        self.workflow = workflow
        self.version = version
        self.payload = payload
