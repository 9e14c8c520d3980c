"""The migration runner: killed, run twice at once, and faced with files that are not what they were."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from durable.errors import DatabaseUnavailable, InternalError, SchemaOutOfDate
from durable.store.migrate import (
    LOCK,
    ensure_current,
    ensure_current_async,
    load,
    migrate,
    migrations_dir,
    status,
)
from tests import postgres
from tests.store.schema import describe
from tests.waiting import eventually

GATE = 77
"""An advisory lock that a test holds to stop a migration in the middle."""

RUNNER = """
import sys
from pathlib import Path
from durable.store.migrate import migrate
print(*migrate(sys.argv[1], folder=Path(sys.argv[2])), flush=True)
"""


@pytest.fixture
def url(empty_database_url: str) -> str:
    return empty_database_url


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three migrations; the second holds a body with semicolons, as functions do."""
    (tmp_path / "0001_one.sql").write_text("create table one (); create table uno ();")
    (tmp_path / "0002_two.sql").write_text(
        "create function two() returns int language plpgsql as $$ begin perform 1; return 2; end $$;"
    )
    (tmp_path / "0003_three.sql").write_text("create table three (n int);")
    (tmp_path / "README.md").write_text("not a migration")
    return tmp_path


def tables(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "select relname from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace"
        )
        return {name for (name,) in rows}


@contextlib.contextmanager
def gate(url: str) -> Iterator[None]:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("select pg_advisory_lock(%s)", (GATE,))
        yield


@contextlib.contextmanager
def runner(url: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", RUNNER, url, str(folder)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def waiting_for_lock(url: str) -> bool:
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "select exists (select from pg_locks where locktype = 'advisory' and not granted"
            " and database = (select oid from pg_database where datname = current_database()))"
        ).fetchone()
        return row == (True,)


def tried_for_lock(url: str) -> bool:
    """A runner is connected that tries for the lock and has not got it."""
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "select exists (select from pg_stat_activity where datname = current_database()"
            " and query like '%%pg_try_advisory_lock%%' and pid <> pg_backend_pid()"
            " and pid not in (select pid from pg_locks where locktype = 'advisory' and granted and objid = %s))",
            (LOCK & 0xFFFF_FFFF,),
        ).fetchone()
        return row == (True,)


def test_files_are_applied_once_and_in_order(url: str, folder: Path) -> None:
    assert migrate(url, folder=folder) == ["0001_one", "0002_two", "0003_three"]
    assert migrate(url, folder=folder) == []
    assert tables(url) == {"one", "uno", "three"}


@pytest.mark.parametrize("to", ["0002", "0002_two"])
def test_up_to_a_migration(url: str, folder: Path, to: str) -> None:
    assert migrate(url, to=to, folder=folder) == ["0001_one", "0002_two"]
    assert [each.state for each in status(url, folder=folder)] == ["applied", "applied", "pending"]


def test_an_unknown_target_lists_the_known_ones(url: str, folder: Path) -> None:
    with pytest.raises(ValueError, match="no migration '0009'; this release has 0001_one, "):
        migrate(url, to="0009", folder=folder)


def test_a_failing_file_is_rolled_back_whole_and_those_before_it_stay(
    url: str, folder: Path
) -> None:
    (folder / "0003_three.sql").write_text("create table three (); select 1/0;")
    with pytest.raises(InternalError, match="division by zero") as caught:
        migrate(url, folder=folder)
    assert isinstance(caught.value.__cause__, psycopg.errors.DivisionByZero)
    assert tables(url) == {"one", "uno"}
    (folder / "0003_three.sql").write_text("create table three ();")
    assert migrate(url, folder=folder) == ["0003_three"]


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    for ask in (migrate, status):
        with pytest.raises(
            DatabaseUnavailable, match=f"cannot reach PostgreSQL at {tmp_path}:5432/db"
        ):
            ask(f"postgresql:///db?host={tmp_path}")


def test_an_edited_file_is_refused_and_nothing_after_it_is_applied(url: str, folder: Path) -> None:
    migrate(url, to="0002", folder=folder)
    (folder / "0001_one.sql").write_text("create table one ();")
    with pytest.raises(SchemaOutOfDate, match="0001_one was edited .* new migration"):
        migrate(url, folder=folder)
    assert [each.state for each in status(url, folder=folder)] == ["edited", "applied", "pending"]
    assert "three" not in tables(url)


def test_line_endings_are_no_edit(url: str, folder: Path) -> None:
    (folder / "0001_one.sql").write_bytes(b"create table one ();\ncreate table uno ();\n")
    migrate(url, folder=folder)
    (folder / "0001_one.sql").write_bytes(b"create table one ();\r\ncreate table uno ();\r\n")
    assert migrate(url, folder=folder) == []


def test_a_database_newer_than_this_release_is_refused(url: str, folder: Path) -> None:
    migrate(url, folder=folder)
    (folder / "0003_three.sql").unlink()
    (folder / "0004_four.sql").write_text("create table four ();")
    with pytest.raises(
        SchemaOutOfDate, match="newer than this release of durable, which has no 0003_three"
    ):
        migrate(url, folder=folder)
    assert [each.state for each in status(url, folder=folder)][-2:] == ["unknown", "pending"]


def test_a_file_slipped_in_before_an_applied_one_is_refused(url: str, folder: Path) -> None:
    migrate(url, folder=folder)
    (folder / "0002_slipped_in.sql").write_text("create table late ();")
    with pytest.raises(SchemaOutOfDate, match="has 0003_three but not 0002_slipped_in before it"):
        migrate(url, folder=folder)


def test_two_processes_at_once_apply_each_file_once(url: str, folder: Path) -> None:
    (folder / "0002_two.sql").write_text(f"select pg_advisory_xact_lock({GATE});")
    with gate(url), runner(url, folder) as one:
        eventually(lambda: waiting_for_lock(url), what="the first runner is in the middle")
        with runner(url, folder) as two:
            eventually(lambda: tried_for_lock(url), what="the second runner wants the lock")
            assert two.poll() is None
            with psycopg.connect(url) as connection:
                connection.execute(
                    "select pg_terminate_backend(pid) from pg_locks"
                    " where locktype = 'advisory' and granted and objid = %s and database ="
                    " (select oid from pg_database where datname = current_database())",
                    (GATE,),
                )
            outputs = [process.communicate() for process in (one, two)]
    assert outputs == [("0001_one 0002_two 0003_three\n", ""), ("\n", "")]


def test_killed_in_the_middle_of_a_file_the_next_run_goes_on(url: str, folder: Path) -> None:
    (folder / "0002_two.sql").write_text(
        f"create table two (); select pg_advisory_xact_lock({GATE});"
    )
    with gate(url), runner(url, folder) as process:
        eventually(lambda: waiting_for_lock(url), what="the runner is in the middle")
        process.kill()
        process.wait()
        assert tables(url) == {"one", "uno"}
    assert migrate(url, folder=folder) == ["0002_two", "0003_three"]


def test_an_index_is_built_concurrently_while_another_runner_waits(url: str, folder: Path) -> None:
    """A runner that waited inside a statement would hold a snapshot, and the two would wait for each other."""
    (folder / "0003_three.sql").write_text(
        "-- no-transaction\ncreate index concurrently by_n on held (n)"
    )
    (folder / "0001_one.sql").write_text("create table held (n int)")
    migrate(url, to="0002", folder=folder)
    with psycopg.connect(url) as holder:
        holder.execute("insert into held values (1)")  # the index waits for this transaction
        with runner(url, folder) as one:
            eventually(lambda: building(url), what="the first runner builds the index")
            with runner(url, folder) as two:
                eventually(lambda: tried_for_lock(url), what="the second runner wants the lock")
                holder.commit()
                outputs = [process.communicate() for process in (one, two)]
    assert outputs == [("0003_three\n", ""), ("\n", "")]


def building(url: str) -> bool:
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "select exists (select from pg_stat_activity where query like '%create index%'"
            " and datname = current_database() and wait_event_type = 'Lock')"
        ).fetchone()
        return row == (True,)


def test_an_empty_database_is_out_of_date_and_the_remedy_is_named(url: str) -> None:
    with psycopg.connect(url) as connection:
        with pytest.raises(SchemaOutOfDate, match="run `durable migrate`"):
            ensure_current(connection)
        assert connection.execute("select 1").fetchone() == (1,)  # the transaction is not spoilt


def test_a_migrated_database_is_current(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        ensure_current(connection)


async def _ensure_current_async(url: str) -> None:
    async with await psycopg.AsyncConnection.connect(url) as connection:
        await ensure_current_async(connection)


def test_the_asynchronous_check_says_the_same(url: str, database_url: str) -> None:
    import asyncio

    asyncio.run(_ensure_current_async(database_url))
    with pytest.raises(SchemaOutOfDate, match="run `durable migrate`"):
        asyncio.run(_ensure_current_async(url))


# -- this release's own files -----------------------------------------------------------------------------------------


def test_the_files_are_numbered_without_gaps() -> None:
    numbers = [int(migration.id[:4]) for migration in load(migrations_dir())]
    assert numbers == list(range(1, len(numbers) + 1))
    assert numbers


def test_every_sql_file_has_a_name_that_the_runner_takes() -> None:
    named = {migration.id for migration in load()}
    assert {file.stem for file in migrations_dir().iterdir() if file.suffix == ".sql"} == named


def test_one_file_at_a_time_gives_the_schema_of_all_at_once(url: str, database_url: str) -> None:
    for migration in load():
        assert migrate(url, to=migration.id) == [migration.id]
    with psycopg.connect(url) as stepped, psycopg.connect(database_url) as at_once:
        assert describe(stepped) == describe(at_once)


def test_drift_is_seen(url: str, database_url: str) -> None:
    """The comparison above can fail: each of these changes shows."""
    with psycopg.connect(database_url) as connection:
        before = describe(connection)
        for change in (
            "alter table durable.migration add column note text",
            "create index on durable.migration (sha256)",
            "alter table durable.migration set (fillfactor = 50)",
            "alter table durable.migration add check (id <> '')",
            "create function durable.drifted() returns int language sql as 'select 1'",
            "create view durable.seen as select id from durable.migration",
        ):
            with connection.transaction(force_rollback=True):
                connection.execute(change.encode())
                assert describe(connection) != before, change
        assert describe(connection) == before


def test_the_fixture_gives_a_database_of_its_own_to_each_test(
    postgres_url: str, template_database: str
) -> None:
    with (
        postgres.copied_database(postgres_url, template_database) as one,
        postgres.copied_database(postgres_url, template_database) as two,
    ):
        with psycopg.connect(one) as connection:
            connection.execute("create table public.mine ()")
        assert (tables(one), tables(two)) == ({"mine"}, set())
