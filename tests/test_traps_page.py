"""docs/traps.md names a test for each trap: each of those exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "traps.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_the_test_of_a_trap_exists(path: str, name: str) -> None:
    assert re.search(
        rf"^(async )?def {name}\(", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE
    )


def test_every_trap_has_one() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")]
    without = [row for row in rows if "`tests/" not in row and "shown by" not in row]
    assert len(rows) > 40
    assert without == []
