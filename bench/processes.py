"""Child processes that talk in JSON, one line a message, over stdin and stdout.

Everything that is measured runs in a process of its own, so that each one's CPU time can be read and nothing sits on another's event loop.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).parents[1]


class ChildFailed(Exception):
    """A process ended or fell silent; its own output stands above."""


class Child:
    """A module of this package run as a program. Its stderr is ours. A context manager: at its end it has stopped."""

    def __init__(self, module: str, arguments: Sequence[str] = ()) -> None:
        self.name = " ".join([module, *arguments[2:]])
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment(),
            cwd=ROOT,
        )
        self._unread = b""

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, **message: Any) -> None:
        """Send one message."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        self._process.stdin.flush()

    def read(self, timeout_s: float = 60.0) -> dict[str, Any]:
        """Return the next message. Raises ChildFailed when there is none in time."""
        assert self._process.stdout
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._unread:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not select.select([self._process.stdout], [], [], left_s)[0]:
                raise ChildFailed(f"{self.name} said nothing for {timeout_s:g} s")
            chunk = os.read(self._process.stdout.fileno(), 1 << 16)
            if not chunk:
                raise ChildFailed(f"{self.name} ended with exit code {self._process.wait()}")
            self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def ask(self, timeout_s: float = 60.0, **message: Any) -> dict[str, Any]:
        """Send one message and return the answer."""
        self.send(**message)
        return self.read(timeout_s)

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """SIGTERM, and SIGKILL if that takes too long."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self.stop()


def _environment() -> Mapping[str, str]:
    path = [str(ROOT), str(ROOT / "worker"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}


def say(**message: Any) -> None:
    """In the child: send one message to the parent."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()
