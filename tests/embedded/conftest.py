"""Folders for servers: pytest's own lie below a folder that only we may enter, which is one of the cases to survive."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter."""
    folder = Path(tempfile.mkdtemp(prefix="durable-test-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def private_folder(open_folder: Path) -> Path:
    """A folder that only we may enter."""
    folder = open_folder / "private"
    folder.mkdir(mode=0o700)
    return folder
