"""Standalone jobs: `durable enqueue`, and `durable job list|show|cancel|retry|edit|delete`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from durable.cli.chosen import ChosenJobs, on_chosen
from durable.cli.exits import DONE, RUN_FAILED, BadInput
from durable.cli.operate import Timeout
from durable.cli.output import (
    STYLES,
    as_json,
    clock,
    failure_line,
    line,
    moment,
    print_json,
    print_table,
    short,
)
from durable.cli.settings import Actor, App, Json, Url, import_app, open_client, read_json, who
from durable.core.durations import span
from durable.core.terminal_causes import JOB_CAUSE_TEXTS

if TYPE_CHECKING:
    from durable.core.job_life import JobState
    from durable.descriptions import JobDescription

app = typer.Typer(help="Look at standalone jobs, and interfere.", no_args_is_help=True)

JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id.", show_default=False)]


def enqueue(
    activity: Annotated[str, typer.Argument(help="The activity's name.", show_default=False)],
    arguments: Annotated[
        str | None,
        typer.Argument(
            metavar="JSON",
            help="Its arguments by name: a JSON object, @file, or - for standard input.",
        ),
    ] = None,
    *,
    queue: Annotated[
        str | None, typer.Option(help="Another queue than the activity's own.")
    ] = None,
    priority: Annotated[int | None, typer.Option(help="0 (first) to 9.")] = None,
    delay: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Run no sooner than in this time.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Kept beside the job; repeatable.")] = None,
    meta: Annotated[
        str | None, typer.Option(metavar="JSON", help="An object kept beside the job.")
    ] = None,
    actor: Actor = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for the end and print the result.")
    ] = False,
    timeout: Timeout = None,
    app_module: App = None,
    url: Url = None,
    in_json: Json = False,
) -> None:
    """Enqueue an activity as a job of its own.

    durable enqueue send_email '{"to": "ann@example.org"}'
    """
    import_app(app_module)
    given = read_json("the arguments", arguments, {})
    about = read_json("--meta", meta, None)
    with open_client(url) as client:
        job = client.enqueue(
            activity,
            given,
            queue=queue,
            priority=priority,
            delay=delay,
            tags=tag or None,
            meta=about,
            actor=actor or who(),
        )
        if wait:
            raise SystemExit(_print_result(job, timeout))
    if in_json:
        print_json({"job_id": job.job_id, "state": job.state, "created": job.created})
    else:
        line(f"enqueued {activity} {job.job_id}", style="green")


def _print_result(job: Any, timeout: float | None) -> int:
    from durable.errors import ActivityError

    try:
        print(as_json(job.result(timeout)))
    except ActivityError as error:
        typer.echo(f"durable: {error} (durable job show {job.job_id})", err=True)
        return RUN_FAILED
    return DONE


@app.command("list")
def list_(
    *,
    state: Annotated[
        list[str] | None,
        typer.Option(
            help="scheduled, available, executing, retryable, completed, discarded, cancelled; repeatable."
        ),
    ] = None,
    activity: Annotated[str | None, typer.Option(help="Only this activity.")] = None,
    queue: Annotated[str | None, typer.Option(help="Only this queue.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Only with this tag; repeatable.")] = None,
    meta: Annotated[str | None, typer.Option(metavar="JSON", help="Only with this in it.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many, the newest first.")] = 50,
    url: Url = None,
    in_json: Json = False,
) -> None:
    """List jobs, the newest first."""
    wanted = read_json("--meta", meta, None)
    with open_client(url) as client:
        jobs = client.jobs(
            state=cast("list[JobState] | None", state or None),
            activity=activity,
            queue=queue,
            tags=tag or None,
            meta=wanted,
            limit=limit,
        )
    if in_json:
        print_json(jobs)
    elif not jobs:
        line("no job matches" if state or activity or queue or tag or wanted else "no job here yet")
    else:
        columns = ("id", "activity", "state", "attempt", "queue", "created", "took", "last error")
        print_table(columns, [_row(job) for job in jobs])


def _row(job: JobDescription) -> tuple[Any, ...]:
    took = span((job.finished_at - job.created_at).total_seconds()) if job.finished_at else ""
    error = failure_line(job.errors[-1].get("failure"), 60) if job.errors else ""
    return (
        job.job_id,
        job.name,
        job.state,
        _attempt(job),
        job.queue,
        clock(job.created_at),
        took,
        error,
    )


def _attempt(job: JobDescription) -> str:
    limit = {None: "", 0: "/∞"}.get(job.max_attempts, f"/{job.max_attempts}")
    return f"{job.attempt}{limit}"


@app.command("show")
def show(job_id: JobId, *, url: Url = None, in_json: Json = False) -> None:
    """Show how a job stands, and every error of every attempt."""
    with open_client(url) as client:
        job = client.job(job_id).describe()
    if in_json:
        print_json(job)
        return
    line(job.job_id, style="bold")
    for label, value in _facts(job):
        if value:
            line(f"{label:<11}{value}", style=STYLES.get(value, "") if label == "state" else "")
    for error in job.errors:
        line()
        worker = f" on worker {error['worker']}" if error.get("worker") else ""
        line(f"attempt {error['attempt']} at {error['at']}{worker}", style="red")
        line(f"  {failure_line(error.get('failure'))}")
        for text in str((error.get("failure") or {}).get("traceback", "")).splitlines():
            line(f"  {text}", style="dim")


def _facts(job: JobDescription) -> list[tuple[str, str]]:
    waits = job.state in ("scheduled", "retryable")
    cancel = f"asked for at {moment(job.cancel_requested_at)}" if job.cancel_requested_at else ""
    return [
        ("activity", job.name),
        ("state", job.state),
        ("queue", f"{job.queue}, priority {job.priority}"),
        ("attempt", _attempt(job) + (f", snoozed {job.snoozes} times" if job.snoozes else "")),
        ("created", moment(job.created_at)),
        ("may run", moment(job.scheduled_at) if waits else ""),
        ("ended", moment(job.finished_at)),
        ("cause", f"{job.cause}: {JOB_CAUSE_TEXTS[job.cause]}" if job.cause else ""),
        ("cancel", cancel),
        ("owner", f"worker {job.owner}" if job.owner else ""),
        ("tags", ", ".join(job.tags or ())),
        ("meta", short(job.meta, 200) if job.meta else ""),
        ("unique", job.unique_key or ""),
        ("arguments", short(job.arguments, 200)),
        ("result", short(job.result, 200) if job.state == "completed" else ""),
        ("note", json.dumps(job.note) if job.note else ""),
    ]


@app.command("cancel")
@on_chosen
def cancel(chosen: ChosenJobs) -> None:
    """End a waiting job; tell an executing one to stop. The reason is kept as the job's error.

    durable job cancel --where 'state=available,scheduled queue=mail' --dry-run --reason 'a bad release'
    """
    if chosen.many("cancel"):
        return
    with chosen.job() as job:
        receipt = job.cancel(chosen.reason, actor=chosen.by)
    said = {
        "cancelled": "cancelled",
        "requested": "asked to stop",
        "already_requested": "was asked to stop before",
        "ended": f"had ended already: {receipt.state}",
    }
    style = "green" if receipt.status != "ended" else "yellow"
    chosen.print(receipt, f"{receipt.job_id} {said[receipt.status]}", style=style)


@app.command("retry")
@on_chosen
def retry(chosen: ChosenJobs) -> None:
    """Have a job run now, again if it has ended."""
    if chosen.many("retry"):
        return
    with chosen.job() as job:
        job.retry(actor=chosen.by)
    said = {"job_id": chosen.job_id, "state": "available"}
    chosen.print(said, f"{chosen.job_id} may run now")


@app.command("edit")
@on_chosen
def edit(
    chosen: ChosenJobs,
    *,
    arguments: Annotated[
        str | None, typer.Option(metavar="JSON", help="Other arguments, all of them, by name.")
    ] = None,
    queue: Annotated[str | None, typer.Option(help="Another queue.")] = None,
    priority: Annotated[int | None, typer.Option(help="0 (first) to 9.")] = None,
    delay: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Run no sooner than in this time.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="In place of its tags; repeatable.")] = None,
    meta: Annotated[
        str | None, typer.Option(metavar="JSON", help="An object in place of its meta.")
    ] = None,
    app_module: App = None,
) -> None:
    """Change a job that waits. One that executes, or has ended, is refused.

    durable job edit --where 'activity=send_email meta.tenant=7' --priority 9 --reason 'a flood of letters'
    """
    import_app(app_module)
    about = read_json("--meta", meta, None)
    given = read_json("--arguments", arguments, None)
    if given is not None and chosen.where is not None:
        raise BadInput("--arguments is for one job, by its ID")
    if chosen.many("edit", queue=queue, priority=priority, delay=delay, tags=tag or None, meta=about):  # fmt: skip
        return
    with chosen.job() as job:
        job.edit(
            arguments=given, queue=queue, priority=priority, delay=delay, tags=tag or None, meta=about,
            reason=chosen.reason, actor=chosen.by,
        )  # fmt: skip
    chosen.print({"job_id": chosen.job_id, "edited": True}, f"changed {chosen.job_id}")


@app.command("delete")
@on_chosen
def delete(chosen: ChosenJobs) -> None:
    """Delete a job that does not execute, and its errors."""
    if chosen.many("delete"):
        return
    with chosen.job() as job:
        job.delete(actor=chosen.by)
    chosen.print({"job_id": chosen.job_id, "deleted": True}, f"deleted {chosen.job_id}")
