"""`durable schedule`, `durable prune` and `durable retention`: what they do, print and exit with."""

from __future__ import annotations

import json

import pytest

from durable.cli.exits import BadInput
from durable.cli.moments import duration, moment
from tests.cli.conftest import Run
from tests.client import shop
from tests.client.database import Database

ORDER = '{"order": {"sku": "tea", "amount": 7}}'
CREATE = (
    "schedule",
    "create",
    "books",
    shop.purchase.name,
    ORDER,
    "--cron",
    "0 9 * * MON-FRI",
    "-z",
    "Europe/Berlin",
)


def test_create_show_and_list(run: Run) -> None:
    made = run(
        *CREATE,
        "--exclude",
        "2031-12-24",
        "--exclude",
        "month=12 day=25-26",
        "--jitter",
        "5m",
        "--overlap",
        "buffer_one",
    )
    assert (made.code, made.err) == (0, "")
    assert made.out.startswith("schedule books starts purchase; next ")
    shown = run("schedule", "show", "books", "--next", "2").out
    assert 'starts     workflow purchase {"order": {"sku": "tea", "amount": 7}}' in shown
    assert "when       cron 0 9 * * MON-FRI, Europe/Berlin, 2 excluded" in shown
    assert "overlap    buffer_one; catch-up 365d" in shown
    assert shown.count("(in ") == 2
    (row,) = run("schedule", "list").out.splitlines()[1:]
    assert row.split()[:2] == ["books", "purchase"]
    assert [each["schedule_id"] for each in json.loads(run("schedule", "list", "--json").out)] == [
        "books"
    ]


def test_every_kind_of_time(run: Run) -> None:
    run(
        "schedule",
        "create",
        "a",
        "nothing",
        "--every",
        "1h30m",
        "--offset",
        "7m",
        "--start",
        "2031-01-01",
    )
    run(
        "schedule",
        "create",
        "b",
        "nothing",
        "--at",
        "2031-05-02T09:00",
        "--calendar",
        "month=1,7 day=1 weekday=mon-fri hour=9-11",
    )
    spec = json.loads(run("schedule", "show", "a", "--json").out)["schedule"]["spec"]
    assert (spec["every_us"], spec["offset_us"]) == (5_400_000_000, 420_000_000)
    assert "start_us" in spec
    spec = json.loads(run("schedule", "show", "b", "--json").out)["schedule"]["spec"]
    assert spec["calendars"] == [
        {"month": [1, 7], "day": [1], "weekday": [0, 1, 2, 3, 4], "hour": [9, 10, 11]}
    ]
    assert len(spec["listed_us"]) == 1


def test_an_empty_list_says_so(run: Run) -> None:
    assert run("schedule", "list").out == "no schedule here yet\n"
    assert run("schedule", "list", "--prefix", "x").out == "none matches\n"


def test_the_verbs(run: Run, database: Database) -> None:
    run(*CREATE)
    assert run("schedule", "pause", "books", "--note", "closed").out == "paused books\n"
    assert "state      paused: closed" in run("schedule", "show", "books").out
    assert run("schedule", "resume", "books").out == "resumed books\n"
    assert run("schedule", "trigger", "books").out.startswith("triggered books")
    assert "pending" in run("schedule", "show", "books").out
    filled = run(
        "schedule",
        "backfill",
        "books",
        "--from",
        "2026-01-05",
        "--to",
        "2026-01-09T12:00",
        "--overlap",
        "allow",
        "--json",
    )
    assert json.loads(filled.out) == {"schedule_id": "books", "slots": 5}
    assert run("schedule", "update", "books", "--overlap", "allow").out.startswith("updated books")
    shown = json.loads(run("schedule", "show", "books", "--json").out)
    assert (shown["schedule"]["overlap"], len(shown["slots"])) == ("allow", 6)
    assert run("schedule", "delete", "books").out == "deleted books\n"
    assert database.rows("select deleted_at is not null from durable.schedules") == [(True,)]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("schedule", "show", "nobody"), 3, "no schedule has the id 'nobody'"),
        (("schedule", "pause", "nobody"), 3, "no schedule"),
        (
            ("schedule", "create", "x", "purchas", "--cron", "@daily"),
            3,
            "no workflow is named 'purchas'",
        ),
        (
            ("schedule", "create", "x", "purchase", "{}", "--cron", "@daily"),
            2,
            "order: it is missing",
        ),
        (("schedule", "create", "x", "nothing"), 2, "no times"),
        (("schedule", "create", "x", "nothing", "--cron", "61 * * * *"), 2, "bad minute"),
        (("schedule", "create", "x", "nothing", "--every", "soon"), 2, "write a duration"),
        (("schedule", "create", "x", "nothing", "--at", "noon"), 2, "write a time"),
        (("schedule", "create", "x", "nothing", "--calendar", "day=first"), 2, "write fields"),
        (("schedule", "create", "x", "nothing", "--calendar", "day=32"), 2, "numbers from 1 to 31"),
        (("schedule", "create", "x", "nothing", "--cron", "@daily", "-z", "Moon"), 2, "IANA"),
        (("schedule", "update", "x"), 2, "nothing to change"),
        (("retention", "set", "run", "long"), 2, "write a duration"),
        (("retention", "set", "history", "1d"), 2, "kind is 'history'"),
        (("prune", "--state", "running", "--older-than", "1d"), 2, "state is 'running'"),
    ],
)
def test_errors_say_what_to_do(run: Run, arguments: tuple[str, ...], code: int, said: str) -> None:
    ran = run(*arguments)
    assert (ran.code, ran.out) == (code, "")
    assert said in ran.err


def test_an_id_in_use(run: Run) -> None:
    run(*CREATE)
    assert run(*CREATE).code == 1
    assert run(*CREATE, "--on-existing", "update").code == 0


def test_prune_and_retention(run: Run, database: Database) -> None:
    assert "no rule says" in run("prune").out
    assert run("retention", "list").out == "no rule: everything is kept for ever\n"
    assert (
        run("retention", "set", "run", "30d", "--archive").out
        == "runs of queue * and state * are kept for 30d\n"
    )
    run("retention", "set", "job", "forever", "--queue", "payments")
    assert [line.split() for line in run("retention", "list").out.splitlines()[1:]] == [
        ["job", "payments", "*", "for", "ever"],
        ["run", "*", "*", "30d", "archived"],
    ]
    run("start", "purchase", ORDER, "--id", "o-1")
    run("terminate", "o-1", "--reason", "no")
    assert json.loads(run("prune", "--json").out)["runs"] == 0
    database.rows("select durable.advance_clock('31 days')")
    assert run("prune", "--dry-run").out == "would prune 1 runs, 0 jobs, 0 slots; archived 1\n"
    assert run("prune").out == "pruned 1 runs, 0 jobs, 0 slots; archived 1\n"
    assert run("show", "o-1").code == 3
    (kept,) = json.loads(run("retention", "archived", "o-1", "--json").out)
    assert kept["record"]["run"]["status"] == "terminated"
    assert run("retention", "archived", "o-1").out.splitlines()[1].split()[0] == "run"
    assert run("retention", "unset", "run").out == "removed\n"
    assert run("retention", "unset", "run").out == "there is no such rule\n"


def test_durations_and_moments() -> None:
    seconds = {"90": 90, "45s": 45, "1.5h": 5400, "1h30m": 5400, "7d": 604_800, "2w": 1_209_600}
    assert {text: duration("--x", text).total_seconds() for text in seconds} == seconds
    for text in ("", "h", "1x", "1h 30", "-5", "30m1"):
        with pytest.raises(BadInput):
            duration("--x", text)
    assert moment("--x", "2031-01-01T09:00+01:00").utcoffset() is not None
    assert moment("--x", "2031-01-01").tzinfo is None


def test_the_doctor_looks_at_schedules(run: Run, database: Database) -> None:
    assert "schedules" not in run("doctor").out
    run(*CREATE)
    assert "1, none is late" in run("doctor").out
    database.rows("select durable.advance_clock('1 hour')")
    assert "1 of 1 schedules have been due for more than a minute" in run("doctor").out
    database.rows(
        "update durable.schedules set paused = true, note = 'paused because the run of a slot failed', next_at = null"
    )
    assert "1 schedules have paused themselves after a failure" in run("doctor").out
