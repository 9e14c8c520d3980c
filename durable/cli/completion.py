"""Commands on activities that are completed from outside, by their token: complete, fail, heartbeat."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from durable.cli.exits import BadInput
from durable.cli.output import line, print_json
from durable.cli.settings import Actor, App, Json, Url, import_app, open_client, read_json, who

Token = Annotated[
    str,
    typer.Argument(
        metavar="TOKEN",
        help="The activity's completion token, @file, or - for standard input: other users of the machine see arguments.",
        show_default=False,
    ),
]


def complete(
    token: Token,
    result: Annotated[
        str | None,
        typer.Argument(metavar="JSON", help="Its result: JSON, @file, or - for standard input."),
    ] = None,
    *,
    actor: Actor = None,
    app: App = None,
    url: Url = None,
    in_json: Json = False,
) -> None:
    """Give an activity its result from outside.

    durable complete dct.85.0190… '{"amount": 10}'
    """
    import_app(app)
    value = read_json("the result", result, None)
    with open_client(url) as client:
        client.complete(_read(token), value, actor=actor or who())
    if in_json:
        print_json({"status": "completed"})
    else:
        line("completed the activity", style="green")


def fail(
    token: Token,
    message: Annotated[str, typer.Argument(help="What went wrong.", show_default=False)],
    *,
    retry: Annotated[
        bool, typer.Option("--retry/--no-retry", help="Whether another attempt may follow.")
    ] = True,
    actor: Actor = None,
    url: Url = None,
    in_json: Json = False,
) -> None:
    """Have an activity's attempt fail from outside; it is tried again as its policy says.

    durable fail dct.85.0190… "the bank said no" --no-retry
    """
    with open_client(url) as client:
        client.fail(_read(token), message, retry=retry, actor=actor or who())
    if in_json:
        print_json({"status": "failed"})
    else:
        line("failed the activity's attempt", style="green")


def heartbeat(
    token: Token,
    details: Annotated[
        str | None,
        typer.Argument(metavar="JSON", help="How far the work is, for the next attempt."),
    ] = None,
    *,
    url: Url = None,
    in_json: Json = False,
) -> None:
    """Say that work outside goes on; tells whether anybody still waits for it.

    durable heartbeat dct.85.0190… '{"percent": 40}'
    """
    given = () if details is None else (read_json("the details", details, None),)
    with open_client(url) as client:
        answer = client.heartbeat(_read(token), *given)
    if in_json:
        print_json(answer)
    elif answer.cancel_requested:
        line("nobody waits for it any more: stop", style="yellow")
    else:
        line("go on", style="green")


def _read(token: str) -> str:
    if token == "-":  # noqa: S105 - standard input
        return sys.stdin.readline().strip()
    if not token.startswith("@"):
        return token
    try:
        return Path(token[1:]).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"the token: cannot read the file {token[1:]!r}: {error}") from error
