"""What the modules that somebody names define: for workers, `durable verify` and `durable replay`."""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType
from typing import Any, TypeVar

from durable.definitions import Activity, Workflow, defined_twice, registered_workflows

Defined = TypeVar("Defined", Workflow[..., Any], Activity[..., Any])

Versions = dict[tuple[str, int], Workflow[..., Any]]
"""Workflows by name and version."""


def defined_in(registered: Iterable[Defined], modules: Iterable[ModuleType]) -> list[Defined]:
    """The definitions that were made in the modules or below them, or that they import by name."""
    given = list(modules)
    return [it for it in registered if any(_belongs(it, module) for module in given)]


def _belongs(definition: Any, module: ModuleType) -> bool:
    below = f"{definition.fn.__module__}.".startswith(f"{module.__name__}.")
    return below or definition in vars(module).values()


def workflows_in(modules: Iterable[ModuleType]) -> Versions:
    """The workflows of the modules. Raises InvalidOption when two functions are the same version of one name."""
    found: Versions = {}
    for workflow in defined_in(registered_workflows(), modules):
        other = found.setdefault((workflow.name, workflow.version), workflow)
        if other is not workflow and other.fn is not workflow.fn:
            raise defined_twice("workflow", other, workflow)
    return found
