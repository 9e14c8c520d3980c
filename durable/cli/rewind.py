"""Commands that hold a workflow, or take it up again from a point of its history: pause, resume, reset, retry, fork; and the log of commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from durable.cli.chosen import Chosen, OptionalId, on_chosen
from durable.cli.output import line, moment, print_json, print_table, short
from durable.cli.settings import (
    Actor,
    Json,
    Reason,
    Url,
    WorkflowId,
    given_reason,
    open_client,
    who,
)

if TYPE_CHECKING:
    from durable.descriptions import CommandRecord, RewindReceipt, Subject
    from durable.interventions import TimersLeft

ToEvent = Annotated[
    int | None, typer.Option("--to-event", metavar="N", help="Keep everything up to event N.")
]
BeforeActivity = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Keep everything before the first activity of this name."),
]
ToFirstFailure = Annotated[
    bool, typer.Option("--to-first-failure", help="Keep everything before the first failure.")
]
Timers = Annotated[
    str, typer.Option(help="Pending timers: remaining (as at that point) or original (due time).")
]
DropSignals = Annotated[
    bool, typer.Option("--drop-signals", help="Do not send signals after that point again.")
]


@on_chosen
def pause(chosen: Chosen) -> None:
    """Hold a workflow: no turn, no new attempt, no timer until it is resumed; signals wait."""
    if chosen.many("pause"):
        return
    with chosen.one() as handle:
        handle.pause(chosen.why, actor=chosen.by)
    it = chosen.workflow_id
    chosen.print(_accepted(it), f"paused {it}; durable resume {it} lets it go on")


@on_chosen
def resume(chosen: Chosen) -> None:
    """Let a paused workflow go on."""
    if chosen.many("resume"):
        return
    with chosen.one() as handle:
        handle.resume(chosen.reason, actor=chosen.by)
    chosen.print(_accepted(chosen.workflow_id), f"resumed {chosen.workflow_id}")


@on_chosen
def reset(
    chosen: Chosen,
    *,
    to_event: ToEvent = None,
    before_activity: BeforeActivity = None,
    to_first_failure: ToFirstFailure = False,
    drop_signals: DropSignals = False,
    timers: Timers = "remaining",
) -> None:
    """Take a workflow back to a point of its history and go on from there, under the same id.

    durable reset o-1 --before-activity charge --reason 'charged the wrong account'
    """
    options: dict[str, Any] = {
        "to_event": to_event,
        "before_activity": before_activity,
        "to_first_failure": to_first_failure,
        "reapply_signals": not drop_signals,
        "timers": timers,
    }
    if chosen.many("reset", **options):
        return
    with chosen.one() as handle:
        receipt = handle.reset(chosen.why, actor=chosen.by, **options)
    _print_receipt("reset", receipt, in_json=chosen.in_json)


@on_chosen
def retry(
    chosen: Chosen, *, drop_signals: DropSignals = False, timers: Timers = "remaining"
) -> None:
    """Take up again a workflow that failed, was cancelled or terminated, from before what ended it.

    durable retry --where 'workflow=checkout status=failed' --dry-run --reason 'the bank is back'
    """
    options: dict[str, Any] = {"reapply_signals": not drop_signals, "timers": timers}
    if chosen.many("retry", **options):
        return
    with chosen.one() as handle:
        receipt = handle.retry(chosen.why, actor=chosen.by, **options)
    _print_receipt("retried", receipt, in_json=chosen.in_json)


def fork(
    workflow_id: WorkflowId,
    new_id: Annotated[str, typer.Argument(metavar="NEW_ID", help="The id of the fork.")],
    *,
    to_event: ToEvent = None,
    before_activity: BeforeActivity = None,
    to_first_failure: ToFirstFailure = False,
    with_signals: Annotated[
        bool, typer.Option("--with-signals", help="Send it the signals after that point too.")
    ] = False,
    timers: Timers = "remaining",
    reason: Reason = None,
    actor: Actor = None,
    url: Url = None,
    in_json: Json = False,
) -> None:
    """Start another workflow from a point of this one's history; this one is not touched."""
    with open_client(url) as client:
        made = client.handle(workflow_id).fork(
            new_id,
            given_reason(reason),
            to_event=to_event,
            before_activity=before_activity,
            to_first_failure=to_first_failure,
            reapply_signals=with_signals,
            timers=cast("TimersLeft", timers),
            actor=actor or who(),
        )
    if in_json:
        print_json({"workflow_id": made.workflow_id, "run_id": made.run_id})
    else:
        line(f"forked {workflow_id} as {new_id}", style="green")


def _print_receipt(done: str, receipt: RewindReceipt, *, in_json: bool) -> None:
    if in_json:
        print_json(receipt)
        return
    line(f"{done} {receipt.workflow_id}: it goes on after event {receipt.event}", style="green")
    if receipt.signals_sent_again:
        line(f"{receipt.signals_sent_again} signals are sent again")
    if receipt.discarded:
        names = ", ".join(f"{name} ({count})" for name, count in receipt.discarded.items())
        line(
            f"completed before, and may run again: {names}; what they did stays done",
            style="yellow",
        )


def _accepted(workflow_id: str | None) -> dict[str, Any]:
    return {"workflow_id": workflow_id, "status": "accepted"}


def commands(
    workflow_id: OptionalId = None,
    *,
    batch: Annotated[
        str | None, typer.Option("--batch", metavar="BATCH", help="Only those of this batch.")
    ] = None,
    recovery: Annotated[
        str | None, typer.Option(metavar="RECOVERY", help="Only those of this recovery.")
    ] = None,
    about: Annotated[
        str | None, typer.Option(help="Only about: workflow, job, queue, schedule.")
    ] = None,
    refused: Annotated[bool, typer.Option("--refused", help="Only those refused.")] = False,
    limit: Annotated[int, typer.Option(help="At most so many, the newest first.")] = 50,
    url: Url = None,
    in_json: Json = False,
) -> None:
    """Show who commanded what, accepted or refused, the newest first."""
    with open_client(url) as client:
        found = client.commands(
            limit,
            batch_id=batch,
            subject=cast("Subject | None", about),
            name=workflow_id,
            recovery_id=recovery,
            accepted=False if refused else None,
        )
    if in_json:
        print_json(found)
    elif not found:
        line("no command here yet")
    else:
        columns = ("at", "about", "command", "answer", "who", "reason", "changed or legal instead")
        print_table(columns, [_command_row(it) for it in found])


def _command_row(it: CommandRecord) -> tuple[Any, ...]:
    what = it.action.replace("_", " ") + (f" #{it.seq}" if it.seq else "")
    by = it.actor if it.actor is None or isinstance(it.actor, str) else short(it.actor)
    about = it.workflow_id if it.subject == "workflow" else f"{it.subject} {it.workflow_id}"
    told = ", ".join(it.next_steps) if it.next_steps else _changed(it)
    return moment(it.at), about, what, it.code, by, it.reason, told


_SHOWN = (
    "status", "state", "input", "run_id", "paused", "slots", "global_limit", "key_limit", "rate_limit", "key_rate_limit", "queue",
    "priority", "scheduled_at", "tags", "meta",
)  # fmt: skip


def _changed(it: CommandRecord) -> str:
    """What differs between before and after."""
    before, after = it.before or {}, it.after or {}
    parts = [
        f"{key}: {short(before.get(key), 30)} -> {short(after[key], 30)}"
        for key in _SHOWN
        if key in after and before.get(key) != after[key] and (key in before or key != "run_id")
    ]
    parts += [f"{key}: {short(after[key], 60)}" for key in ("result", "failure") if key in after]
    return "; ".join(parts)
