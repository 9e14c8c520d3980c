"""Worker processes that are killed, frozen and thawed for good reason. Every process is ended by its own id."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
FLOWS = "tests.system.flows"


class WorkerProcess:
    """One `durable-worker` process; its output goes to a file."""

    def __init__(
        self, url: str, modules: tuple[str, ...], options: list[str], env: dict[str, str], log: Path
    ) -> None:
        self.log_file = log
        command = [sys.executable, "-m", "durable_worker", *modules, "--url", url, *options]
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env, cwd=ROOT
            )
        self.pid = self._process.pid

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def ready(self) -> WorkerProcess:
        """Wait until it works."""
        eventually(lambda: "is ready" in self.log() or self.ended(), what="the worker is ready")
        assert not self.ended(), self.log()
        return self

    def ended(self) -> bool:
        return self._process.poll() is not None

    def wait(self, timeout_s: float = 30.0) -> int:
        return self._process.wait(timeout_s)

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self.wait()

    def freeze(self) -> None:
        self.send(signal.SIGSTOP)

    def thaw(self) -> None:
        self.send(signal.SIGCONT)

    def stop(self, timeout_s: float = 30.0) -> int:
        self.send(signal.SIGTERM)
        return self.wait(timeout_s)

    def close(self) -> None:
        if not self.ended():
            self.send(signal.SIGCONT)
            self.kill()


class Fleet:
    """The worker processes of one test; a context manager that leaves none behind."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._hired: list[WorkerProcess] = []

    def hire(
        self,
        url: str,
        *modules: str,
        lease_s: float = 1.0,
        options: tuple[str, ...] = (),
        env: dict[str, str] | None = None,
    ) -> WorkerProcess:
        """Start a worker of `modules` (by default the flows of these tests) with short times."""
        log = self._folder / f"worker-{len(self._hired)}.log"
        worker = WorkerProcess(
            url,
            modules or (FLOWS,),
            ["--lease", str(lease_s), "--poll", "0.05", *options],
            {**os.environ, "PYTHONPATH": import_path(), "SYSTEM_DATABASE_URL": url, **(env or {})},
            log,
        )
        self._hired.append(worker)
        return worker

    def close(self) -> None:
        for worker in self._hired:
            worker.close()


def import_path() -> str:
    """Children find what we find, installed or not."""
    return os.pathsep.join(str(Path(entry).resolve()) for entry in sys.path)


@contextlib.contextmanager
def fleet(folder: Path) -> Iterator[Fleet]:
    hired = Fleet(folder)
    try:
        yield hired
    finally:
        hired.close()
