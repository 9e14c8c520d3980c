"""`Unique`: which jobs are the same, for how long, and what a second one does to the first. The database's index decides (S128)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, get_args

from durable.core.job_life import (
    UNFINISHED,
    WAITING,
    JobState,
    held_states,
    refusal_of_unique_states,
)
from durable.errors import InvalidOption

ReplaceField = Literal["arguments", "scheduled_at", "priority", "queue", "tags", "meta", "options"]

MAX_KEY = 500
_LONGEST_S = timedelta(days=3650).total_seconds()


@dataclass(frozen=True)
class Unique:
    """At most one job of its kind: enqueueing a second one gives the first, as a value (`handle.conflict`), and no error.

    What is the same: the activity's name, with either all arguments (the default), those of `fields` (parameter names; `order.id`
    reaches into an argument), or what `key` says: a text, or a function of the call's arguments that returns one (at most 500
    characters).

    While the first is in one of `states`: by default until it ends. {"scheduled", "available"} is until it starts, so that what happens
    meanwhile gets a job of its own; add "completed", "discarded", "cancelled" to hold the key after the end. Not every set makes
    sense: see `durable.core.job_life`. `period` (timedelta or seconds) ends it that long after the first was enqueued, at the latest.

    `replace` names what a *waiting* first job takes over from the second: "arguments", "scheduled_at", "priority", "queue", "tags",
    "meta", "options" (retry and timeouts); a mapping says it for each waiting state.

    Raises InvalidOption for a set, name or number that makes no sense.
    """

    fields: Sequence[str] | None = None
    key: str | Callable[..., str] | None = None
    states: Collection[JobState] = UNFINISHED
    period: timedelta | float | None = None
    replace: Sequence[ReplaceField] | Mapping[JobState, Sequence[ReplaceField]] = ()

    def __post_init__(self) -> None:
        if self.fields is not None and (self.key is not None or not self.fields):
            raise InvalidOption("unique: give fields (at least one) or key, not both")
        if isinstance(self.fields, str) or isinstance(self.states, str):
            raise InvalidOption("unique: fields and states are collections of names, not one text")
        if refusal := refusal_of_unique_states(self.states):
            raise InvalidOption(f"unique: {refusal}")
        _ = self.period_s, self.replace_body

    @property
    def period_s(self) -> float | None:
        if self.period is None:
            return None
        period = self.period
        number = period.total_seconds() if isinstance(period, timedelta) else period
        if (
            isinstance(number, bool)
            or not isinstance(number, int | float)
            or not 0 < number <= _LONGEST_S
        ):
            raise InvalidOption(
                f"unique: period is {period!r}; give a positive timedelta or seconds"
            )
        return float(number)

    @property
    def replace_body(self) -> dict[str, list[str]] | None:
        """For each state what is taken over, as the database reads it."""
        given = self.replace
        by_state = given if isinstance(given, Mapping) else dict.fromkeys(sorted(WAITING), given)
        for state, names in by_state.items():
            if state not in WAITING:
                raise InvalidOption(
                    f"unique: a job that is {state} takes nothing over; replace works in {', '.join(sorted(WAITING))}"
                )
            if isinstance(names, str):
                raise InvalidOption(f"unique: replace is {names!r}; give a collection of names")
            if unknown := set(names) - set(get_args(ReplaceField)):
                raise InvalidOption(
                    f"unique: replace has {min(unknown)!r}; there are {', '.join(get_args(ReplaceField))}"
                )
        return {state: list(names) for state, names in by_state.items() if names} or None

    def keys(self, activity: str) -> Callable[[Any, Mapping[str, Any], str], str]:
        """A function from a call's arguments (as given, and as JSON text) to its unique key, which has the activity's name in it."""
        return lambda args, kwargs, text: f"{activity}:{self._same(args, kwargs, text)}"

    def check_fields(self, activity: str, known: Collection[str]) -> None:
        """Raises InvalidOption for a field that is no parameter of the activity."""
        for field in self.fields or ():
            if field.partition(".")[0] not in known:
                raise InvalidOption(
                    f"unique: {activity} has no parameter {field!r}; it has {', '.join(known) or 'none'}"
                )

    def to_body(self) -> dict[str, Any]:
        """As it is registered for those without the code."""
        by_code = callable(self.key)
        return {
            "fields": self.fields and list(self.fields),
            "key": None if by_code else self.key,
            "by_code": by_code,
            "states": sorted(held_states(self.states)),
            "period_s": self.period_s,
            "replace": self.replace_body,
        }

    @classmethod
    def from_body(cls, activity: str, body: Mapping[str, Any]) -> Unique:
        """Raises InvalidOption where a function says what is the same: only its own code can."""
        if body["by_code"]:
            raise InvalidOption(
                f"{activity} is unique by a function of its arguments; import its module here, or give unique="
            )
        given: Mapping[str, Any] = {key: value for key, value in body.items() if key != "by_code"}
        period = given["period_s"]
        return cls(given["fields"], given["key"], given["states"], period, given["replace"] or ())

    def _same(self, args: Any, kwargs: Mapping[str, Any], text: str) -> str:
        if self.key is not None:
            key = self.key if isinstance(self.key, str) else self.key(*args, **kwargs)
            if not isinstance(key, str) or not 1 <= len(key) <= MAX_KEY or "\0" in key:
                raise InvalidOption(
                    f"unique: the key is {key!r}; give a text of 1 to {MAX_KEY} characters"
                )
            return key
        chosen = json.loads(text)
        if self.fields is not None:
            chosen = {field: _reach(chosen, field) for field in self.fields}
        canonical = json.dumps(chosen, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:32]


def _reach(value: Any, path: str) -> Any:
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
