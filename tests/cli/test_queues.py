"""`durable queue`: what an operator types, and what it says."""

from __future__ import annotations

import json

import pytest

from durable import Client, activity
from tests.cli.conftest import Run


@activity(queue="letters")
async def writes_a_letter(to: str) -> None: ...


def test_a_queue_is_created_paused_and_shown(run: Run) -> None:
    made = run(
        "queue",
        "create",
        "letters",
        "--global",
        "10",
        "--rate",
        "100/60s",
        "--paused",
        "--reason",
        "not yet",
    )
    assert made.code == 0, made.err
    assert "letters: paused since" in made.out
    assert "not yet" in made.out
    assert "at once in all workers: 10" in made.out
    assert "rate: 100 per 60 s (window)" in made.out
    shown = json.loads(run("queue", "show", "letters", "--json").out)
    assert (shown["global_limit"], shown["rate_limit"]["period"]) == (10, 60)
    (listed,) = json.loads(run("queue", "list", "--json").out)
    assert listed["name"] == "letters"
    assert "letters" in run("queue", "list").out


def test_set_changes_what_is_named_and_none_takes_it_away(run: Run) -> None:
    run(
        "queue", "set", "letters", "--global", "10", "--per-key", "2", "--key-rate", "5/1m:bucket:3"
    )
    run("queue", "set", "letters", "--global", "none", "--slots", "4")
    shown = json.loads(run("queue", "show", "letters", "--json").out)
    assert (shown["global_limit"], shown["key_limit"], shown["slots"]) == (None, 2, 4)
    assert shown["key_rate_limit"] == {"limit": 5, "period": 60, "kind": "bucket", "burst": 3}


def test_pause_resume_and_why(run: Run, database_url: str) -> None:
    with Client(database_url) as client:
        job = client.enqueue(writes_a_letter, "ann")
    assert "paused" in run("queue", "pause", "letters", "--reason", "an outage").out
    said = run("queue", "why", job.job_id)
    assert said.code == 0
    assert "queue_paused: queue 'letters' is paused: an outage" in said.out
    assert "no_worker: no live worker serves queue 'letters'" in said.out
    assert [it["code"] for it in json.loads(run("queue", "why", job.job_id, "--json").out)] == [
        "no_worker",
        "queue_paused",
    ]
    assert run("queue", "resume", "letters").out.startswith("letters: open")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["set", "letters"], 2, "say what to set"),
        (["set", "letters", "--global", "ten"], 2, "--global is 'ten'"),
        (["set", "letters", "--rate", "fast"], 2, "--rate is 'fast'"),
        (["set", "letters", "--global", "0"], 2, "global_limit is 0"),
        (["why", "no-uuid"], 2, "job"),
        (["why", "00000000-0000-0000-0000-000000000000"], 3, "no job"),
    ],
)
def test_what_it_cannot_do_it_says(run: Run, arguments: list[str], code: int, said: str) -> None:
    answer = run("queue", *arguments)
    assert answer.code == code
    assert said in answer.err
    assert json.loads(run("queue", "list", "--json").out) == []
