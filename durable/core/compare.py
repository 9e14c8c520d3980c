"""Replay's comparison: the commands that the code gives now, against the events it gave then (C13)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from durable.core.commands import Command
from durable.core.events import CHILD_STARTED, FIRST_TURN_TAKEN, PATCH_RECORDED, Event
from durable.core.machine import CHILDS_OWN, VIEWS
from durable.errors import NondeterminismError
from durable.payload import digest


def pair(
    recorded: Sequence[Event],
    commands: Sequence[Command],
    pending: dict[int, Any],
    next_seq: int,
    standing_at: Callable[[], str | None],
) -> None:
    """Pair a turn's outbound rows with its commands; what a command opened takes the row's number and goes to `pending`.

    `next_seq` is the number after the turn; `standing_at` finds the line where the code waits instead of going on. Raises
    NondeterminismError at the first pair that differs.
    """
    given = [command for command in commands if not command.struck]
    at, count = 0, len(given)
    for row in recorded:
        command = given[at] if at < count else None
        if command is not None and _same(row, command):
            at += 1
            if (operation := command.operation) is not None:
                operation.seq = row.seq
                pending[row.seq] = operation
        elif not _asks_for_nothing(row):
            raise _parting(row.seq, row, command, command.line if command else standing_at())
    if at < count:
        raise _parting(next_seq, None, given[at], given[at].line)


def _asks_for_nothing(row: Event) -> bool:
    """The mark of a patch whose last trace may have left the code, or of a first turn that only called local activities (see local.py)."""
    return row.type == FIRST_TURN_TAKEN or (row.type == PATCH_RECORDED and "deprecated" in row.body)


def _parting(
    seq: int, row: Event | None, command: Command | None, line: str | None
) -> NondeterminismError:
    if command is not None and command.body.get("digest") == "":
        command.body["digest"] = digest(command.payload or "")
    return NondeterminismError(
        event_seq=seq,
        expected=None if row is None else _view(row),
        got=None if command is None else _view(command),
        line=line,
    )


def _same(row: Event, command: Command) -> bool:
    if row.type != command.type:
        return False
    recorded, got = row.body, command.body
    if command.operation is not None:  # the hot path: all but the line
        got.pop("line")
        if row.type == CHILD_STARTED:
            for option in CHILDS_OWN:
                _take_recorded(got, recorded, option)
        if "line" in recorded:
            got["line"] = recorded["line"]
        if "digest" in got:
            got["digest"] = (
                recorded.get("digest")
                if row.payload == command.payload
                else digest(command.payload or "")
            )
        return recorded == got
    return _view(row) == _view(command)


def _take_recorded(got: dict[str, Any], recorded: dict[str, Any], option: str) -> None:
    got.pop(option, None)
    if option in recorded:
        got[option] = recorded[option]


def _view(of: Event | Command) -> dict[str, Any]:
    return {"type": of.type, **VIEWS[of.type](of.body, of.payload)}
