"""`durable replay`: a recorded run, again, on this machine and with this code; under a debugger if you like.

Nothing is claimed, executed or written: the session is read-only for the server, activities are not run, and what a turn commands is compared with
the history and dropped.
"""

from __future__ import annotations

import pdb  # noqa: T100 - this command is a debugger
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from durable.cli.exits import DONE, INCOMPATIBLE, BadInput
from durable.cli.output import line, moment, print_json
from durable.cli.settings import App, Json, Url, import_modules

if TYPE_CHECKING:
    from durable.core.events import Event
    from durable.core.execution import Execution
    from durable.definitions import Workflow
    from durable.histories import RecordedHistory


def replay(
    workflow_id: Annotated[
        str | None, typer.Argument(metavar="ID", help="The workflow's id.", show_default=False)
    ] = None,
    *,
    file: Annotated[
        Path | None, typer.Option("--file", help="An exported history instead of the database.")
    ] = None,
    module: Annotated[
        list[str] | None, typer.Option("--module", "-m", help="Modules with the code.")
    ] = None,
    run_id: Annotated[
        str | None, typer.Option("--run-id", help="This run of the id, not the newest.")
    ] = None,
    until: Annotated[
        int | None, typer.Option(min=1, help="Stop after the turn that holds this event.")
    ] = None,
    debug: Annotated[
        bool, typer.Option("--pdb", help="Debug the turn that holds event --until.")
    ] = False,
    app: App = None,
    url: Url = None,
    in_json: Json = False,
) -> None:
    """Run a recorded workflow again, here, without any effect.

    durable replay o-1 --module shop --until 12 --pdb
    """
    if (workflow_id is None) == (file is None):
        raise BadInput("say what to replay: a workflow id, or --file")
    history = _read(workflow_id, run_id, file, url)
    workflow = _code_for(history, [*(module or ()), *_app_modules(app)])
    turn = _turn_of(history, until)
    said = Said(history, turn)
    execution, events = _begun(history, workflow)
    try:
        _take_turns(execution, events, turn, debug=debug, until=until)
    except _Left:
        raise SystemExit(DONE) from None
    except Exception as error:
        said.error = error
    else:
        said.read(execution)
        execution.evict()
    said.print(in_json=in_json)
    raise SystemExit(INCOMPATIBLE if said.error else DONE)


def _read(
    workflow_id: str | None, run_id: str | None, file: Path | None, url: str | None
) -> RecordedHistory:
    from durable.histories import RecordedHistory
    from durable.requests import database_url
    from durable.store.histories import HistoryReader

    if file is not None:
        return RecordedHistory.load(file)
    with HistoryReader(database_url(url)) as reader:
        return next(reader.histories([reader.find(str(workflow_id), run_id)]))


def _app_modules(app: str | None) -> list[str]:
    import os

    return [name for name in (app or os.environ.get("DURABLE_APP") or "").split(",") if name]


def _code_for(history: RecordedHistory, modules: Sequence[str]) -> Workflow[..., Any]:
    from durable.errors import UnknownWorkflow
    from durable.modules import workflows_in

    found = workflows_in(import_modules(modules))
    if (workflow := found.get((history.workflow, history.version))) is not None:
        return workflow
    has = [f"{name} version {version}" for name, version in sorted(found)]
    where = (
        f"{', '.join(modules)} has {', '.join(has) or 'no workflow'}"
        if modules
        else "none was named"
    )
    raise UnknownWorkflow(
        f"the run is of {history.workflow!r} version {history.version}; name the module that has it with --module ({where})"
    )


def _begun(
    history: RecordedHistory, workflow: Workflow[..., Any]
) -> tuple[Execution, Sequence[Event]]:
    from durable.replays import begun, readable

    return begun(history, workflow), readable(history).events


def _turn_of(history: RecordedHistory, until: int | None) -> int:
    """The last turn to replay."""
    if until is None:
        return history.events[-1].turn
    if until > len(history.events):
        raise BadInput(f"--until {until}: the history has {len(history.events)} events")
    return history.events[until - 1].turn


def _take_turns(
    execution: Execution, events: Sequence[Event], turn: int, *, debug: bool, until: int | None
) -> None:
    """Replay up to and with `turn`; the last one (without --until: all of them) under the debugger."""
    wanted = events_of(events, turn)
    if debug:
        first = turn if until is not None else 1
        Debugger().watch(execution, wanted, first)
    else:
        execution.replay(wanted)


def events_of(events: Sequence[Event], turn: int) -> list[Event]:
    """Those up to and with the turn."""
    return [it for it in events if it.turn <= turn]


class _Left(Exception):
    """The debugger was quit."""


class Debugger(pdb.Pdb):
    """Stops at the first line of the author's code that the watched turns run, and steps in the author's code only.

    What is below Python's own folders, site-packages or this package is nobody's to step through; breakpoints work there too.
    """

    def __init__(self) -> None:
        super().__init__()
        self.prompt = "(replay) "
        self.left = self._armed = False
        paths = sysconfig.get_paths()
        folders = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
        self._others = ("<", *folders, str(Path(__file__).parents[1]))

    def stop_here(self, frame: FrameType) -> bool:
        """Whether stepping stops in this frame."""
        return self._armed and self._is_authors(frame) and super().stop_here(frame)

    def break_anywhere(self, frame: FrameType) -> bool:
        """Whether the frame must be traced from its first line on: it may be suspended and go on in the turn that is watched."""
        return self._is_authors(frame) or super().break_anywhere(frame)

    def _is_authors(self, frame: FrameType) -> bool:
        return not frame.f_code.co_filename.startswith(self._others)

    def watch(self, execution: Execution, events: Sequence[Event], first: int) -> None:
        """Replay the events, and stop in the code from turn `first` on. Raises _Left when the debugger is quit.

        The turns before run under it too, without a stop: a plain function's frames can only be traced from their beginning.
        """

        def go() -> None:
            execution.replay([it for it in events if it.turn < first])
            self._armed = True
            execution.replay([it for it in events if it.turn >= first])

        try:
            self.runcall(go)
        except Exception:
            if not self.left:  # what quitting leaves of the turn is no nondeterminism
                raise
        if self.left:
            raise _Left

    def set_quit(self) -> None:
        self.left = True
        super().set_quit()


class Said:
    """What is told at the end."""

    def __init__(self, history: RecordedHistory, turn: int) -> None:
        self.history = history
        self.replayed = len(events_of(history.events, turn))
        self.turn = turn
        self.closed_by: str | None = None
        self.tasks: list[dict[str, Any]] = []
        self.error: Exception | None = None

    def read(self, execution: Execution) -> None:
        self.tasks = execution.standing()
        self.closed_by = self.history.events[self.replayed - 1].type if execution.closed else None

    def print(self, *, in_json: bool) -> None:
        if in_json:
            self._print_json()
            return
        history, events = self.history, self.history.events
        line(f"{history.workflow_id}  {history.workflow} version {history.version}", style="bold")
        if self.error is not None:
            line(f"{type(self.error).__name__}:", style="red")
            for text in str(getattr(self.error, "difference", self.error)).splitlines():
                line(f"  {text}")
            return
        of = f" of {len(events)}" if self.replayed < len(events) else ""
        line(f"replayed {self.replayed}{of} events, {self.turn} turns, up to {self._time()}")
        if self.closed_by:
            line(f"the run has closed: {self.closed_by}", style="green")
        for task in self.tasks:
            _print_task(task)

    def _time(self) -> str:
        from durable.store.calls import from_us

        return moment(from_us(self.history.events[self.replayed - 1].at_us))

    def _print_json(self) -> None:
        history, error = self.history, self.error
        failed = None if error is None else {
            "type": type(error).__name__, "message": str(getattr(error, "difference", error)),
            **{key: getattr(error, key, None) for key in ("event_seq", "expected", "got", "line")},
        }  # fmt: skip
        print_json(
            {
                "workflow_id": history.workflow_id, "run_id": history.run_id, "workflow": history.workflow,
                "version": history.version, "events": self.replayed, "turn": self.turn, "closed_by": self.closed_by,
                "tasks": self.tasks, "error": failed,
            }
        )  # fmt: skip


def _print_task(task: dict[str, Any]) -> None:
    line()
    line(task["task"], style="bold")
    for place in task["lines"]:
        line(f"  {place}")
    for wait in task["waits_for"]:
        number = f" #{wait['seq']}" if wait.get("seq") else ""
        where = f" at {wait['line']}" if wait.get("line") else ""
        line(f"  waits for {wait['kind']} {wait['name']}{number}{where}", style="blue")
