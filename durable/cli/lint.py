"""`durable lint`: what in workflow code replay could not repeat. For CI."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from durable import lint as linting
from durable.cli.output import line, print_json
from durable.cli.settings import Json


def lint(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files or folders.")],
    *,
    in_json: Json = False,
) -> None:
    """Find clock, entropy, I/O and threads in workflow code; imports nothing. Exit code 1 if there is any."""
    report = linting.lint(paths)
    if in_json:
        print_json(
            {
                "files": report.files,
                "workflows": report.workflows,
                "findings": [each._asdict() for each in report.findings],
                "unreadable": report.unreadable,
            }
        )
    else:
        _print(report)
    raise SystemExit(report.exit_code)


def _print(report: linting.Report) -> None:
    for it in report.findings:
        said = f"{it.file}:{it.line}: {it.level}: {it.what} (in {it.function}). Use {it.instead}"
        line(said, style="red" if it.level == "error" else "yellow")
    for problem in report.unreadable:
        line(problem, style="bold red")
    found = f"{len(report.findings)} found" if report.findings else "nothing found"
    line(f"{report.workflows} workflows in {report.files} files: {found}")
