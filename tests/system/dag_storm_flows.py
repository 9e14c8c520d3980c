"""Activities of random DAGs: what they do follows from their arguments alone, so the table of steps is the same whatever happens to workers."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from durable import NonRetryable, RetryPolicy, activity
from durable.dag import Dag, edge, item, result

OFTEN = RetryPolicy(max_attempts=100)


@activity(name="dag.weighed", retry=OFTEN)
async def weighed(step: str, weight: int, upstream: list[Any]) -> int:
    """The sum of what it is given; a multiple of seven fails for good."""
    await asyncio.sleep(0)
    total = weight + sum(it for it in upstream if isinstance(it, int))
    if total % 7 == 0:
        raise NonRetryable(f"{step} weighs {total}")
    return total


def drawn(name: str, seed: int) -> Dag:
    """Steps of every kind, with edges of every policy."""
    draw = random.Random(seed)
    dag = Dag(name, on_failure="complete")
    names: list[str] = []
    maps: set[str] = set()
    for number in range(draw.randint(12, 20)):
        step = f"s{number}"
        ups = draw.sample(names, draw.randint(0, min(len(names), 3)))
        deps = [edge(up, policy=draw.choice(["cancel", "continue", "continue"])) for up in ups]
        upstream = [result(up) for up in ups]
        args: dict[str, Any] = {"step": step, "weight": draw.randint(1, 50), "upstream": upstream}
        kind = draw.random()
        if kind < 0.15:
            dag.wait(step, deps=deps)
        elif kind < 0.35:
            elements = [draw.randint(1, 20) for _ in range(4)]
            maps.add(step)
            dag.map(step, weighed, elements, {**args, "weight": item()}, deps=deps)
        elif kind < 0.5 and ups and ups[0] not in maps:
            dag.add(step, weighed, args, deps=deps, when=result(ups[0]).gt(10))
        else:
            dag.add(step, weighed, args, deps=deps)
        names.append(step)
    return dag


def waits(dag: Dag) -> list[str]:
    return [step["name"] for step in dag.steps if "wait" in step]
