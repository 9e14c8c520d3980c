"""`durable evidence`: what did not simply happen to a workflow; and the group `recover`: commands that belong together, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from durable.cli.output import line, moment, print_json, print_table, short
from durable.cli.settings import Actor, Json, Url, WorkflowId, open_client, who

if TYPE_CHECKING:
    from durable.descriptions import Evidence

recover = typer.Typer(
    help="Commands that belong together, and why: export DURABLE_RECOVERY=ID between begin and end.",
    no_args_is_help=True,
)

RecoveryId = Annotated[str, typer.Argument(metavar="RECOVERY", help="The recovery's id.")]


def evidence(
    workflow_id: WorkflowId,
    *,
    limit: Annotated[int, typer.Option(help="At most so many, the newest first.")] = 50,
    url: Url = None,
    in_json: Json = False,
) -> None:
    """Show what did not simply happen: lost signals, cancel requests, refusals, late outcomes, callbacks."""
    with open_client(url) as client:
        found = client.handle(workflow_id).evidence(limit)
        if not found:
            client.handle(workflow_id).describe()  # or there is no such workflow
    if in_json:
        print_json(found)
    elif not found:
        line("everything arrived, and nobody asked it to stop")
    else:
        columns = ("at", "kind", "status", "name", "times", "who", "reason", "details")
        print_table(columns, [_row(it) for it in found])


def _row(it: Evidence) -> tuple[Any, ...]:
    times = it.times if it.times > 1 else ""
    return (
        moment(it.at), it.kind, it.status, it.name, times, _who(it.actor), it.reason, short(it.detail),
    )  # fmt: skip


def _who(actor: Any) -> str | None:
    return actor if actor is None or isinstance(actor, str) else short(actor)


@recover.command("begin")
def begin(
    reason: Annotated[str, typer.Argument(metavar="REASON", help="Why; the log keeps it.")],
    *,
    actor: Actor = None,
    url: Url = None,
    in_json: Json = False,
) -> None:
    """Begin a recovery, and print its id.

    export DURABLE_RECOVERY=$(durable recover begin 'a bad release')
    """
    with open_client(url, joined=False) as client:
        recovery_id = client.begin_recovery(reason, actor=actor or who())
    if in_json:
        print_json({"recovery_id": recovery_id})
    else:
        print(recovery_id)


@recover.command("end")
def end(
    recovery_id: RecoveryId,
    *,
    note: Annotated[str | None, typer.Option(help="What came of it.")] = None,
    url: Url = None,
    in_json: Json = False,
) -> None:
    """End a recovery: no further command belongs to it."""
    with open_client(url, joined=False) as client:
        client.end_recovery(recovery_id, note)
    if in_json:
        print_json({"recovery_id": recovery_id, "ended": True})
    else:
        line(f"ended; durable commands --recovery {recovery_id} shows all of it", style="green")


@recover.command("list")
def list_recoveries(
    *,
    limit: Annotated[int, typer.Option(help="At most so many, the newest first.")] = 20,
    url: Url = None,
    in_json: Json = False,
) -> None:
    """List recoveries, the newest first."""
    with open_client(url, joined=False) as client:
        found = client.recoveries(limit)
    if in_json:
        print_json(found)
    elif not found:
        line("no recovery here yet")
    else:
        columns = ("recovery", "begun", "ended", "accepted", "refused", "who", "reason", "note")
        rows = [
            (
                it.recovery_id, moment(it.begun_at), moment(it.ended_at) or "not yet", it.accepted, it.refused,
                _who(it.actor), it.reason, it.note,
            )
            for it in found
        ]  # fmt: skip
        print_table(columns, rows)
