"""Commands about which code runs a workflow: move."""

from __future__ import annotations

from typing import Annotated

import typer

from durable.cli.batches import DryRun, OptionalId, Reason, Where, one, over_filter
from durable.cli.exits import BadInput
from durable.cli.operate import Actor
from durable.cli.output import line, print_json
from durable.cli.settings import Json, Url, open_client, who


def move(
    workflow_id: OptionalId = None,
    *,
    where: Where = None,
    build: Annotated[str | None, typer.Option(help="Pin it to this build.")] = None,
    anywhere: Annotated[
        bool, typer.Option("--anywhere", help="Pin it to none: any worker may take it.")
    ] = False,
    reason: Reason = None,
    dry_run: DryRun = False,
    actor: Actor = None,
    url: Url = None,
    in_json: Json = False,
) -> None:
    """Move a pinned workflow to another worker build.

    durable move o-1 --build 2026-11-21.4 (try first: durable verify MODULE)

    durable move --where build=2026-11-21.3 --build 2026-11-21.4 --reason 'retired'
    """
    chosen = one(workflow_id, where)
    if (build is None) != anywhere:
        raise BadInput("say where to: --build NAME, or --anywhere")
    if chosen is None:
        over_filter(
            "move", where, reason=reason, actor=actor, dry_run=dry_run, url=url, in_json=in_json,
            build=build, anywhere=anywhere,
        )  # fmt: skip
        return
    with open_client(url) as client:
        receipt = client.handle(chosen).move(build, reason=reason, actor=actor or who())
    if in_json:
        print_json(receipt)
        return
    to = f"build {build}" if build else "any build"
    if receipt.status == "unchanged":
        line(f"{chosen} is with {to} already", style="yellow")
    else:
        was = f"from build {receipt.was} " if receipt.was else ""
        line(f"moved {chosen} {was}to {to}", style="green")
    if not receipt.served:
        line("no live worker could run it there now", style="yellow")
