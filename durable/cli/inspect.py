"""Commands that only look: list, show, history."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from durable.cli.converse import print_updates
from durable.cli.exits import BadInput
from durable.cli.output import (
    STYLES,
    clock,
    failure_line,
    line,
    moment,
    print_json,
    print_table,
    short,
)
from durable.cli.settings import Json, Url, WorkflowId, open_client
from durable.cli.story import details, what
from durable.core.durations import span
from durable.core.terminal_causes import RUN_CAUSE_TEXTS

if TYPE_CHECKING:
    from durable.descriptions import (
        HistoryEvent,
        OperatorStatus,
        PendingJob,
        RunDescription,
        SignalEvidence,
        Status,
    )


def list_(
    *,
    status: Annotated[
        str | None,
        typer.Option(help="running, completed, failed, cancelled, terminated, continued."),
    ] = None,
    operator_status: Annotated[
        str | None, typer.Option(help="runnable, waiting, blocked, needs_review, done.")
    ] = None,
    workflow: Annotated[str | None, typer.Option(help="Only this workflow.")] = None,
    queue: Annotated[str | None, typer.Option(help="Only this queue.")] = None,
    prefix: Annotated[str | None, typer.Option(help="Only ids that begin so.")] = None,
    where: Annotated[
        str | None,
        typer.Option(metavar="FILTER", help="About attributes: 'customer = \"x\" and amount > 5'."),
    ] = None,
    limit: Annotated[int, typer.Option(help="At most so many, the newest first.")] = 50,
    url: Url = None,
    in_json: Json = False,
) -> None:
    """List workflows, the newest first."""
    with open_client(url) as client:
        runs = client.list(
            status=cast("Status | None", status),
            operator_status=cast("OperatorStatus | None", operator_status),
            workflow=workflow,
            queue=queue,
            id_prefix=prefix,
            where=where,
            limit=limit,
        )
    if in_json:
        print_json(runs)
    elif not runs:
        line(
            "no workflow here yet"
            if _unfiltered(status, operator_status, workflow, queue, prefix, where)
            else "none matches"
        )
    else:
        columns = ("id", "workflow", "status", "state", "queue", "started", "took", "waiting on")
        print_table(columns, [_list_row(run) for run in runs])


def _unfiltered(*filters: str | None) -> bool:
    return all(each is None for each in filters)


def _list_row(run: RunDescription) -> tuple[Any, ...]:
    took = span((run.closed_at - run.created_at).total_seconds()) if run.closed_at else ""
    return (
        run.workflow_id,
        run.workflow,
        run.status,
        run.operator_status,
        run.queue,
        clock(run.created_at),
        took,
        run.details or "; ".join(_waits(run)[:1]),
    )


def _waits(run: RunDescription) -> list[str]:
    """What the run awaits, one phrase each: `signal payment_confirmed at checkout.py:31`."""
    phrases = []
    for wait in _without_deadlines(run.waiting_on or ()):
        until = moment(_from_us(wait["until_us"])) if wait.get("until_us") else ""
        where = f" at {wait['line']}" if wait.get("line") else ""
        phrases.append(
            f"{wait.get('kind', '')} {wait.get('name', '')}{where}{' until ' + until if until else ''}"
        )
    return phrases


def _without_deadlines(waits: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out the timers that only bound another wait, which shows the time itself."""
    others = {
        (each.get("line"), each.get("until_us")) for each in waits if each.get("kind") != "timer"
    }
    return [
        each
        for each in waits
        if each.get("kind") != "timer" or (each.get("line"), each.get("until_us")) not in others
    ]


def _from_us(us: int) -> Any:
    from durable.store.calls import from_us

    return from_us(us)


def show(workflow_id: WorkflowId, *, url: Url = None, in_json: Json = False) -> None:
    """Show how a workflow stands.

    What it waits for, its pending activities with their errors, its signals.
    """
    with open_client(url) as client:
        handle = client.handle(workflow_id)
        run = handle.describe()
        pending, signals, events = handle.pending(), handle.signals(), handle.history()
        updates = handle.updates()
    if in_json:
        print_json(
            {
                "run": run,
                "warnings": run.warnings,
                "pending": pending,
                "signals": signals,
                "updates": updates,
                "events": dict(_counted(events)),
            }
        )
        return
    _print_head(run)
    _print_review(run)
    _print_end(run, events)
    _print_pending(pending)
    _print_signals(signals)
    print_updates(updates)
    line()
    line(
        f"{'events':<11}"
        + ", ".join(f"{count} {type_}" for type_, count in _counted(events).items()),
        style="dim",
    )
    line(f"{'':<11}durable history {workflow_id} shows them", style="dim")
    if run.status == "running":
        line(f"{'why':<11}durable explain {workflow_id} says what it waits for", style="dim")


def _counted(events: Sequence[HistoryEvent]) -> Counter[str]:
    return Counter(event.type for event in events)


def _print_head(run: RunDescription) -> None:
    line(f"{run.workflow_id}", style="bold")
    state = (
        run.status
        if run.status != "running"
        else f"running, {run.operator_status.replace('_', ' ')}"
    )
    facts = [
        ("workflow", f"{run.workflow} version {run.version}"),
        ("build", run.build or ("the first that takes it" if run.pinned else "")),
        ("status", state),
        ("queue", f"{run.queue}, priority {run.priority}"),
        ("created", moment(run.created_at) + (f" by {_actor(run.actor)}" if run.actor else "")),
        ("may run", moment(run.ready_at) if run.operator_status == "waiting" else ""),
        ("ended", moment(run.closed_at)),
        ("cause", f"{run.cause}: {RUN_CAUSE_TEXTS[run.cause]}" if run.cause else ""),
        (
            "cancel",
            f"asked for at {moment(run.cancel_requested_at)}" if run.cancel_requested_at else "",
        ),
        ("paused", _held(run.paused) if run.status == "running" else ""),
        ("owner", f"worker {run.owner}" if run.owner else ""),
        ("about", short(run.attributes, 200) if run.attributes else ""),
        ("for", run.static_details or ""),
        ("details", run.details or ""),
        ("must end", moment(run.deadline_at) if run.status == "running" else ""),
        ("run id", run.run_id),
    ]
    for label, value in facts:
        if value:
            line(f"{label:<11}{value}", style=STYLES.get(value, "") if label == "status" else "")
    for index, phrase in enumerate(_waits(run)):
        line(f"{'waits for' if index == 0 else '':<11}{phrase}")
    for warning in run.warnings:
        line(f"{'attention':<11}{warning}", style="yellow")


def _actor(actor: Any) -> str:
    return actor if isinstance(actor, str) else json.dumps(actor)


def _held(paused: dict[str, Any] | None) -> str:
    """Who holds it, since when and why."""
    if not paused:
        return ""
    by = f" by {_actor(paused['actor'])}" if paused.get("actor") else ""
    reason = f": {paused['reason']}" if paused.get("reason") else ""
    kinds = {"exhausted": "its attempts ran out", "run": "with its workflow"}
    return (
        f"{kinds.get(paused.get('kind', ''), '')}{by} since {paused.get('at', '?')}{reason}".strip()
    )


def _print_review(run: RunDescription) -> None:
    if not run.review:
        return
    review = run.review
    line()
    line(
        f"needs review: {review.get('kind', '')} ({review.get('times', 1)} times, since {review.get('since', '?')})",
        style="red",
    )
    failure = review.get("failure") or {}
    for text in str(failure.get("message", "")).splitlines():
        line(f"  {text}")


def _print_end(run: RunDescription, events: Sequence[HistoryEvent]) -> None:
    last = events[-1]
    if run.status == "completed":
        line(f"{'result':<11}{short(last.payload, 200)}", style="green")
    elif run.status != "running":
        why = failure_line(last.body.get("failure")) or last.body.get("reason") or ""
        line(
            f"{'because':<11}{why}" if why else "no reason was given",
            style="red" if run.status == "failed" else "",
        )


def _print_pending(pending: Sequence[PendingJob]) -> None:
    if not pending:
        return
    line()
    columns = ("seq", "pending", "state", "attempt", "next", "queue", "last error")
    print_table(columns, [_pending_row(job) for job in pending])


def _pending_row(job: PendingJob) -> tuple[Any, ...]:
    attempt = "" if job.kind == "timer" else f"{job.attempt}/{job.max_attempts or '∞'}"
    error = failure_line(job.errors[-1].get("failure")) if job.errors else ""
    said = "to be completed from elsewhere" if job.state == "waiting" else short(job.note)
    note = f"{error} {said}".strip() if job.note else error
    if job.paused:
        note = f"paused {_held(job.paused)}  {note}".strip()
    name = f"timer ({job.name})" if job.kind == "timer" else job.name
    return job.seq, name, job.state, attempt, moment(job.next_at), job.queue, note


def _print_signals(signals: Sequence[SignalEvidence]) -> None:
    if not signals:
        return
    line()
    columns = ("at", "signal", "status", "event", "key", "payload", "reason")
    rows = [
        (s.at, s.name, s.status, s.seq, s.dedupe_key, short(s.payload), s.reason) for s in signals
    ]
    print_table(columns, rows)


def history(
    workflow_id: WorkflowId,
    *,
    full: Annotated[bool, typer.Option("--full", help="Bodies and payloads in full.")] = False,
    export: Annotated[
        Path | None,
        typer.Option(
            "--export", metavar="FILE", help="Write it to a file that replays; - prints it."
        ),
    ] = None,
    url: Url = None,
    in_json: Json = False,
) -> None:
    """Show every event of a workflow, in order."""
    if export is not None:
        _export(workflow_id, export, url)
        return
    with open_client(url) as client:
        events = client.handle(workflow_id).history()
    if in_json:
        print_json(events)
    elif full:
        for event in events:
            _print_full(event)
    else:
        opened = {event.seq: event for event in events}
        rows = [(e.seq, e.at, e.type, what(e, opened), details(e, opened)) for e in events]
        print_table(("seq", "time", "type", "what", "details"), rows)


def _export(workflow_id: str, path: Path, url: str | None) -> None:
    with open_client(url) as client:
        history = client.handle(workflow_id).export()
    if str(path) == "-":
        print(history.to_json(), end="")
        return
    try:
        history.save(path)
    except OSError as error:
        raise BadInput(f"--export {path}: {error}") from error
    line(f"wrote {len(history.events)} events of {workflow_id} to {path}", style="green")


def _print_full(event: HistoryEvent) -> None:
    line(f"{event.seq}  {event.type}  turn {event.turn}  {event.at.isoformat()}", style="bold")
    for label, value in (("body", event.body), ("payload", event.payload)):
        if value not in (None, {}):
            text = json.dumps(value, ensure_ascii=False, indent=2)
            line(f"  {label} " + text.replace("\n", "\n  "))
