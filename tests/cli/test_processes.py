"""The command line as real processes: what only a process can show."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from durable.client_sync import Client
from durable.store.calls import Call
from tests.cli.conftest import ROOT, spawn
from tests.client.database import Database
from tests.client.shop import ORDER, purchase
from tests.waiting import eventually

FLOWS = """
from durable import workflow

@workflow
async def answer(name: str) -> str:
    return "{word} " + name
"""


def test_only_what_a_command_needs_is_imported() -> None:
    """Help comes quickly: no driver, no schema checker, no worker."""
    code = (
        "import sys; sys.argv = ['durable', '--help']\n"
        "from durable import cli\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "print([m for m in ('psycopg', 'jsonschema', 'rich', 'durable_worker') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_an_error_leaves_no_traceback(empty_database_url: str) -> None:
    done = spawn("list", url=empty_database_url)
    out, err = done.communicate(timeout=60)
    assert (done.returncode, out) == (4, "")
    assert err.startswith("durable: the database has not got")


def test_the_app_is_imported_from_the_current_folder(database_url: str) -> None:
    started = spawn(
        "start",
        "purchase",
        '{"order": {"sku": "tea", "amount": "x"}}',
        "--app",
        "tests.client.shop",
        url=database_url,
    )
    _, err = started.communicate(timeout=60)
    assert (started.returncode, "order.amount" in err) == (2, True)


def test_a_reader_that_leaves_is_no_traceback(database_url: str) -> None:
    with Client(database_url) as client:
        for number in range(300):
            client.start(purchase, ORDER, id=f"{'o' * 200}-{number}")
    listing = spawn("list", "--limit", "300", "--json", url=database_url)
    assert listing.stdout is not None
    assert listing.stderr is not None
    listing.stdout.read(1)
    listing.stdout.close()
    assert listing.stderr.read() == ""
    listing.wait(60)
    listing.stderr.close()


def test_ctrl_c_while_waiting(database_url: str, database: Database) -> None:
    with Client(database_url) as client:
        client.start(purchase, ORDER, id="o-1")
    waiting = spawn("result", "o-1", url=database_url)
    eventually(lambda: _polls(database), what="the first look at the result")
    waiting.send_signal(signal.SIGINT)
    _, err = waiting.communicate(timeout=60)
    assert (waiting.returncode, err) == (130, "")


def _polls(database: Database) -> bool:
    return bool(
        database.rows(
            "select 1 from pg_stat_activity where datname = current_database()"
            " and application_name = 'durable client' and query like '%%h.seq = r.last_seq%%'"
        )
    )


def test_a_terminal_gets_colours_and_a_table(database_url: str) -> None:
    with Client(database_url) as client:
        client.start(purchase, ORDER, id="o-1").terminate("wrong order")
    ours, theirs = pty.openpty()
    environment = {
        **os.environ,
        "DURABLE_DATABASE_URL": database_url,
        "TERM": "xterm-256color",
        "COLUMNS": "160",
    }
    listing = subprocess.Popen(
        [sys.executable, "-m", "durable.cli", "list"],
        stdout=theirs,
        stderr=theirs,
        env=environment,
        cwd=ROOT,
    )
    os.close(theirs)
    shown = ""
    while chunk := _read(ours):
        shown += chunk
    os.close(ours)
    assert listing.wait(60) == 0
    assert "\x1b[31mterminated" in shown


def _read(descriptor: int) -> str:
    try:
        return os.read(descriptor, 65536).decode()
    except OSError:  # Linux's way to say that the other end has closed
        return ""


@pytest.mark.parametrize("arguments", [["worker", "--help"], ["demo", "--help"]])
def test_other_programs_explain_themselves(arguments: list[str]) -> None:
    asked = spawn(*arguments)
    out, err = asked.communicate(timeout=60)
    assert (asked.returncode, err) == (0, "")
    assert "--" in out


def test_dev_runs_reloads_and_stops(tmp_path: Path) -> None:
    """An embedded PostgreSQL, the schema, a worker; new code is served; Ctrl-C leaves nothing behind."""
    flows = tmp_path / "flows.py"
    flows.write_text(FLOWS.format(word="hello"))
    log = tmp_path / "log"
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith("DURABLE_")
    }
    environment["PYTHONPATH"] = f"{ROOT}:{ROOT / 'worker'}"
    with log.open("w") as sink:
        dev = subprocess.Popen(
            [sys.executable, "-m", "durable.cli", "dev", "flows"], stdout=sink, stderr=sink, env=environment, cwd=tmp_path
        )  # fmt: skip
    try:
        eventually(lambda: "is ready" in log.read_text(), 60, what="the worker")
        url = log.read_text().partition("DURABLE_DATABASE_URL='")[2].partition("'")[0]
        with Client(url) as client:
            assert client.start("answer", {"name": "you"}).result(timeout=30) == "hello you"
            flows.write_text(FLOWS.format(word="goodbye"))
            eventually(lambda: log.read_text().count("is ready") == 2, 60, what="the new worker")
            assert client.start("answer", {"name": "you"}).result(timeout=30) == "goodbye you"
            (worker,) = client._execute(_alive())
    finally:
        dev.send_signal(signal.SIGINT)
    assert dev.wait(60) == 0, log.read_text()
    assert "Traceback" not in log.read_text()
    assert not Path(f"/proc/{worker}").exists()


def _alive() -> Call[list[str]]:
    return Call(
        "select name from durable.workers where state = 'alive' and lease_until > durable.now()",
        {},
        lambda rows: [row["name"].rpartition(":")[2] for row in rows],
    )
