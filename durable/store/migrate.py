"""The schema's versions: numbered SQL files, applied once, in order, each in a transaction of its own.

The problem: every process of a deployment may find an old schema at the same moment, and any of them may be killed half-way. A lock
kept in a table outlives its holder; a library that parses SQL stumbles over function bodies; a tool that trusts names applies a file
that was edited after it ran elsewhere, and the databases part for ever.

The solution: psycopg without parameters sends a whole file as it is, so nothing is parsed. A session-level advisory lock orders the
runners and is freed by the server when its holder dies. The table `durable.migration` keeps each file's checksum, written in the
transaction of the file. What the database has must be a prefix of what this release has, unchanged: anything else is refused.

The lock is *tried* again and again rather than waited for: a statement that waits holds a snapshot, and `CREATE INDEX CONCURRENTLY`
under the lock waits for all snapshots, so the two would wait for each other.

What can still fail: a file whose first line is `-- no-transaction` holds one statement that cannot run in a transaction. Killed between that
statement and its record it runs again, so it must be harmless the second time. A transaction pooler breaks session locks: migrate
over a direct connection.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import psycopg
from psycopg.rows import tuple_row

from durable.errors import SchemaOutOfDate
from durable.store import catalogue
from durable.store.failures import domain_error, unavailable

LOCK = 0x6475_7261_626C_6500
"""The advisory lock's key: "durable" in ASCII."""

LOCK_POLL_S = 0.05
FILE_NAME = re.compile(r"\d{4}_\w+\.sql")
NO_TRANSACTION = "-- no-transaction"

TABLE = """
create schema if not exists durable;
create table if not exists durable.migration (
    id text primary key,
    sha256 text not null,
    applied_at timestamptz not null default now(),
    catalogue json
)
"""
EXISTS = "select to_regclass('durable.migration') is not null"
APPLIED = "select id, sha256, applied_at from durable.migration order by id"
RECORD = "insert into durable.migration (id, sha256) values (%s, %s)"

REMEMBER = "update durable.migration set catalogue = %s::json where id = (select max(id) from durable.migration)"

State = Literal["applied", "pending", "edited", "unknown"]


@dataclass(frozen=True, slots=True)
class Migration:
    """One file. `id` is its name without the ending, such as `0001_tables`."""

    id: str
    sql: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()

    @property
    def transactional(self) -> bool:
        return not self.sql.startswith(NO_TRANSACTION)


@dataclass(frozen=True, slots=True)
class MigrationStatus:
    """`edited`: the file was changed after it was applied here. `unknown`: the database has it and this release does not."""

    id: str
    state: State
    applied_at: datetime | None


@dataclass(frozen=True, slots=True)
class _Applied:
    sha256: str
    at: datetime


def migrations_dir() -> Path:
    """The folder of the .sql files: inside the package as installed, beside it in a checkout or an editable installation."""
    package = Path(__file__).parents[1]
    packed = package / "migrations"
    return packed if packed.is_dir() else package.parent / "migrations"


def load(folder: Path | None = None) -> list[Migration]:
    """The migrations of this release, or of `folder`, in order."""
    return [
        Migration(file.stem, file.read_text(encoding="utf-8"))
        for file in sorted((folder or migrations_dir()).iterdir())
        if FILE_NAME.fullmatch(file.name)
    ]


def migrate(url: str, *, to: str | None = None, folder: Path | None = None) -> list[str]:
    """Bring the schema up to this release, or to the migration `to` (an id or its number), and return the ids applied now.

    Safe to run from many processes at once: one works, the others wait and find nothing to do. `folder` is another place for the
    files than this release's own.

    Raises SchemaOutOfDate when an applied file was edited or the database is newer than this release; ValueError when there is
    no migration `to`; DatabaseUnavailable when the server cannot be reached or refuses the rights. A file that fails is rolled back and
    raises InternalError with the server's error as its cause; those before it stay applied.
    """
    wanted = _up_to(load(folder), to)
    with _connected(url) as connection:
        _lock(connection)
        connection.execute(TABLE)
        applied = _applied(connection)
        _check_unchanged(load(folder), applied)
        pending = [migration for migration in wanted if migration.id not in applied]
        for migration in pending:
            _apply(connection, migration)
        if pending:
            _remember(connection)
    return [migration.id for migration in pending]


def status(url: str, *, folder: Path | None = None) -> list[MigrationStatus]:
    """What the database has and what this release has, by id. Changes nothing, works on an empty database."""
    with _connected(url) as connection:
        applied = _applied(connection)
    known = {migration.id: migration for migration in load(folder)}
    return [
        MigrationStatus(id_, _state(known.get(id_), applied.get(id_)), _at(applied.get(id_)))
        for id_ in sorted({*known, *applied})
    ]


def ensure_current(connection: psycopg.Connection[Any]) -> None:
    """Raises SchemaOutOfDate, naming the remedy, unless the database has exactly this release's migrations."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        rows = []
        if cursor.execute(EXISTS).fetchone() == (True,):
            rows = cursor.execute(APPLIED).fetchall()
    _check_current(load(), _by_id(rows))


async def ensure_current_async(connection: psycopg.AsyncConnection[Any]) -> None:
    """`ensure_current` for an asynchronous connection."""
    async with connection.cursor(row_factory=tuple_row) as cursor:
        rows = []
        await cursor.execute(EXISTS)
        if await cursor.fetchone() == (True,):
            await cursor.execute(APPLIED)
            rows = await cursor.fetchall()
    _check_current(load(), _by_id(rows))


@contextlib.contextmanager
def _connected(url: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """A connection in autocommit mode; psycopg's errors leave in the caller's terms."""
    try:
        connection = psycopg.connect(url, autocommit=True)
    except psycopg.Error as error:
        raise unavailable(url, error) from error
    try:
        with connection:
            yield connection
    except psycopg.Error as error:
        raise domain_error(error) from error


def _up_to(known: Sequence[Migration], to: str | None) -> Sequence[Migration]:
    if to is None:
        return known
    for index, migration in enumerate(known):
        if to in (migration.id, migration.id.partition("_")[0]):
            return known[: index + 1]
    ids = ", ".join(migration.id for migration in known)
    msg = f"there is no migration {to!r}; this release has {ids}"
    raise ValueError(msg)


def _lock(connection: psycopg.Connection[Any]) -> None:
    """Held until the connection closes. Tried rather than waited for, see the top of this file."""
    while connection.execute("select pg_try_advisory_lock(%s)", (LOCK,)).fetchone() != (True,):
        time.sleep(LOCK_POLL_S)


def _apply(connection: psycopg.Connection[Any], migration: Migration) -> None:
    sql = migration.sql.encode()
    if not migration.transactional:
        connection.execute(sql)
        connection.execute(RECORD, (migration.id, migration.sha256))
        return
    with connection.transaction():
        connection.execute(sql)
        connection.execute(RECORD, (migration.id, migration.sha256))


def _remember(connection: psycopg.Connection[Any]) -> None:
    """What the schema consists of now, for whoever looks later whether it was changed by hand."""
    with connection.transaction():
        taken = catalogue.take(connection)
        connection.execute(REMEMBER, (catalogue.to_json(taken),))


def _applied(connection: psycopg.Connection[Any]) -> dict[str, _Applied]:
    if connection.execute(EXISTS).fetchone() != (True,):
        return {}
    return _by_id(connection.execute(APPLIED).fetchall())


def _by_id(rows: Sequence[tuple[str, str, datetime]]) -> dict[str, _Applied]:
    return {id_: _Applied(sha256, at) for id_, sha256, at in rows}


def _at(applied: _Applied | None) -> datetime | None:
    return None if applied is None else applied.at


def _state(known: Migration | None, applied: _Applied | None) -> State:
    if known is None:
        return "unknown"
    if applied is None:
        return "pending"
    return "applied" if applied.sha256 == known.sha256 else "edited"


def _check_unchanged(known: Sequence[Migration], applied: Mapping[str, _Applied]) -> None:
    ours = {migration.id: migration for migration in known}
    if unknown := sorted(applied.keys() - ours.keys()):
        msg = (
            f"the database is newer than this release of durable, which has no {', '.join(unknown)}; "
            "install the release that migrated it"
        )
        raise SchemaOutOfDate(msg)
    for id_, there in applied.items():
        if ours[id_].sha256 != there.sha256:
            msg = (
                f"the file of migration {id_} was edited after it was applied to this database; "
                "restore the released file and put the change into a new migration"
            )
            raise SchemaOutOfDate(msg)
    if gaps := [id_ for id_ in ours if id_ not in applied and id_ < max(applied, default="")]:
        msg = f"the database has {max(applied)} but not {', '.join(gaps)} before it; install the release that migrated it"
        raise SchemaOutOfDate(msg)


def _check_current(known: Sequence[Migration], applied: Mapping[str, _Applied]) -> None:
    _check_unchanged(known, applied)
    if pending := [migration.id for migration in known if migration.id not in applied]:
        msg = f"the database has not got {', '.join(pending)}; run `durable migrate`"
        raise SchemaOutOfDate(msg)
