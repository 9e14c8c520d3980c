"""The options that every command shares, and what they open."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from durable.cli.exits import BadInput

if TYPE_CHECKING:
    from durable.client_sync import Client

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Url = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help="The database; DURABLE_DATABASE_URL if not given."),
]
App = Annotated[
    str | None,
    typer.Option(
        "--app",
        metavar="MODULE",
        help="Import this module, to check names and payloads with its types; DURABLE_APP.",
    ),
]
WorkflowId = Annotated[
    str, typer.Argument(metavar="ID", help="The workflow's id.", show_default=False)
]
Actor = Annotated[
    str | None, typer.Option("--actor", help="Who does this; your user name if not given.")
]
Reason = Annotated[str | None, typer.Option("--reason", help="Why; the log of commands keeps it.")]


def open_client(url: str | None, *, joined: bool = True) -> Client:
    """A client. Raises DatabaseUnavailable when no database is named, InvalidOption for a recovery that cannot be joined.

    DURABLE_APP is imported for every command: its `use_payloads` has the keys to what is sealed. What is commanded belongs to the recovery
    that DURABLE_RECOVERY names (`durable recover begin`), unless not `joined`.
    """
    from durable.client_sync import Client

    if os.environ.get("DURABLE_APP"):
        import_app(None)

    client = Client(url)
    if joined and (recovery_id := os.environ.get("DURABLE_RECOVERY")):
        try:
            client.join_recovery(recovery_id)
        except BaseException:
            client.close()
            raise
    return client


def import_app(app: str | None) -> None:
    """Import the author's modules, if any are named. Raises BadInput when one cannot be found."""
    names = app or os.environ.get("DURABLE_APP") or ""
    try:
        import_modules(filter(None, names.split(",")))
    except BadInput as error:
        raise BadInput(f"--app {error}") from error


def import_modules(names: Iterable[str]) -> list[ModuleType]:
    """The modules, imported from the path and the current folder. Raises BadInput when one cannot be found."""
    sys.path.insert(0, str(Path.cwd()))
    return [_imported(name) for name in names]


def _imported(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        msg = f"{name}: there is no module {error.name!r} on the path or in {Path.cwd()}; run from the project's folder"
        raise BadInput(msg) from error


def who() -> str:
    """The actor that commands given here are recorded under."""
    import getpass

    try:
        return f"cli:{getpass.getuser()}"
    except (OSError, KeyError):  # a container's user without a name
        return f"cli:{os.getuid()}"


def given_reason(reason: str | None) -> str:
    """Raises BadInput when there is none."""
    if reason is None:
        raise BadInput("say why: --reason TEXT")
    return reason


def read_json(argument: str, text: str | None, otherwise: Any) -> Any:
    """JSON from the command line, from a file (`@file`) or standard input (`-`). Raises BadInput."""
    import json

    if text is None:
        return otherwise
    source = _source(argument, text)
    try:
        return json.loads(source, parse_constant=_refuse_constant)
    except ValueError as error:
        shown = source if len(source) <= 60 else source[:57] + "..."
        hint = """; quote it for the shell, e.g. '{"amount": 10}'"""
        msg = f"{argument} is not JSON: {error}: {shown!r}{hint}"
        raise BadInput(msg) from error


def _source(argument: str, text: str) -> str:
    if text == "-":
        return sys.stdin.read()
    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{argument}: cannot read the file {text[1:]!r}: {error}"
        raise BadInput(msg) from error


def _refuse_constant(constant: str) -> Any:
    msg = f"{constant} is not JSON"
    raise ValueError(msg)
