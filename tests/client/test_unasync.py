"""The synchronous client is what the generator writes, and nothing else."""

from __future__ import annotations

import pytest

from tests.unasync import FILES, ROOT, synchronous


@pytest.mark.parametrize("source", FILES)
def test_the_committed_file_is_the_generated_one(source: str) -> None:
    committed = (ROOT / FILES[source]).read_text(encoding="utf-8")
    assert committed == synchronous(source), "run: python tests/unasync.py"


@pytest.mark.parametrize("target", FILES.values())
def test_nothing_asynchronous_is_left(target: str) -> None:
    text = (ROOT / target).read_text(encoding="utf-8")
    assert not [word for word in ("async ", "await ", "asyncio.", "Async") if word in text]
