"""A small connection pooler that speaks PostgreSQL's protocol: what stands between clients and a server in many places.

Pooling by transaction, all clients share one session of the server, a transaction each by turns; by session, each has one of its own. As real
ones do, it answers the start of a connection itself, with a process number of its own making.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Iterator

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

_SSL, _GSS, _CANCEL = 80877103, 80877104, 80877102
_PARAMETERS = {
    "server_version": "16.0",
    "client_encoding": "UTF8",
    "standard_conforming_strings": "on",
    "integer_datetimes": "on",
}


class _Server:
    """An authenticated session of the server, as bytes."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True, sslmode="disable")
        self.socket = socket.socket(fileno=os.dup(self._connection.fileno()))
        self.socket.setblocking(True)
        self.lock = threading.Lock()

    def close(self) -> None:
        self.socket.close()
        self._connection.close()


class Pooler:
    """Serves until closed; see `pooler`."""

    def __init__(self, url: str, *, by_transaction: bool) -> None:
        self._target = url
        self._shared = _Server(url) if by_transaction else None
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        database = conninfo_to_dict(url)
        port = self._listening.getsockname()[1]
        names = {key: str(database[key]) for key in ("user", "dbname") if database.get(key)}
        self.url = make_conninfo("host=127.0.0.1 sslmode=disable", port=str(port), **names)
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in (self._accepting, *self._threads):
            thread.join(10)
            assert not thread.is_alive()
        if self._shared:
            self._shared.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            self._open.append(client)
            thread = threading.Thread(target=self._serve, args=(client, len(self._open)))
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket, number: int) -> None:
        server = self._shared or _Server(self._target)
        try:
            with client, contextlib.suppress(ConnectionError, OSError):
                if not _greet(client, 900_000 + number):
                    return
                if server is self._shared:
                    while _transaction(client, server):
                        pass
                else:
                    _session(client, server)
        finally:
            if server is not self._shared:
                server.close()


def _greet(client: socket.socket, pid: int) -> bool:
    """False: it only wanted to cancel something."""
    while True:
        (length,) = struct.unpack("!i", _read(client, 4))
        (code,) = struct.unpack("!i", _read(client, length - 4)[:4])
        if code == _CANCEL:
            return False
        if code not in (_SSL, _GSS):
            break
        client.sendall(b"N")
    said = [_message(b"R", struct.pack("!i", 0))]
    said += [_message(b"S", f"{key}\0{value}\0".encode()) for key, value in _PARAMETERS.items()]
    said += [_message(b"K", struct.pack("!ii", pid, 1)), _message(b"Z", b"I")]
    client.sendall(b"".join(said))
    return True


def _transaction(client: socket.socket, server: _Server) -> bool:
    """One transaction of the client, over a session that it has to itself meanwhile. False: it has left."""
    kind, message = _next(client)
    with server.lock:
        while kind != b"X":
            server.socket.sendall(message)
            if kind in (b"Q", b"S") and _answer(server.socket, client) == b"I":
                return True
            kind, message = _next(client)
    return False


def _session(client: socket.socket, server: _Server) -> None:
    """Both ways at once: a session's notifications come when they like."""
    back = threading.Thread(target=_pump, args=(server.socket, client))
    back.start()
    _pump(client, server.socket)
    server.socket.shutdown(socket.SHUT_RDWR)
    back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)


def _answer(server: socket.socket, client: socket.socket) -> bytes:
    """Everything up to the next "ready", and the state that it names."""
    while True:
        kind, message = _next(server)
        client.sendall(message)
        if kind == b"Z":
            return message[-1:]


def _next(source: socket.socket) -> tuple[bytes, bytes]:
    kind, size = _read(source, 1), _read(source, 4)
    return kind, kind + size + _read(source, struct.unpack("!i", size)[0] - 4)


def _read(source: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = source.recv(count - len(data))
        if not more:
            raise ConnectionError
        data += more
    return data


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


@contextlib.contextmanager
def pooler(url: str, *, by_transaction: bool) -> Iterator[str]:
    """The URL to connect to while the block lasts."""
    serving = Pooler(url, by_transaction=by_transaction)
    try:
        yield serving.url
    finally:
        serving.close()
