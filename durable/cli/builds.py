"""Commands about which code runs a workflow: move."""

from __future__ import annotations

from typing import Annotated

import typer

from durable.cli.exits import BadInput
from durable.cli.operate import Actor
from durable.cli.output import line, print_json
from durable.cli.settings import Json, Url, WorkflowId, open_client, who


def move(
    workflow_id: WorkflowId,
    *,
    build: Annotated[str | None, typer.Option(help="Pin it to this build.")] = None,
    anywhere: Annotated[
        bool, typer.Option("--anywhere", help="Pin it to none: any worker may take it.")
    ] = False,
    reason: Annotated[str | None, typer.Option(help="Why; the operators' log keeps it.")] = None,
    actor: Actor = None,
    url: Url = None,
    in_json: Json = False,
) -> None:
    """Move a pinned workflow to another worker build.

    durable move o-1 --build 2026-11-21.4 (try first: durable verify MODULE)
    """
    if (build is None) != anywhere:
        raise BadInput("say where to: --build NAME, or --anywhere")
    with open_client(url) as client:
        receipt = client.handle(workflow_id).move(build, reason=reason, actor=actor or who())
    if in_json:
        print_json(receipt)
        return
    to = f"build {build}" if build else "any build"
    if receipt.status == "unchanged":
        line(f"{workflow_id} is with {to} already", style="yellow")
    else:
        was = f"from build {receipt.was} " if receipt.was else ""
        line(f"moved {workflow_id} {was}to {to}", style="green")
    if not receipt.served:
        line("no live worker could run it there now", style="yellow")
