"""Commands that hold a workflow, or take it up again from a point of its history: pause, resume, reset, retry, fork; and the log of commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from durable.cli.batches import DryRun, OptionalId, Reason, Where, given_reason, one, over_filter
from durable.cli.operate import Actor
from durable.cli.output import line, moment, print_json, print_table, short
from durable.cli.settings import Json, Url, WorkflowId, open_client, who

if TYPE_CHECKING:
    from durable.descriptions import CommandRecord, RewindReceipt
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


def pause(
    workflow_id: OptionalId = None,
    *,
    where: Where = None,
    dry_run: DryRun = False,
    reason: Reason = None,
    actor: Actor = None,
    url: Url = None,
    in_json: Json = False,
) -> None:
    """Hold a workflow: no turn, no new attempt, no timer until it is resumed; signals wait."""
    if one(workflow_id, where) is None:
        over_filter(
            "pause", where, reason=reason, actor=actor, dry_run=dry_run, url=url, in_json=in_json
        )
        return
    with open_client(url) as client:
        client.handle(workflow_id or "").pause(given_reason(reason), actor=actor or who())
    _say(f"paused {workflow_id}; durable resume {workflow_id} lets it go on", in_json, workflow_id)


def resume(
    workflow_id: OptionalId = None,
    *,
    where: Where = None,
    dry_run: DryRun = False,
    reason: Reason = None,
    actor: Actor = None,
    url: Url = None,
    in_json: Json = False,
) -> None:
    """Let a paused workflow go on."""
    if one(workflow_id, where) is None:
        over_filter(
            "resume", where, reason=reason, actor=actor, dry_run=dry_run, url=url, in_json=in_json
        )
        return
    with open_client(url) as client:
        client.handle(workflow_id or "").resume(reason, actor=actor or who())
    _say(f"resumed {workflow_id}", in_json, workflow_id)


def reset(
    workflow_id: OptionalId = None,
    *,
    to_event: ToEvent = None,
    before_activity: BeforeActivity = None,
    to_first_failure: ToFirstFailure = False,
    drop_signals: DropSignals = False,
    timers: Timers = "remaining",
    where: Where = None,
    dry_run: DryRun = False,
    reason: Reason = None,
    actor: Actor = None,
    url: Url = None,
    in_json: Json = False,
) -> None:
    """Take a workflow back to a point of its history and go on from there, under the same id.

    durable reset o-1 --before-activity charge --reason 'charged the wrong account'
    """
    if one(workflow_id, where) is None:
        over_filter(
            "reset",
            where,
            reason=reason,
            actor=actor,
            dry_run=dry_run,
            url=url,
            in_json=in_json,
            to_event=to_event,
            before_activity=before_activity,
            to_first_failure=to_first_failure or None,
            reapply_signals=not drop_signals,
            timers=timers,
        )
        return
    with open_client(url) as client:
        receipt = client.handle(workflow_id or "").reset(
            given_reason(reason),
            to_event=to_event,
            before_activity=before_activity,
            to_first_failure=to_first_failure,
            reapply_signals=not drop_signals,
            timers=cast("TimersLeft", timers),
            actor=actor or who(),
        )
    _print_receipt("reset", receipt, in_json=in_json)


def retry(
    workflow_id: OptionalId = None,
    *,
    drop_signals: DropSignals = False,
    timers: Timers = "remaining",
    where: Where = None,
    dry_run: DryRun = False,
    reason: Reason = None,
    actor: Actor = None,
    url: Url = None,
    in_json: Json = False,
) -> None:
    """Take up again a workflow that failed, was cancelled or terminated, from before what ended it.

    durable retry --where 'workflow=checkout status=failed' --dry-run --reason 'the bank is back'
    """
    if one(workflow_id, where) is None:
        over_filter(
            "retry",
            where,
            reason=reason,
            actor=actor,
            dry_run=dry_run,
            url=url,
            in_json=in_json,
            reapply_signals=not drop_signals,
            timers=timers,
        )
        return
    with open_client(url) as client:
        receipt = client.handle(workflow_id or "").retry(
            given_reason(reason),
            reapply_signals=not drop_signals,
            timers=cast("TimersLeft", timers),
            actor=actor or who(),
        )
    _print_receipt("retried", receipt, in_json=in_json)


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


def _say(text: str, in_json: bool, workflow_id: str | None) -> None:
    if in_json:
        print_json({"workflow_id": workflow_id, "status": "accepted"})
    else:
        line(text, style="green")


def commands(
    workflow_id: OptionalId = None,
    *,
    batch: Annotated[
        str | None, typer.Option("--batch", metavar="BATCH", help="Only those of this batch.")
    ] = None,
    limit: Annotated[int, typer.Option(help="At most so many, the newest first.")] = 50,
    url: Url = None,
    in_json: Json = False,
) -> None:
    """Show who commanded what, accepted or refused, the newest first."""
    with open_client(url) as client:
        if workflow_id is None:
            found = client.commands(limit, batch_id=batch)
        else:
            found = client.handle(workflow_id).commands(limit)
    if in_json:
        print_json(found)
    elif not found:
        line("no command here yet")
    else:
        columns = ("at", "id", "command", "answer", "who", "reason", "changed")
        print_table(columns, [_command_row(it) for it in found])


def _command_row(it: CommandRecord) -> tuple[Any, ...]:
    what = it.action.replace("_", " ") + (f" #{it.seq}" if it.seq else "")
    by = it.actor if it.actor is None or isinstance(it.actor, str) else short(it.actor)
    return moment(it.at), it.workflow_id, what, it.code, by, it.reason, _changed(it)


def _changed(it: CommandRecord) -> str:
    """What differs between before and after."""
    before, after = it.before or {}, it.after or {}
    parts = [
        f"{key}: {short(before.get(key), 30)} -> {short(after[key], 30)}"
        for key in ("status", "state", "input", "run_id")
        if key in before and key in after and before[key] != after[key]
    ]
    parts += [f"{key}: {short(after[key], 60)}" for key in ("result", "failure") if key in after]
    return "; ".join(parts)
