"""Commands that change something: start, signal, cancel, terminate; and result, which waits."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from durable.cli.chosen import Chosen, DryRun, Where, on_chosen
from durable.cli.exits import DONE, RUN_FAILED, BadInput
from durable.cli.output import as_json, failure_line, line, print_json
from durable.cli.settings import (
    Actor,
    App,
    Json,
    Reason,
    Url,
    WorkflowId,
    import_app,
    open_client,
    read_json,
    who,
)

if TYPE_CHECKING:
    from durable.descriptions import SignalReceipt
    from durable.handles_sync import Handle
    from durable.requests import OnClosed, OnRunning

Timeout = Annotated[
    float | None,
    typer.Option("--timeout", metavar="SECONDS", help="Give up waiting after this time."),
]
Version = Annotated[int | None, typer.Option(help="Another version than the newest.")]
Pinned = Annotated[
    bool | None, typer.Option(help="Stay with the worker build that takes it first.")
]
Id = Annotated[
    str | None, typer.Option("--id", help="The workflow's id; starting is idempotent by it.")
]
Queue = Annotated[str | None, typer.Option(help="Another queue than the workflow's own.")]
Priority = Annotated[int | None, typer.Option(help="0 (first) to 9.")]
Attributes = Annotated[
    str | None, typer.Option(metavar="JSON", help="An object kept beside the run.")
]
IfRunning = Annotated[str, typer.Option(help="If the id is running: existing, fail, terminate.")]
IfClosed = Annotated[
    str, typer.Option(help="If the id has ended: existing, new, new_if_failed, fail.")
]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for the end and print the result.")]
Delay = Annotated[
    float | None, typer.Option(metavar="SECONDS", help="Start no sooner than in this time.")
]
RunTimeout = Annotated[
    float | None, typer.Option(metavar="SECONDS", help="End the run by force after this time.")
]
ExecutionTimeout = Annotated[
    float | None, typer.Option(metavar="SECONDS", help="The same for all that continues it.")
]
Details = Annotated[str | None, typer.Option(help="A line for people: what it is for.")]


def seconds(given: float | None) -> timedelta | None:
    return None if given is None else timedelta(seconds=given)


def start(
    workflow: Annotated[str, typer.Argument(help="The workflow's name.", show_default=False)],
    arguments: Annotated[
        str | None,
        typer.Argument(
            metavar="JSON",
            help="Its arguments by name: a JSON object, @file, or - for standard input.",
        ),
    ] = None,
    *,
    id: Id = None,
    version: Version = None,
    pinned: Pinned = None,
    queue: Queue = None,
    priority: Priority = None,
    delay: Delay = None,
    attributes: Attributes = None,
    on_running: IfRunning = "existing",
    on_closed: IfClosed = "existing",
    run_timeout: RunTimeout = None,
    execution_timeout: ExecutionTimeout = None,
    details: Details = None,
    actor: Actor = None,
    wait: Wait = False,
    timeout: Timeout = None,
    app: App = None,
    url: Url = None,
    in_json: Json = False,
) -> None:
    """Start a workflow.

    durable start checkout '{"order": {...}}' --id o-1
    """
    import_app(app)
    given = read_json("the arguments", arguments, {})
    extra = read_json("--attributes", attributes, None)
    with open_client(url) as client:
        handle = client.start(
            workflow,
            given,
            id=id,
            version=version,
            pinned=pinned,
            queue=queue,
            priority=priority,
            delay=delay,
            attributes=extra,
            actor=actor or who(),
            on_running=cast("OnRunning", on_running),
            on_closed=cast("OnClosed", on_closed),
            run_timeout=seconds(run_timeout),
            execution_timeout=seconds(execution_timeout),
            details=details,
        )
        if wait:
            raise SystemExit(print_result(handle, timeout, in_json=in_json))
    print_started(workflow, handle, in_json=in_json)


def print_started(workflow: str, handle: Handle[Any], *, in_json: bool) -> None:
    if in_json:
        print_json(
            {"workflow_id": handle.workflow_id, "run_id": handle.run_id, "created": handle.created}
        )
    elif handle.created:
        line(f"started {workflow} {handle.workflow_id}", style="green")
    else:
        line(
            f"{handle.workflow_id} exists already, nothing was started; durable show {handle.workflow_id}"
        )


def signal(
    workflow_id: Annotated[
        str, typer.Argument(metavar="ID", help="The workflow's id; left out with --where.")
    ],
    name: Annotated[
        str | None,
        typer.Argument(metavar="SIGNAL", help="The signal's name.", show_default=False),
    ] = None,
    payload: Annotated[
        str | None,
        typer.Argument(metavar="JSON", help="Its value: JSON, @file, or - for standard input."),
    ] = None,
    *,
    dedupe_key: Annotated[
        str | None, typer.Option(help="A second signal with the same key is not delivered.")
    ] = None,
    where: Where = None,
    only_one: Annotated[
        bool, typer.Option("--one", help="With --where: only if it means one open workflow.")
    ] = False,
    dry_run: DryRun = False,
    reason: Reason = None,
    actor: Actor = None,
    app: App = None,
    url: Url = None,
    in_json: Json = False,
) -> None:
    """Send a signal to a workflow.

    durable signal o-1 payment_confirmed '{"amount": 10}'
    """
    import_app(app)
    if where is not None and only_one:
        value = read_json("the payload", name, None)
        with open_client(url) as client:
            receipt = client.signal_where(
                where, workflow_id, value, dedupe_key=dedupe_key, actor=actor or who()
            )
        _print_signalled(workflow_id, "the one that it means", receipt, in_json=in_json)
        return
    if where is not None:  # then there is no id, and the others stand one place earlier
        chosen = Chosen(None, where, dry_run, reason, actor, url, in_json)
        chosen.many("signal", signal=workflow_id, value=read_json("the payload", name, None))
        return
    if name is None:
        raise BadInput("give the workflow's ID and the SIGNAL's name")
    value = read_json("the payload", payload, None)
    with open_client(url) as client:
        handle = client.handle(workflow_id)
        receipt = handle.signal(name, value, dedupe_key=dedupe_key, actor=actor or who())
    _print_signalled(name, workflow_id, receipt, in_json=in_json)


def _print_signalled(name: str, whom: str, receipt: SignalReceipt, *, in_json: bool) -> None:
    if in_json:
        print_json(receipt)
    elif receipt.status == "duplicate":
        line(
            f"{name} was sent to {whom} with this key before; this one is not delivered",
            style="yellow",
        )
    else:
        line(f"sent {name} to {whom}", style="green")


@on_chosen
def cancel(chosen: Chosen) -> None:
    """Ask a workflow to stop; it may compensate first.

    durable cancel --where 'workflow=checkout status=running' --dry-run --reason 'a bad release'
    """
    if chosen.many("cancel"):
        return
    with chosen.one() as handle:
        receipt = handle.cancel(chosen.reason, actor=chosen.by)
    if receipt.status == "already_requested":
        said = f"{chosen.workflow_id} was asked to stop before; the first request stands"
        chosen.print(receipt, said, style="yellow")
    else:
        chosen.print(receipt, f"asked {chosen.workflow_id} to stop")


@on_chosen
def terminate(chosen: Chosen) -> None:
    """End a workflow by force: nothing is compensated."""
    if chosen.many("terminate"):
        return
    with chosen.one() as handle:
        handle.terminate(chosen.why, actor=chosen.by)
    said = {"workflow_id": chosen.workflow_id, "status": "terminated"}
    chosen.print(said, f"terminated {chosen.workflow_id}")


def result(
    workflow_id: WorkflowId, *, timeout: Timeout = None, url: Url = None, in_json: Json = False
) -> None:
    """Wait for a workflow's end; print its result."""
    with open_client(url) as client:
        raise SystemExit(print_result(client.handle(workflow_id), timeout, in_json=in_json))


def print_result(handle: Handle[Any], timeout: float | None, *, in_json: bool) -> int:
    outcome = handle.outcome(timeout)
    succeeded = outcome.status == "completed"
    value = None if outcome.payload is None else json.loads(outcome.payload)
    failure = outcome.body.get("failure")
    if in_json:
        head = {
            "workflow_id": handle.workflow_id,
            "run_id": outcome.run_id,
            "status": outcome.status,
        }
        tail = (
            {"result": value}
            if succeeded
            else {"reason": outcome.body.get("reason"), "failure": failure}
        )
        print_json({**head, **tail})
    elif succeeded:
        print(as_json(value))
    else:
        why = failure_line(failure) or outcome.body.get("reason") or ""
        said = f"{handle.workflow_id} {outcome.status}{': ' if why else ''}{why}"
        typer.echo(f"durable: {said} (durable history {handle.workflow_id} shows how)", err=True)
    return DONE if succeeded else RUN_FAILED
