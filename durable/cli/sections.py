"""The commands of `durable --help` under headings: what a person wants to do, not the order in which they were written."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

SECTIONS = {
    "Begin": ("demo", "dev", "migrate", "worker", "lint"),
    "Start and talk to workflows": ("start", "signal", "query", "update", "result", "dag"),
    "See what happens, and why not": (
        "list", "show", "watch", "history", "explain", "graph", "evidence", "commands", "doctor",
    ),
    "Interfere": (
        "cancel", "terminate", "pause", "resume", "retry", "reset", "fork", "move", "activity", "batch", "recover",
    ),
    "Work done outside": ("complete", "fail", "heartbeat"),
    "Jobs, queues, schedules": ("enqueue", "job", "queue", "schedule"),
    "New code against old runs": ("verify", "replay"),
    "Housekeeping": ("prune", "retention"),
}  # fmt: skip


class Sectioned(TyperGroup):
    """A group whose help has a heading for each section."""

    def format_commands(
        self, ctx: Any, formatter: Any
    ) -> None:  # typer's own copy of click has no public types
        """Write the sections. Called by typer."""
        commands = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        width = max(map(len, commands), default=0)
        sectioned = {name for names in SECTIONS.values() for name in names}
        other = tuple(name for name in commands if name not in sectioned)
        for heading, names in (*SECTIONS.items(), ("Other", other)):
            found = [(name, commands[name]) for name in names if name in commands]
            rows = [(name.ljust(width), it.get_short_help_str(200)) for name, it in found if it]
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)
