"""What docs/guide/schedules.md and retention.md show runs as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

from durable import Client
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]


def examples(page: str) -> list[str]:
    text = (ROOT / "docs" / "guide" / page).read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def environment(database_url: str, tmp_path: Path) -> dict[str, str]:
    path = os.pathsep.join(map(str, (tmp_path, ROOT, ROOT / "worker")))
    return {**os.environ, "PYTHONPATH": path, "DURABLE_DATABASE_URL": database_url}


def run(folder: Path, environment: dict[str, str], program: str) -> str:
    command = [sys.executable, "-c", program]
    done: Any = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def test_schedules(
    client: Client, database_url: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    module, program = examples("schedules.md")
    (tmp_path / "books.py").write_text(module, encoding="utf-8")
    worker = [sys.executable, "-m", "durable_worker", "books", "--poll", "0.05"]
    with subprocess.Popen(worker, cwd=tmp_path, env=environment) as process:
        try:
            eventually(lambda: len(client.schedules()) == 2)
            assert [each.declared for each in client.schedules()] == [True, True]
            said = run(tmp_path, environment, program)
            handle = client.schedule_handle("books-us")
            eventually(
                lambda: len([s for s in handle.slots() if s.decision == "started"]) == 6, 30.0
            )
            with psycopg.connect(database_url, autocommit=True) as sql:
                sql.execute("select durable.advance_clock('8 days')")
            eventually(lambda: client.schedule_handle("close_books").slots(decision="started"))
            eventually(lambda: client.schedule_handle("clean_up").slots(decision="started"))
        finally:
            process.terminate()
    assert said.startswith("cron 30 8 * * MON-FRI, America/Chicago")


def test_retention(client: Client, tmp_path: Path, environment: dict[str, str]) -> None:
    (program,) = examples("retention.md")
    assert "PruneReport(runs=0" in run(tmp_path, environment, program)
    assert len(client.retention()) == 5
