"""The command `durable-worker MODULE... [--queue name=N] [--processes N]`.

One process runs one Worker. With `--processes N` this process only supervises N of them: it passes signals on and starts anew, with back-off, a
child that died. SIGTERM or SIGINT stops gracefully; a second one hurries.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from durable.cli.exits import BAD_INPUT, code_of
from durable.errors import DurableError
from durable_worker.backoff import pause_s
from durable_worker.settings import DEFAULT_SLOTS
from durable_worker.worker import Worker

logger = logging.getLogger("durable.worker")

EXIT_STOPPED_BY_FAILURE = 1
WAY_OUT_S = 3.0
_STEADY_S = 60.0
"""Between two failures of children that have nothing to do with each other."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help="Run the workflows and activities that MODULES define, until SIGTERM.")
def durable_worker(
    modules: Annotated[list[str], typer.Argument(help="modules to import, e.g. shop.flows")],
    queue: Annotated[
        list[str],
        typer.Option("--queue", "-q", help="queue=slots, repeatable; default=100 if none is given"),
    ] = [],  # noqa: B006 - typer copies it
    processes: Annotated[int, typer.Option(min=1, help="worker processes to supervise")] = 1,
    url: Annotated[
        str | None, typer.Option(envvar="DURABLE_DATABASE_URL", help="database to use")
    ] = None,
    name: Annotated[str | None, typer.Option(help="shown to people; default host:pid")] = None,
    build: Annotated[
        str | None,
        typer.Option(
            envvar="DURABLE_BUILD", help="name of this code; pinned runs stay with their build"
        ),
    ] = None,
    lease: Annotated[
        float, typer.Option(help="seconds of silence after which others take over")
    ] = 15.0,
    poll: Annotated[float, typer.Option(help="seconds between polls when idle")] = 0.2,
    local_slots: Annotated[int, typer.Option(help="local activities at once")] = DEFAULT_SLOTS,
    cache: Annotated[int, typer.Option(help="live runs kept in memory")] = 10_000,
    grace: Annotated[
        float, typer.Option(help="seconds that running attempts get at SIGTERM")
    ] = 30.0,
    notify: Annotated[
        bool, typer.Option(help="use LISTEN/NOTIFY hints; not through a transaction pooler")
    ] = True,
    workflows: Annotated[bool, typer.Option(help="run workflows")] = True,
    activities: Annotated[bool, typer.Option(help="run activities")] = True,
    log_level: Annotated[str, typer.Option(help="debug, info, warning, error")] = "info",
) -> None:
    """Start one worker, or supervise several."""
    logging.basicConfig(
        level=log_level.upper(), format="%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    )
    if processes > 1:
        raise SystemExit(supervise(processes, _without_processes(sys.argv[1:])))
    sys.path.insert(0, str(Path.cwd()))
    try:
        worker = Worker(
            url,
            modules=modules,
            queues=_queues(queue),
            name=name or f"{os.uname().nodename}:{os.getpid()}",
            build=build,
            lease_s=lease,
            poll_s=poll,
            local_slots=local_slots,
            max_cached_runs=cache,
            shutdown_grace_s=grace,
            notify=notify,
            run_workflows=workflows,
            run_activities=activities,
        )
        run(serve(worker))
    except DurableError as error:
        typer.echo(f"durable-worker: {error}", err=True)
        raise SystemExit(code_of(error)) from error
    except ModuleNotFoundError as error:
        typer.echo(
            f"durable-worker: cannot import {error.name!r}; run it where the module can be found",
            err=True,
        )
        raise SystemExit(BAD_INPUT) from error


def _end_soon(code: int) -> None:
    """Bound the way out: the interpreter waits for every thread, and an activity that blocks in one would keep the process for ever."""
    timer = threading.Timer(WAY_OUT_S, os._exit, (code,))
    timer.daemon = True
    timer.start()


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run the process's main coroutine: on uvloop where it is installed (the extra `fast`), which takes a third off the loop's share of a step.

    Collections of the oldest generation are made rare: ten thousand live runs are ten thousand object graphs to walk through for nothing.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(main)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        return import_module("uvloop").new_event_loop  # type: ignore[no-any-return]
    except ImportError:
        return None


async def serve(worker: Worker) -> None:
    """Run a worker until a signal or its own failure, then stop it in order."""
    stop = asyncio.Event()
    asked = 0

    def on_signal() -> None:
        nonlocal asked
        asked += 1
        stop.set()
        if asked > 1:
            logger.warning("stopping in a hurry")
            worker.hurry()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    await worker.start()
    logger.info("worker %s is ready", worker.worker_id)
    failed = asyncio.ensure_future(worker.wait())
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait([failed, stopping], return_when=asyncio.FIRST_COMPLETED)
    logger.info("worker %s is stopping", worker.worker_id)
    await worker.stop()
    _end_soon(EXIT_STOPPED_BY_FAILURE if failed.done() else 0)
    stopping.cancel()
    if failed.done():
        await failed
    failed.cancel()


def _queues(options: list[str]) -> dict[str, int]:
    """Read `name=N` options. Raises SystemExit(2) with the rule."""
    queues: dict[str, int] = {}
    for option in options:
        name, _, slots = option.partition("=")
        if not name or (slots and not slots.isdigit()):
            typer.echo(
                f"durable-worker: --queue {option!r}: write name=slots, e.g. --queue payments=20",
                err=True,
            )
            raise SystemExit(BAD_INPUT)
        queues[name] = int(slots) if slots else DEFAULT_SLOTS
    return queues or {"default": DEFAULT_SLOTS}


# -- several processes ----------------------------------------------------------------------------


def supervise(count: int, arguments: list[str]) -> int:
    """Keep `count` worker processes running until a signal. Returns the exit code.

    The children have process groups of their own: a terminal would send them the SIGINT that is passed on here once more,
    which means hurry.
    """
    stopping = 0
    children: dict[int, subprocess.Popen[bytes]] = {}

    def on_signal(_number: int, _frame: object) -> None:
        nonlocal stopping
        stopping += 1
        for child in children.values():
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(signal.SIGTERM)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, on_signal)
    failures = worst = 0
    failed_at = -_STEADY_S
    while not stopping:
        for place in range(count):
            if place not in children:
                children[place] = subprocess.Popen(
                    [sys.executable, "-m", "durable_worker", *arguments], process_group=0
                )
        if (code := _reap(children)) == BAD_INPUT:
            worst = BAD_INPUT
            on_signal(signal.SIGTERM, None)
        elif code is not None:
            soon = time.monotonic() - failed_at < _STEADY_S
            failures, failed_at = failures + 1 if soon else 1, time.monotonic()
            time.sleep(pause_s(failures, 0.2, 10.0))
        time.sleep(0.05)
    return max(worst, *(child.wait() for child in children.values()), 0)


def _reap(children: dict[int, subprocess.Popen[bytes]]) -> int | None:
    """Forget one child that has ended and return its exit code."""
    for place, child in list(children.items()):
        code = child.poll()
        if code is not None:
            logger.error("worker process %s ended with %s; starting another", child.pid, code)
            del children[place]
            return code
    return None


def _without_processes(arguments: list[str]) -> list[str]:
    kept: list[str] = []
    skip = False
    for argument in arguments:
        if skip:
            skip = False
        elif argument == "--processes":
            skip = True
        elif not argument.startswith("--processes="):
            kept.append(argument)
    return kept


def main() -> None:
    """Entry point of `durable-worker`."""
    app()
