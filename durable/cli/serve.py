"""Commands that run something: migrate, worker, dev, demo. The worker's package is imported only when it is asked for."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from durable.cli.exits import REFUSED, BadInput
from durable.cli.output import line, print_json, print_table
from durable.cli.settings import Json, Url

if TYPE_CHECKING:
    from collections.abc import Sequence

    from durable.store.migrate import MigrationStatus


def migrate(
    *,
    to: Annotated[
        str | None, typer.Option(help="Only up to this migration, by id or number.")
    ] = None,
    status: Annotated[
        bool, typer.Option("--status", help="Change nothing; show what is applied.")
    ] = False,
    url: Url = None,
    in_json: Json = False,
) -> None:
    """Bring the database's schema up to this release."""
    from durable.requests import database_url
    from durable.store import migrate as schema

    database = database_url(url)
    if status:
        _print_status(schema.status(database), in_json=in_json)
        return
    try:
        applied = schema.migrate(database, to=to)
    except ValueError as error:
        raise BadInput(f"--to: {error}") from error
    if in_json:
        print_json({"applied": applied})
    else:
        line(
            f"applied {', '.join(applied)}" if applied else "the schema is up to date",
            style="green",
        )


def _print_status(states: Sequence[MigrationStatus], *, in_json: bool) -> None:
    if in_json:
        print_json(states)
    else:
        print_table(
            ("migration", "state", "applied at"), [(s.id, s.state, s.applied_at) for s in states]
        )


def worker(ctx: typer.Context, url: Url = None) -> None:
    """Run the workflows and activities of modules."""
    if url:
        os.environ["DURABLE_DATABASE_URL"] = url
    from durable_worker.main import main

    sys.argv = ["durable worker", *ctx.args]
    main()


def demo(ctx: typer.Context) -> None:
    """See it work while workers are killed."""
    from durable.demo import main

    raise SystemExit(main(ctx.args))


def dev(
    modules: Annotated[
        list[str],
        typer.Argument(metavar="MODULE...", help="Modules to import.", show_default=False),
    ],
    *,
    folder: Annotated[
        Path, typer.Option(help="Where the embedded PostgreSQL keeps its data.")
    ] = Path(".durable"),
    queue: Annotated[
        list[str] | None, typer.Option("--queue", "-q", help="queue=slots, as for the worker.")
    ] = None,
    url: Url = None,
) -> None:
    """Run PostgreSQL and a worker that reloads.

    An embedded PostgreSQL (or --url), the schema, and a worker that restarts when the code changes; Ctrl-C stops all of it.
    """
    from durable.cli.dev import Development

    given = url or os.environ.get("DURABLE_DATABASE_URL")
    arguments = [*modules, *(part for each in queue or () for part in ("--queue", each))]
    with contextlib.ExitStack() as stack:
        database = given or _embedded(stack, folder)
        _migrate_aloud(database)
        code = Development(database, modules, arguments).run()
    raise SystemExit(REFUSED if code else 0)


def _embedded(stack: contextlib.ExitStack, folder: Path) -> str:
    from durable import embedded

    line(f"starting PostgreSQL in {folder} ...", style="dim")
    server = stack.enter_context(embedded.start(folder))
    return server.url


def _migrate_aloud(database: str) -> None:
    from durable.store import migrate as schema

    applied = schema.migrate(database)
    line(f"database {database}", style="green")
    if applied:
        line(f"applied {len(applied)} migrations", style="dim")
    line(f"in another terminal:  export DURABLE_DATABASE_URL='{database}'", style="dim")
