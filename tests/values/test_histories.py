"""Exported histories: a stable file, and `replay_history` in an author's own tests."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from durable import activity, payload_codecs, workflow
from durable.core.events import Event
from durable.definitions import Workflow
from durable.errors import InvalidOption, NondeterminismError, PayloadError
from durable.histories import RecordedHistory, exported_files
from durable.payload_codecs import MARK, Compression, Payloads
from durable.testing import replay_history
from tests.core.simulation import RUN_ID, simulate

RELEASED = """\
{"format": "durable-history",
 "version": 1,
 "run": {"workflow": "exported.greet", "version": 1, "workflow_id": "wf", "run_id": "0190a0b0-0000-7000-8000-000000000001", "status": "completed"},
 "events": [
  {"seq": 1, "turn": 0, "type": "WorkflowStarted", "at_us": 1700000000000000, "body": {"workflow": "exported.greet"}, "payload": "{\\"who\\":\\"Zoë\\"}"},
  {"seq": 2, "turn": 1, "type": "ActivityScheduled", "at_us": 1700000000001000, "body": {"name": "exported.greeting", "queue": "default", "priority": 5, "id": "exported.greeting-1", "digest": "a41b4c2eb43a5b9c"}, "payload": "{\\"who\\":\\"Zoë\\"}"},
  {"seq": 3, "turn": 2, "type": "ActivityCompleted", "at_us": 1700000000002000, "body": {"ref": 2, "attempt": 1}, "payload": "\\"Hello, Zoë\\""},
  {"seq": 4, "turn": 2, "type": "WorkflowCompleted", "at_us": 1700000000002000, "body": {}, "payload": "\\"Hello, Zoë\\""}
 ]}
"""
"""A file of format version 1. Files of users look like this: never change it."""


@activity(name="exported.greeting")
def greeting(who: str) -> str:
    return f"Hello, {who}"


@workflow(name="exported.greet")
async def greet(who: str) -> str:
    return await greeting(who)


async def shouts(who: str) -> str:
    return (await greeting(who)).upper()


CHANGED: Workflow[..., Any] = Workflow(shouts, "exported.greet", 2, None, None, None)


def exported() -> RecordedHistory:
    sim = simulate(greet, "Zoë " * 100)
    return RecordedHistory(
        greet.name, 1, "wf", str(RUN_ID), "completed", tuple(Event(*it) for it in sim.history)
    )


def test_the_released_format_is_read_and_replays(tmp_path: Path) -> None:
    history = RecordedHistory.from_json(RELEASED)
    assert history.to_json() == RELEASED
    replay_history(greet, history)
    replay_history(greet, json.loads(RELEASED))
    (tmp_path / "greet.json").write_text(RELEASED, encoding="utf-8")
    replay_history(greet, tmp_path / "greet.json")
    replay_history(greet, str(tmp_path / "greet.json"))


def test_what_is_saved_is_what_was_recorded(tmp_path: Path) -> None:
    history = exported()
    history.save(tmp_path / "one.json")
    assert RecordedHistory.load(tmp_path / "one.json") == history
    assert len(history.to_json().splitlines()) == len(history.events) + 5


def test_a_change_of_the_code_fails_the_author_s_test() -> None:
    with pytest.raises(NondeterminismError) as caught:
        replay_history(CHANGED, exported())
    assert caught.value.event_seq == 4
    assert "HELLO" in str(caught.value)


def test_the_history_of_another_workflow_is_refused() -> None:
    other: Workflow[..., Any] = Workflow(shouts, "another", 1, None, None, None)
    with pytest.raises(InvalidOption, match=r"exported\.greet"):
        replay_history(other, exported())


def test_sealed_payloads_are_opened_by_the_codecs_of_this_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    payloads = Payloads([Compression(at_least=1)])
    long = exported()
    sealed = replace(
        long,
        events=tuple(it._replace(payload=payloads.sealed(it.payload or "")) for it in long.events),
    )
    padded = [it for it in sealed.events if MARK in str(it.payload)]
    assert padded, "nothing was long enough to be compressed"
    with monkeypatch.context() as patch:
        patch.setattr(payload_codecs, "_default", payloads)
        replay_history(greet, RecordedHistory.from_json(sealed.to_json()))
    with pytest.raises(PayloadError):
        replay_history(greet, sealed)


BROKEN = {
    "no JSON": ("nothing", "history"),
    "another format": (RELEASED.replace("durable-history", "temporal"), "history.format"),
    "a later version": (RELEASED.replace('"version": 1,\n "run"', '"version": 2,\n "run"'), "history.version"),
    "no events": (RELEASED.split(' "events"', maxsplit=1)[0] + ' "events": []}', "history.events"),
    "an event without a time": (RELEASED.replace('"at_us": 1700000000002000, ', "", 1), "history.events.2.at_us"),
    "a run without an id": (RELEASED.replace('"0190a0b0-0000-7000-8000-000000000001"', '"x"'), "history.run.run_id"),
}  # fmt: skip


@pytest.mark.parametrize("harm", BROKEN)
def test_a_file_that_is_none_says_where(harm: str) -> None:
    text, field = BROKEN[harm]
    with pytest.raises(PayloadError, match="durable history ID --export FILE") as caught:
        RecordedHistory.from_json(text)
    assert caught.value.field == field


def test_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    for name in ("b.json", "below/a.json", "notes.txt"):
        (tmp_path / name).write_text("")
    found = list(exported_files([tmp_path, tmp_path / "notes.txt"]))
    assert [it.name for it in found] == ["b.json", "a.json", "notes.txt"]
    with pytest.raises(PayloadError, match="neither a file nor a folder"):
        list(exported_files([tmp_path / "nothing"]))
    with pytest.raises(PayloadError, match="cannot be read"):
        RecordedHistory.load(tmp_path / "nothing")
