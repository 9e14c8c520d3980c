"""Starting, attaching to and stopping one server. `durable/embedded/__init__.py` says why it is done so."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self
from urllib.parse import quote

import psycopg

from durable.embedded.account import TEMPORARY, Account, runnable, server_account
from durable.embedded.binaries import binaries
from durable.errors import EmbeddedPostgresError

PORT = 5432
"""Part of the socket's file name and nothing more: there is no TCP."""

SOCKET_PATH_BYTES = 103
"""The longest path of a unix socket on macOS; Linux allows four more."""

POLL_S = 0.02
STOP_TIMEOUT_S = 30.0
PR_SET_PDEATHSIG = 1

STILL_HELD = ("pre-existing shared memory block", "already exists")
"""What a server says when a killed predecessor's processes still hold the data folder. They leave by themselves, so we retry."""


class EmbeddedServer:
    """A running server. `with` stops it at the end, if it was started here.

    `url` connects as superuser; `folder` holds the data, the log and the lock; `started_here` is False when another process runs it.
    """

    def __init__(self, place: Place, process: subprocess.Popen[bytes] | None) -> None:
        self.url = place.url
        self.folder = place.home
        self.started_here = process is not None
        self._place = place
        self._process = process

    @property
    def pid(self) -> int:
        """The server's process id, from its own file."""
        return _server_pid(self._place.data)

    def stop(self) -> None:
        """Stop the server if it was started here: fast shutdown, and immediate shutdown if that takes over 30 s. May be repeated."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(STOP_TIMEOUT_S)
        self._place.tidy()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"EmbeddedServer({self.url!r}, started_here={self.started_here})"


@dataclass(frozen=True, slots=True)
class Place:
    """The paths of one cluster."""

    home: Path
    data: Path
    socket: Path

    @classmethod
    def of(cls, home: Path) -> Place:
        data = home / "data"
        if len(os.fsencode(data / f".s.PGSQL.{PORT}.lock")) <= SOCKET_PATH_BYTES:
            return cls(home, data, data)
        digest = hashlib.sha256(os.fsencode(data)).hexdigest()[:16]
        return cls(home, data, TEMPORARY / f"durable-socket-{digest}")

    @property
    def url(self) -> str:
        return f"postgresql://postgres@/postgres?host={quote(str(self.socket))}&port={PORT}"

    def tidy(self) -> None:
        """Remove the socket's own folder, unless the next server is at it already."""
        if self.socket != self.data:
            with contextlib.suppress(OSError), _locked(self.home / "lock"):
                self.socket.rmdir()


def launch(
    folder: Path, settings: Mapping[str, str | int | bool], timeout_s: float
) -> EmbeddedServer:
    """See `durable.embedded.start`."""
    try:
        home = folder.resolve()
        home.mkdir(parents=True, exist_ok=True)
        with _locked(home / "lock"), (home / "log").open("ab") as log:
            return _attach_or_start(Place.of(home), settings, time.monotonic() + timeout_s, log)
    except OSError as error:
        msg = f"cannot run PostgreSQL in {folder}: {error}; choose a folder that you may write to"
        raise EmbeddedPostgresError(msg) from error


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _attach_or_start(
    place: Place, settings: Mapping[str, str | int | bool], deadline: float, log: BinaryIO
) -> EmbeddedServer:
    if place.data.exists() and _answers(place.url):
        return EmbeddedServer(place, None)
    launcher = _Launcher.of(place, log)
    if not place.data.exists():
        launcher.initialise()
    return EmbeddedServer(place, launcher.start(settings, deadline))


def _server_pid(data: Path) -> int:
    return int((data / "postmaster.pid").read_text().split("\n", 1)[0])


def _answers(url: str) -> bool:
    with contextlib.suppress(psycopg.OperationalError), psycopg.connect(url, connect_timeout=3):
        return True
    return False


@dataclass(frozen=True, slots=True)
class _Launcher:
    """The lock is held while one of these exists."""

    place: Place
    account: Account
    programs: Path
    private: bool
    """Whether the account may not enter the home folder, so that it gets an open descriptor of the data folder instead."""
    log: BinaryIO

    @classmethod
    def of(cls, place: Place, log: BinaryIO) -> _Launcher:
        account = server_account()
        private = not account.may_enter(place.home)
        if private and sys.platform != "linux":
            msg = f"{account.name}, who runs the server for root, may not enter {place.home}; choose another folder"
            raise EmbeddedPostgresError(msg)
        return cls(place, account, runnable(binaries(), account, place.home), private, log)

    def initialise(self) -> None:
        """Run initdb in a folder beside the data folder and rename it: the data folder is complete or absent."""
        staging = self.place.data.with_name("data.new")
        shutil.rmtree(
            staging, ignore_errors=True
        )  # left by a start that was killed; nobody else can be at it now
        self.account.own(staging)
        options = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C"]
        offset = self._log_size()
        with self._reachable(staging) as (path, descriptors):
            done = self._spawn("initdb", ["-D", path, *options], descriptors, signal.SIGKILL).wait()
        if done != 0:
            msg = f"initdb failed with exit code {done}; {self._log_says(offset)}"
            raise EmbeddedPostgresError(msg)
        staging.rename(self.place.data)

    def start(
        self, settings: Mapping[str, str | int | bool], deadline: float
    ) -> subprocess.Popen[bytes]:
        """Start until it answers; again while the processes of a killed predecessor still hold the folder."""
        self.account.check_owned(self.place.data)
        self._check_version()
        if self.place.socket != self.place.data:
            self.account.own(self.place.socket)
        while True:
            self._reap()
            offset = self._log_size()
            process = self._server(settings)
            if self._came_up(process, deadline):
                return process
            said = self._log_says(offset)
            if time.monotonic() > deadline or not any(reason in said for reason in STILL_HELD):
                process.send_signal(signal.SIGQUIT)
                process.wait()
                msg = f"PostgreSQL did not start; {said}"
                raise EmbeddedPostgresError(msg)
            time.sleep(POLL_S)

    def _check_version(self) -> None:
        made_by = (self.place.data / "PG_VERSION").read_text().strip()
        output = subprocess.run(
            [self.programs / "postgres", "-V"], capture_output=True, text=True, check=True
        ).stdout
        if (ours := output.split()[2].partition(".")[0]) != made_by:
            msg = (
                f"{self.place.data} was made by PostgreSQL {made_by}, but the binaries in {self.programs} are of {ours}; "
                f"name those of {made_by} in DURABLE_PG_BIN, or choose another folder"
            )
            raise EmbeddedPostgresError(msg)

    def _server(self, settings: Mapping[str, str | int | bool]) -> subprocess.Popen[bytes]:
        with self._reachable(self.place.data) as (data, descriptors):
            socket = data if self.place.socket == self.place.data else str(self.place.socket)
            options = ["-D", data, "-k", socket, "-h", "", "-p", str(PORT)]
            for name, value in settings.items():
                options += ["-c", f"{name}={value}"]
            return self._spawn("postgres", options, descriptors, signal.SIGINT)

    def _reap(self) -> None:
        """A killed server of this very process is a zombie until waited for, and its successor takes it for alive."""
        with contextlib.suppress(OSError, ValueError):
            os.waitpid(_server_pid(self.place.data), os.WNOHANG)

    def _came_up(self, process: subprocess.Popen[bytes], deadline: float) -> bool:
        while process.poll() is None and time.monotonic() < deadline:
            if _answers(self.place.url):
                return True
            time.sleep(POLL_S)
        return False

    @contextlib.contextmanager
    def _reachable(self, folder: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
        """A name for `folder` that the account can use, and the descriptors that its processes must inherit for that.

        A path through /proc/self/fd starts at the open folder, so the parents' permissions are not asked for.
        """
        if not self.private:
            yield str(folder), ()
            return
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            yield f"/proc/self/fd/{descriptor}", (descriptor,)
        finally:
            os.close(descriptor)

    def _spawn(
        self, program: str, options: Sequence[str], descriptors: tuple[int, ...], at_our_death: int
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [self.programs / program, *options],
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            cwd="/",
            env=_environment(),
            user=self.account.uid,
            group=self.account.gid,
            extra_groups=self.account.extra_groups,
            pass_fds=descriptors,
            start_new_session=True,  # a Ctrl-C in the terminal is the owner's to handle
            preexec_fn=_dies_with_us(at_our_death),  # noqa: PLW1509 - a few system calls, no lock is taken
        )

    def _log_size(self) -> int:
        return os.fstat(self.log.fileno()).st_size

    def _log_says(self, offset: int) -> str:
        path = self.place.home / "log"
        with path.open("rb") as log:
            log.seek(offset)
            lines = log.read().decode(errors="replace").splitlines()
        return f"the end of {path}:\n" + "\n".join(lines[-8:])


def _environment() -> dict[str, str]:
    """Ours, without what would steer the server (PGPORT, PGDATA, ...), and with messages that we can read."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return {**kept, "LC_ALL": "C"}


def _dies_with_us(signal_number: int) -> Callable[[], None] | None:
    """What a child calls before exec so that the kernel sends it `signal_number` when we are gone.

    The kernel watches the thread that forked, so this is for the main thread alone: another one may end long before the process.
    """
    if sys.platform != "linux" or threading.current_thread() is not threading.main_thread():
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork
    owner = os.getpid()

    def arm() -> None:
        prctl(PR_SET_PDEATHSIG, signal_number)
        if os.getppid() != owner:  # we died before it was armed
            os._exit(1)

    return arm
