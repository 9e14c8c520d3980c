"""The samples of docs/samples.md under "Nine to begin with" that no other module runs."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from durable import ActorRequired, Client, WorkflowCancelled, WorkflowFailed
from samples import address_book, four_eyes, invoice_worker, log_archive, sales_report
from samples import statement_requests as statements
from samples.four_eyes import Employee, Refund
from tests.samples.conftest import Working
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]
ROOT = Path(__file__).parents[2]
ANN, BOB = Employee("Ann", "support"), Employee("Bob", "books")


def test_actor_propagation(client: Client, working: Working, database_url: str, sql: Sql) -> None:
    four_eyes.create_audit(database_url)
    with working("samples.four_eyes"):
        four_eyes.request_refund(client, Refund(id="r-1", order="o-9", cents=4_200), ANN)
        run = client.handle("r-1")
        run.signal(four_eyes.refund_approved, True, actor=ANN)
        run.signal(four_eyes.refund_approved, True, actor=BOB)
        assert run.result(timeout=30) == "4200 cents for order o-9"
    rows = sql.execute("select what, by, department from refunds.audit order by id").fetchall()
    assert [what for what, _, _ in rows] == [
        "requested", "approved by who asked: does not count", "approved by Bob", "paid 4200 cents",
    ]  # fmt: skip
    assert {(by, department) for _, by, department in rows} == {("Ann", "support")}


def test_nobody_in_particular_gets_no_refund(client: Client) -> None:
    with pytest.raises(ActorRequired):
        client.start(four_eyes.refund_with_four_eyes, Refund(id="r-2", order="o-9", cents=1))
    assert client.list() == []


def test_a_worker_of_one_s_own_serves_its_queues_and_stops_in_order(
    client: Client, database_url: str
) -> None:
    path = os.pathsep.join((str(ROOT), str(ROOT / "worker")))
    process = subprocess.Popen(
        [sys.executable, "-m", "samples.invoice_worker"],
        env={**os.environ, "DURABLE_DATABASE_URL": database_url, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "the worker is ready\n"
        runs = [client.start(invoice_worker.enter_invoice, it) for it in invoice_worker.INVOICES]
        assert [run.result(timeout=30) for run in runs] == [
            "R-1041: 234.70 for 2 positions",
            "R-1042: 54.60 for 2 positions",
            "R-1043: sent back, the total is off by 45.00",
        ]
        missing = client.start(invoice_worker.enter_invoice, "R-9999")
        with pytest.raises(WorkflowFailed, match="failed"):
            missing.result(timeout=30)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert (said, process.returncode) == ("the worker has ended\n", 0)


def test_error_handling(client: Client, working: Working) -> None:
    cities = ["Hamburg", "Lyon", "Turku", "Atlantis"]
    with working("samples.address_book"):
        found = client.start(
            address_book.locate_all, cities, patience=timedelta(seconds=0.3)
        ).result(timeout=60)
    assert [(it.city, it.by, it.problem) for it in found] == [
        ("Hamburg", "service", ""),
        ("Lyon", "service", ""),
        ("Turku", "atlas", ""),
        ("Atlantis", "", "no place is called 'Atlantis'"),
    ]
    assert (found[1].latitude, found[2].latitude) == (45.76, 60.0)


def test_data_in_several_steps(client: Client, working: Working) -> None:
    with working("samples.sales_report"):
        handle = client.start(sales_report.sales_report("2026-10"), id="sales-2026-10")
        steps = handle.result(timeout=30)
    report = steps["report"]["result"]
    assert report["regions"] == [
        {"region": "north", "cents": 23_760, "best_article": "wheelbarrow"},
        {"region": "south", "cents": 31_730, "best_article": "wheelbarrow"},
        {"region": "west", "cents": 10_350, "best_article": "spade"},
    ]
    assert (report["cents"], report["rejected"]) == (65_840, 3)
    assert steps["check"]["result"]["rejected"][1] == "2026-10-12 rake: -2 pieces"


def test_a_request_has_a_status_and_is_broadcast(
    client: Client, working: Working, sql: Sql
) -> None:
    sql.execute("listen statements")
    asked = statements.Asked(account="DE-07", month="2026-10")
    with working("samples.statement_requests"):
        assert statements.request_statement(client, "s-1", asked) == "s-1"
        assert statements.request_statement(client, "s-1", asked) == "s-1"  # asked again
        text = client.handle("s-1").result(timeout=30)
        assert statements.status(client, "s-1") == "ready"
        assert text.splitlines()[0] == "DE-07 2026-10"
        assert text.splitlines()[-1] == "balance 2221.38"
        statements.request_statement(client, "s-2", statements.Asked(account="?", month="2026-10"))
        with pytest.raises(WorkflowFailed):
            client.handle("s-2").result(timeout=60)
        assert statements.status(client, "s-2") == "failed"
    heard = [json.loads(it.payload) for it in sql.notifies(timeout=10, stop_after=6)]
    stages = {request: [it["stage"] for it in heard if it["request"] == request] for request in ("s-1", "s-2")}  # fmt: skip
    assert stages == {
        "s-1": ["collecting", "writing", "ready"],
        "s-2": ["collecting", "writing", "failed"],
    }


def logs(folder: Path) -> list[str]:
    folder.mkdir()
    texts = {f"web-{n}.log": f"GET /orders/{n} 200\n" * (100 * n) for n in range(1, 8)}
    for name, text in texts.items():
        (folder / name).write_text(text)
    return sorted(texts)


def test_a_batch_packs_all_and_clears_its_room(
    client: Client, working: Working, tmp_path: Path
) -> None:
    names = logs(tmp_path / "logs")
    with working("samples.log_archive"):
        packed = client.start(log_archive.archive_logs, str(tmp_path / "logs")).result(timeout=30)
    assert [it.name for it in packed] == names
    assert all(it.packed_size < it.size for it in packed)
    left = sorted(path.name for path in (tmp_path / "logs").iterdir())
    assert left == ["archive"]
    third = gzip.decompress((tmp_path / "logs" / "archive" / "web-3.log.gz").read_bytes())
    assert third == b"GET /orders/3 200\n" * 300


def test_a_batch_that_fails_clears_its_room_and_leaves_everything(
    client: Client, working: Working, tmp_path: Path
) -> None:
    names = logs(tmp_path / "logs")
    (tmp_path / "logs" / "web-9.log").write_bytes(b"GET \xff")
    with working("samples.log_archive"):
        handle = client.start(log_archive.archive_logs, str(tmp_path / "logs"))
        with pytest.raises(WorkflowFailed):
            handle.result(timeout=30)
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == [*names, "web-9.log"]


def test_a_batch_that_is_cancelled_clears_its_room(
    client: Client, working: Working, tmp_path: Path
) -> None:
    """Cancelled while one log is being read: a pipe that nobody writes to."""
    folder = tmp_path / "logs"
    names = logs(folder)
    os.mkfifo(folder / "slow.log")
    with working("samples.log_archive"):
        handle = client.start(log_archive.archive_logs, str(folder), id="l-1")
        room = folder / ".packing-l-1"
        eventually(lambda: len(list(room.glob("*.gz"))) == len(names))
        handle.cancel("not today")
        with pytest.raises(WorkflowCancelled):
            handle.result(timeout=30)
        assert not room.exists()
        with (folder / "slow.log").open("wb"):
            pass  # whoever reads it may end
    assert sorted(path.name for path in folder.iterdir()) == ["slow.log", *names]


def test_the_nine_are_listed_and_exist() -> None:
    text = (ROOT / "docs" / "samples.md").read_text()
    section = text.partition("## Nine to begin with")[2].partition("\n## ")[0]
    rows = [line.split("|")[1:-1] for line in section.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 9
    for _, sample, _ in rows:
        path = sample.partition("(")[2].partition(")")[0]
        assert (ROOT / "docs" / path).exists(), path
