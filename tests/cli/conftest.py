"""The command line in this process (quick, most tests) and as a real one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from durable import cli
from tests.client.database import Database

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Ran:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = Database(database_url)
    yield opened
    opened.connection.close()


@pytest.fixture
def run(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Runs `durable ARGUMENTS` in this process, on a fresh database."""
    monkeypatch.setenv("DURABLE_DATABASE_URL", database_url)
    monkeypatch.setenv("DURABLE_APP", "")
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(*arguments: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["durable", *arguments])
        code: Any = 0
        try:
            cli.main()
        except SystemExit as exit_:
            code = exit_.code or 0
        said = capsys.readouterr()
        return Ran(code, said.out, said.err)

    return run


def spawn(
    *arguments: str, url: str | None = None, stdin: int = subprocess.DEVNULL, **environment: str
) -> subprocess.Popen[str]:
    """A real process of the command line."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("DURABLE_")}
    given = {**environment, **({"DURABLE_DATABASE_URL": url} if url else {})}
    return subprocess.Popen(
        [sys.executable, "-m", "durable.cli", *arguments],
        env={**inherited, "PYTHONPATH": f"{ROOT}:{ROOT / 'worker'}", **given},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=stdin,
        text=True,
        cwd=ROOT,
    )
