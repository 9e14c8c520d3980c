"""A run's history outside the database: one file, character for character as it was recorded.

The format is JSON and stable: `{"format": "durable-history", "version": 1, "run": {...}, "events": [...]}`. `run` has workflow, version, workflow_id,
run_id and status (of the run when it was exported); each event has seq, turn, type, at_us (microseconds since the epoch), body, and payload: the
author's data as the *text* that was stored, because replay compares texts. A later release reads every older version.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from durable.core.events import Event
from durable.errors import PayloadError

FORMAT: Literal["durable-history"] = "durable-history"
FORMAT_VERSION: Literal[1] = 1
_REMEDY = "Give a file that `durable history ID --export FILE` has written."


@dataclass(frozen=True, slots=True)
class RecordedHistory:
    """The history of one run, as `durable.testing.replay_history`, `durable verify` and `durable replay` take it."""

    workflow: str
    version: int
    workflow_id: str
    run_id: str
    status: str
    events: tuple[Event, ...]

    def to_json(self) -> str:
        """The text of an export: one line for each event."""
        run = {
            "workflow": self.workflow,
            "version": self.version,
            "workflow_id": self.workflow_id,
            "run_id": self.run_id,
            "status": self.status,
        }
        events = ",\n  ".join(_line(event._asdict()) for event in self.events)
        head = f'"format": "{FORMAT}",\n "version": {FORMAT_VERSION},\n "run": {_line(run)}'
        return f'{{{head},\n "events": [\n  {events}\n ]}}\n'

    def save(self, path: str | Path) -> None:
        """Write the export to a file."""
        Path(path).write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def from_json(cls, text: str, source: str = "history") -> RecordedHistory:
        """Read an export. Raises PayloadError, naming the place, when it is none; `source` says where the text is from."""
        try:
            given = _File.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join([source, *(str(part) for part in first["loc"])])
            raise PayloadError(place, first["msg"], _REMEDY) from error
        events = tuple(Event(**event.model_dump()) for event in given.events)
        return cls(**{**given.run.model_dump(), "run_id": str(given.run.run_id)}, events=events)

    @classmethod
    def load(cls, path: str | Path) -> RecordedHistory:
        """Read an exported file. Raises PayloadError when it is none or cannot be read."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise PayloadError(str(path), f"cannot be read: {error}", _REMEDY) from error
        return cls.from_json(text, str(path))


def exported_files(paths: Iterable[Path]) -> Iterator[Path]:
    """The files among the paths, and all `*.json` of the folders and below, in order. Raises PayloadError for a path that is neither."""
    for path in paths:
        if path.is_dir():
            yield from sorted(path.rglob("*.json"))
        elif path.is_file():
            yield path
        else:
            raise PayloadError(str(path), "is neither a file nor a folder", _REMEDY)


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Run(_Strict):
    workflow: str
    version: int
    workflow_id: str
    run_id: UUID
    status: str


class _Event(_Strict):
    seq: int = Field(ge=1)
    turn: int = Field(ge=0)
    type: str
    at_us: int
    body: dict[str, Any]
    payload: str | None = None


class _File(_Strict):
    format: Literal["durable-history"]
    version: Literal[1]
    run: _Run
    events: list[_Event] = Field(min_length=1)
