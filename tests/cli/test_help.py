"""What `durable --help` shows."""

from __future__ import annotations

from typer.testing import CliRunner

from durable.cli.commands import app
from durable.cli.sections import SECTIONS


def test_every_command_stands_under_one_heading() -> None:
    shown = CliRunner().invoke(app, ["--help"]).stdout
    names = [name for section in SECTIONS.values() for name in section]
    assert len(names) == len(set(names))
    assert "Other:" not in shown
    for name in names:
        assert f"\n  {name} " in shown, "a heading names a command that does not exist"
