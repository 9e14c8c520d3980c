"""The run-time guard: I/O, threads and blocking calls of workflow code are refused where they happen (C13).

The problem. The scan at decoration (scan.py) reads one module. A workflow that calls a function of another module, which opens a file
three calls further down, does something that replay will do again and perhaps differently.

What does not work. Replacing `open`, `socket.socket` and the rest: whoever imported them before keeps the originals, and the whole process pays.
Importing the author's modules a second time in a sandbox: slow, and classes then exist twice. Raising alone: `except Exception`
around the call swallows it, and the run goes on with what came instead.

The solution. CPython announces such calls itself, before it makes them: `sys.addaudithook`. One hook looks the event's name up in a table, and mostly
that is all. Only for the few names in it does it ask whether the running loop of this thread is a run's loop. That is so exactly while a turn is being
taken, so activities, other threads and the worker itself are never concerned, and nothing has to be switched on and off. A call
that is refused has not happened, and raises UnsafeWorkflow there. It also *spoils* the turn: whatever the code does with the exception, nothing of the
turn is committed, and `activate` or `replay` raises it again. So the run is parked and not failed (C8): no business failure has
occurred, nothing is lost, and the corrected code resumes it.

The hook is installed with the first run, not on import: a process that only starts workflows pays nothing. It cannot be removed again (CPython has no
way), and makes every audited call of the process some 0.2 us slower; of ours there are two for each command (see bench/guard.py).

Not refused, because the outcome does not flow into what the workflow does: imports (of a module that loads late, with all that it does at its top), logging,
tracebacks and warnings that read source lines, time zones, finalizers that the garbage collector happens to run just now, debuggers; and whatever
is under `with durable.unguarded():`.

What can still fail. Clock and entropy have no audit event: `time.time()` in *another* module is seen by nobody until replay's
comparison parts ways. `time.sleep` has one since 3.13 only, the start of a thread since
3.12; the watchdog reports the stall. Libraries in C (libpq, librdkafka) open sockets without an
event. An open file or socket that was passed in through a global can be read. Code that means to hide can.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType
from typing import TYPE_CHECKING, Any

from durable.core.commands import drain_code, short_name
from durable.core.hazards import ACTIVITY
from durable.errors import UnsafeWorkflow

if TYPE_CHECKING:
    from durable.core.run import Run

_EVENTS: dict[str, str] = {
    **dict.fromkeys(
        """open glob.glob mmap.__new__ sqlite3.connect urllib.Request http.client.connect smtplib.connect ftplib.connect
        imaplib.open poplib.connect telnetlib.Telnet.open nntplib.connect webbrowser.open subprocess.Popen pty.spawn
        os.chdir os.chmod os.chown os.exec os.fork os.forkpty os.getxattr os.kill os.killpg os.link os.listdir os.listxattr
        os.lockf os.mkdir os.posix_spawn os.putenv os.remove os.removexattr os.rename os.rmdir os.scandir os.setxattr os.spawn
        os.startfile os.symlink os.system os.truncate os.unsetenv os.utime fcntl.flock fcntl.lockf
        socket.bind socket.connect socket.getaddrinfo socket.gethostbyaddr socket.gethostbyname socket.gethostname
        socket.getnameinfo socket.sendmsg socket.sendto""".split(),  # noqa: SIM905 a long list reads better so
        ACTIVITY,
    ),
    "_thread.start_new_thread": "asyncio.create_task(...), or an activity",
    "_thread.start_joinable_thread": "asyncio.create_task(...), or an activity",
    "time.sleep": "durable.sleep(...)",
    "builtins.input": "a durable Signal",
}

_INDIFFERENT = frozenset(
    """bdb debugpy encodings importlib linecache logging pdb pydevd traceback tokenize tracemalloc warnings weakref
    zoneinfo""".split()  # noqa: SIM905 a long list reads better so
)
"""Top-level modules whose I/O decides nothing; see the essay."""

_unguarded: ContextVar[bool] = ContextVar("durable_unguarded", default=False)

installed = False


@contextmanager
def unguarded() -> Iterator[None]:
    """`with durable.unguarded():` lifts the determinism guard (C13) for this block, at decoration and at run time.

    The author then answers for it: the block runs again in every replay, so what it does must be harmless when repeated, and what
    it finds out must not change which durable calls are made, in which order, with which arguments. Outside workflows it
    does nothing. It lifts neither replay's comparison nor the refusal of event loop methods that a run has not got.
    """
    before = _unguarded.get()
    _unguarded.set(True)
    try:
        yield
    finally:
        _unguarded.set(before)  # not by token: an evicted coroutine ends in another context


def install(current: Callable[[], Run | None]) -> None:
    """Add the audit hook to this process, once. `current` is the run whose turn this thread is taking, or None."""
    global installed
    if installed:
        return
    installed = True
    watched = _EVENTS

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in watched and (run := current()) is not None:
            _judge(run, event, args)

    sys.addaudithook(hook)


def _judge(run: Run, event: str, args: tuple[Any, ...]) -> None:
    frame = sys._getframe(2)
    if not (_unguarded.get() or _is_zone_data(event, args) or _is_indifferent(frame)):
        raise violation(run, _described(event, args), _EVENTS[event], frame)


def violation(run: Run, what: str, instead: str, frame: FrameType) -> UnsafeWorkflow:
    """The error to raise for a call that workflow code may not make; the run's turn is spoilt already."""
    where = _author_frame(run, frame)
    finding = {
        "file": where.f_code.co_filename,
        "line": where.f_lineno,
        "function": where.f_code.co_qualname,
        "what": what,
        "instead": instead,
        "level": "error",
    }
    error = UnsafeWorkflow(run.definition.name, [finding])
    run.spoil(error)
    return error


def _described(event: str, args: tuple[Any, ...]) -> str:
    shown = repr(args[0])[:80] if args and isinstance(args[0], str | bytes | int | float) else "..."
    return f"{event}({shown}) does I/O or blocks" if args else f"{event}() does I/O or blocks"


def _is_zone_data(event: str, args: tuple[Any, ...]) -> bool:
    """`ZoneInfo("Europe/Rome")` reads its file from C, without a frame of its own."""
    zoneinfo = sys.modules.get("zoneinfo")
    path = args[0] if event == "open" and args else None
    if zoneinfo is None or not isinstance(path, str):
        return False
    folders = getattr(zoneinfo, "TZPATH", ())  # it may just be being imported, by pydantic, say
    return path.startswith(tuple(folders))


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    """From the call outwards, as far as it is the run's code."""
    while frame is not None and frame.f_code not in drain_code:
        yield frame
        frame = frame.f_back


def _is_indifferent(frame: FrameType) -> bool:
    return any(
        each.f_globals.get("__name__", "").partition(".")[0] in _INDIFFERENT
        or each.f_code.co_filename.startswith("<frozen importlib")
        or each.f_code.co_name == "__del__"
        for each in _frames(frame)
    )


def _author_frame(run: Run, innermost: FrameType) -> FrameType:
    """The line to show: the last one in the workflow's own file, else the last one that is neither Python's nor ours."""
    frames = list(_frames(innermost))
    home = getattr(getattr(run.definition.fn, "__code__", None), "co_filename", None)
    at_home = (each for each in frames if each.f_code.co_filename == home)
    foreign = (each for each in frames if short_name(each.f_code.co_filename))
    return next(at_home, None) or next(foreign, None) or innermost
