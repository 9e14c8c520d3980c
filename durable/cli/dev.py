"""The worker of `durable dev`: started, watched, and started again when the code changes.

The worker leads a process group of its own, so that Ctrl-C in the terminal reaches only us; we stop it with SIGTERM and in order. A worker that
ends by itself (a syntax error, say) is not started again until a file changes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from durable.cli.output import line

STOP_S = 10.0
POLL_S = 0.2


class Development:
    """Runs until Ctrl-C or SIGTERM. `arguments` are those of `durable-worker`, `modules` those among them that are modules."""

    def __init__(self, database: str, modules: Sequence[str], arguments: Sequence[str]) -> None:
        self._environment = {
            **os.environ,
            "DURABLE_DATABASE_URL": database,
            "PYTHONUNBUFFERED": "1",
        }
        self._command = [sys.executable, "-m", "durable_worker", *arguments]
        self._folders = watched_folders(modules)
        self._changed = threading.Event()
        self._ending = threading.Event()
        self._worker: subprocess.Popen[bytes] | None = None

    def run(self) -> int:
        """Returns the exit code of a worker that ended by itself while nothing is watched, else 0."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self._ending.set())
        watching = self._watch()
        self._start()
        try:
            return self._supervise(watching=watching)
        finally:
            self._ending.set()
            self._stop()
            line("stopped", style="dim")

    def _supervise(self, *, watching: bool) -> int:
        told = False
        while not self._ending.wait(POLL_S):
            if self._changed.is_set():
                self._changed.clear()
                line("the code changed; restarting the worker", style="cyan")
                self._stop()
                self._start()
                told = False
            assert self._worker is not None
            code = self._worker.poll()
            if code is not None and not watching:
                return code
            if code is not None and not told:
                line(
                    f"the worker ended with {code}; it starts again when a file changes",
                    style="yellow",
                )
                told = True
        return 0

    def _start(self) -> None:
        self._worker = subprocess.Popen(
            self._command, env=self._environment, start_new_session=True
        )

    def _stop(self) -> None:
        worker = self._worker
        if worker is None or worker.poll() is not None:
            return
        worker.terminate()
        try:
            worker.wait(STOP_S)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()

    def _watch(self) -> bool:
        """Watch in a thread; False, and why, when nothing can watch."""
        if find_spec("watchfiles") is None:
            line(
                "no reload: pip install watchfiles to restart the worker when the code changes",
                style="yellow",
            )
            return False
        threading.Thread(
            target=self._wait_for_changes, daemon=True, name="durable dev watcher"
        ).start()
        line(f"watching {', '.join(str(folder) for folder in self._folders)}", style="dim")
        return True

    def _wait_for_changes(self) -> None:
        from watchfiles import PythonFilter, watch

        for _ in watch(
            *self._folders,
            watch_filter=PythonFilter(),
            stop_event=self._ending,
            raise_interrupt=False,
        ):
            self._changed.set()


def watched_folders(modules: Sequence[str]) -> list[Path]:
    """The folders of the modules: a package's own, or the one that a plain module lies in."""
    sys.path.insert(0, str(Path.cwd()))
    folders: dict[Path, None] = {}
    for module in modules:
        top = Path(module.partition(".")[0])
        folders[top.resolve() if top.is_dir() else Path.cwd()] = None
    return list(folders)
