"""Steps that are added while a run goes on: what the activity of a step with `expand` returned.

That came out of the history, so a replay adds the same steps; and it is looked at without asking which activities this process has
imported, which another one might answer otherwise. The step that adds them waits for them, and whatever depends on it waits with it: in the graph, the
adding step is behind the added ones. So one that depends on the adding step, or on what is below it, would wait for ever, and is
refused as the cycle that it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from durable.dag.format import Step, read_steps
from durable.dag.scope import Scope
from durable.dag.validation import edges_upward, order_problems, step_problems
from durable.dag_errors import InvalidDag

MOST_STEPS = 20_000
"""Steps of one run, added ones included: their table is the run's result, and has to be stored."""


def added_steps(
    adding: str,
    returned: Any,
    steps: Mapping[str, Step],
    added: Mapping[str, Sequence[str]],
    context: Any,
) -> dict[str, Step]:
    """The steps by name that the step `adding` of a run adds. `steps`: those that it has, `added`: what others of them added.

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
    if not problems:
        waits = {**added, adding: list(new)}
        problems = list(order_problems(_with_waits(list(together.values()), waits)))
    if problems:
        raise InvalidDag(adding, problems)
    return new


def _with_waits(steps: Sequence[Step], waits: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    above = edges_upward(steps)
    for name, names in waits.items():
        above[name] += names
    return above
