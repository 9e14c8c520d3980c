"""The group `batch`: what became of commands over a filter."""

from __future__ import annotations

from typing import Annotated

import typer

from durable.cli.chosen import leave, report_progress
from durable.cli.output import line, moment, print_json, print_table
from durable.cli.settings import Json, Url, open_client

batch = typer.Typer(help="Commands over a filter: how far they are.", no_args_is_help=True)


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
        done = client.resume_batch(batch_id, progress=None if in_json else report_progress)
    leave(done, in_json=in_json)
