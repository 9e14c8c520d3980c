"""Activities that return further steps, and DAGs to be steps of others."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from durable import NonRetryable, activity
from durable.dag import Dag, context, edge, item, result


@activity(name="growth.add")
def add(left: int, right: int) -> int:
    return left + right


@activity(name="growth.refuse")
def refuse(why: str) -> int:
    raise NonRetryable(why)


@activity(name="growth.hangs")
async def hangs() -> None:
    await asyncio.Event().wait()


@activity(name="growth.pages")
def pages(first: int, last: int) -> list[dict[str, Any]]:
    """A step for each page, and after them one that adds the next pages, as long as there are any."""
    more = Dag("pages")
    for number in range(first, min(first + 2, last + 1)):
        more.add(f"page-{number}", add, {"left": number, "right": result("base")})
    if first + 2 <= last:
        following = {"first": first + 2, "last": last}
        more.add(f"after-{first}", pages, following, deps=[f"page-{first}"], expand=True)
    return more.expansion()


@activity(name="growth.read")
def read(text: str) -> Any:
    """Whatever the text says, as if it were steps."""
    return json.loads(text)


@activity(name="growth.echo")
def echo(value: Any) -> Any:
    return value


def doubling(**settings: Any) -> Dag:
    """Doubles `n` twice; another DAG gives `n`."""
    return (
        Dag("doubling", context={"n": 1}, **settings)
        .add("once", add, {"left": context("n"), "right": context("n")})
        .add("twice", add, {"left": result("once"), "right": result("once")})
    )


def outer() -> Dag:
    inner = doubling(output={"sum": result("twice")})
    return (
        Dag("outer", context={"start": 5})
        .add("plain", doubling(), {"n": context("start")})
        .add("whole", inner, {"n": result("plain", "twice", "result")})
        .map("each", inner, [1, 2, 3], {"n": item()}, max_concurrency=2)
        .add("end", add, {"left": result("whole", "sum"), "right": result("each", 2, "sum")})
    )


def failing_inside() -> Dag:
    inner = Dag("inner").add("no", refuse, {"why": "out of stock"}).add("after", add, {"left": 1, "right": result("no")})  # fmt: skip
    return (
        Dag("outer", on_failure="complete")
        .add("sub", inner)
        .add("below", add, {"left": 1, "right": 2}, deps=["sub"])
        .add("told", add, {"left": 1, "right": 2}, deps=[edge("sub", policy="continue")])
    )


broken: set[str] = set()


@activity(name="growth.flaky")
def flaky(part: str) -> str:
    """Fails as long as the part is broken."""
    if part in broken:
        raise NonRetryable(f"{part} is broken")
    return f"{part} is done"


@activity(name="growth.parts")
def parts(names: list[str]) -> list[dict[str, Any]]:
    more = Dag("parts")
    for name in names:
        more.add(name, flaky, {"part": name})
    return more.expansion()


@activity(name="growth.waiting")
def waiting() -> list[dict[str, Any]]:
    return Dag("waits").wait("approval").add("hanging", hangs).expansion()


@activity(name="growth.next")
def following(number: int, last: int) -> list[dict[str, Any]]:
    """One round of a loop: the next round, until the last."""
    if number == last:
        return []
    given = {"number": number + 1, "last": last}
    more = Dag("round").add(f"work-{number}", add, {"left": number, "right": 0})
    more.add(f"round-{number + 1}", following, given, deps=[f"work-{number}"], expand=True)
    return more.expansion()


undone: list[str] = []


@activity(name="growth.take_back")
def take_back(arguments: dict[str, Any]) -> None:
    undone.append(arguments["part"])


@activity(name="growth.chain")
def chain(names: list[str]) -> list[dict[str, Any]]:
    """Steps that follow each other and can be undone."""
    more = Dag("chain")
    for number, name in enumerate(names):
        more.add(
            name, flaky, {"part": name}, deps=names[max(number - 1, 0) : number], undo=take_back
        )
    return more.expansion()


def everything_at_once() -> Dag:
    """A loop of twelve rounds, DAGs within a DAG, and a join of it all."""
    return (
        Dag("everything")
        .add("loop", following, {"number": 0, "last": 12}, expand=True)
        .map("each", doubling(output=result("twice")), [1, 2, 3, 4], {"n": item()})
        .add("base", add, {"left": 40, "right": 60})
        .add("pages", pages, {"first": 1, "last": 8}, deps=["base"], expand=True)
        .add("loops", echo, {"value": result("loop", transform="length")})
        .add("sums", echo, {"value": result("each")}, deps=["loops", "pages"])
    )
