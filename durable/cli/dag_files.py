"""`durable dag validate`, `start` and `schema`: declared workflows that are files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from durable.cli.exits import BAD_INPUT, DONE, BadInput
from durable.cli.operate import (
    Attributes,
    Delay,
    Details,
    Id,
    IfClosed,
    IfRunning,
    Priority,
    Queue,
    RunTimeout,
    Timeout,
    Wait,
    print_result,
    print_started,
    seconds,
)
from durable.cli.output import line, print_json
from durable.cli.settings import Actor, App, Json, Url, import_app, open_client, read_json, who

if TYPE_CHECKING:
    from durable.dag.model import Dag
    from durable.requests import OnClosed, OnRunning

DagFile = Annotated[
    Path, typer.Argument(metavar="FILE", help="A definition: YAML, or JSON if it ends in .json.")
]
Context = Annotated[
    str | None,
    typer.Option(metavar="JSON", help="An object over the file's context; @file, or - for stdin."),
]


def validate(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="Definitions: YAML, or JSON if they end in .json."),
    ],
    *,
    app: App = None,
    in_json: Json = False,
) -> None:
    """Tell everything that is wrong with definitions. For CI: no database is asked, so --app has to name the activities' modules.

    durable dag validate dags/*.yaml --app shop.activities
    """
    import_app(app)
    found = {str(path): _problems(path) for path in files}
    if in_json:
        print_json(
            [{"file": it, "valid": not wrong, "problems": wrong} for it, wrong in found.items()]
        )
    else:
        for path, wrong in found.items():
            _print(path, wrong)
    raise SystemExit(BAD_INPUT if any(found.values()) else DONE)


def _problems(path: Path) -> list[str]:
    from durable.dag_errors import InvalidDag

    try:
        return _read(path).problems()
    except InvalidDag as error:
        return error.problems
    except BadInput as error:
        return [str(error)]


def _print(path: str, problems: list[str]) -> None:
    if not problems:
        line(f"{path}: valid", style="green")
    for problem in problems:
        line(f"{path}: {problem}", style="red")


def start(
    file: DagFile,
    *,
    context: Context = None,
    id: Id = None,
    queue: Queue = None,
    priority: Priority = None,
    delay: Delay = None,
    attributes: Attributes = None,
    on_running: IfRunning = "existing",
    on_closed: IfClosed = "existing",
    run_timeout: RunTimeout = None,
    details: Details = None,
    actor: Actor = None,
    wait: Wait = False,
    timeout: Timeout = None,
    app: App = None,
    url: Url = None,
    in_json: Json = False,
) -> None:
    """Start a definition, if nothing is wrong with it; activities are those that --app has or workers have registered.

    durable dag start dags/customer.yaml --id customer-7 --context '{"id": 7}'
    """
    import_app(app)
    dag = _with_context(_read(file), read_json("--context", context, {}))
    extra = read_json("--attributes", attributes, None)
    with open_client(url) as client:
        handle = client.start(
            dag,
            id=id,
            queue=queue,
            priority=priority,
            delay=delay,
            attributes=extra,
            actor=actor or who(),
            on_running=cast("OnRunning", on_running),
            on_closed=cast("OnClosed", on_closed),
            run_timeout=seconds(run_timeout),
            details=details,
        )
        if wait:
            raise SystemExit(print_result(handle, timeout, in_json=in_json))
    print_started(dag.name, handle, in_json=in_json)


def schema() -> None:
    """Print the JSON Schema of definitions, for editors."""
    from durable.dag.format import json_schema

    print_json(json_schema())


def _read(path: Path) -> Dag:
    from durable.dag.model import Dag

    try:
        return Dag.from_file(path)
    except OSError as error:
        raise BadInput(f"cannot read the file {str(path)!r}: {error}") from error


def _with_context(dag: Dag, given: Any) -> Dag:
    if not isinstance(given, dict):
        raise BadInput("--context is no JSON object; quote it for the shell, e.g. '{\"id\": 7}'")
    dag.context = {**dag.context, **given}
    return dag
