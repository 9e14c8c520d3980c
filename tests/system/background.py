"""A worker in this process, on an event loop in a thread of its own, so that a test can look inside."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from durable_worker import Worker
from tests.system.processes import FLOWS

SHORT: dict[str, Any] = {"poll_s": 0.05, "lease_s": 2.0, "shutdown_grace_s": 5.0}


class Background:
    """Runs a worker until told to end; what ended it before is raised then."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.loop = asyncio.new_event_loop()
        self._enough = asyncio.Event()
        self._begun = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"worker {worker.settings.name}")

    def begin(self) -> None:
        self._thread.start()
        assert self._begun.wait(30)
        self._raise()

    def end(self) -> None:
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self._enough.set)
        self._thread.join(60)
        assert not self._thread.is_alive()
        self.loop.close()
        self._raise()

    def call(self, function: Any, *args: Any) -> Any:
        """Call something of the worker on its loop's thread, and return the answer."""

        async def there() -> Any:
            return function(*args)

        return asyncio.run_coroutine_threadsafe(there(), self.loop).result(30)

    def _run(self) -> None:
        try:
            self.loop.run_until_complete(self._work())
        except BaseException as error:
            self._failure = error
        finally:
            self._begun.set()

    async def _work(self) -> None:
        async with self.worker:
            self._begun.set()
            broken = asyncio.ensure_future(self.worker.wait())
            enough = asyncio.ensure_future(self._enough.wait())
            await asyncio.wait([broken, enough], return_when=asyncio.FIRST_COMPLETED)
            enough.cancel()
            if broken.done():
                await broken
            broken.cancel()

    def _raise(self) -> None:
        if self._failure:
            raise self._failure


@contextlib.contextmanager
def working(url: str, *modules: str, **settings: Any) -> Iterator[Background]:
    """A worker of `modules` (by default the flows of these tests) while the block lasts."""
    given = {"modules": modules or (FLOWS,), **SHORT, **settings}
    background = Background(Worker(url, **given))
    background.begin()
    try:
        yield background
    finally:
        background.end()
