"""The PostgreSQL that is measured, and a database in it for each contender."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from bench.cpu import parent_of
from durable import embedded
from durable.store.migrate import migrate


@dataclass(frozen=True, slots=True)
class Server:
    """`postmaster` is None when the server runs on another machine; `folder` is its data folder when we started it."""

    url: str
    postmaster: int | None
    folder: Path | None

    @contextlib.contextmanager
    def database(self, purpose: str, *, migrated: bool = True) -> Iterator[str]:
        """The URL of a new database, dropped at the end."""
        name = f"bench_{purpose}_{uuid4().hex[:8]}"
        with psycopg.connect(self.url, autocommit=True) as admin:
            admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        url = in_database(self.url, name)
        try:
            if migrated:
                migrate(url)
            yield url
        finally:
            with psycopg.connect(self.url, autocommit=True) as admin:
                admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@contextlib.contextmanager
def server(url: str | None, settings: Mapping[str, str | int | bool]) -> Iterator[Server]:
    """The given server, or a new embedded one in a temporary folder on a real disk, with PostgreSQL's default settings."""
    if url:
        yield Server(url, _local_postmaster(url), None)
        return
    disk = Path("/var/tmp")  # by its definition on a disk, where /tmp may be memory
    folder = Path(tempfile.mkdtemp(prefix="durable-bench-", dir=disk if disk.is_dir() else None))
    try:
        with embedded.start(folder, settings=settings) as started:
            yield Server(started.url, started.pid, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def in_database(url: str, name: str) -> str:
    """`url` with another database, in the form it came in."""
    if "://" in url:
        return urlsplit(url)._replace(path=f"/{name}").geturl()
    return make_conninfo(url, dbname=name)


def _local_postmaster(url: str) -> int | None:
    with psycopg.connect(url) as connection:
        parent = parent_of(connection.info.backend_pid)
    name = Path(f"/proc/{parent}/comm")
    return parent if parent and name.exists() and name.read_text().startswith("postgres") else None
