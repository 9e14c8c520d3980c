"""Golden histories: one JSON file per behaviour ever released, in `histories/` (C16).

A new behaviour: add a workflow and a scenario here, run

    python -m tests.core.golden

and commit the file that appears. The program writes missing files only. A file that is there is never written again: when the test fails on
it, the engine has changed what old runs do, and that is what has to be mended (or hidden behind a semantics version).
"""

# ruff: noqa: T201

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Generator
from datetime import timedelta
from pathlib import Path
from typing import Any

import durable
from durable import RetryPolicy, Signal, activity, workflow
from durable.core import events as e
from durable.core.events import Event
from durable.dag import Dag, Decision, context, edge, item, result, try_again
from durable.dag.interpreter import run_dag
from durable.definitions import Workflow
from durable.errors import ActivityError, ChildWorkflowError
from durable.failure import encode_failure
from tests.core.simulation import RUN_ID, SECOND, Simulation, as_stored, simulate

FOLDER = Path(__file__).parent / "histories"

note: Signal[str] = Signal("golden_note", str)


@activity(name="golden.step")
def step(n: int) -> int:
    return n


@activity(name="golden.fail")
def fail(text: str) -> None:
    raise ValueError(text)


@activity(
    name="golden.rich",
    queue="payments",
    priority=1,
    retry=RetryPolicy(max_attempts=2),
    timeout=timedelta(seconds=9),
)
async def rich(items: list[str], *, tags: dict[str, int] | None = None) -> dict[str, int]:
    return {item: len(item) for item in items} | (tags or {})


@activity(name="golden.wait", cancellation="wait")
def waits(n: int) -> int:
    return n


@activity(name="golden.abandon", cancellation="abandon")
def abandoned(n: int) -> int:
    return n


@workflow(name="golden.steps")
async def steps(n: int) -> int:
    return sum([await step(i) for i in range(n)])


@workflow(name="golden.steps_blocking")
def steps_blocking(n: int) -> int:
    durable.sleep(1)
    return sum(step(i).result() for i in range(n))


@workflow(name="golden.steps_yielding")
def steps_yielding(n: int) -> Generator[Any, Any, int]:
    first = yield from step(1)
    rest = yield [step(i) for i in range(n)]
    yield durable.sleep(1)
    total: int = first + sum(rest)
    return total


@workflow(name="golden.options")
async def options() -> dict[str, int]:
    await rich(["a"])
    return await rich.options(
        queue="fast", priority=0, id="the-last", retry=RetryPolicy(jitter="none")
    )(["bb"], tags={"c": 3})


@workflow(name="golden.asyncio")
async def asyncio_tools() -> list[Any]:
    gathered = await asyncio.gather(step(1), step(2))
    done, pending = await asyncio.wait({step(3), step(4)}, return_when=asyncio.FIRST_COMPLETED)
    for future in pending:
        future.cancel()
    order = [await it for it in asyncio.as_completed([_after(2), _after(1)])]
    async with asyncio.TaskGroup() as group:
        tasks = {group.create_task(_after(n)) for n in (3, 1, 2)}
    return [gathered, [it.result() for it in done], order, [it.result() for it in tasks]]


async def _after(n: int) -> int:
    await asyncio.sleep(n)
    return await step(n)


@workflow(name="golden.timeouts")
async def timeouts() -> list[str]:
    seen = []
    for attempt in (step(1), waits(1), abandoned(1), note.receive(), durable.sleep(100)):
        try:
            async with asyncio.timeout(5):
                await attempt
        except TimeoutError:
            seen.append("timed out")
    try:
        await note.receive(timeout=timedelta(seconds=5))
    except TimeoutError:
        seen.append("no note")
    return seen


@workflow(name="golden.failure")
async def failure() -> None:
    try:
        await fail("once")
    except ActivityError:
        await fail("twice")


@workflow(name="golden.group_failure")
async def group_failure() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_fails("one"))
        group.create_task(_after(100))


async def _fails(text: str) -> None:
    await fail(text)


@workflow(name="golden.saga")
async def saga() -> None:
    async with durable.saga() as undo:
        undo.compensate(step, await step(1))
        undo.compensate(fail, "cannot undo")
        undo.compensate(step, await step(2))
        await fail("the reason")


@activity(name="golden.undo")
def undo_step(result: int) -> int:
    return -result


@activity(name="golden.decide")
def decide(error: dict[str, Any]) -> Decision:
    return try_again()


def _declared_saga() -> Simulation:
    dag = (
        Dag("golden")
        .add("a", step, {"n": 1}, undo=undo_step)
        .map("m", step, [2, 3], {"n": item()}, deps=["a"], undo=undo_step)
        .add("b", fail, {"text": "no"}, deps=["m"], compensate=decide, compensate_retries=1)
    )
    return simulate(run_dag, dag.to_json())


@workflow(name="golden.signals")
async def signals() -> list[str]:
    first = await note.receive()
    await step(1)
    second = await note.receive(timeout=60)
    rest = []
    async for text in note:
        if text == "end":
            break
        rest.append(text)
    return [first, second, *rest]


@workflow(name="golden.conditions")
async def conditions() -> float:
    count = 0

    async def counting() -> None:
        nonlocal count
        async for _ in note:
            count += 1

    task = asyncio.create_task(counting())
    await durable.wait_until(lambda: count >= 2, timeout=timedelta(hours=1))
    task.cancel()
    return durable.time()


@workflow(name="golden.cancel")
async def cancelled() -> None:
    try:
        await waits(1)
    finally:
        await step(9)


@workflow(name="golden.randomness")
async def randomness() -> list[Any]:
    return [
        durable.random().random(),
        str(durable.uuid4()),
        durable.now().isoformat(),
        await step(1),
    ]


@workflow(name="golden.identity")
async def identity() -> list[Any]:
    seen = []
    for n in range(4):
        seen.append([durable.info().workflow_id, str(durable.info().run_id), str(durable.uuid4())])
        await step(n)
    return seen


@workflow(name="golden.child", version=2, queue="children", retry=RetryPolicy(max_attempts=2))
async def child(n: int) -> int:
    return n


@workflow(name="golden.parent")
async def parent(n: int) -> list[Any]:
    started = [child(i) for i in range(n)]
    started[0].signal(note, "hello")
    seen: list[Any] = []
    for future in started:
        try:
            seen.append(await future)
        except ChildWorkflowError as error:
            seen.append([error.outcome, str(error.cause)])
    try:
        async with asyncio.timeout(5):
            await child.options(id="mine", close_policy="abandon", priority=1)(0)
    except TimeoutError:
        seen.append("timed out")
    return seen


@workflow(name="golden.continued")
async def continued(n: int) -> str:
    text = await note.receive()
    if text != "end":
        await step(n)
        durable.continue_as_new(n + 1)
    return text


@workflow(name="golden.updates")
async def updates() -> list[int]:
    kept: list[int] = []
    open_for_more = True

    @durable.update
    async def keep(n: int) -> int:
        kept.append(await step(n))
        return len(kept)

    @keep.validator
    def positive(n: int) -> None:
        if n < 0:
            raise ValueError(n)

    @durable.update
    def close() -> None:
        nonlocal open_for_more
        open_for_more = False

    @durable.update(name="break")
    def broken() -> None:
        raise ValueError("broken")

    await durable.wait_until(lambda: not open_for_more and durable.handlers_finished())
    return kept


@workflow(name="golden.local")
async def local_steps(n: int) -> list[Any]:
    first = await durable.local(step)(n)
    both: list[Any] = list(await asyncio.gather(durable.local(step)(1), durable.local(rich)(["a"])))
    try:
        await durable.local(fail)("here")
    except ActivityError as error:
        both.append({"failed": error.attempt or 0})
    for late in (durable.local(step.options(id="given-up"))(5), durable.local(waits)(6)):
        try:
            async with asyncio.timeout(5):
                await late
        except TimeoutError:
            both.append({"timed out": 5})
    return [first, *both, await durable.local(step)(3), await step(4)]


@workflow(name="golden.patched")
async def patched(n: int) -> int:
    durable.deprecate_patch("golden change, long done")
    total = 0
    for i in range(n):
        total += await (step(10 * i) if durable.patched("golden change") else step(i))
    return total


async def _not_yet_patched(n: int) -> int:
    return sum([await step(i) for i in range(n)])


def _run(it: Workflow[..., Any], *args: Any) -> Callable[[], Simulation]:
    return lambda: Simulation(it, *args).run()


def _timeouts() -> Simulation:
    sim = Simulation(timeouts)
    sim.turn()
    while sim.timers:
        sim.fire()
        for event in sim.activities:
            if event.body["name"] == waits.name and "ActivityCancelRequested" in sim.types:
                sim.turn(sim.completed(event, 1))
    return sim


def _signals() -> Simulation:
    sim = Simulation(signals)
    sim.turn()
    sim.turn(sim.signalled(note, "one"), sim.signalled(note, "two"))
    sim.turn(sim.completed("golden.step-1", 1))
    for text in ("three", "four", "end"):
        sim.turn(sim.signalled(note, text), after_us=SECOND)
    return sim


def _conditions() -> Simulation:
    sim = Simulation(conditions)
    sim.turn()
    for _ in range(3):
        if not sim.decision.closed:
            sim.turn(sim.signalled(note, "n"), after_us=SECOND)
    return sim


def _cancelled() -> Simulation:
    sim = Simulation(cancelled)
    sim.turn()
    sim.turn(sim.cancelling("golden"))
    sim.turn(sim.completed("golden.wait-1", 1))
    return sim.run()


def _cancelled_at_once() -> Simulation:
    sim = Simulation(cancelled)
    sim.turn(sim.cancelling(None))
    return sim.run()


def _evidence() -> Simulation:
    sim = Simulation(steps, 3)
    sim.turn()
    sim.turn(sim.completed("golden.step-1", 5))
    sim.turn(sim.completed("golden.step-1", 6), sim.completed("golden.step-2", 7))
    return sim.run()


def _children() -> Simulation:
    sim = Simulation(parent, 5)
    sim.turn()
    failure = encode_failure(ValueError("too small"))
    sim.turn(sim.child_ended(0, e.CHILD_COMPLETED, "41"))
    sim.turn(
        sim.child_ended(2, e.CHILD_CANCELLED, reason="enough"),
        sim.child_ended(1, e.CHILD_FAILED, failure=failure),
    )
    sim.turn(sim.child_ended(3, e.CHILD_TERMINATED, reason="by force"))
    sim.turn(sim.child_ended(4, e.CHILD_REJECTED, reason="a running workflow has this id"))
    sim.fire()
    sim.turn(sim.child_ended(5, e.CHILD_CANCELLED, reason="the parent gave it up"))
    return sim


def _continued() -> Simulation:
    sim = Simulation(continued, 1)
    sim.turn()
    sim.turn(*(sim.signalled(note, it, it) for it in ("first", "unread")))
    return sim.run()


def _updates() -> Simulation:
    sim = Simulation(updates)
    sim.turn(sim.updating("keep", 1, update_id="with-start"))
    sim.turn(
        sim.updating("keep", -1, update_id="refused"),
        sim.signalled(note, "between"),
        sim.updating("keep", n=2, update_id="second"),
        sim.updating("break", update_id="fails"),
    )
    sim.turn(sim.updating("keep", -1, update_id="refused"))
    sim.turn(sim.completed("golden.step-2", 2), sim.updating("close", update_id="last"))
    return sim.run()


def _mended() -> Simulation:
    """An operator edits an activity's input, has it tried again, and sets the result of another by hand."""
    sim = Simulation(steps, 2)
    sim.turn()
    by = {"actor": "ann", "reason": "a typing error"}
    was = {"state": "paused", "attempt": 5}
    sim.turn(sim.message(e.ACTIVITY_EDITED, '{"n":7}', ref=2, operator=by, before=was))
    sim.turn(sim.message(e.ACTIVITY_RETRIED, ref=2, operator=by, before=was))
    sim.turn(sim.completed("golden.step-1", 7))
    ref = sim.find("golden.step-2").seq
    sim.turn(sim.message(e.ACTIVITY_COMPLETED, "8", ref=ref, attempt=5, operator=by, before=was))
    return sim


def _reset() -> Simulation:
    """A run whose first two turns were taken by another one: ids and random numbers are that one's, then its own."""
    former = "0190a0b0-0000-7000-8000-000000000009"
    return Simulation(identity, start={"origins": [[2, former, "former"]]}).run()


def _local() -> Simulation:
    sim = Simulation(local_steps, 7)
    sim.turn()
    sim.turn(sim.local_ended("golden.step-1", 7))
    sim.turn(sim.local_ended("golden.step-2", 1), sim.local_ended("golden.rich-1", {"a": 1}))
    later = sim.local_ended("golden.fail-1", error=ValueError("once"), delay_us=9 * SECOND)
    sim.turn(later)
    sim.fire()
    sim.turn(sim.local_ended("golden.fail-1", error=ValueError("twice")))
    too_late = sim.local_ended("given-up", 5)
    sim.fire()
    sim.fire()
    sim.turn(too_late, sim.local_ended("golden.wait-1", 6))
    return sim.run()


def _ended_by_others(sim: Simulation, *rows: tuple[str, dict[str, Any]]) -> Simulation:
    """A turn that the database wrote alone."""
    last = sim.history[-1]
    sim.history += [
        Event(last.seq + n, last.turn + 1, kind, last.at_us, body)
        for n, (kind, body) in enumerate(rows, 1)
    ]
    sim.execution = sim.fresh()
    sim.execution.replay(sim.history)
    sim.decision = sim.decision._replace(closed=True)
    return sim


def _cancelled_before_start() -> Simulation:
    reason = {"reason": "never mind"}
    return _ended_by_others(
        Simulation(cancelled),
        (e.CANCEL_REQUESTED, reason),
        (e.WORKFLOW_CANCELLED, {**reason, "before_start": True}),
    )


def _terminated() -> Simulation:
    sim = Simulation(cancelled)
    sim.turn()
    return _ended_by_others(sim, (e.WORKFLOW_TERMINATED, {"reason": "by force"}))


def _timed_out() -> Simulation:
    sim = Simulation(cancelled)
    sim.turn()
    failure = {
        "type": "durable.errors:WorkflowTimedOut",
        "message": "workflow 'wf' exceeded its run timeout",
        "state": {"workflow_id": "wf", "run_id": str(RUN_ID), "reason": None, "kind": "run"},
    }
    return _ended_by_others(sim, (e.WORKFLOW_TIMED_OUT, {"timeout": "run", "failure": failure}))


@workflow(name="golden.noted")
async def noted() -> dict[str, Any]:
    durable.set_attributes({"customer": "acme", "amount": 7})
    durable.set_details("first")
    await step(1)
    durable.set_attributes({"amount": None, "customer": "acme"})
    durable.set_details("first")
    durable.set_details(None)
    return durable.attributes()


def _reset_away() -> Simulation:
    sim = Simulation(cancelled)
    sim.turn()
    return _ended_by_others(sim, (e.WORKFLOW_RESET, {"run_id": "another", "event": 1}))


def _dag() -> Simulation:
    """Steps of every kind; what others do to them, while the run is held for one that failed."""
    dag = (
        Dag("golden", context={"n": 2}, on_failure="wait")
        .add("one", step, {"n": context("n")}, priority=1)
        .map("many", step, [1, 2], {"n": item()}, max_concurrency=1, deps=["one"])
        .branch("which", result("one"), {"2": ["left"]}, default=["right"])
        .add("left", fail, {"text": "no"})
        .add("right", step, {"n": 0})
        .add("below", step, {"n": 3}, deps=["left"])
        .add("told", step, {"n": 4}, deps=[edge("left", policy="continue")])
        .wait("approval", timeout=timedelta(days=3))
        .wait("signalled", signal=note)
        .wait("dropped", deps=["approval"])
    )
    sim = Simulation(run_dag, dag.to_json())
    sim.turn()
    sim.turn(sim.updating("complete_step", "dropped", "skipped", update_id="early"))
    sim.turn(
        sim.completed("one", 2),
        sim.signalled(note, "hello"),
        sim.updating("complete_step", "approval", "completed", {"by": "ann"}, update_id="approved"),
    )
    sim.turn(sim.updating("cancel_step", "many", "not needed", update_id="cancel"))
    sim.turn(sim.failed("left", ValueError("no")))
    sim.turn(sim.completed("told", 4))
    sim.turn(sim.updating("retry_step", None, "again", update_id="left"))
    sim.turn(
        sim.updating("complete_step", "left", "completed", 1, update_id="by hand"),
        sim.updating("retry_step", "many", "needed", update_id="many"),
    )
    return sim.run()


SCENARIOS: dict[str, Callable[[], Simulation]] = {
    "steps": _run(steps, 3),
    "steps_blocking": _run(steps_blocking, 3),
    "steps_yielding": _run(steps_yielding, 3),
    "options": _run(options),
    "asyncio": _run(asyncio_tools),
    "timeouts": _timeouts,
    "failure": _run(failure),
    "group_failure": _run(group_failure),
    "saga": _run(saga),
    "declared_saga": _declared_saga,
    "signals": _signals,
    "conditions": _conditions,
    "cancelled": _cancelled,
    "cancelled_at_once": _cancelled_at_once,
    "evidence": _evidence,
    "randomness": _run(randomness),
    "children": _children,
    "continued": _continued,
    "updates": _updates,
    "mended": _mended,
    "reset": _reset,
    "local": _local,
    "patched": _run(patched, 3),
    "patched_later": _run(Workflow(_not_yet_patched, "golden.patched", 1, None, None, None), 3),
    "cancelled_before_start": _cancelled_before_start,
    "terminated": _terminated,
    "timed_out": _timed_out,
    "noted": _run(noted),
    "reset_away": _reset_away,
    "dag": _dag,
}


def dumped(sim: Simulation) -> str:
    """The file's text."""
    rows = ",\n  ".join(json.dumps(list(it)) for it in as_stored(sim.history))
    return f'{{"workflow": "{sim.workflow.name}", "run_id": "{sim.run_id}", "history": [\n  {rows}\n]}}\n'


def loaded(path: Path) -> dict[str, Any]:
    stored: dict[str, Any] = json.loads(path.read_text())
    return {**stored, "history": [Event(*row) for row in stored["history"]]}


def main() -> None:
    for name, scenario in SCENARIOS.items():
        path = FOLDER / f"{name}.json"
        if not path.exists():
            root = str(
                Path(__file__).parents[2]
            )  # tracebacks must not name the machine they were made on
            path.write_text(dumped(scenario().check()).replace(f"{root}/", ""))
            print(f"wrote {path.name}")


if __name__ == "__main__":
    main()
