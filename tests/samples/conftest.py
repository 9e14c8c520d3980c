"""A shop, its payment service, and workers in the background, for the tests of the samples."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from durable import Client
from durable_worker import Worker
from samples.checkout import cases, shop
from samples.checkout.payment_service import PaymentService

Working = Callable[..., AbstractContextManager[None]]


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
def payment_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PaymentService]:
    with PaymentService(tmp_path / "payments.sqlite", stall_s=1.0) as service:
        monkeypatch.setenv("SHOP_PAYMENT_URL", service.url)
        monkeypatch.setenv("SHOP_PAYMENT_TIMEOUT_S", "0.3")
        yield service


@pytest.fixture
def shop_url(
    database_url: str, payment_service: PaymentService, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The database with the shop in it and all shelves filled; the payment service is up."""
    monkeypatch.setenv("DURABLE_DATABASE_URL", database_url)
    monkeypatch.setenv("SHOP_DATABASE_URL", database_url)
    shop.create(database_url, cases.load().items)
    yield database_url
    shop.close_idle_connections()


@pytest.fixture
def working(database_url: str) -> Working:
    """`with working("samples.approval"): ...` has a worker of that module run in the background."""

    @contextmanager
    def run(*modules: str, **settings: Any) -> Iterator[None]:
        settings = {"queues": {"default": 10, "payments": 10}, "name": "test", **settings}
        background = Background(Worker(database_url, modules=modules, **settings))
        background.begin()
        try:
            yield
        finally:
            background.end()

    return run


class Background:
    """A worker on an event loop in a thread of its own."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._begun = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._enough = asyncio.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="worker under test")

    def begin(self) -> None:
        self._thread.start()
        assert self._begun.wait(30)
        self._raise()

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._enough.set)
        self._thread.join(60)
        assert not self._thread.is_alive()
        self._loop.close()
        self._raise()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._work())
        except BaseException as error:
            self._failure = error
        finally:
            self._begun.set()

    async def _work(self) -> None:
        async with self._worker:
            self._begun.set()
            await self._enough.wait()

    def _raise(self) -> None:
        if self._failure:
            raise self._failure
