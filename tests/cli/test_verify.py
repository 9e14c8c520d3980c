"""`durable verify`: a deploy gate over the runs of a database or exported files. It reads only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

from durable import payload_codecs
from durable.cli import verify
from durable.cli.exits import BAD_INPUT, DONE, INCOMPATIBLE, NOTHING_CHECKED
from durable.payload_codecs import MARK, Compression, Payloads
from durable.store import histories
from durable.store.histories import HistoryReader, StoredRun
from tests.cli.conftest import Run
from tests.cli.recorded import Named, ended, store, under_way
from tests.cli.replayed_code import checkout, crowd, paid, steady, steady_2
from tests.client.database import TABLES, Database

RIGHT = "tests.cli.replayed_code"
CHANGED = "tests.cli.replayed_code_changed"


def everything(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    return {
        table: sorted(database.rows(f"select t::text from durable.{table} t"))
        for table in (*TABLES, "workers", "definitions")
    }


def test_code_that_fits_passes_and_nothing_is_written(run: Run, database: Database) -> None:
    store(database, under_way(checkout, "c-1", "tea"))
    store(database, under_way(steady, "s-1", "tea"))
    store(database, Named(steady_2, "s-2", "not yet begun"))
    before = everything(database)
    ran = run("verify", RIGHT)
    assert (ran.code, ran.err) == (DONE, "")
    assert ran.out == "3 runs, 8 events: nothing stands against going on with this code\n"
    assert everything(database) == before


def test_each_incompatibility_is_listed_with_its_difference_and_line(
    run: Run, database: Database
) -> None:
    for n in range(5):
        store(database, under_way(checkout, f"c-{n}", "tea"))
    store(database, under_way(steady, "s-1", "tea"))
    store(database, under_way(steady_2, "s-2", "tea"))
    store(database, under_way(crowd, "crowd"))
    ran = run("verify", CHANGED)
    assert ran.code == INCOMPATIBLE
    assert "replayed.checkout version 1: nondeterminism in 5 runs: c-" in ran.out
    assert "the code and the history part at event 2" in ran.out
    assert "the code gave at replayed_code_changed.py:" in ran.out
    assert "name: 'replayed.reserve' -> 'replayed.ship'" in ran.out
    assert "replayed.steady version 1: missing_version in 1 run: s-1" in ran.out
    assert "replayed.crowd version 1: payload in 1 run: crowd" in ran.out
    assert "7 of 8 runs" in ran.out
    assert "parked" not in ran.out


def test_json_has_them_all(run: Run, database: Database) -> None:
    for n in range(3):
        store(database, under_way(checkout, f"c-{n}", "tea"))
    ran = run("verify", CHANGED, "--json")
    said = json.loads(ran.out)
    assert (ran.code, said["checked"], said["skipped"], said["pinned"]) == (INCOMPATIBLE, 3, {}, 0)
    assert {it["workflow_id"] for it in said["incompatible"]} == {"c-0", "c-1", "c-2"}
    first = said["incompatible"][0]
    assert (first["kind"], first["event"]) == ("nondeterminism", 2)
    assert (first["expected"]["name"], first["got"]["name"]) == (
        "replayed.reserve",
        "replayed.ship",
    )
    assert first["line"].startswith("replayed_code_changed.py:")


def test_arguments_of_a_run_that_has_not_begun_are_checked(run: Run, database: Database) -> None:
    store(database, Named(crowd, "waiting"))
    ran = run("verify", CHANGED)
    assert (ran.code, "payload in 1 run: waiting" in ran.out) == (INCOMPATIBLE, True)


def test_nothing_to_check_has_a_code_of_its_own(run: Run, database: Database) -> None:
    assert run("verify", RIGHT).code == NOTHING_CHECKED
    store(database, ended(steady, "s", "tea"))
    assert run("verify", RIGHT).code == NOTHING_CHECKED
    assert run("verify", RIGHT, "--closed").code == DONE


def test_runs_of_other_applications_are_named_and_only_strictly_a_fault(
    run: Run, database: Database
) -> None:
    store(database, under_way(checkout, "c", "tea"))
    database.rows("update durable.runs set workflow = 'somebody_elses'")
    store(database, under_way(steady, "s", "tea"))
    ran = run("verify", RIGHT)
    assert (ran.code, "not checked: 1 run of somebody_elses" in ran.out) == (DONE, True)
    assert run("verify", RIGHT, "--strict").code == INCOMPATIBLE


def test_runs_pinned_to_a_build_are_that_build_s_business(run: Run, database: Database) -> None:
    store(database, under_way(checkout, "c", "tea"), build="a")
    store(database, under_way(steady_2, "s", "tea"))
    ran = run("verify", CHANGED)
    assert (ran.code, "1 run pinned" in ran.out) == (DONE, True)
    assert run("verify", CHANGED, "--pinned").code == INCOMPATIBLE


def test_one_workflow_or_a_sample(run: Run, database: Database) -> None:
    for n in range(30):
        store(database, under_way(checkout if n % 2 else steady, f"r-{n}", "tea"))
    assert (
        json.loads(run("verify", RIGHT, "--workflow", "replayed.steady", "--json").out)["checked"]
        == 15
    )
    assert json.loads(run("verify", RIGHT, "--sample", "7", "--json").out)["checked"] == 7
    assert json.loads(run("verify", RIGHT, "--sample", "70", "--json").out)["checked"] == 30


def test_a_sample_gives_every_run_the_same_chance() -> None:
    runs = [StoredRun(0, "", str(n), "w", 1, "running", None, 1) for n in range(10)]
    drawn = [run for _ in range(2_000) for run in verify._sampled(iter(runs), 3)]
    assert len(drawn) == 6_000
    assert all(450 < drawn.count(run) < 750 for run in runs)


def test_all_runs_are_seen_whatever_the_size_of_pages_and_batches(
    run: Run, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(25):
        store(database, under_way(checkout, f"c-{n}", "tea"))
    for name, size in (("PAGE", 4), ("BATCH_RUNS", 3), ("BATCH_EVENTS", 5)):
        monkeypatch.setattr(histories, name, size)
    assert json.loads(run("verify", RIGHT, "--json").out)["checked"] == 25
    assert json.loads(run("verify", RIGHT, "--json", "--closed").out)["checked"] == 25


def test_long_work_tells_how_far_it_is(
    run: Run, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "PROGRESS_S", 0.0)
    for n in range(3):
        store(database, under_way(checkout, f"c-{n}", "tea"))
    ran = run("verify", RIGHT)
    assert ran.err.splitlines()[-1] == "checked 3 of about 3 runs, 0 incompatible"


def test_exported_files_and_folders_need_no_database(
    run: Run, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sim = under_way(checkout, "c-1", "tea")
    sim.turn(sim.signalled(paid, 7))
    store(database, sim)
    file = tmp_path / "histories" / "c-1.json"
    file.parent.mkdir()
    assert run("history", "c-1", "--export", str(file)).code == DONE
    monkeypatch.delenv("DURABLE_DATABASE_URL")
    assert (
        run("verify", RIGHT, "--history", str(file)).out
        == "1 run, 5 events: nothing stands against going on with this code\n"
    )
    assert run("verify", CHANGED, "--history", str(tmp_path)).code == INCOMPATIBLE
    file.write_text("{}")
    broken = run("verify", RIGHT, "--history", str(file))
    assert (broken.code, "c-1.json.format" in broken.err) == (BAD_INPUT, True)


def test_sealed_payloads_stay_sealed_in_exports_and_are_opened_to_replay(
    run: Run, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    payloads = Payloads([Compression(at_least=1)])
    sim = under_way(checkout, "c-1", "tea " * 100)
    sim.history = [
        it._replace(payload=it.payload and payloads.sealed(it.payload)) for it in sim.history
    ]
    store(database, sim)
    file = tmp_path / "c-1.json"
    run("history", "c-1", "--export", str(file))
    assert MARK in file.read_text()
    assert "tea tea" not in file.read_text()
    assert "payload in 1 run: c-1" in run("verify", RIGHT).out
    monkeypatch.setattr(payload_codecs, "_default", payloads)
    for arguments in (("verify", RIGHT), ("verify", RIGHT, "--history", str(file))):
        assert run(*arguments).code == DONE
    assert run("replay", "c-1", "--module", RIGHT).code == DONE
    run("history", "c-1", "--export", str(file))
    assert MARK in file.read_text()


def test_modules_without_workflows_or_that_are_not_there(run: Run) -> None:
    assert run("verify", "json").code == BAD_INPUT
    missing = run("verify", "no.such.module")
    assert (missing.code, "there is no module 'no'" in missing.err) == (BAD_INPUT, True)


def test_the_session_cannot_write(database: Database) -> None:
    with (
        HistoryReader(database.url) as reader,
        pytest.raises(psycopg.errors.ReadOnlySqlTransaction),
    ):
        reader._connection.execute("delete from durable.runs")
