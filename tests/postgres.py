"""The PostgreSQL that the tests run on, and databases in it.

`DURABLE_TEST_DATABASE_URL` if set, else a container where a Docker engine answers, else the embedded server. There is no fourth case:
a test that needs PostgreSQL and finds none fails.
"""

from __future__ import annotations

import contextlib
import gc
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from durable import embedded
from durable.store.migrate import migrate

IMAGE = "postgres:16-alpine"
SETTINGS: dict[str, str | int | bool] = {"max_connections": 300}


@contextlib.contextmanager
def server(folder: Path) -> Iterator[str]:
    """The URL of a server for one session of tests; `folder` is for the embedded one."""
    if url := os.environ.get("DURABLE_TEST_DATABASE_URL"):
        yield url
    elif docker_answers():
        with container() as url:
            yield url
    else:
        with embedded.start(folder, settings=SETTINGS) as started:
            yield started.url


def docker_answers() -> bool:
    """Asked of the engine: a client on PATH says nothing."""
    try:
        import docker
        from docker.errors import DockerException
    except ImportError:
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        answered = False
        with contextlib.suppress(DockerException, OSError), docker.from_env(timeout=3).api as api:
            answered = bool(api.ping())
        gc.collect()  # docker drops the socket of a failed connect; its warning belongs in here
        return answered


@contextlib.contextmanager
def container() -> Iterator[str]:
    from testcontainers.postgres import PostgresContainer

    with PostgresContainer(IMAGE, driver=None) as running:
        yield running.get_connection_url()


def in_database(url: str, name: str) -> str:
    """`url` with another database, in the form it came in."""
    if "://" in url:
        return urlsplit(url)._replace(path=f"/{name}").geturl()
    return make_conninfo(url, dbname=name)


@contextlib.contextmanager
def template(url: str) -> Iterator[str]:
    """The name of a database with the schema of this checkout, to be copied for each test."""
    with empty_database(url, "durable_template") as made:
        migrate(in_database(url, made))
        yield made


@contextlib.contextmanager
def empty_database(url: str, prefix: str = "durable_test") -> Iterator[str]:
    """The name of a new database, dropped at the end whoever is still connected."""
    name = f"{prefix}_{uuid4().hex[:12]}"
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        try:
            yield name
        finally:
            drop(admin, name)


@contextlib.contextmanager
def copied_database(url: str, template_name: str) -> Iterator[str]:
    """The URL of a fresh copy of the template, dropped at the end whoever is still connected."""
    name = f"durable_test_{uuid4().hex[:12]}"
    with psycopg.connect(url, autocommit=True) as admin:
        names = (sql.Identifier(name), sql.Identifier(template_name))
        admin.execute(sql.SQL("create database {} template {}").format(*names))
        try:
            yield in_database(url, name)
        finally:
            drop(admin, name)


def drop(admin: psycopg.Connection[tuple[object, ...]], name: str) -> None:
    admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
