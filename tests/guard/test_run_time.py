"""C13 at run time: I/O and threads of workflow code, in whatever module, are refused where they happen and park the run."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

import durable
from durable import UnsafeWorkflow, activity, workflow
from tests.core.simulation import Simulation, simulate
from tests.guard import flows_elsewhere


@activity
def one() -> int:
    return 1


def parked(definition: Any, *args: Any) -> UnsafeWorkflow:
    with pytest.raises(UnsafeWorkflow) as caught:
        Simulation(definition, *args).run()
    return caught.value


CALLS: list[Any] = [
    (flows_elsewhere.read_file, "open(", "an activity"),
    (flows_elsewhere.list_folder, "os.listdir(", "an activity"),
    pytest.param(
        flows_elsewhere.start_thread, "_thread.start_", "asyncio.create_task",
        marks=pytest.mark.skipif(sys.version_info < (3, 12), reason="no audit event before"),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("call", "what", "instead"), CALLS)
def test_io_in_another_module_parks_the_run_and_names_the_workflow_s_line(
    call: Callable[[], object], what: str, instead: str
) -> None:
    @workflow
    async def reaching() -> None:
        await one()
        call()

    (finding,) = parked(reaching).findings
    assert finding["what"].startswith(what)
    assert finding["instead"].startswith(instead)
    assert finding["file"] == __file__
    assert finding["line"] == reaching.fn.__code__.co_firstlineno + 3


def test_the_call_has_not_happened(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    make = [target.mkdir]

    @workflow
    async def making() -> None:
        make[0]()

    parked(making)
    assert not target.exists()


def test_code_that_swallows_the_error_is_parked_all_the_same_c8() -> None:
    seen: list[str] = []

    @workflow
    async def swallowing() -> str:
        try:
            flows_elsewhere.read_file()
        except Exception as error:
            seen.append(type(error).__name__)
        await one()
        return "as if nothing had happened"

    @workflow
    async def swallowing_at_the_end() -> str:
        try:
            flows_elsewhere.read_file()
        except Exception:
            return "as if nothing had happened"
        return ""

    parked(swallowing)
    parked(swallowing_at_the_end)
    assert seen == ["UnsafeWorkflow"]


def test_replay_is_guarded_too_and_corrected_code_goes_on() -> None:
    unsafe = [False]

    @workflow
    async def changed() -> int:
        if unsafe[0]:
            flows_elsewhere.list_folder()
        return await one()

    history = simulate(changed)
    unsafe[0] = True
    with pytest.raises(UnsafeWorkflow):
        history.fresh().replay(history.history)
    unsafe[0] = False
    execution = history.fresh()
    execution.replay(history.history)
    assert execution.closed


def test_all_styles_and_tasks_are_guarded() -> None:
    @workflow
    def blocking() -> None:
        one().result()
        flows_elsewhere.list_folder()

    @workflow
    def yielding() -> Any:
        yield one()
        flows_elsewhere.list_folder()

    @workflow
    async def in_a_task() -> None:
        async def background() -> None:
            flows_elsewhere.list_folder()

        task = asyncio.create_task(background())
        await one()
        await task

    @workflow
    async def in_a_predicate() -> None:
        await durable.wait_until(lambda: bool(flows_elsewhere.list_folder()))

    for definition in (blocking, yielding, in_a_task, in_a_predicate):
        parked(definition)


def test_unguarded_lifts_the_guard_for_its_block_only() -> None:
    @workflow
    async def lifted() -> int:
        with durable.unguarded():
            flows_elsewhere.list_folder()
            await one()
            flows_elsewhere.list_folder()
        return await one()

    @workflow
    async def elsewhere() -> None:
        async def outside() -> None:
            await one()
            flows_elsewhere.list_folder()

        task = asyncio.create_task(outside())
        with durable.unguarded():
            await task

    assert simulate(lifted).result == 1
    parked(elsewhere)


def test_what_decides_nothing_is_not_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    sys.modules.pop("this_is_imported_late", None)
    handler = logging.FileHandler(tmp_path / "log", delay=True)
    logger = logging.getLogger("tests.guard")
    logger.addHandler(handler)

    @workflow
    async def harmless() -> str:
        logger.warning("hello")
        try:
            raise ValueError
        except ValueError:
            traceback.format_exc()
        zone = ZoneInfo.no_cache("Europe/Berlin")
        garbage = flows_elsewhere.Cleaning()
        del garbage
        gc.collect()
        return f"{zone.key} {len(flows_elsewhere.import_late())}"

    assert Simulation(harmless).run().result.startswith("Europe/Berlin")
    handler.close()


def test_other_threads_and_other_code_are_never_concerned() -> None:
    """While a turn is being taken here, another thread reads files."""
    problems: list[BaseException] = []

    def read() -> None:
        go.wait()
        try:
            flows_elsewhere.read_file()
        except BaseException as error:
            problems.append(error)

    go = threading.Event()
    worker = threading.Thread(target=read)
    worker.start()

    def let_it_read() -> None:
        go.set()
        worker.join()

    wait = [let_it_read]

    @workflow
    async def busy() -> int:
        wait[0]()
        return await one()

    assert Simulation(busy).run().result == 1
    assert problems == []
    assert flows_elsewhere.read_file()


@pytest.mark.skipif(sys.version_info < (3, 13), reason="time.sleep has no audit event before 3.13")
def test_sleep_in_another_module_is_refused() -> None:
    sleep = [time.sleep]

    @workflow
    async def sleepy() -> None:
        sleep[0](0)

    parked(sleepy)
