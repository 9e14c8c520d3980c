"""Steps that are added while a run goes on: what the activity of a step with `expand` returned.

That came out of the history, so a replay adds the same steps; and it is looked at without asking which activities this process has
imported, which another one might answer otherwise. The step that adds them waits for them, and whatever depends on it waits with it: in the graph, the
adding step is behind the added ones. So one that depends on the adding step, or on what is below it, would wait for ever, and is
refused as the cycle that it is.

Nothing here costs more because of what has ended: a loop, each round of which adds the next, is as long as it likes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from durable.dag.format import Step, read_steps
from durable.dag.scheduler import Scheduler
from durable.dag.scope import Scope
from durable.dag.validation import edges_upward, order_problems, step_problems
from durable.dag_errors import InvalidDag

MOST_STEPS = 20_000
"""Steps of one run, added ones included: their table is the run's result, and has to be stored."""


class StepResults(dict[str, Any]):
    """Results by step. That of a step that added others is theirs by name, and is made when somebody asks: kept, a loop would hold the last one's for each round."""

    def __init__(self) -> None:
        super().__init__()
        self.expanded: dict[str, Sequence[str]] = {}
        """By step that has added others and completed: what it added."""

    def get(self, name: str, default: Any = None) -> Any:
        if name in self or name not in self.expanded:
            return super().get(name, default)
        found: dict[str, Any] = {}
        pending = [name]
        while pending:
            each = pending.pop()
            if each in self.expanded and each not in self:
                pending += reversed(self.expanded[each])
            else:
                found[each] = super().get(each)
        return found


def added_steps(
    adding: str, returned: Any, steps: Mapping[str, Step], scheduler: Scheduler, context: Any
) -> dict[str, Step]:
    """The steps by name that the step `adding` of a run adds. `steps`: those that it has.

    Raises InvalidDag with all problems, among them references to what does not exist and branches to steps that are there already.
    """
    listed = read_steps(returned, adding)
    new = {step["name"]: step for step in listed}
    together = {**steps, **new}
    problems = list(step_problems(listed, Scope(together, context, None), set(steps)))
    if len(steps) + len(listed) > MOST_STEPS:
        more = f"the run would have {len(steps) + len(listed):,} steps"
        problems.append(f"{more}; {MOST_STEPS:,} are allowed")
    for step in (it for it in listed if "branch" in it):
        targets = chain(*step["branch"]["cases"].values(), step["branch"]["default"])
        said = f"step {step['name']!r} branches to"
        problems += [f"{said} {it!r}, which is not added with it" for it in targets if it in steps]
    if problems := problems or list(order_problems(waits_of(adding, listed, scheduler))):
        raise InvalidDag(adding, problems)
    return new


def waits_of(adding: str, new: Sequence[Step], scheduler: Scheduler) -> dict[str, list[str]]:
    """What is waited for if the step `adding` adds new ones, as far as that may make a cycle.

    That is among steps which have not ended, and those whose end a retry may take back.
    """
    edges = edges_upward(new, scheduler.status)
    above = {adding: [*edges], **edges}
    pending = [it for upstream in above.values() for it in upstream]
    while pending:
        name = pending.pop()
        if name not in above:
            for_good = scheduler.status[name] in ("completed", "skipped")
            above[name] = [] if for_good else scheduler.waits_for(name)
            pending += above[name]
    return above
