"""The group `dag`: the steps of a declared workflow, and what can be done to one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from durable.cli.operate import Timeout
from durable.cli.output import line, print_json, print_table, short
from durable.cli.settings import (
    Actor,
    Json,
    Reason,
    Url,
    WorkflowId,
    given_reason,
    open_client,
    read_json,
    who,
)

if TYPE_CHECKING:
    from durable.descriptions import StepReceipt

app = typer.Typer(
    help="Declared workflows: their files, and the steps of their runs.", no_args_is_help=True
)

Step = Annotated[str, typer.Argument(metavar="STEP", help="The step's name.", show_default=False)]
RequestId = Annotated[
    str | None,
    typer.Option(help="A second request with the same id gets what became of the first."),
]


@app.command()
def steps(
    workflow_id: WorkflowId, *, timeout: Timeout = None, url: Url = None, in_json: Json = False
) -> None:
    """Show the steps of a run that is open or over, and how they stand."""
    with open_client(url) as client:
        table = client.handle(workflow_id).query("steps", timeout=timeout)
    if in_json:
        print_json(table)
        return
    columns = ("step", "status", "because of", "result", "by")
    print_table(columns, [_row(name, row) for name, row in table.items()])


_UNDO = {"undoing": "is being undone", "undone": "undone", "failed": "not undone"}


def _row(name: str, row: dict[str, Any]) -> tuple[Any, ...]:
    failure = row.get("failure")
    said = "" if failure is None else f"{failure['type']}: {failure['message']}"
    if "result" in row:
        said = short(row["result"], 60)
    said = row.get("halt", said)
    by = row.get("by") or {}
    hand = " ".join(str(by[key]) for key in ("operation", "actor", "reason") if by.get(key))
    status = f"{row['status']}, {_UNDO[row['undo']]}" if "undo" in row else row["status"]
    return name, status, row.get("cause", ""), said, hand


@app.command("complete-step")
def complete_step(
    workflow_id: WorkflowId,
    step: Step,
    payload: Annotated[
        str | None,
        typer.Argument(
            metavar="[JSON]",
            help="Its result, or what went wrong: JSON, @file, or - for standard input.",
        ),
    ] = None,
    *,
    status: Annotated[
        str, typer.Option(help="How it ends: completed, failed or skipped.")
    ] = "completed",
    timeout: Timeout = None,
    actor: Actor = None,
    url: Url = None,
    in_json: Json = False,
) -> None:
    """End a step from outside; the same completion again is answered as the first.

    durable dag complete-step customer-7 approval '{"by": "ann"}'
    """
    value, by = read_json("the payload", payload, None), actor or who()
    with open_client(url) as client:
        receipt = client.complete_step(
            workflow_id,
            step,
            status=status,  # type: ignore[arg-type]  # the run refuses others, and names these
            payload=value,
            actor=by,
            timeout=timeout,
        )
    _print(receipt, in_json=in_json)


@app.command("cancel-step")
def cancel_step(
    workflow_id: WorkflowId,
    step: Step,
    *,
    reason: Reason = None,
    request_id: RequestId = None,
    timeout: Timeout = None,
    actor: Actor = None,
    url: Url = None,
    in_json: Json = False,
) -> None:
    """Cancel a step that has not ended, and what depends on it.

    durable dag cancel-step customer-7 remind --reason 'they have paid'
    """
    why, by = given_reason(reason), actor or who()
    with open_client(url) as client:
        receipt = client.cancel_step(
            workflow_id, step, why, request_id=request_id, actor=by, timeout=timeout
        )
    _print(receipt, in_json=in_json)


@app.command("retry-step")
def retry_step(
    workflow_id: WorkflowId,
    step: Step,
    *,
    reason: Reason = None,
    request_id: RequestId = None,
    timeout: Timeout = None,
    actor: Actor = None,
    url: Url = None,
    in_json: Json = False,
) -> None:
    """Run a step again that failed or was cancelled, and what was cancelled because of it; also in a run that is over.

    durable dag retry-step customer-7 charge --reason 'the bank is back'
    """
    why, by = given_reason(reason), actor or who()
    with open_client(url) as client:
        receipt = client.retry_step(
            workflow_id, step, why, request_id=request_id, actor=by, timeout=timeout
        )
    _print(receipt, in_json=in_json)


@app.command("give-up")
def give_up(
    workflow_id: WorkflowId,
    *,
    reason: Reason = None,
    timeout: Timeout = None,
    actor: Actor = None,
    url: Url = None,
    in_json: Json = False,
) -> None:
    """Let a run that waits for its failed steps to be retried fail instead."""
    why, by = given_reason(reason), actor or who()
    with open_client(url) as client:
        client.give_up_dag(workflow_id, why, actor=by, timeout=timeout)
    if in_json:
        print_json({"workflow_id": workflow_id, "status": "accepted"})
    else:
        line(f"{workflow_id} waits for no retry any more", style="green")


@app.command()
def resume(
    workflow_id: WorkflowId,
    *,
    request_id: RequestId = None,
    timeout: Timeout = None,
    actor: Actor = None,
    url: Url = None,
    in_json: Json = False,
) -> None:
    """Let a run go on that a step of it has halted."""
    with open_client(url) as client:
        resumed = client.resume_dag(
            workflow_id, request_id=request_id, actor=actor or who(), timeout=timeout
        )
    if in_json:
        print_json({"workflow_id": workflow_id, "resumed": resumed})
    else:
        line(f"{workflow_id} goes on after {', '.join(resumed)}", style="green")


@app.command()
def undo(
    workflow_id: WorkflowId,
    *,
    reason: Reason = None,
    actor: Actor = None,
    url: Url = None,
    in_json: Json = False,
) -> None:
    """Undo a run that has completed: the `undo` of each step that has one, the last step first.

    durable dag undo trip-7 --reason 'the customer changed his mind'
    """
    why, by = given_reason(reason), actor or who()
    with open_client(url) as client:
        receipt = client.handle(workflow_id).undo(why, actor=by)
    if in_json:
        print_json(receipt)
    else:
        text = f"{workflow_id} is being undone; durable dag steps {workflow_id} shows how far"
        line(text, style="green")


def _print(receipt: StepReceipt, *, in_json: bool) -> None:
    if in_json:
        print_json(receipt)
        return
    line(f"{receipt.step} is {receipt.status}", style="green")
    if receipt.others:
        line(f"changed with it: {', '.join(receipt.others)}")
