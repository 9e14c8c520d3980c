"""What a step of a definition may refer to, as far as it is known before a run: values of the context, and types of results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from durable.dag.expressions import references, source_of
from durable.dag.format import Step
from durable.dag.signatures import Schema, Signatures, array_of, part

UNKNOWN: Any = object()
MISSING: Any = object()


@dataclass(frozen=True, slots=True)
class Scope:
    """The steps by name, the context, and the signatures of activities; None: nothing is asked about activities."""

    steps: Mapping[str, Step]
    context: Any
    signatures: Signatures | None

    def constant(self, ref: Mapping[str, Any]) -> Any:
        """The value that a reference to the context stands for; UNKNOWN if only a run knows it, MISSING if there is none."""
        value = self.context
        for key in ref.get("path", ()):
            if source_of(value):
                return UNKNOWN
            try:
                value = value[key]
            except (KeyError, IndexError, TypeError):
                return MISSING
        if ref.get("transform") is not None or next(references(value), None) is not None:
            return UNKNOWN
        return value

    def type_of(self, ref: Mapping[str, Any], step: Step) -> Schema | None:
        """The type of what a step refers to, before a transform: as little of it as is known; None if there is definitely no such thing."""
        path = ref.get("path", ())
        if "$item" in ref:
            over = step.get("map", {}).get("over")
            if source_of(over) and "$item" not in over and "transform" not in over:
                elements = self.type_of(over, step) or {}
                return part(elements, [0, *path]) if elements.get("type") == "array" else {}
            return {}
        upstream = self.steps.get(ref.get("$result", ""))
        return {} if upstream is None else part(self._result(upstream), path)

    def _result(self, step: Step) -> Schema:
        if self.signatures is None or "guard" in step or "expand" in step:
            return {}
        if "dag" in step:
            schema = _table(step["dag"])
        else:
            schema = self.signatures.result(step.get("activity", ""))
        return array_of(schema) if "map" in step else schema


def _table(dag: Mapping[str, Any]) -> Schema:
    """The type of a nested DAG's result: what an output is, a run says."""
    if "output" in dag:
        return {}
    names: dict[str, Schema] = {step["name"]: {} for step in dag["steps"]}
    return {"type": "object", "properties": names, "additionalProperties": False}
