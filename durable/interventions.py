"""What operators ask for, checked before anything is written (C18): points of a history, inputs and results by hand, filters of a batch.

Everything here is pure, and shared by both clients and the command line.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from durable import requests, targets
from durable.core import rewind
from durable.core.events import ACTIVITY_SCHEDULED
from durable.core.names import checked_name
from durable.core.rewind import Recorded, Rewind
from durable.dag.rollback import is_undo
from durable.definitions import DEFAULTS_KEY
from durable.descriptions import OperatorStatus, RewindReceipt, RunDescription, Status
from durable.errors import InvalidOption, PayloadError
from durable.payload import ValueCodec
from durable.payload_codecs import unreadable_placeholder
from durable.store.operations import RewindOptions, ScheduledActivity

BatchAction = Literal["cancel", "terminate", "retry", "reset", "pause", "resume", "signal", "move"]
TimersLeft = Literal["remaining", "original"]
"""When a timer that was pending at the point fires in the new run. "remaining": it has as much time left as it had there. "original": when it was due."""

_ANY = ValueCodec(Any, field="value")
_FAILURE = "durable.errors:NonRetryable"


# -- points of a history ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Point:
    """Where a run shall be taken up again; exactly one of these. `the_end`: before what made it end badly."""

    to_event: int | None = None
    before_activity: str | None = None
    to_first_failure: bool = False
    the_end: bool = False

    def checked(self) -> Point:
        """Itself. Raises InvalidOption unless exactly one is chosen and it is possible."""
        chosen = [
            name
            for name, value in (
                ("to_event", self.to_event),
                ("before_activity", self.before_activity),
                ("to_first_failure", self.to_first_failure),
            )
            if value not in (None, False)
        ]
        if len(chosen) != (0 if self.the_end else 1):
            raise InvalidOption(
                f"give one of to_event=, before_activity= and to_first_failure=, not {' and '.join(chosen) or 'none'}"
            )
        if self.to_event is not None:
            requests.whole("to_event", self.to_event, 1, 2**31 - 1)
        if self.before_activity is not None:
            checked_name("before_activity", self.before_activity)
        return self

    def find(self, history: Sequence[Recorded]) -> int | None:
        """The number of the last event to keep. None: there is no such point."""
        if self.the_end:
            return rewind.before_the_end(history)
        if self.to_first_failure:
            return rewind.before_first_failure(history)
        if self.before_activity is not None:
            return rewind.before_activity(history, self.before_activity)
        return self.to_event if self.to_event and self.to_event <= history[-1].seq else None


def plan(history: Sequence[Recorded], point: Point, run_id: str, workflow_id: str) -> Rewind | None:
    """The plan for a run and a point. None: there is no such point, or nothing comes after it."""
    event = point.find(history)
    if event is None or event < 1:
        return None
    if history[event - 1].type.startswith("Workflow") and event > 1:
        event -= 1  # the run's end is never kept: it would be over
    return rewind.plan(history, event, run_id, workflow_id, keep_successes=point.the_end)


def undoing(history: Sequence[Recorded], run: RunDescription) -> RewindReceipt | None:
    """The receipt of the undo that has made this run; None: it was made otherwise."""
    made = history[0].body.get("reset") if history else None
    if made is None or made["action"] != "undo":
        return None
    return RewindReceipt(run.workflow_id, run.run_id, made["run_id"], made["event"], {}, 0)


def rewind_options(
    action: str, reapply_signals: bool, timers: TimersLeft, fork_id: str | None = None
) -> RewindOptions:
    """Raises InvalidOption."""
    original = requests.one_of("timers", timers, TimersLeft) == "original"
    return RewindOptions(action, reapply_signals, original, fork_id)


def asking_steps(
    options: RewindOptions,
    reason: str | None,
    step: str | None = None,
    request_id: str | None = None,
) -> RewindOptions:
    """The same for a DAG's run, which is asked at once to retry a step, or all that failed. An ask that is there already stays."""
    if options.ask is not None:
        return options
    ask = ("retry_step", json.dumps({"step": step, "reason": reason or ""}))
    return replace(options, ask=ask, ask_id=request_id)


def has_undone(history: Sequence[Recorded]) -> bool:
    """Whether a DAG's run has undone any of its steps."""
    scheduled = (it.body["id"] for it in history if it.type == ACTIVITY_SCHEDULED)
    return any(is_undo(call_id) for call_id in scheduled)


# -- an activity by hand --------------------------------------------------------------------------------------------------


def new_input(scheduled: ScheduledActivity, value: Any) -> str:
    """The arguments of an activity, by name, as JSON text. Raises PayloadError when they do not fit."""
    if (local := targets.local_activity(scheduled.name)) is not None:
        given = _ANY.encode(value)
        return local.arguments.encode(*targets.read(local.arguments.decode, given))
    schema = {key: part for key, part in scheduled.schema.items() if key != DEFAULTS_KEY}
    return targets.checked_by_schema("arguments", schema, value)


def new_result(scheduled: ScheduledActivity, value: Any) -> str:
    """A result of an activity as JSON text. Raises PayloadError when it does not fit."""
    if (local := targets.local_activity(scheduled.name)) is not None:
        return local.arguments.result.encode(targets.fitting(local.arguments.result, value))
    schema = scheduled.schema.get(DEFAULTS_KEY, {}).get("result", {})
    return targets.checked_by_schema("result", schema, value)


def new_failure(message: str, kind: str | None) -> dict[str, Any]:
    """A failure as the workflow will see it: the cause of ActivityError. `kind` is a class as `module:qualname`. Raises InvalidOption."""
    chosen = _FAILURE if kind is None else requests.text("type", kind, 1000)
    if ":" not in chosen:
        raise InvalidOption(
            f"type is {chosen!r}; give the exception's class as module:name, e.g. shop.errors:PaymentDeclined"
        )
    text = requests.text("message", message, requests.MAX_REASON)
    return {"type": chosen, "message": text, "args": [text]}


# -- batches ------------------------------------------------------------------------------------------------------------

_CHOICES: Mapping[str, Any] = {"status": Status, "operator_status": OperatorStatus}
_KEYS = ("workflow", "status", "operator_status", "queue", "build", "id_prefix")


def where(given: str | Mapping[str, Any]) -> dict[str, Any]:
    """A filter from `"workflow=checkout status=running attribute.region=eu"` or a mapping. Raises InvalidOption, also when it is empty."""
    found: dict[str, Any] = {}
    for key, value in pairs(given, ("attribute.",)):
        if key == "attributes" and isinstance(value, Mapping):
            found.setdefault("attributes", {}).update(value)
        elif key.startswith("attribute."):
            found.setdefault("attributes", {})[key.removeprefix("attribute.")] = value
        elif key in _CHOICES:
            found[key] = requests.one_of(key, value, _CHOICES[key])
        elif key in _KEYS:
            found[key] = requests.text(key, value, requests.MAX_ID)
        else:
            raise InvalidOption(
                f"where has no condition {key!r}; there are: {', '.join(_KEYS)}, attribute.NAME"
            )
    if not found:
        raise InvalidOption(
            "where is empty, which would mean every run; give at least one condition, e.g. workflow=checkout"
        )
    return found


def pairs(given: str | Mapping[str, Any], in_json: tuple[str, ...]) -> list[tuple[str, Any]]:
    """The conditions of a filter: names and values, which are JSON after the prefixes `in_json`. Raises InvalidOption."""
    if isinstance(given, Mapping):
        return list(given.items())
    found: list[tuple[str, Any]] = []
    for word in shlex.split(given):
        key, equals, value = word.partition("=")
        if not equals:
            raise InvalidOption(
                f"where has {word!r}; conditions look like workflow=checkout status=running"
            )
        found.append((key, _json_or_text(value) if key.startswith(in_json) else value))
    return found


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


_OPTIONS: Mapping[str, frozenset[str]] = {
    "signal": frozenset({"signal", "value"}),
    "reset": frozenset(
        {"to_event", "before_activity", "to_first_failure", "reapply_signals", "timers"}
    ),
    "retry": frozenset({"reapply_signals", "timers"}),
    "move": frozenset({"build", "anywhere"}),
}


def batch_options(action: BatchAction, given: Mapping[str, Any]) -> dict[str, Any]:
    """What a batch's verb needs to know. Raises InvalidOption for what it does not take, or lacks."""
    requests.one_of("action", action, BatchAction)
    known = _OPTIONS.get(action, frozenset())
    if unknown := sorted(set(given) - known):
        raise InvalidOption(
            f"a batch of {action} has no option {unknown[0]!r}; there are: {', '.join(sorted(known)) or 'none'}"
        )
    options = {key: value for key, value in given.items() if value is not None}
    if action in ("reset", "retry"):
        point_of(action, options).checked()
        rewinding(action, options)
    if action == "signal" and not isinstance(options.get("signal"), str):
        raise InvalidOption("a batch of signals needs signal=, the signal's name")
    if action == "move":
        requests.build(options.get("build"))
        if ("build" in options) == bool(options.get("anywhere")):
            raise InvalidOption("a batch of moves needs build=, or anywhere=True")
    return options


def check_readable(options: Mapping[str, Any]) -> None:
    """Raises PayloadError when what a batch is to send was sealed and cannot be opened here."""
    if why := unreadable_placeholder(json.dumps(options.get("value"))):
        remedy = "Give this process the codecs and keys that it was begun with: durable.use_payloads(...)."
        raise PayloadError("value", f"it cannot be read here ({why})", remedy)


def point_of(action: str, options: Mapping[str, Any]) -> Point:
    names = ("to_event", "before_activity", "to_first_failure")
    given = {name: options[name] for name in names if name in options}
    return Point(**given, the_end=action == "retry")


def rewinding(action: str, options: Mapping[str, Any]) -> RewindOptions:
    reapply, timers = options.get("reapply_signals", True), options.get("timers", "remaining")
    return rewind_options(action, bool(reapply), timers)


def why(reason: str | None) -> str:
    """A reason that must be given."""
    if reason is None:
        raise InvalidOption("reason is missing; say why, for those who read the log of commands")
    return requests.text("reason", reason, requests.MAX_REASON)
