from __future__ import annotations

from collections.abc import Iterator

import pytest

from durable.client_sync import Client
from tests.client.database import Database


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = Database(database_url)
    yield opened
    opened.connection.close()


@pytest.fixture
def client(database_url: str) -> Iterator[Client]:
    with Client(database_url) as opened:
        yield opened
