"""The demo with real processes, one of which gets SIGKILL, on fewer orders than it ships with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from durable import DurableError, demo

ROOT = Path(__file__).parents[2]


def run(database_url: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "samples.checkout.demo",
        "--database-url",
        database_url,
        "--folder",
        str(folder),
    ]
    path = os.pathsep.join((str(ROOT), str(ROOT / "worker")))
    return subprocess.run(
        [*command, "--payment-deadline-s", "1", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


def test_the_books_add_up_after_a_kill(database_url: str, tmp_path: Path) -> None:
    done = run(database_url, tmp_path, "--orders", "48", "--kills", "1", "--lease-s", "1", "--json")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    told: dict[str, Any] = json.loads(done.stdout)
    assert told["violations"] == []
    assert told["orders"] == told["completed"] + told["compensated"] == 48
    assert (told["kills"], told["adds_up"]) == (1, True)
    assert told["takeovers"] > 0
    assert told["activities_retried"] > 0
    assert [event["seq"] for event in told["history"]] == list(range(1, len(told["history"]) + 1))
    assert told["history"][0]["type"] == "WorkflowStarted"


def test_a_second_demo_in_the_same_database_starts_afresh(
    database_url: str, tmp_path: Path
) -> None:
    for _ in range(2):
        done = run(database_url, tmp_path, "--orders", "6", "--kills", "0")
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        assert "The books add up" in done.stdout


def test_orders_that_do_not_end_in_time_are_told_and_fail_the_demo(
    database_url: str, tmp_path: Path
) -> None:
    done = run(database_url, tmp_path, "--orders", "6", "--kills", "0", "--timeout-s", "0")
    assert done.returncode == 1, done.stderr[-4000:]
    assert "the run has not ended: running" in " ".join(done.stdout.split())


def test_a_schema_shop_that_is_not_the_samples_is_left_alone(
    database_url: str, tmp_path: Path
) -> None:
    import psycopg

    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("create schema shop")
        connection.execute("create table shop.precious ()")
        done = run(database_url, tmp_path, "--orders", "1")
        assert done.returncode == 2
        assert "a schema named shop of its own" in " ".join(done.stderr.split())
        assert connection.execute("select to_regclass('shop.precious') is not null").fetchone() == (
            True,
        )


def test_the_sample_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert demo.package() in ("samples.checkout", "durable.demo.checkout")
    monkeypatch.setattr(demo, "_exists", lambda name: False)
    with pytest.raises(DurableError, match="no samples"):
        demo.package()
