"""One event of a history in words: what it is about, and what matters of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from durable.cli.output import failure_line, short
from durable.core.durations import span

if TYPE_CHECKING:
    from durable.descriptions import HistoryEvent

Opened = Mapping[int, "HistoryEvent"]
"""The run's events by number; a closing event's `ref` is the number of its opening event."""


def what(event: HistoryEvent, opened: Opened) -> str:
    """The activity, signal, timer or workflow, with the source line that asked for it."""
    body = event.body
    if (opening := opened.get(body.get("ref", 0))) is not None:
        return f"{_name(opening.body)} #{opening.seq}"
    name = _name(body)
    return f"{name} {body['line']}".strip() if body.get("line") else name


def _name(body: Mapping[str, Any]) -> str:
    return str(
        body.get("name") or body.get("workflow") or body.get("reason") or body.get("id") or ""
    )


def details(event: HistoryEvent, opened: Opened) -> str:
    """What a reader wants to know next: the failure, how long it took, the value."""
    body = event.body
    parts = [
        f"attempt {body['attempt']}" if body.get("attempt", 1) > 1 else "",
        f"{body['timeout']} timeout" if body.get("timeout") else "",
        short(body["attributes"]) if event.type == "AttributesSet" else "",
        body["details"] or "(none)" if event.type == "DetailsSet" else "",
        f"fires in {span(_lasts_s(event))}" if "fire_at_us" in body else "",
        f"queue {body['queue']}"
        if event.type == "ActivityScheduled" and body.get("queue") != "default"
        else "",
        _took(event, opened),
        failure_line(body.get("failure")),
        "" if event.payload is None else short(event.payload),
    ]
    return "  ".join(part for part in parts if part)


def _lasts_s(event: HistoryEvent) -> float:
    return float(event.body["fire_at_us"] / 1e6 - event.at.timestamp())


def _took(event: HistoryEvent, opened: Opened) -> str:
    opening = opened.get(event.body.get("ref", 0))
    if (
        opening is None
        or opening.type != "ActivityScheduled"
        or event.type == "ActivityCancelRequested"
    ):
        return ""
    took = event.at - opening.at
    return f"after {span(took.total_seconds())}" if took >= timedelta(seconds=1) else ""
