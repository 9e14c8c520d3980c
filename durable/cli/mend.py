"""The group `activity`: mend one pending activity of a workflow by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from durable.cli.output import line, print_json
from durable.cli.settings import (
    Actor,
    App,
    Json,
    Reason,
    Url,
    WorkflowId,
    given_reason,
    import_app,
    open_client,
    read_json,
    who,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from durable.operations_sync import PendingActivity

activity = typer.Typer(
    help="Mend one pending activity by hand; `durable show ID` lists them.", no_args_is_help=True
)

Seq = Annotated[
    int, typer.Argument(metavar="SEQ", help="The number of the event that scheduled it.")
]
Value = Annotated[str, typer.Argument(metavar="JSON", help="JSON, @file, or - for standard input.")]


def _act(
    workflow_id: str, seq: int, url: str | None, in_json: bool, did: str,
    act: Callable[[PendingActivity], Any],
) -> None:  # fmt: skip
    with open_client(url) as client:
        act(client.handle(workflow_id).activity(seq))
    if in_json:
        print_json({"workflow_id": workflow_id, "seq": seq, "status": "accepted"})
    else:
        line(f"{did} activity {seq} of {workflow_id}", style="green")


@activity.command()
def pause(
    workflow_id: WorkflowId, seq: Seq, *, reason: Reason = None, actor: Actor = None,
    url: Url = None, in_json: Json = False,
) -> None:  # fmt: skip
    """Begin no further attempt; one that is under way ends."""
    why, by = given_reason(reason), actor or who()
    _act(workflow_id, seq, url, in_json, "paused", lambda it: it.pause(why, actor=by))


@activity.command()
def resume(
    workflow_id: WorkflowId, seq: Seq, *, reason: Reason = None, actor: Actor = None,
    url: Url = None, in_json: Json = False,
) -> None:  # fmt: skip
    """Let a paused activity go on."""
    by = actor or who()
    _act(workflow_id, seq, url, in_json, "resumed", lambda it: it.resume(reason, actor=by))


@activity.command()
def retry(
    workflow_id: WorkflowId, seq: Seq, *, reason: Reason = None, actor: Actor = None,
    url: Url = None, in_json: Json = False,
) -> None:  # fmt: skip
    """Begin the next attempt now; with as many attempts again if they had run out."""
    why, by = given_reason(reason), actor or who()
    _act(workflow_id, seq, url, in_json, "retries", lambda it: it.retry(why, actor=by))


@activity.command("edit-input")
def edit_input(
    workflow_id: WorkflowId, seq: Seq, arguments: Value, *,
    then_retry: Annotated[bool, typer.Option("--retry", help="And begin the next attempt now.")] = False,
    reason: Reason = None, actor: Actor = None, app: App = None, url: Url = None, in_json: Json = False,
) -> None:  # fmt: skip
    """Give it other arguments, an object by name, for all attempts from now on.

    durable activity edit-input o-1 7 '{"amount": 10}' --retry --reason 'wrong amount'
    """
    import_app(app)
    given, why, by = read_json("the arguments", arguments, {}), given_reason(reason), actor or who()

    def act(it: PendingActivity) -> None:
        it.edit_input(given, why, actor=by)
        if then_retry:
            it.retry(why, actor=by)

    _act(workflow_id, seq, url, in_json, "edited", act)


@activity.command("set-result")
def set_result(
    workflow_id: WorkflowId, seq: Seq, value: Value, *, reason: Reason = None, actor: Actor = None,
    app: App = None, url: Url = None, in_json: Json = False,
) -> None:  # fmt: skip
    """End it with this result; an attempt under way loses its say."""
    import_app(app)
    given, why, by = read_json("the result", value, None), given_reason(reason), actor or who()
    _act(
        workflow_id, seq, url, in_json, "ended",
        lambda it: it.set_result(given, why, actor=by),
    )  # fmt: skip


@activity.command("set-failure")
def set_failure(
    workflow_id: WorkflowId, seq: Seq,
    message: Annotated[str, typer.Argument(metavar="TEXT", help="What went wrong, for the workflow.")], *,
    type_: Annotated[str | None, typer.Option("--type", metavar="MODULE:CLASS", help="The exception; NonRetryable if not given.")] = None,
    reason: Reason = None, actor: Actor = None, url: Url = None, in_json: Json = False,
) -> None:  # fmt: skip
    """End it as failed; the workflow may catch that."""
    why, by = given_reason(reason), actor or who()
    _act(
        workflow_id, seq, url, in_json, "failed",
        lambda it: it.set_failure(message, why, type=type_, actor=by),
    )  # fmt: skip
