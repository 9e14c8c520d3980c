"""Edits of waiting jobs, and commands on all jobs that pass a filter, checked before anything is written (C18). Pure, and shared by both clients and the
command line (S135, S136).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from durable import enqueueing, interventions, requests
from durable.core.names import checked_name, checked_priority
from durable.errors import InvalidOption

JobAction = Literal["cancel", "retry", "delete", "edit"]

BEYOND_ALL_IDS = "ffffffff-ffff-ffff-ffff-ffffffffffff"
_FIELDS = ("priority", "queue", "at", "delay", "tags", "meta")
_KEYS = ("state", "activity", "queue", "tag", "group")


def changes(given: Mapping[str, Any]) -> dict[str, Any]:
    """What an edit changes, as the database reads it; what is None stays as it is. Raises InvalidOption, PayloadError."""
    if unknown := sorted(set(given) - set(_FIELDS)):
        raise InvalidOption(
            f"an edit changes {', '.join(_FIELDS)} or arguments, not {unknown[0]!r}"
        )
    asked = {name: value for name, value in given.items() if value is not None}
    if "at" in asked and "delay" in asked:
        raise InvalidOption("give at or delay, not both")
    found: dict[str, Any] = {}
    if "priority" in asked:
        found["priority"] = checked_priority("priority", asked["priority"])
    if "queue" in asked:
        found["queue"] = checked_name("queue", asked["queue"])
    if "at" in asked:
        found["at_us"] = enqueueing.instant_us(asked["at"])
    if "delay" in asked:
        found["delay_s"] = requests.seconds("delay", asked["delay"])
    if "tags" in asked:
        found["tags"] = enqueueing.tags(asked["tags"])
    if "meta" in asked:
        found["meta"] = json.loads(enqueueing.meta_text(asked["meta"]))
    return found


def edit(given: Mapping[str, Any], arguments: bool) -> dict[str, Any]:
    """The same for one job, whose arguments may change as well. Raises InvalidOption when nothing does."""
    found = changes(given)
    if not found and not arguments:
        raise InvalidOption(f"say what to change: {', '.join(_FIELDS)} or arguments")
    return found


def where(given: str | Mapping[str, Any]) -> dict[str, Any]:
    """A filter from `"state=discarded queue=mail tag=x meta.tenant=7"` or a mapping: state, activity, queue, tag (or tags), group, meta.NAME (or meta),
    argument.NAME (or arguments). Raises InvalidOption, also when it is empty or has an empty condition: that would mean every job.
    """
    nested: dict[str, dict[str, Any]] = {"meta": {}, "arguments": {}}
    plain: dict[str, Any] = {"tags": []}
    for key, value in interventions.pairs(given, ("meta.", "argument.")):
        if key in ("meta", "arguments") and isinstance(value, Mapping) and value:
            nested[key].update(value)
        elif key.startswith(("meta.", "argument.")):
            kind, _, name = key.partition(".")
            nested["meta" if kind == "meta" else "arguments"][name] = value
        elif key == "tag" or (key == "tags" and value):
            plain["tags"] += [value] if key == "tag" else value
        elif key in _KEYS:
            plain[key] = value
        else:
            raise InvalidOption(
                f"where has no condition {key!r}, or it is empty; there are: {', '.join(_KEYS)}, meta.NAME, argument.NAME"
            )
    return _filter(plain, nested)


def _filter(plain: dict[str, Any], nested: dict[str, dict[str, Any]]) -> dict[str, Any]:
    states = plain.get("state")
    checked = enqueueing.job_filters(
        state=states.split(",") if isinstance(states, str) else states,
        activity=plain.get("activity"),
        queue=plain.get("queue"),
        tags_given=plain["tags"] or None,
        meta=nested["meta"] or None,
        arguments=nested["arguments"] or None,
        limit=1,
    )
    group = plain.get("group")
    found = {
        "state": checked["states"],
        "activity": checked["name"],
        "queue": checked["queue"],
        "tags": checked["tags"],
        "meta": nested["meta"] or None,
        "arguments": nested["arguments"] or None,
        "group": None if group is None else str(requests.uuid("group", group)),
    }
    found = {key: value for key, value in found.items() if value is not None}
    if not found:
        raise InvalidOption(
            "where is empty, which would mean every job; give at least one condition, e.g. state=discarded"
        )
    return found
