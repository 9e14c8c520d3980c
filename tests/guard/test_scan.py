"""C13 at decoration: what is found, where, with which replacement; and what is left alone."""

# The subjects are what linters object to, too.
# ruff: noqa: A001, C413, C416, DTZ001, DTZ003, DTZ005, DTZ011, ICN001, PLC0208, PLW0108, PLW1510, PTH109
# ruff: noqa: PTH110, PTH123, SIM115, T201

from __future__ import annotations

import asyncio
import datetime as datetime_module
import os
import random
import secrets
import subprocess
import threading
import time
import time as clock
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import date, datetime
from datetime import datetime as dt
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

import durable
from durable import UnsafeWorkflow, activity, unguarded, workflow
from durable.core.scan import live_scope, scan

STARTED = time.time()


def findings(fn: Any) -> list[tuple[str, str]]:
    """(what, instead) without the warnings."""
    return [
        (it.what, it.instead) for it in scan(fn.__code__, live_scope(fn)) if it.level == "error"
    ]


def warnings(fn: Any) -> list[str]:
    return [it.what for it in scan(fn.__code__, live_scope(fn)) if it.level == "warning"]


ONE_EACH: list[tuple[Callable[[], Any], str, str]] = [
    (lambda: time.time(), "time.time reads", "durable.time()"),
    (lambda: clock.time_ns(), "time.time_ns reads", "durable.time()"),
    (lambda: monotonic(), "time.monotonic reads", "durable.time()"),
    (lambda: time.localtime(), "time.localtime() reads", "durable.now()"),
    (lambda: datetime.now(), "datetime.datetime.now reads", "durable.now()"),
    (lambda: dt.utcnow(), "datetime.datetime.utcnow reads", "durable.now()"),
    (
        lambda: datetime_module.datetime.now(datetime_module.UTC),
        "datetime.datetime.now reads",
        "durable.now()",
    ),
    (lambda: date.today(), "datetime.date.today reads", "durable.now().date()"),
    (lambda: random.choice([1, 2]), "random.choice draws", "durable.random().choice"),
    (lambda: random.Random(), "random.Random() draws", "durable.random()"),
    (lambda: uuid.uuid1(), "uuid.uuid1 draws", "durable.uuid4()"),
    (lambda: uuid.uuid4().hex, "uuid.uuid4 draws", "durable.uuid4()"),
    (lambda: os.urandom(4), "os.urandom draws", "durable.random().randbytes(n)"),
    (lambda: secrets.token_hex(), "secrets.token_hex draws", "an activity"),
    (lambda: clock.sleep(1), "time.sleep blocks", "durable.sleep(...)"),
    (
        lambda: threading.Thread(target=int).start(),
        "threading.Thread starts",
        "asyncio.create_task(...)",
    ),
    (lambda: threading.Lock(), "threading.Lock blocks", "its namesake in asyncio"),
    (lambda: open("x"), "open does I/O", "an activity"),
    (lambda: input(), "input does I/O", "a durable Signal"),
    (lambda: Path("x").read_text(), "pathlib.Path().read_text does I/O", "an activity"),
    (lambda: os.path.exists("x"), "os.path.exists does I/O", "an activity"),
    (lambda: subprocess.run(["true"]), "subprocess.run does I/O", "an activity"),
    (
        lambda: asyncio.to_thread(int),
        "asyncio.to_thread starts",
        "an activity (a sync activity runs",
    ),
    (lambda: asyncio.run(asyncio.sleep(0)), "asyncio.run leaves", "`await`"),
    (
        lambda: asyncio.get_running_loop().run_in_executor(None, int),
        "asyncio.get_running_loop().run_in_executor leaves",
        "an activity",
    ),
    (lambda: durable.Client(), "durable.Client does I/O", "an activity"),
]


@pytest.mark.parametrize(("fn", "what", "instead"), ONE_EACH, ids=[what for _, what, _ in ONE_EACH])
def test_each_hazard_is_named_with_its_replacement(fn: Any, what: str, instead: str) -> None:
    ((found, use),) = findings(fn)
    assert found.startswith(what)
    assert use.startswith(instead)


def test_decoration_lists_all_findings_at_once_with_file_and_line() -> None:
    with pytest.raises(UnsafeWorkflow) as caught:

        @workflow
        async def twice() -> float:
            first = time.time()
            await durable.sleep(1)
            return first + random.random()

    one, two = caught.value.findings
    assert (one["file"], two["line"] - one["line"]) == (__file__, 2)
    assert f"{__file__}:{one['line']}: time.time reads the clock (in " in str(caught.value)
    assert "with durable.unguarded():" in str(caught.value)


def test_an_unsafe_workflow_is_not_registered() -> None:
    with pytest.raises(UnsafeWorkflow):

        @workflow(name="never_registered")
        async def unsafe() -> float:
            return time.time()

    assert not [
        it for it in durable.definitions.registered_workflows() if it.name == "never_registered"
    ]


def test_all_three_styles_are_scanned() -> None:
    with pytest.raises(UnsafeWorkflow):

        @workflow
        def blocking() -> float:
            return time.time()

    with pytest.raises(UnsafeWorkflow):

        @workflow
        def yielding() -> Generator[Any, Any, float]:
            yield []
            return time.time()


# -- followed ----------------------------------------------------------------------------------------------------------


def helper_of_helper() -> float:
    return time.time()


def helper() -> float:
    return helper_of_helper()


@contextmanager
def timed() -> Generator[None]:
    time.time()
    yield


def test_helpers_of_the_same_module_are_followed() -> None:
    with pytest.raises(UnsafeWorkflow, match=r"time.time .*in helper_of_helper"):

        @workflow
        async def indirect() -> float:
            return helper()


def test_a_helper_with_a_decorator_is_followed() -> None:
    def fn() -> None:
        with timed():
            pass

    assert len(findings(fn)) == 1


def test_nested_functions_and_lambdas_are_scanned() -> None:
    async def fn() -> None:
        def inner() -> float:
            return time.time()

        await durable.wait_until(lambda: random.random() > inner())

    assert len(findings(fn)) == 2


def test_closures_and_local_imports_and_aliases_are_followed() -> None:
    now = datetime.now

    def beside() -> float:
        return time.time()

    def fn() -> Any:
        import uuid as ids
        from os import urandom as entropy

        path = os.path
        draw = entropy
        return now(), beside(), ids.uuid4(), draw(3), path.getsize("x")

    assert sorted(what.split()[0] for what, _ in findings(fn)) == [
        "datetime.datetime.now", "os.path.getsize", "os.urandom", "os.urandom", "time.time", "uuid.uuid4",
    ]  # fmt: skip  # entropy: where it is renamed, and where it is called


def test_a_helper_below_the_workflow_is_found_and_an_activity_there_is_not(tmp_path: Path) -> None:
    source = """
import time
from durable import activity, workflow

@workflow
async def first() -> float:
    await measure()
    return later()

@activity
def measure() -> float:
    return time.time()

def later() -> float:
    return time.time()
"""
    with pytest.raises(UnsafeWorkflow) as caught:
        exec(compile(source, str(tmp_path / "below.py"), "exec"), {"__name__": "below"})
    assert [it["function"] for it in caught.value.findings] == ["later"]


# -- left alone --------------------------------------------------------------------------------------------------------


@activity
def measured() -> float:
    time.sleep(0)
    return time.time() + random.random()


def pure(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_harmless_code_is_left_alone() -> None:
    async def fn(time: Any, items: set[str]) -> Any:
        await measured()  # an activity's body is not workflow code
        seeded = random.Random(7)
        fixed = datetime_module.datetime(2026, 1, 1)
        try:
            text = Path("a") / "b"
        except (subprocess.CalledProcessError, OSError, asyncio.CancelledError):
            raise
        open = 3
        names = [name for name in sorted({"b", "a"})] + [n for n in {1, 2, 3}]
        found = "a" in {"a", "b", "c"}
        ids = uuid.uuid5(uuid.NAMESPACE_DNS, "x"), uuid.UUID(int=3)
        lock = asyncio.Lock(), asyncio.Queue[int]()
        own = durable.now(), durable.time(), durable.random().random(), durable.uuid4()
        return (
            time.time(),
            seeded,
            fixed,
            text,
            open,
            names,
            found,
            ids,
            lock,
            own,
            pure("x"),
            STARTED,
            time.localtime(3),
        )

    assert findings(fn) == []
    assert warnings(fn) == []


def test_unguarded_lifts_its_block_and_nothing_else() -> None:
    async def fn() -> None:
        with durable.unguarded():
            time.time()
            try:
                await asyncio.sleep(time.time())
            except ValueError:
                random.random()
            else:
                with unguarded() as _, timed():
                    uuid.uuid4()
            finally:
                helper()
            print(lambda: time.time())
        time.time_ns()

    def after() -> None:
        try:
            with unguarded():
                time.time()
        except OSError:
            time.monotonic()

    def early() -> int:
        for _ in range(3):
            with unguarded():
                if time.time() > 3:
                    return 1
                time.time()
        return 0

    assert [what for what, _ in findings(fn)] == ["time.time_ns reads the clock"]
    assert [what for what, _ in findings(after)] == ["time.monotonic reads the clock"]
    assert findings(early) == []


def test_a_block_of_another_context_manager_is_not_lifted() -> None:
    def fn() -> None:
        with timed():
            os.getcwd()
        with unguarded():
            pass
        os.getcwd()

    assert sum(what.startswith("os.getcwd") for what, _ in findings(fn)) == 2


# -- sets --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fn",
    [
        lambda a, b: [x for x in {a, b}],
        lambda: [x for x in {"a", "b", "c"}],
        lambda items: [x for x in set(items)],
        lambda items: [x for x in frozenset(items)],
        lambda items: list(set(items)),
        lambda items: tuple({"a", *items}),
        lambda items: [*set(items)],
    ],
)
def test_iterating_over_an_evident_set_is_a_warning_only(fn: Any) -> None:
    assert len(warnings(fn)) == 1
    assert findings(fn) == []


@pytest.mark.parametrize(
    "fn",
    [
        lambda items: sorted(set(items)),
        lambda items: len(set(items)),
        lambda items: list(sorted(set(items))),
        lambda items: "x" in set(items),
        lambda items: set(items) | {"a"},
        lambda items: [*items],
        lambda items: max({"a", "b", "c"}),
    ],
)
def test_other_uses_of_sets_are_fine(fn: Any) -> None:
    assert warnings(fn) == []
