"""One workflow that does what a plan says: sequences, gathers, races against a deadline, signals, sleeps, failures and their compensation.

A plan is drawn by the test from a seed and given as the argument; what a run must answer is a function of its plan (`answers`).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from datetime import timedelta
from typing import Any

import durable
from durable import NonRetryable, RetryPolicy, Signal, activity, activity_info, workflow
from tests.system.flows import FAST, leave_note, wrote

Plan = dict[str, Any]

storm_go = Signal("storm_go", int)

LEAVES = ("quick", "quick", "step", "flaky", "sleep", "signal", "race", "refused", "local_wait")


class Refused(Exception):
    pass


@activity(retry=FAST)
async def storm_quick(key: str) -> str:
    return key


@activity(retry=FAST)
def storm_step(key: str) -> str:
    wrote(key)
    return key


@activity(
    retry=RetryPolicy(
        max_attempts=30, initial_interval=timedelta(milliseconds=10), backoff_coefficient=1.0
    )
)
async def storm_flaky(key: str) -> str:
    """Fails twice."""
    if activity_info().attempt < 3:
        raise ConnectionError(key)
    return key


@activity(retry=FAST)
async def storm_refused(key: str) -> str:
    raise NonRetryable(key)


@activity(retry=FAST)
async def storm_slow(key: str) -> str:
    """Ends only by being told to, if the race is lost; some are quick."""
    if key.endswith("0"):
        return key
    await asyncio.Event().wait()
    return "never"


@activity(retry=FAST)
def storm_undo(key: str) -> None:
    leave_note(f"undo {key}")


@workflow
async def storm(plan: Plan) -> list[str]:
    return await perform(plan, "0")


async def perform(plan: Plan, key: str) -> list[str]:
    """Do what the plan says; each leaf has a key that tells where in the plan it stands."""
    parts: list[Plan] = plan.get("parts", [])
    match plan["kind"]:
        case "sequence":
            return [it for n, part in enumerate(parts) for it in await perform(part, f"{key}.{n}")]
        case "gather":
            done = await asyncio.gather(
                *(perform(part, f"{key}.{n}") for n, part in enumerate(parts))
            )
            return [it for each in done for it in each]
        case "saga":
            return await compensated(parts, key)
        case "fails":
            async with durable.saga() as saga:
                saga.compensate(storm_undo, plan["id"])
                await storm_quick(key)
                raise Refused(plan["id"])
    return [await leaf(plan["kind"], key)]


async def compensated(parts: list[Plan], key: str) -> list[str]:
    """The parts, and then a refusal; what was done is undone."""
    done: list[str] = []
    try:
        for n, part in enumerate(parts):
            done += await perform(part, f"{key}.{n}")
        await storm_refused(key)
    except durable.ActivityError:
        for it in reversed(done):
            await storm_quick(f"undo {it}")
    return [f"{key} undone"]


async def leaf(kind: str, key: str) -> str:
    match kind:
        case "quick":
            return await storm_quick(key)
        case "step":
            return await storm_step(key)
        case "flaky":
            return await storm_flaky(key)
        case "sleep":
            await durable.sleep(timedelta(milliseconds=30))
        case "signal":
            await storm_go.receive()
        case "race":
            await race(key)
        case "local_wait":
            await local_wait(key)
        case "refused":
            with contextlib.suppress(durable.ActivityError):
                await storm_refused(key)
    return key


async def race(key: str) -> None:
    """Against a deadline; who wins depends on the machine, and on which worker dies when."""
    try:
        async with asyncio.timeout(0.05):
            await storm_slow(key)
    except TimeoutError:
        await storm_quick(f"{key} late")


async def local_wait(key: str) -> None:
    """Two tasks that talk to each other through an asyncio.Queue."""
    queue: asyncio.Queue[str] = asyncio.Queue()

    async def produce() -> None:
        await queue.put(await storm_quick(key))

    async with asyncio.TaskGroup() as group:
        group.create_task(produce())
        assert await queue.get() == key


# -- plans ------------------------------------------------------------------------------------------------------------


def draw(chance: random.Random, name: str, depth: int = 2) -> Plan:
    """A plan of a few dozen leaves at most. One in six ends in failure."""
    parts = [_draw(chance, depth) for _ in range(chance.randint(1, 3))]
    parts.append({"kind": "signal"})
    if chance.random() < 1 / 6:
        parts.append({"kind": "fails", "id": name})
    return {"kind": "sequence", "parts": parts}


def _draw(chance: random.Random, depth: int) -> Plan:
    if not depth or chance.random() < 0.4:
        return {"kind": chance.choice(LEAVES)}
    kind = chance.choice(("sequence", "gather", "gather", "saga"))
    return {"kind": kind, "parts": [_draw(chance, depth - 1) for _ in range(chance.randint(1, 4))]}


def signals_in(plan: Plan) -> int:
    """How many signals a run of this plan waits for."""
    return (plan["kind"] == "signal") + sum(map(signals_in, plan.get("parts", [])))


def fails(plan: Plan) -> bool:
    return plan["kind"] == "fails" or any(map(fails, plan.get("parts", [])))


def answer(plan: Plan, key: str = "0") -> list[str]:
    """What a run of this plan returns, if it does not fail."""
    if plan["kind"] == "saga":
        return [f"{key} undone"]
    if plan["kind"] in ("sequence", "gather"):
        return [it for n, part in enumerate(plan["parts"]) for it in answer(part, f"{key}.{n}")]
    return [key]
