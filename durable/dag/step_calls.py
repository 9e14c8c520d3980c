"""How the interpreter calls an activity of which it knows the name alone, and calls it again for a step that is retried."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from durable.core.plans import ActivityPlan, RunDefaults
from durable.definitions import Activity, ActivityCall
from durable.options import ActivityOptions
from durable.payload import ArgumentsCodec, ValueCodec

_JSON = ValueCodec(dict[str, Any], field="arguments")


def _by_parameter(**_arguments: Any) -> Any:
    """Stands for any activity."""


class _JsonArguments(ArgumentsCodec):
    """Takes the arguments by parameter name as the JSON values that they are."""

    def encode(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:  # noqa: ARG002
        return _JSON.encode(dict(kwargs))


class Named(Activity[..., Any]):
    """An activity of which only the name is known."""

    def __init__(self, name: str) -> None:
        super().__init__(_by_parameter, name, ActivityOptions())
        self.arguments = _JsonArguments(_by_parameter, name=name)


class Again(ActivityCall[..., Any]):
    """A call that stands for an earlier one which did not complete: to the world it is the same, so it has that one's idempotency key (C5)."""

    def __init__(self, call: ActivityCall[..., Any], key: str) -> None:
        super().__init__(call.activity, call.options_given)
        self._key = key

    def _plan(self, defaults: RunDefaults) -> ActivityPlan:
        plan = super()._plan(defaults)
        plan.body.setdefault("idempotency_key", self._key)
        return plan
