"""A proxy in front of PostgreSQL that cuts connections when told: the network between a worker and its database.

It listens on a unix socket, relays bytes, and knows each connection by its application_name, which the first message carries. A cut
comes *before* the k-th request of a connection reaches the server, or *after* it has and before the answer gets back: the second is the
nasty one, because the client cannot know what happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, quote, urlsplit

Moment = Literal["before", "after"]
SOCKET = ".s.PGSQL.5432"


class Cut:
    """Cut the connections named `name` at their `countdown`-th request from now on, once."""

    def __init__(self, name: str, countdown: int, moment: Moment) -> None:
        self.name = name
        self.countdown = countdown
        self.moment = moment
        self.done = threading.Event()


class Proxy:
    """Runs on a thread of its own."""

    def __init__(self, server_url: str, folder: Path) -> None:
        parts = urlsplit(server_url)
        self._server_socket = f"{parse_qs(parts.query)['host'][0]}/{SOCKET}"
        self.url = f"postgresql://postgres@{parts.path}?host={quote(str(folder))}&port=5432"
        self._path = folder / SOCKET
        self._cut: Cut | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy")
        self.requests = 0

    def cut(self, name: str, countdown: int, moment: Moment) -> Cut:
        """Arm a cut."""
        self._cut = Cut(name, countdown, moment)
        return self._cut

    def cut_all(self) -> None:
        """Cut every connection now."""

        async def there() -> None:
            for writer in tuple(self._writers):
                writer.transport.abort()

        asyncio.run_coroutine_threadsafe(there(), self._loop).result(10)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            first = await reader.read(65536)
            name = application_name(first)
            up_reader, up_writer = await asyncio.open_unix_connection(self._server_socket)
            self._writers.add(up_writer)
            up_writer.write(first)
            answers = asyncio.ensure_future(self._answers(up_reader, writer))
            with contextlib.suppress(ConnectionError):
                await self._requests(name, reader, writer, up_writer, answers)
            self._writers.discard(up_writer)
            up_writer.transport.abort()
            await answers
        except OSError:
            pass  # the server is not there: the client sees a closed connection
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _requests(
        self,
        name: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        up: asyncio.StreamWriter,
        answers: asyncio.Future[None],
    ) -> None:
        while chunk := await reader.read(1 << 20):
            self.requests += 1
            cut = self._cut
            if cut is not None and cut.name == name:
                cut.countdown -= 1
                if cut.countdown == 0:
                    self._cut = None
                    if cut.moment == "after":
                        writer.transport.abort()  # nobody will hear the answer
                        up.write(chunk)
                        await up.drain()
                        up.write_eof()  # the server works off what it has got, then hangs up
                        await answers
                    cut.done.set()
                    return
            up.write(chunk)
            await up.drain()

    @staticmethod
    async def _answers(up: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while chunk := await up.read(1 << 20):
                if not writer.transport.is_closing():
                    writer.write(chunk)
        writer.transport.abort()

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_unix_server(self._relay, str(self._path))

    def begin(self) -> None:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)

    def end(self) -> None:
        async def there() -> None:
            self._server.close()
            for writer in tuple(self._writers):
                writer.transport.abort()
            await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))

        asyncio.run_coroutine_threadsafe(there(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


def application_name(startup: bytes) -> str:
    """From the first message of a connection: pairs of zero-terminated strings after a header of 8 bytes."""
    fields = startup[8:].split(b"\0")
    pairs = dict(zip(fields[::2], fields[1::2], strict=False))
    return pairs.get(b"application_name", b"").decode()


@contextlib.contextmanager
def proxy(server_url: str, folder: Path) -> Iterator[Proxy]:
    """A proxy while the block lasts. `folder` must have a short path: it becomes part of a socket's name."""
    made = Proxy(server_url, folder)
    made.begin()
    try:
        yield made
    finally:
        made.end()
