"""THE TABLE: what opens an operation, what closes it and with which effect, and how two executions are compared.

Everything that the engine can do durably is a row here; `execution.py` only reads rows. A new feature is a new row (and the future
that its effects settle), never a new branch elsewhere. Three kinds of rows:

* an *operation* has an opening event (outbound), closing events (inbound, `ref` = seq of the opening one) with their effect,
  and the event that asks for its end;
* an *arrival* is inbound on its own: nothing of ours opened it;
* a *mark* is outbound on its own.

Every outbound type has a *view*: the part of body and payload that replay compares (C13). Left out is only what may differ
without the workflow behaving differently: the source line, a traceback.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from durable.core import events as e
from durable.core.children import ChildFuture
from durable.core.futures import ActivityFuture, Timer
from durable.core.local import LocalFuture

if TYPE_CHECKING:
    from durable.core.run import Run

Close = Callable[[Any, e.Event], None]
Arrive = Callable[["Run", e.Event], None]
View = Callable[[dict[str, Any], str | None], dict[str, Any]]


class Operation(NamedTuple):
    """Something that is started and, later, ends."""

    name: str
    opens: str
    closes: Mapping[str, Close]
    asks_to_end: str


OPERATIONS = (
    Operation(
        "activity",
        e.ACTIVITY_SCHEDULED,
        {
            e.ACTIVITY_COMPLETED: ActivityFuture.complete,
            e.ACTIVITY_FAILED: ActivityFuture.fail,
            e.ACTIVITY_TIMED_OUT: ActivityFuture.time_out,
            e.ACTIVITY_CANCELLED: ActivityFuture.be_cancelled,
        },
        e.ACTIVITY_CANCEL_REQUESTED,
    ),
    Operation(
        "child",
        e.CHILD_STARTED,
        {
            e.CHILD_COMPLETED: ChildFuture.complete,
            e.CHILD_FAILED: ChildFuture.fail,
            e.CHILD_CANCELLED: ChildFuture.be_cancelled,
            e.CHILD_TERMINATED: ChildFuture.be_terminated,
            e.CHILD_REJECTED: ChildFuture.be_rejected,
        },
        e.CHILD_CANCEL_REQUESTED,
    ),
    Operation("timer", e.TIMER_STARTED, {e.TIMER_FIRED: Timer.fire}, e.TIMER_CANCELLED),
)


def _signal(run: Run, event: e.Event) -> None:
    run.deliver_signal(event)


def _cancel(run: Run, event: e.Event) -> None:
    run.request_cancel(event.body.get("reason"))


def _nothing(_run: Run, _event: e.Event) -> None:
    """A record for people: the code cannot tell that an operator helped an activity along."""


def _local(effect: Close) -> Arrive:
    """The call is found by its id, for nothing of the history opened it."""

    def arrive(run: Run, event: e.Event) -> None:
        if (future := run.called_locally(event)) is not None:
            future.compare(event)
            effect(future, event)

    return arrive


ARRIVALS: Mapping[str, Arrive] = {
    e.SIGNAL_RECEIVED: _signal,
    e.CANCEL_REQUESTED: _cancel,
    e.ACTIVITY_EDITED: _nothing,
    e.ACTIVITY_RETRIED: _nothing,
    e.LOCAL_ACTIVITY_COMPLETED: _local(LocalFuture.complete),
    e.LOCAL_ACTIVITY_FAILED: _local(LocalFuture.fail),
    e.LOCAL_ACTIVITY_BACKED_OFF: _local(LocalFuture.back_off),
}


CHILDS_OWN = ("version", "pinned")
"""What a child's definition says of itself, as it was when the child was started: a later one breaks no open parent."""


def _child(body: dict[str, Any], _payload: str | None) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key not in ("line", *CHILDS_OWN)}


def _successor(body: dict[str, Any], payload: str | None) -> dict[str, Any]:
    return {**_child(body, payload), "payload": payload}


def _whole(body: dict[str, Any], _payload: str | None) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key != "line"}


def _with_payload(body: dict[str, Any], payload: str | None) -> dict[str, Any]:
    return {**body, "payload": payload}


def _kind_of_failure(body: dict[str, Any], _payload: str | None) -> dict[str, Any]:
    return {"failure": body["failure"]["type"]}


def _reason(body: dict[str, Any], _payload: str | None) -> dict[str, Any]:
    return {"reason": body.get("reason")}


def _failed_update(body: dict[str, Any], payload: str | None) -> dict[str, Any]:
    return {"update_id": body["update_id"], **_kind_of_failure(body, payload)}


def _id(body: dict[str, Any], _payload: str | None) -> dict[str, Any]:
    return {"id": body["id"]}


MARKS: Mapping[str, View] = {
    e.ATTRIBUTES_SET: _whole,
    e.DETAILS_SET: _whole,
    e.CHILD_SIGNALLED: _with_payload,
    e.UPDATE_ACCEPTED: _with_payload,
    e.UPDATE_COMPLETED: _with_payload,
    e.UPDATE_FAILED: _failed_update,
    e.FIRST_TURN_TAKEN: _whole,
    e.PATCH_RECORDED: _id,
    e.WORKFLOW_COMPLETED: _with_payload,
    e.WORKFLOW_FAILED: _kind_of_failure,
    e.WORKFLOW_CANCELLED: _reason,
    e.WORKFLOW_CONTINUED: _successor,
}

TERMINAL = frozenset(
    {
        e.WORKFLOW_COMPLETED,
        e.WORKFLOW_FAILED,
        e.WORKFLOW_CANCELLED,
        e.WORKFLOW_CONTINUED,
        e.WORKFLOW_TERMINATED,
        e.WORKFLOW_TIMED_OUT,
        e.WORKFLOW_RESET,
    }
)

# -- what follows from the table ----------------------------------------------------------------------------------------

CLOSES: Mapping[str, Close] = {
    event: effect for operation in OPERATIONS for event, effect in operation.closes.items()
}
INBOUND = frozenset({*CLOSES, *ARRIVALS})
VIEWS: Mapping[str, View] = {
    **{operation.opens: _whole for operation in OPERATIONS},
    **{operation.asks_to_end: _whole for operation in OPERATIONS},
    e.CHILD_STARTED: _child,
    **MARKS,
}
OUTBOUND = frozenset(VIEWS)


def ended_from_outside(last: e.Event) -> bool:
    """Whether this event closed the run without its code: by force, or cancelled before the code had begun. There is nothing to run."""
    return last.type in (e.WORKFLOW_TERMINATED, e.WORKFLOW_TIMED_OUT, e.WORKFLOW_RESET) or (
        last.type == e.WORKFLOW_CANCELLED and "before_start" in last.body
    )
