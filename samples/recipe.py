"""Steps that are data, interpreted by a workflow: `durable-worker samples.recipe`.

A recipe is a tree of sequences, parallel branches and activities that share variables. (For graphs with results passed along, retries, conditions and
undo there is `durable.dag`; this sample shows how little an interpreter of one's own takes.)
"""

from __future__ import annotations

import asyncio
from typing import Literal

from pydantic import BaseModel

from durable import Activity, activity, workflow


class Do(BaseModel):
    """Call an activity with a variable, and keep its result in another one."""

    kind: Literal["do"] = "do"
    activity: str
    take: str
    give: str


class InOrder(BaseModel):
    kind: Literal["in_order"] = "in_order"
    steps: list[Do | InOrder | AtOnce]


class AtOnce(BaseModel):
    kind: Literal["at_once"] = "at_once"
    branches: list[Do | InOrder | AtOnce]


Step = Do | InOrder | AtOnce
InOrder.model_rebuild()


class Recipe(BaseModel):
    variables: dict[str, str]
    root: Step


@activity
async def chop(what: str) -> str:
    return f"chopped {what}"


@activity
async def fry(what: str) -> str:
    return f"fried {what}"


KNOWN: dict[str, Activity[[str], str]] = {"chop": chop, "fry": fry}


@workflow
async def cook(recipe: Recipe) -> dict[str, str]:
    variables = dict(recipe.variables)
    await follow(recipe.root, variables)
    return variables


async def follow(step: Step, variables: dict[str, str]) -> None:
    """Recursion over data is as deterministic as the data."""
    if isinstance(step, Do):
        variables[step.give] = await KNOWN[step.activity](variables[step.take])
    elif isinstance(step, InOrder):
        for one in step.steps:
            await follow(one, variables)
    else:
        await asyncio.gather(*[follow(one, variables) for one in step.branches])
