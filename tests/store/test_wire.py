"""What the statements over libpq must not do to each other."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
import uvloop

from durable.store.calls import Call
from durable.store.client_session_async import AsyncClientSession
from durable.store.session import Session
from durable.store.wire import Wire


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_the_socket_that_gets_the_number_of_a_broken_one_is_heard(
    postgres_url: str, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """libpq closes a broken connection's socket, and the next one of the process has its number: a loop with the old one on its list is deaf to it."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(break_and_take_the_number(postgres_url))


async def break_and_take_the_number(url: str) -> None:
    loop, heard = asyncio.get_running_loop(), asyncio.Event()
    connection = await psycopg.AsyncConnection.connect(url, autocommit=True)
    number, wire = connection.fileno(), Wire(connection)
    await wire.fetch("select pg_sleep(%s)", (0,))  # once, and it is prepared
    statement = asyncio.ensure_future(wire.fetch("select pg_sleep(%s)", (60,)))
    await asyncio.sleep(0)
    with ExitStack() as stack:
        bell, rope = pair(stack)
        sockets: dict[int, socket.socket] = {}

        def open_the_next() -> None:
            """In the same turn of the loop as the break is noticed, before the statement's task knows of it."""
            loop.remove_reader(bell)
            while number not in sockets:
                near, far = pair(stack)
                sockets.update({near.fileno(): far, far.fileno(): near})
            loop.add_reader(number, heard.set)

        loop.add_reader(bell, open_the_next)
        end_stream(number)
        rope.send(b"!")
        with pytest.raises(psycopg.OperationalError):
            await statement
        sockets[number].send(b"!")
        await asyncio.wait_for(heard.wait(), 5)
        loop.remove_reader(number)
    await connection.close()


def pair(stack: ExitStack) -> tuple[socket.socket, socket.socket]:
    near, far = socket.socketpair()
    return stack.enter_context(near), stack.enter_context(far)


def end_stream(number: int) -> None:
    """As when the server's process is killed: the stream ends without a word."""
    with socket.socket(fileno=number) as end:
        end.shutdown(socket.SHUT_RDWR)
        end.detach()  # libpq closes it


def test_texts_are_sent_as_unicode_whatever_the_environment_says(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PGCLIENTENCODING has the server take our bytes for those of another alphabet: 'é' would be stored as 'Ã©', and nobody would ever know."""
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")

    async def main() -> None:
        session, heard = Session(database_url, "encoding"), asyncio.Queue[str]()
        assert await session.fetch("select length(%s), %s", ("é€", "é€")) == [(2, "é€")]
        await session.fetch("listen durable")
        listening = asyncio.create_task(session.listen(heard.put_nowait))
        async with AsyncClientSession(database_url, "encoding", notify=True) as client:
            call: Call[Any] = Call(
                "select length(%(it)s) as n", {"it": "é€"}, lambda rows: rows, "é€"
            )
            assert await client.execute(call) == [{"n": 2}]
        assert await asyncio.wait_for(heard.get(), 5) == "é€"
        listening.cancel()
        await asyncio.wait([listening])
        await session.close()

    asyncio.run(main())
