"""`durable graph` and `durable watch`: a workflow as a picture, once or for as long as it runs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from durable.cli.exits import DONE, RUN_FAILED, BadInput
from durable.cli.output import STYLES, clock, is_terminal, line, print_json
from durable.cli.settings import Json, Url, WorkflowId, open_client
from durable.cli.story import details, what

if TYPE_CHECKING:
    from durable.client_sync import Client
    from durable.descriptions import HistoryEvent, RunDescription
    from durable.graphs import Graph

Format = Literal["ascii", "mermaid", "dot", "svg"]

_SUFFIXES: dict[str, Format] = {
    ".svg": "svg",
    ".dot": "dot",
    ".gv": "dot",
    ".mmd": "mermaid",
    ".txt": "ascii",
}
_GAP_S = 0.5
"""Between two looks at a workflow that is watched."""


def graph(
    workflow_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="The workflow's id.", show_default=False)
    ] = None,
    *,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            metavar="FILE",
            help="Instead of an ID: a DAG's definition (YAML or .json) or an exported history (.json).",
        ),
    ] = None,
    format_: Annotated[
        str | None,
        typer.Option("--format", help="ascii, mermaid, dot or svg; else by --output's ending."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it to a file.")
    ] = None,
    execution: Annotated[
        bool, typer.Option("--execution", help="Of a DAG: what ran, instead of its steps.")
    ] = False,
    width: Annotated[
        int | None, typer.Option(min=40, help="Columns of ascii; those of the terminal.")
    ] = None,
    url: Url = None,
    in_json: Json = False,
) -> None:
    """Draw a workflow: the steps of a DAG, or who waited for what and how long.

    The critical path is what the length of the whole is due to.
    """
    if (workflow_id is None) == (file is None):
        raise BadInput("give the workflow's ID, or --file FILE")
    form = _format(format_, output)
    if file is not None:
        drawn = _of_file(file, execution=execution)
    else:
        assert workflow_id is not None
        with open_client(url) as client:
            drawn = _of_run(client, workflow_id, execution=execution)
    if in_json:
        print_json(drawn)
        return
    text = _written(drawn, form, width)
    if output is None:
        print(text, end="")
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"--output {output}: {error}") from error
    line(f"wrote {drawn.title} to {output}", style="green")


def _format(format_: str | None, output: Path | None) -> Format:
    chosen = format_ or _SUFFIXES.get(output.suffix if output else "", "ascii")
    if chosen not in ("ascii", "mermaid", "dot", "svg"):
        raise BadInput(f"--format {chosen}: there is ascii, mermaid, dot and svg")
    return chosen  # type: ignore[return-value]


def _written(drawn: Graph, format_: Format, width: int | None) -> str:
    from durable.graphs import to_dot, to_mermaid, to_svg, to_text

    if format_ == "ascii":
        return to_text(drawn, width or _columns())
    return {"mermaid": to_mermaid, "dot": to_dot, "svg": to_svg}[format_](drawn)


def _columns() -> int:
    import shutil

    return shutil.get_terminal_size((100, 24)).columns


def _of_file(path: Path, *, execution: bool) -> Graph:
    """A definition is YAML, or JSON if the file ends in .json; a history is JSON. Raises BadInput, InvalidDag, PayloadError."""
    from durable.dag.model import Dag
    from durable.graphs import dag_graph
    from durable.graphs.recorded import recorded_graph
    from durable.histories import FORMAT, RecordedHistory

    try:
        if path.suffix != ".json":
            return dag_graph(Dag.from_file(path).to_json())
        text = path.read_text(encoding="utf-8")
        given = json.loads(text)
    except (OSError, ValueError) as error:
        raise BadInput(f"--file {path}: {error}") from error
    if not isinstance(given, dict) or not ({"steps", "events"} & given.keys()):
        raise BadInput(f"--file {path}: neither a DAG's definition nor an exported history")
    if given.get("format") == FORMAT:
        return recorded_graph(RecordedHistory.from_json(text, str(path)), execution=execution)
    return dag_graph(Dag.from_json(given).to_json())


def _of_run(client: Client, workflow_id: str, *, execution: bool = False) -> Graph:
    from durable.graphs.recorded import recorded_graph

    handle = client.handle(workflow_id)
    recorded = handle.export()
    return recorded_graph(recorded, _standing(client, workflow_id), execution=execution)


def _standing(client: Client, workflow_id: str) -> Any:
    from durable.graphs import Standing
    from durable.store import calls

    handle = client.handle(workflow_id)
    run = handle.describe()
    if run.status != "running":
        return Standing()
    (row,) = client._execute(calls.read_clock())
    return Standing(row["server_us"] + row["offset_us"], handle.pending(), run.waiting_on or ())


def watch(
    workflow_id: WorkflowId,
    *,
    execution: Annotated[
        bool, typer.Option("--execution", help="Of a DAG: what runs, instead of its steps.")
    ] = False,
    url: Url = None,
    in_json: Json = False,
) -> None:
    """Follow a workflow until it ends: a picture that changes on a terminal, else a line for each event.

    The exit code is that of `durable result`: 5 if it failed, was cancelled or terminated.
    """
    with open_client(url) as client:
        if is_terminal() and not in_json:
            run = _follow_picture(client, workflow_id, execution=execution)
        else:
            run = _follow_events(client, workflow_id, in_json=in_json)
    said = f"{workflow_id} {run.status}"
    if not in_json:
        line(said, style=STYLES.get(run.status, ""))
    raise SystemExit(DONE if run.status == "completed" else RUN_FAILED)


def _follow(
    client: Client, workflow_id: str, show: Callable[[RunDescription], None]
) -> RunDescription:
    """Show it as it stands, again and again, and once more when it has ended; that is answered. A run that is continued goes on as its successor."""
    handle = client.handle(workflow_id)
    while True:
        run = handle.describe()
        show(run)
        if run.status not in ("running", "continued"):
            return run
        time.sleep(_GAP_S)


def _follow_picture(client: Client, workflow_id: str, *, execution: bool) -> RunDescription:
    from rich.live import Live
    from rich.text import Text

    with Live(auto_refresh=False, vertical_overflow="crop") as live:

        def show(_: RunDescription) -> None:
            drawn = _of_run(client, workflow_id, execution=execution)
            live.update(Text(_written(drawn, "ascii", None)), refresh=True)

        return _follow(client, workflow_id, show)


def _follow_events(client: Client, workflow_id: str, *, in_json: bool) -> RunDescription:
    """Each event once, whole turns at a time."""
    told: dict[str, dict[int, HistoryEvent]] = {}

    def show(run: RunDescription) -> None:
        nonlocal told
        for run_id in {**told, run.run_id: {}}:  # what it continues may have had a last turn
            opened = told.setdefault(run_id, {})
            handle = client._handle_of(workflow_id, run_id, None)
            for event in handle.history(after=max(opened, default=0)):
                opened[event.seq] = event
                _tell(event, opened, in_json=in_json)
        told = {run.run_id: told[run.run_id]}

    return _follow(client, workflow_id, show)


def _tell(event: HistoryEvent, opened: dict[int, HistoryEvent], *, in_json: bool) -> None:
    if in_json:
        print_json(event)
        return
    said = (clock(event.at), event.type, what(event, opened), details(event, opened))
    line("  ".join(filter(None, said)))
