"""Real processes, killed with SIGKILL, and starts that run into each other."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from durable import embedded
from tests.embedded.test_server import answers, ask
from tests.waiting import eventually

OWNER = """
import sys
from durable import embedded
with embedded.start(sys.argv[1]) as server:
    print(server.started_here, server.pid, server.url, flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def owner(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that starts the server, says so, and stops it when its input is closed."""
    command = [sys.executable, "-c", OWNER, str(folder)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str]) -> tuple[bool, int, str]:
    assert process.stdout is not None
    started_here, pid, url = process.stdout.readline().split()
    return started_here == "True", int(pid), url


def gone(pid: int) -> bool:
    """Gone, or a zombie that nobody has waited for."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"


def test_two_cold_starts_at_once_share_one_server(tmp_path: Path) -> None:
    with owner(tmp_path) as one, owner(tmp_path) as two:
        first, second = said(one), said(two)
        assert sorted([first[0], second[0]]) == [False, True]
        assert first[1:] == second[1:]
        # The one that attached leaves first; it may not take the server along.
        guest, host = (one, two) if second[0] else (two, one)
        guest.communicate()
        with psycopg.connect(first[2]):
            host.communicate()
    assert gone(first[1])


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells a process of its parent's death"
)
def test_a_killed_owner_takes_the_server_along_and_the_data_is_kept(tmp_path: Path) -> None:
    with owner(tmp_path) as process:
        _, pid, url = said(process)
        with psycopg.connect(url) as connection:
            connection.execute("create table kept ()")
        process.kill()
    eventually(lambda: gone(pid), what="the server of a killed owner is gone")
    with embedded.start(tmp_path) as server:
        assert server.started_here
        assert ask(server, "select count(*) from kept") == 0


def test_a_killed_server_is_replaced_while_its_clients_still_work(tmp_path: Path) -> None:
    with embedded.start(tmp_path) as first, contextlib.ExitStack() as clients:
        connections = [clients.enter_context(psycopg.connect(first.url)) for _ in range(20)]
        connections[0].execute("create table kept ()")
        connections[0].commit()
        for connection in connections[:5]:  # busy: these notice late that their server is dead
            connection.pgconn.send_query(b"select count(*) from generate_series(1, 3000000)")
        os.kill(first.pid, signal.SIGKILL)
        with embedded.start(tmp_path) as second:
            assert second.started_here
            assert ask(second, "select count(*) from kept") == 0
        for connection in connections:
            connection.pgconn.finish()


def test_a_server_killed_with_its_owner_is_replaced(tmp_path: Path) -> None:
    with owner(tmp_path) as process:
        _, pid, _ = said(process)
        os.kill(pid, signal.SIGKILL)
        process.kill()
    with embedded.start(tmp_path) as server:
        assert server.started_here
        assert answers(server)


def test_an_owner_killed_anywhere_in_its_first_start_leaves_a_folder_that_starts(
    tmp_path: Path,
) -> None:
    for seen in ("lock", "data.new", "data.new/PG_VERSION", "data.new/global", "data"):
        folder = tmp_path / seen.replace("/", "-")
        with owner(folder) as process:
            eventually((folder / seen).exists, what=f"{seen} appears")
            process.kill()
        with embedded.start(folder) as server:
            assert answers(server), seen
