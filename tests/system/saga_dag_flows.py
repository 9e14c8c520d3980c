"""Activities of declared sagas: what they do and undo is a row each, so that the tests can count."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from typing import Any

from durable import NonRetryable, RetryPolicy, activity
from durable.dag import Dag, Decision, Halt, edge, give_up, go_on, item, try_again
from tests.system.flows import leave_note, wait_at, wrote

GATE = 7_301

QUICK = RetryPolicy(
    max_attempts=30, initial_interval=timedelta(milliseconds=10), backoff_coefficient=1.0
)


@activity(name="saga.do", retry=QUICK)
async def do(key: str) -> str:
    return f"did {key}"


@activity(name="saga.undo", retry=QUICK)
async def undo(result: str) -> None:
    if result.endswith("stuck"):
        raise NonRetryable(f"cannot take back {result}")


@activity(name="saga.undo_all", retry=QUICK)
async def undo_all(result: Any, arguments: dict[str, Any], context: dict[str, Any]) -> None:
    leave_note(f"undo {result} {sorted(arguments.items())} {sorted(context.items())}")


@activity(name="saga.book", retry=QUICK)
def book(key: str) -> str:
    """In a thread: a cancel does not cut it off."""
    wrote(key)
    return key


@activity(name="saga.any_of", retry=QUICK)
async def any_of(value: Any) -> Any:
    return value


@activity(name="saga.book_at_gate", retry=QUICK)
def book_at_gate(key: str) -> str:
    wrote(key)
    wait_at(GATE)
    return key


@activity(name="saga.unbook", retry=QUICK)
def unbook(result: Any) -> None:
    leave_note(f"undo {result}")


@activity(name="saga.fail")
async def fail(key: str) -> str:
    raise NonRetryable(f"{key} is refused")


@activity(name="saga.fails_until")
async def fails_until(key: str) -> str:
    raise NonRetryable(key)


@activity(name="saga.mend")
async def mend(error: dict[str, Any], arguments: dict[str, Any]) -> Decision | None:
    """Decides by the key of the step that failed."""
    match str(arguments["key"]).partition(":")[0]:
        case "skip":
            return go_on(f"instead of {error['message']}")
        case "again":
            return try_again()
        case "raise":
            raise NonRetryable("no idea")
        case "silent":
            return None
        case _:
            return give_up()


@activity(name="saga.decides_badly")
async def decides_badly(error: dict[str, Any]) -> str:
    return f"hm, {error['type']}"


@activity(name="saga.approve")
async def approve(key: str) -> str:
    raise Halt(f"{key} wants a look", value=f"approved {key}")


@activity(name="saga.hangs")
async def hangs(key: str) -> None:
    await asyncio.Event().wait()


# -- with workers that die ----------------------------------------------------------------------------------------------


@activity(name="saga.book_or_fail", retry=QUICK)
async def book_or_fail(key: str) -> str:
    """Fails if its key says so; "again" and "skip" are for `mend`."""
    if not key.startswith("ok"):
        raise NonRetryable(key)
    return key


@activity(name="saga.take_back", retry=QUICK)
def take_back(arguments: dict[str, Any]) -> None:
    key = str(arguments["key"])
    leave_note(f"undo {key}")
    if key.endswith("stuck"):
        raise NonRetryable(f"cannot take back {key}")


def random_saga(draw: random.Random, name: str) -> Dag:
    """A DAG of some steps, few of which fail in some way."""
    dag, names = Dag(name), list[str]()
    kinds = ["ok"] * 60 + ["fail", "again", "skip", "skip"]
    for number in range(draw.randint(4, 14)):
        step = f"s{number}"
        end = draw.choice(["", "", "", ":stuck"])
        deps = [
            edge(it, policy=draw.choice(["cancel", "cancel", "continue"]))
            for it in draw.sample(names, draw.randint(0, min(number, 2)))
        ]
        undo = take_back if draw.random() < 0.9 else None
        if draw.random() < 0.25:
            over = [f"{draw.choice(kinds)}:{name}.{step}.{n}{end}" for n in range(4)]
            dag.map(step, book_or_fail, over, {"key": item()}, max_concurrency=2, deps=deps, undo=undo, compensate=mend, compensate_retries=1)  # fmt: skip
        else:
            key = f"{draw.choice(kinds)}:{name}.{step}{end}"
            dag.add(step, book_or_fail, {"key": key}, deps=deps, undo=undo, compensate=mend, compensate_retries=1)  # fmt: skip
        names.append(step)
    return dag
