"""What people and programs see: tables and colours on a terminal, aligned text in a pipe, JSON on request."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from durable.core.durations import span

STYLES: Mapping[str, str] = {
    "completed": "green", "accepted": "cyan", "requested": "cyan", "rejected": "yellow", "aborted": "red", "delivered": "green", "done": "green", "alive": "green", "ok": "green", "started": "green",
    "failed": "bold red", "terminated": "red", "discarded": "red", "needs_review": "bold red", "blocked": "bold red",
    "dead": "red", "problem": "bold red",
    "cancelled": "yellow", "dropped": "yellow", "duplicate": "yellow", "late": "yellow", "retryable": "yellow",
    "stopping": "yellow", "attention": "yellow",
    "running": "cyan", "runnable": "cyan", "executing": "cyan", "waiting": "blue", "buffered": "blue",
}  # fmt: skip


def is_terminal() -> bool:
    return sys.stdout.isatty()


def as_json(value: Any) -> str:
    """One line of JSON; descriptions as objects, times as ISO 8601."""
    return json.dumps(_plain(value), ensure_ascii=False, default=str)


def print_json(value: Any) -> None:
    print(as_json(value))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {key: _plain(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(member) for member in value]
    return value


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print rows under their headings; cells that are a known state get its colour on a terminal."""
    cells = [[_cell(value) for value in row] for row in rows]
    if is_terminal():
        _print_rich(columns, cells)
    else:
        print(aligned(columns, cells))


def aligned(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, nothing cut: for pipes and grep."""
    table = [[column.upper() for column in columns], *cells]
    widths = [max(len(row[index]) for row in table) for index in range(len(columns))]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in table
    )
    return "\n".join(line.rstrip() for line in lines)


def _print_rich(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, header_style="dim", pad_edge=False)
    for index, column in enumerate(columns):
        last = index == len(columns) - 1
        table.add_column(column, overflow="fold", no_wrap=not last, ratio=1 if last else None)
    for row in cells:
        table.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in row))
    Console().print(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return (
        value
        if isinstance(value, str)
        else clock(value)
        if isinstance(value, datetime)
        else str(value)
    )


def line(text: str = "", *, style: str = "") -> None:
    """Print one line; on a terminal in a style such as `red`, `bold red`, `bold` or `dim`."""
    if style and is_terminal():
        import typer

        words = style.split()
        colour = next((word for word in words if word not in ("bold", "dim")), None)
        text = typer.style(
            text, fg=colour, bold="bold" in words or None, dim="dim" in words or None
        )
    print(text, flush=True)


def clock(at: datetime | None) -> str:
    """A time of day here, with the date unless it is today's."""
    if at is None:
        return ""
    local = at.astimezone()
    shape = (
        "%H:%M:%S.%f"
        if local.date() == datetime.now(UTC).astimezone().date()
        else "%Y-%m-%d %H:%M:%S.%f"
    )
    return local.strftime(shape)[:-3]


def moment(at: datetime | None, now: datetime | None = None) -> str:
    """A time, and how far it is from now: `14:02:11.250 (3m 2s ago)`."""
    if at is None:
        return ""
    away = (at - (now or datetime.now(UTC))).total_seconds()
    return f"{clock(at)} ({span(-away)} ago)" if away < 0 else f"{clock(at)} (in {span(away)})"


def short(value: Any, longest: int = 60) -> str:
    """JSON in at most `longest` characters."""
    if isinstance(value, Mapping) and "durable:unreadable" in value:
        value = f"[{value['durable:unreadable']}]"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def failure_line(failure: Any, longest: int = 200) -> str:
    """An encoded failure and its causes: `ActivityError: activity 'charge' failed, because PaymentDeclined: no money`."""
    said = []
    while isinstance(failure, Mapping):
        kind = str(failure.get("type", "")).rpartition(":")[2]
        message = (
            str(failure.get("message", ""))
            .strip()
            .partition("\n")[0]
            .removesuffix("; the cause says why")
        )
        said.append(f"{kind}: {message}" if message else kind)
        failure = failure.get("cause")
    return short(", because ".join(said), longest)
