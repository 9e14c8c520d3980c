"""Lint and types, as tests: the same tools, settings and versions for everybody who runs the tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def clean(*command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"


def test_ruff_finds_nothing() -> None:
    clean("ruff", "check", ".")


@pytest.mark.timeout(600)
def test_mypy_finds_nothing() -> None:
    clean("mypy")


@pytest.mark.timeout(600)
def test_pyright_finds_nothing() -> None:
    """Pyright carries itself and `pyright[nodejs]` brings Node.js from PyPI: nothing else is downloaded."""
    clean("pyright", "--pythonpath", sys.executable)
