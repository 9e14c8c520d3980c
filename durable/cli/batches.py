"""One command over all workflows that pass a filter, and what became of it: `--where`, and the group `batch`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from durable.cli.exits import DONE, REFUSED, BadInput
from durable.cli.output import line, moment, print_json, print_table
from durable.cli.settings import Json, Url, open_client, who

if TYPE_CHECKING:
    from durable.descriptions import BatchProgress
    from durable.interventions import BatchAction

Where = Annotated[
    str | None,
    typer.Option(
        "--where",
        metavar="FILTER",
        help="Instead of an ID: all that pass, e.g. 'workflow=checkout status=running attribute.region=eu'.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="With --where: only count.")]
OptionalId = Annotated[
    str | None, typer.Argument(metavar="[ID]", help="The workflow's id.", show_default=False)
]
Reason = Annotated[str | None, typer.Option("--reason", help="Why; the log of commands keeps it.")]

batch = typer.Typer(help="Commands over a filter: how far they are.", no_args_is_help=True)


def one(workflow_id: str | None, where: str | None) -> str | None:
    """The id, or None when a filter is given instead. Raises BadInput for both or none."""
    if (workflow_id is None) == (where is None):
        raise BadInput("give the workflow's ID, or --where FILTER")
    return workflow_id


def given_reason(reason: str | None) -> str:
    """Raises BadInput when there is none."""
    if reason is None:
        raise BadInput("say why: --reason TEXT")
    return reason


def over_filter(
    action: BatchAction,
    where: str | None,
    *,
    reason: str | None,
    actor: str | None,
    dry_run: bool,
    url: str | None,
    in_json: bool,
    **options: Any,
) -> None:
    """Run a batch to its end, with its progress on stderr; leaves with 1 if any was refused."""
    assert where is not None
    why = given_reason(reason)
    with open_client(url) as client:
        done = client.batch(
            action,
            where,
            reason=why,
            actor=actor or who(),
            dry_run=dry_run,
            progress=None if in_json else _report,
            **options,
        )
    if dry_run:
        _print_count(done, in_json=in_json)
        return
    _leave(done, in_json=in_json)


def _report(progress: BatchProgress) -> None:
    """On a terminal one line that changes, else a line for each pass."""
    said = f"{progress.action}: {progress.accepted + progress.refused} of {progress.matched}, {progress.refused} refused"
    if sys.stderr.isatty():
        end = "\n" if progress.finished_at else ""
        print(f"\r\x1b[K{said}", end=end, file=sys.stderr, flush=True)
    else:
        print(said, file=sys.stderr, flush=True)


def _print_count(counted: BatchProgress, *, in_json: bool) -> None:
    if in_json:
        print_json({"dry_run": True, "action": counted.action, "matched": counted.matched})
    else:
        shown = " ".join(f"{key}={value}" for key, value in counted.filter.items())
        line(f"would {counted.action} {counted.matched} ({shown}); nothing was done")


def _leave(done: BatchProgress, *, in_json: bool) -> None:
    if in_json:
        print_json(done)
    else:
        style = "yellow" if done.refused else "green"
        line(f"{done.action}: {done.accepted} accepted, {done.refused} refused", style=style)
        if done.refused:
            line(f"durable commands --batch {done.batch_id} says why", style="dim")
    raise SystemExit(REFUSED if done.refused else DONE)


@batch.command("list")
def list_batches(
    *,
    limit: Annotated[int, typer.Option(help="At most so many, the newest first.")] = 20,
    url: Url = None,
    in_json: Json = False,
) -> None:
    """List batches, the newest first."""
    with open_client(url) as client:
        found = client.batches(limit)
    if in_json:
        print_json(found)
    elif not found:
        line("no batch here yet")
    else:
        columns = ("batch", "action", "matched", "accepted", "refused", "begun", "ended", "reason")
        rows = [
            (
                it.batch_id,
                it.action,
                it.matched,
                it.accepted,
                it.refused,
                moment(it.created_at),
                moment(it.finished_at) or "not yet",
                it.reason,
            )
            for it in found
        ]
        print_table(columns, rows)


@batch.command("resume")
def resume_batch(
    batch_id: Annotated[str, typer.Argument(metavar="BATCH", help="The batch's id.")],
    *,
    url: Url = None,
    in_json: Json = False,
) -> None:
    """Go on with a batch that was broken off; nothing is done twice."""
    with open_client(url) as client:
        done = client.resume_batch(batch_id, progress=None if in_json else _report)
    _leave(done, in_json=in_json)
