"""The options of a step, as they are stored and as calls take them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from durable.core.policy import RetryPolicy, Timeouts
from durable.options import ActivityOptions


def stored_options(options: ActivityOptions) -> dict[str, Any]:
    """What is set, as JSON."""
    retry = None if options.retry is None else options.retry.to_body()
    given = {
        "queue": options.queue,
        "priority": options.priority,
        "retry": retry,
        "timeouts": options.timeouts.to_body(),
        "cancellation": options.cancellation,
        "on_exhausted": options.on_exhausted,
    }
    return {key: value for key, value in given.items() if value not in (None, {})}


def activity_options(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The stored options as `Activity.options` takes them. Raises InvalidOption."""
    given = _without(stored, "retry", "timeouts")
    if "retry" in stored:
        given["retry"] = RetryPolicy.from_body(stored["retry"])
    if "timeouts" in stored:
        limits = Timeouts.from_body(stored["timeouts"])
        given |= {
            "timeout": limits.start_to_close,
            "schedule_to_close": limits.schedule_to_close,
            "schedule_to_start": limits.schedule_to_start,
            "heartbeat_timeout": limits.heartbeat,
        }
    return given


def child_options(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The stored options of a nested DAG as `Workflow.options` takes them: the timeout is that of each of its runs. Raises InvalidOption."""
    given = _without(stored, "retry", "timeouts")
    if "retry" in stored:
        given["retry"] = RetryPolicy.from_body(stored["retry"])
    if "timeouts" in stored:
        given["run_timeout"] = Timeouts.from_body(stored["timeouts"]).start_to_close
    return given


NOT_FOR_CHILDREN = (
    "on_exhausted",
    "schedule_to_close_s",
    "schedule_to_start_s",
    "heartbeat_s",
)
"""Options of activities that a nested DAG cannot have."""


def _without(stored: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in stored.items() if key not in keys}
