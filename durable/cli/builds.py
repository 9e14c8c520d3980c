"""Commands about which code runs a workflow: move."""

from __future__ import annotations

from typing import Annotated

import typer

from durable.cli.chosen import Chosen, on_chosen
from durable.cli.exits import BadInput
from durable.cli.output import line


@on_chosen
def move(
    chosen: Chosen,
    *,
    build: Annotated[str | None, typer.Option(help="Pin it to this build.")] = None,
    anywhere: Annotated[
        bool, typer.Option("--anywhere", help="Pin it to none: any worker may take it.")
    ] = False,
) -> None:
    """Move a pinned workflow to another worker build.

    durable move o-1 --build 2026-11-21.4 (try first: durable verify MODULE)

    durable move --where build=2026-11-21.3 --build 2026-11-21.4 --reason 'retired'
    """
    if (build is None) != anywhere:
        raise BadInput("say where to: --build NAME, or --anywhere")
    if chosen.many("move", build=build, anywhere=anywhere):
        return
    with chosen.one() as handle:
        receipt = handle.move(build, reason=chosen.reason, actor=chosen.by)
    to = f"build {build}" if build else "any build"
    if receipt.status == "unchanged":
        chosen.print(receipt, f"{chosen.workflow_id} is with {to} already", style="yellow")
    else:
        was = f"from build {receipt.was} " if receipt.was else ""
        chosen.print(receipt, f"moved {chosen.workflow_id} {was}to {to}")
    if not receipt.served and not chosen.in_json:
        line("no live worker could run it there now", style="yellow")
