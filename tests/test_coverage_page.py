"""docs/coverage.md has a row for each capability and defect that was found elsewhere, and names a test for each that is met: those exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "coverage.md").read_text(encoding="utf-8")
ROWS = [
    line.strip("| ").split(" | ") for line in PAGE.splitlines() if re.match(r"\| [SD]\d+ ", line)
]
EXPECTED = [*(f"S{n}" for n in range(1, 208)), *(f"D{n}" for n in range(1, 23))]
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def test_every_row_is_there_once_and_in_order() -> None:
    assert [row[0] for row in ROWS] == EXPECTED
    assert [row[0] for row in ROWS if len(row) != 4 or not all(cell.strip() for cell in row)] == []


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_what_is_met_names_tests_that_exist_and_what_is_not_says_why(row: list[str]) -> None:
    shown = row[3]
    named = TEST.findall(shown)
    if not named:
        assert re.match(r"out of scope: .{40}", shown)
        return
    assert shown.startswith("`")
    for path, name in named:
        text = (ROOT / path).read_text(encoding="utf-8")
        assert re.search(rf"^(async )?def {name}\(", text, re.MULTILINE), f"{path}::{name}"


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_pages_and_samples_that_are_named_exist(row: list[str]) -> None:
    for path in re.findall(r"(?<![\w/])((?:docs|samples)/[\w/.]+\w)", " ".join(row)):
        assert (ROOT / path).exists(), path


def test_each_defect_has_a_test_and_few_rows_are_out_of_scope() -> None:
    without = [row[0] for row in ROWS if "out of scope: " in row[3]]
    assert not [row for row in without if row.startswith("D")]
    assert len(without) < 12
