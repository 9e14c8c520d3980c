"""The processes of the demo: the payment service and the workers, one of which is killed now and then."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

QUEUES = ("default=24", "payments=12")
STOP_S = 15.0


class DemoFailed(Exception):
    """The demo cannot go on: one of its processes did not start, or ended by itself."""


@contextlib.contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set in this process, hence in its children, until the block ends."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextlib.contextmanager
def payment_service(package: str, folder: Path) -> Iterator[str]:
    """The URL of a payment service in a process of its own; it ends when its stdin is closed."""
    command = [
        sys.executable,
        "-m",
        f"{package}.payment_service",
        "--ledger",
        str(folder / "payments.sqlite"),
    ]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_import_like_us()
    ) as service:
        assert service.stdout
        url = service.stdout.readline().strip()
        if not url:
            raise DemoFailed(f"the payment service did not start: {' '.join(command)}")
        yield url


class Crew:
    """Worker processes, by name. Their output goes to `<name>.log` in `folder`. A context manager: at its end all have stopped."""

    def __init__(self, package: str, folder: Path, lease_s: float) -> None:
        self._modules = (f"{package}.workflow", f"{package}.activities")
        self._folder = folder
        self._lease_s = lease_s
        self._hired = 0
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def names(self) -> list[str]:
        return list(self._running)

    def hire(self) -> str:
        """Start one more worker, and return its name."""
        self._hired += 1
        name = f"worker-{self._hired}"
        queues = [part for queue in QUEUES for part in ("--queue", queue)]
        command = [sys.executable, "-m", "durable_worker", *self._modules, "--name", name]
        command += [*queues, "--lease", str(self._lease_s)]
        with self.log_of(name).open("wb") as log:
            self._running[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=_import_like_us()
            )
        return name

    def kill(self, name: str) -> None:
        """SIGKILL: no signal handler, no clean-up, no goodbye to the database."""
        process = self._running.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def deserters(self) -> list[str]:
        """Those that ended by themselves, which none should."""
        return [name for name, process in self._running.items() if process.poll() is not None]

    def log_of(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running.values():
            process.terminate()
        for process in self._running.values():
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _import_like_us() -> dict[str, str]:
    """Our environment, and our import path: the children must find the packages that we run, installed or not."""
    path = [str(Path(entry).resolve()) for entry in sys.path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
