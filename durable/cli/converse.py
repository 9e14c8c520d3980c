"""Commands that talk with a running workflow: query, update; and how its updates are shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from durable.cli.exits import BadInput
from durable.cli.operate import Timeout
from durable.cli.output import as_json, failure_line, line, print_json, print_table, short
from durable.cli.settings import Actor, Json, Url, WorkflowId, open_client, read_json, who

if TYPE_CHECKING:
    from durable.descriptions import UpdateEvidence

Arguments = Annotated[
    str | None,
    typer.Argument(
        metavar="JSON",
        help="Its arguments: an object by name or an array by position, @file, or - for standard input.",
    ),
]


def query(
    workflow_id: WorkflowId,
    name: Annotated[
        str,
        typer.Argument(
            metavar="QUERY", help="Its name; __handlers lists them.", show_default=False
        ),
    ],
    arguments: Arguments = None,
    *,
    timeout: Timeout = None,
    url: Url = None,
    in_json: Json = False,
) -> None:
    """Ask a workflow, also one that has ended; print the answer as JSON.

    durable query o-1 status
    """
    given = _arguments(arguments)
    with open_client(url) as client:
        answer = client.handle(workflow_id).query_json(name, given, timeout=timeout)
    if in_json:
        print_json({"workflow_id": workflow_id, "query": name, "result": answer})
    else:
        print(as_json(answer))


def update(
    workflow_id: WorkflowId,
    name: Annotated[
        str, typer.Argument(metavar="UPDATE", help="The update's name.", show_default=False)
    ],
    arguments: Arguments = None,
    *,
    update_id: Annotated[
        str | None,
        typer.Option(help="A second request with the same id gets what became of the first."),
    ] = None,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Only request it; it may still be rejected.")
    ] = False,
    timeout: Timeout = None,
    actor: Actor = None,
    url: Url = None,
    in_json: Json = False,
) -> None:
    """Have a workflow do something and print its answer as JSON.

    durable update o-1 add '{"item": {"sku": "tea"}}'
    """
    from durable.messages import UpdateRequest

    request = UpdateRequest.from_json(name, _arguments(arguments), id=update_id)
    with open_client(url) as client:
        handle = client.handle(workflow_id)
        started = handle.start_update(request, actor=actor or who())
        result = None if no_wait else started.result(timeout)
    said = {"workflow_id": workflow_id, "update_id": request.id}
    if in_json:
        print_json(
            {**said, "status": "requested"}
            if no_wait
            else {**said, "status": "completed", "result": result}
        )
    elif no_wait:
        line(f"requested update {name} of {workflow_id}: {request.id}", style="green")
    else:
        print(as_json(result))


def _arguments(text: str | None) -> Any:
    given = read_json("the arguments", text, {})
    if not isinstance(given, dict | list):
        msg = f"""the arguments are {given!r}; give a JSON object by name or an array by position, e.g. '["tea"]'"""
        raise BadInput(msg)
    return given


def print_updates(updates: Sequence[UpdateEvidence]) -> None:
    """What was requested of a workflow, for `durable show`."""
    if not updates:
        return
    line()
    columns = ("at", "update", "status", "event", "id", "result", "reason")
    rows = [
        (u.at, u.name, u.status, u.seq, u.update_id, "" if u.payload is None else short(u.payload),
         failure_line(u.failure) or u.reason)
        for u in updates
    ]  # fmt: skip
    print_table(columns, rows)
