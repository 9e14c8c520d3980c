"""A database, a client, a connection to look with, and workers, for the tests of the whole system."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import psycopg
import pytest

from durable.client_sync import Client
from tests.system import background, flows, processes
from tests.system.background import Background
from tests.system.processes import Fleet
from tests.system.proxy import Proxy, proxy


class Working(Protocol):
    def __call__(self, *modules: str, **settings: Any) -> AbstractContextManager[Background]: ...


@pytest.fixture
def client(database_url: str) -> Iterator[Client]:
    with Client(database_url) as client:
        yield client


@pytest.fixture
def sql(database_url: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """A connection of the test's own, in autocommit."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def system_url(database_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The database, with the tables that the flows write to."""
    flows.create_tables(database_url)
    monkeypatch.setenv("SYSTEM_DATABASE_URL", database_url)
    return database_url


@pytest.fixture
def cable(system_url: str) -> Iterator[Proxy]:
    """A network between a worker or client and the database, that can be cut."""
    if "host=" not in system_url:
        pytest.skip("the proxy stands in front of a unix socket")
    folder = Path(tempfile.mkdtemp(prefix="dur", dir="/tmp"))
    with proxy(system_url, folder) as made:
        yield made
    shutil.rmtree(folder)


@pytest.fixture
def working(system_url: str) -> Working:
    """`with working(lease_s=1.0) as background: ...` has a worker run in this process."""
    return partial(background.working, system_url)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with processes.fleet(tmp_path) as hired:
        yield hired
