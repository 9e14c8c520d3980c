"""`durable prune` and `durable retention ...`: what becomes of what is over."""

from __future__ import annotations

from typing import Annotated, Any, cast

import typer

from durable.cli.moments import duration
from durable.cli.output import line, print_json, print_table
from durable.cli.settings import Json, Url, open_client
from durable.core.durations import span

app = typer.Typer(
    name="retention",
    help="How long what is over is kept.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Kind = Annotated[str, typer.Argument(metavar="KIND", help="run, job or slot.", show_default=False)]
Queue = Annotated[str, typer.Option("--queue", help="Only of this queue.")]
State = Annotated[str, typer.Option("--state", help="Only in this state, as completed or failed.")]
Archive = Annotated[bool, typer.Option("--archive", help="Copy to the archive first.")]


def prune(
    *,
    older_than: Annotated[
        str | None,
        typer.Option(
            "--older-than",
            metavar="SPAN",
            help="Over for longer than this: 30d, 12h. By the rules if not given.",
        ),
    ] = None,
    kind: Annotated[str | None, typer.Option("--kind", help="Only run, job or slot.")] = None,
    queue: Queue = "*",
    state: State = "*",
    archive: Archive = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
    url: Url = None,
    in_json: Json = False,
) -> None:
    """Prune closed runs, finished jobs and decided slots now.

    By the rules of `durable retention`, or by --older-than. Open runs are never touched.
    """
    age = None if older_than is None else duration("--older-than", older_than)
    with open_client(url) as client:
        report = client.prune(
            kind=cast("Any", kind),
            older_than=age,
            queue=queue,
            state=state,
            archive=archive,
            dry_run=dry_run,
        )
        ruled = age is not None or bool(client.retention())
    if in_json:
        print_json(report)
    elif not ruled:
        line(
            "no rule says that anything is to be pruned; give --older-than, or see durable retention set --help"
        )
    else:
        what = "would prune" if dry_run else "pruned"
        line(
            f"{what} {report.runs} runs, {report.jobs} jobs, {report.slots} slots; archived {report.archived}",
            style="green",
        )


@app.command("list")
def list_(*, url: Url = None, in_json: Json = False) -> None:
    """List the rules."""
    with open_client(url) as client:
        rules = client.retention()
    if in_json:
        print_json(rules)
    elif not rules:
        line("no rule: everything is kept for ever")
    else:
        rows = [
            (each.kind, each.queue, each.state, "for ever" if each.keep_s is None else span(each.keep_s), "archived" if each.archive else "")
            for each in rules
        ]  # fmt: skip
        print_table(("kind", "queue", "state", "kept", "then"), rows)


@app.command("set")
def set_(
    kind: Kind,
    keep: Annotated[
        str, typer.Argument(metavar="SPAN", help="30d, 12h, or forever.", show_default=False)
    ],
    *,
    queue: Queue = "*",
    state: State = "*",
    archive: Archive = False,
    url: Url = None,
    in_json: Json = False,
) -> None:
    """Have workers prune what has been over for longer than SPAN.

    durable retention set run 90d --archive
    """
    kept = None if keep == "forever" else duration("SPAN", keep)
    with open_client(url) as client:
        client.set_retention(cast("Any", kind), kept, queue=queue, state=state, archive=archive)
        rules = client.retention()
    if in_json:
        print_json(rules)
    else:
        line(
            f"{kind}s of queue {queue} and state {state} are kept {'for ever' if kept is None else 'for ' + keep}",
            style="green",
        )


@app.command("unset")
def unset(
    kind: Kind, *, queue: Queue = "*", state: State = "*", url: Url = None, in_json: Json = False
) -> None:
    """Remove a rule."""
    with open_client(url) as client:
        removed = client.unset_retention(cast("Any", kind), queue=queue, state=state)
    if in_json:
        print_json({"removed": removed})
    else:
        line(
            "removed" if removed else "there is no such rule",
            style="green" if removed else "yellow",
        )


@app.command("archived")
def archived(
    id: Annotated[
        str, typer.Argument(metavar="ID", help="A workflow's or job's id.", show_default=False)
    ],
    *,
    url: Url = None,
    in_json: Json = False,
) -> None:
    """Show what was archived under an id."""
    with open_client(url) as client:
        found = client.archived(id)
    if in_json:
        print_json(found)
    elif not found:
        line("nothing was archived under this id")
    else:
        rows = [
            (each.kind, each.archived_at, len(each.record.get("history") or ())) for each in found
        ]
        print_table(("kind", "archived at", "events"), rows)
        line(f"durable retention archived {id} --json shows all of it", style="dim")
