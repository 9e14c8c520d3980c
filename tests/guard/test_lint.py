"""`durable lint`: files are read, never imported."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from durable.cli import main
from durable.lint import lint

UNSAFE = """
import time
from datetime import datetime as dt
import durable as d
from durable import workflow as flow, activity

@d.activity
def act():
    return time.time()

@activity(queue="x")
def act_two():
    return dt.now()

@flow(name="one")
async def one():
    for name in {"a", "b"}:
        await act(name)
    return helper()

@d.workflow
def two():
    with d.unguarded():
        time.time()
    return dt.now()

def helper():
    return time.time()

def not_called():
    return time.time()

raise SystemExit("nobody imports this")
"""
SAFE = """
import time, durable
START = time.time()

@durable.workflow
async def fine():
    await durable.sleep(1)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "unsafe.py").write_text(UNSAFE)
    (tmp_path / "safe.py").write_text(SAFE)
    (tmp_path / "notes.txt").write_text("time.time()")
    for skipped in (".venv", "node_modules"):
        (tmp_path / skipped).mkdir()
        (tmp_path / skipped / "unsafe.py").write_text(UNSAFE)
    return tmp_path


def test_findings_have_file_line_level_and_function(folder: Path) -> None:
    report = lint([folder])
    assert (report.files, report.workflows, report.exit_code) == (2, 3, 1)
    assert [(it.line, it.level, it.function) for it in report.findings] == [
        (17, "warning", "one"), (25, "error", "two"), (28, "error", "helper"),
    ]  # fmt: skip
    assert {it.file for it in report.findings} == {str(folder / "unsafe.py")}


def test_nothing_found(folder: Path) -> None:
    assert lint([folder / "safe.py"]).exit_code == 0


@pytest.mark.parametrize("text", [b"def (", b"\xff\xfe", b"x = '\0'", None])
def test_what_cannot_be_read_is_said(tmp_path: Path, text: bytes | None) -> None:
    path = tmp_path / "bad.py"
    if text is not None:
        path.write_bytes(text)
    report = lint([path])
    assert (len(report.unreadable), report.exit_code) == (1, 2)
    assert report.unreadable[0].startswith(str(path))


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["durable", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        main()
    return int(str(left.value.code))


def test_the_command(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    assert run(monkeypatch, "lint", folder) == 1
    said = capsys.readouterr().out
    assert (
        f"{folder}/unsafe.py:25: error: datetime.datetime.now reads the clock (in two). Use durable.now()"
        in said
    )
    assert "3 workflows in 2 files: 3 found" in said
    assert run(monkeypatch, "lint", folder / "safe.py") == 0


def test_the_command_in_json(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    assert run(monkeypatch, "lint", folder / "nowhere.py", folder, "--json") == 2
    said = json.loads(capsys.readouterr().out)
    assert said["findings"][1]["instead"] == "durable.now()"
    assert len(said["unreadable"]) == 1


def test_this_repository_is_clean() -> None:
    root = Path(__file__).parents[2]
    report = lint([root / "samples", root / "bench"])
    assert (report.findings, report.unreadable) == ([], [])
    assert report.workflows > 10
