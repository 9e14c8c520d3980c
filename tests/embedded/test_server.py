"""One server: what it promises while nothing goes wrong, and what it says when it cannot start."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from durable import embedded
from durable.embedded import EmbeddedPostgresError, EmbeddedServer
from durable.embedded.account import server_account


def ask(server: EmbeddedServer, question: str) -> object:
    with psycopg.connect(server.url) as connection:
        row = connection.execute(question.encode()).fetchone()
        assert row is not None
        return row[0]


def answers(server: EmbeddedServer) -> bool:
    try:
        return ask(server, "select 1") == 1
    except psycopg.OperationalError:
        return False


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    folder = tmp_path_factory.mktemp("odd & names") / "50% of ünits? 'yes'"
    with embedded.start(folder, settings={"max_connections": 17}) as started:
        yield started


def test_it_answers_under_a_hostile_folder_name(server: EmbeddedServer) -> None:
    assert server.started_here
    assert answers(server)


@pytest.mark.parametrize("name", ["fsync", "synchronous_commit", "full_page_writes"])
def test_it_is_durable(server: EmbeddedServer, name: str) -> None:
    assert ask(server, f"show {name}") == "on"


def test_settings_arrive(server: EmbeddedServer) -> None:
    assert ask(server, "show max_connections") == "17"


def test_there_is_no_tcp(server: EmbeddedServer) -> None:
    assert ask(server, "show listen_addresses") == ""


def test_only_the_owner_may_enter_the_data(server: EmbeddedServer) -> None:
    assert (server.folder / "data").stat().st_mode & 0o777 == 0o700


def test_a_second_start_attaches_and_its_stop_stops_nothing(server: EmbeddedServer) -> None:
    with embedded.start(server.folder) as second:
        assert not second.started_here
        assert second.url == server.url
    assert answers(server)


def test_data_stays_between_runs_and_stop_may_be_repeated(tmp_path: Path) -> None:
    with embedded.start(tmp_path) as server, psycopg.connect(server.url) as connection:
        connection.execute("create table kept ()")
        connection.commit()
    assert not answers(server)
    server.stop()
    with embedded.start(tmp_path) as server:
        assert ask(server, "select count(*) from kept") == 0


def test_the_environment_cannot_steer_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "PGPORT": "1",
        "PGDATA": "/nowhere",
        "PGHOST": "nowhere",
        "LC_ALL": "xx",
    }.items():
        monkeypatch.setenv(name, value)
    with embedded.start(tmp_path) as server:
        assert answers(server)


def test_started_in_a_thread_it_outlives_the_thread(tmp_path: Path) -> None:
    started: list[EmbeddedServer] = []
    thread = threading.Thread(target=lambda: started.append(embedded.start(tmp_path)))
    thread.start()
    thread.join()
    with started[0] as server:
        assert answers(server)


def test_a_start_cut_short_in_initdb_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "data.new").mkdir()
    (tmp_path / "data.new" / "PG_VERSION").write_text("18")
    with embedded.start(tmp_path) as server:
        assert answers(server)


def test_a_refused_setting_fails_at_once_with_the_server_s_own_words(tmp_path: Path) -> None:
    before = time.monotonic()
    with pytest.raises(EmbeddedPostgresError, match="no_such_setting"):
        embedded.start(tmp_path, settings={"no_such_setting": 1}, timeout_s=600)
    assert time.monotonic() - before < 60


def test_data_of_another_version_names_both(tmp_path: Path) -> None:
    embedded.start(tmp_path).stop()
    version = tmp_path / "data" / "PG_VERSION"
    version.write_text("9\n")
    with pytest.raises(EmbeddedPostgresError, match="made by PostgreSQL 9, but the binaries"):
        embedded.start(tmp_path)


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedPostgresError, match="choose a folder that you may write to"):
        embedded.start(tmp_path / "file")


def test_a_planted_link_in_place_of_the_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "data").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EmbeddedPostgresError, match="is not a folder but a link"):
        embedded.start(tmp_path / "home")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a folder of another user")
def test_data_of_another_user_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o750)
    os.chown(data, 54321, 54321)
    with pytest.raises(EmbeddedPostgresError, match=r"belongs to user 54321, but .* run as"):
        embedded.start(tmp_path)
    assert (data.stat().st_uid, data.stat().st_mode & 0o777) == (54321, 0o750)


def test_the_account_is_never_root() -> None:
    assert server_account().effective_uid != 0
