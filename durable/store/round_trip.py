"""One round trip of a client: a prepared statement and, in a transaction of its own right behind it, the hint that tells of it.

The problem. NOTIFY holds a lock that is global to the database until its transaction has committed, so a hint must not be sent within the transaction that
it tells of: processes that enqueue would wait for each other's disk. As a statement of its own it costs a round trip more, and whoever shall wake waits
for that as well.

The solution. libpq's pipeline: both are sent at once, each with a sync behind it, which is where a transaction ends. The server comes to the hint when the
first has committed. A statement that comes again and again is prepared, in the same round trip; not at once, because what a short command leaves in a session
a transaction pooler hands to somebody else. A generator in psycopg's manner says when to wait, so that the
synchronous and the asynchronous connection drive the same code (`connection.wait`); psycopg dumps and loads the values, but has no way to
send two transactions at once.

What can fail. The statement: its error is raised, and the hint that went along says nothing new, which does no harm (C4). The hint alone: what it tells of is
committed, and polling finds it, so that is no error. A break of the connection: libpq says so when it is read.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import psycopg
from psycopg import pq
from psycopg.abc import PQGen
from psycopg.abc import Transformer as TransformerProtocol
from psycopg.adapt import PyFormat, Transformer
from psycopg.waiting import Ready, Wait

_NOTIFY = b"select pg_notify('durable', $1)"
_PREPARED_FROM = 5
"""At its fifth use by a connection a statement is prepared, as psycopg does it."""

_PREPARED_AT_MOST = 200
_PLACEHOLDER = re.compile(r"%(?:%|\((\w+)\)s)")
_BAD = (pq.ExecStatus.FATAL_ERROR, pq.ExecStatus.PIPELINE_ABORTED)

Row = dict[str, Any]
Key = tuple[str, tuple[int, ...]]


class RoundTrips:
    """Those over one open connection. Not for two threads or tasks at once. `prepares` False: the session may be another's next time."""

    def __init__(
        self,
        connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any],
        *,
        prepares: bool = True,
    ) -> None:
        self._prepares = prepares
        self._pgconn = connection.pgconn
        self._transformer: TransformerProtocol = Transformer(connection)
        self._uses: Counter[Key] = Counter()
        self._names: dict[Key, bytes] = {}

    def rows(
        self, statement: str, parameters: Mapping[str, Any], hint: str | None
    ) -> PQGen[list[Row]]:
        """Run `statement` with a parameter for each `%(name)s`, give `hint`, and return the rows. Raises psycopg.Error."""
        query, order = _positional(statement)
        values = self._transformer.dump_sequence(
            [parameters[name] for name in order], [PyFormat.AUTO] * len(order)
        )
        key = (statement, self._transformer.types or ())
        answers: list[list[pq.abc.PGresult]] = []
        self._pgconn.enter_pipeline_mode()
        try:
            self._send(key, query, values)
            if hint is not None:
                self._send_hint(hint)
            yield from self._receive(answers, 1 if hint is None else 2)
            self._pgconn.exit_pipeline_mode()
        # Broken, or nobody waits any more: answers to come must not reach others.
        except BaseException as error:
            self._pgconn.finish()
            if not answers or not isinstance(error, psycopg.Error):
                raise  # else it broke over the hint: the statement is committed and answered
        return self._load(self._answer(key, answers[0]))

    def _send(self, key: Key, query: bytes, values: Any) -> None:
        name, formats = self._names.get(key), self._transformer.formats
        if name is None and self._is_frequent(key):
            name = self._next_name()
            self._pgconn.send_prepare(name, query, key[1])
        if name is None:
            self._pgconn.send_query_params(query, values, key[1], formats)
        else:
            self._pgconn.send_query_prepared(name, values, formats)
        self._pgconn.pipeline_sync()

    def _is_frequent(self, key: Key) -> bool:
        if not self._prepares or len(self._names) >= _PREPARED_AT_MOST:
            return False
        self._uses[key] += 1
        return self._uses[key] >= _PREPARED_FROM

    def _next_name(self) -> bytes:
        return b"durable_%d" % len(self._names)

    def _send_hint(self, hint: str) -> None:
        self._pgconn.send_query_params(_NOTIFY, [hint.encode()])
        self._pgconn.pipeline_sync()

    def _receive(self, answers: list[list[pq.abc.PGresult]], count: int) -> PQGen[None]:
        """Put the results of each transaction into `answers`, when all of them are there."""
        pgconn = self._pgconn
        unsent = pgconn.flush()
        results: list[pq.abc.PGresult] = []
        while True:
            while not pgconn.is_busy():
                result = pgconn.get_result()
                if result is None:  # between two statements
                    if pgconn.status != pq.ConnStatus.OK:
                        raise psycopg.OperationalError("the connection ended without an answer")
                elif result.status != pq.ExecStatus.PIPELINE_SYNC:
                    results.append(result)
                else:
                    answers.append(results)
                    results = []
                    if len(answers) == count:
                        return
            ready: int | None = yield Wait.RW if unsent else Wait.R  # None: nothing yet
            if ready and ready & Ready.R:
                pgconn.consume_input()
            if unsent:
                unsent = pgconn.flush()

    def _answer(self, key: Key, results: list[pq.abc.PGresult]) -> pq.abc.PGresult:
        """The statement's own result. A statement that was parsed is known from now on, whatever came of it."""
        if key not in self._names and len(results) > 1 and results[0].status not in _BAD:
            self._names[key] = self._next_name()
        for result in results:
            if result.status in _BAD:
                raise psycopg.errors.error_from_result(result)
        return results[-1]

    def _load(self, result: pq.abc.PGresult) -> list[Row]:
        if not result.ntuples:
            return []
        names = [(result.fname(column) or b"").decode() for column in range(result.nfields)]
        self._transformer.set_pgresult(result)
        return self._transformer.load_rows(
            0, result.ntuples, lambda values: dict(zip(names, values, strict=True))
        )


@lru_cache(maxsize=512)
def _positional(statement: str) -> tuple[bytes, tuple[str, ...]]:
    """The statement with `$1`, `$2`, … as the server calls its parameters, and their names in this order."""
    order: dict[str, int] = {}

    def number(found: re.Match[str]) -> str:
        name = found[1]
        return "%" if name is None else f"${order.setdefault(name, len(order) + 1)}"

    text = _PLACEHOLDER.sub(number, statement)
    return text.encode(), tuple(order)
