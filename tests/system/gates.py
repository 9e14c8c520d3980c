"""Gates that activities of any process wait at: advisory locks that a test holds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psycopg

from tests.waiting import eventually

WAITING = """
select count(*) from pg_locks
 where locktype = 'advisory' and objid = %s and not granted and database = (select oid from pg_database where datname = current_database())
"""


class Gate:
    """Closed until the block ends or `open()` is called."""

    def __init__(self, holder: psycopg.Connection[tuple[object, ...]], number: int) -> None:
        self.number = number
        self._holder = holder

    def waiting(self) -> int:
        row = self._holder.execute(WAITING, (self.number,)).fetchone()
        assert row is not None
        return int(str(row[0]))

    def wait_for(self, count: int = 1) -> None:
        """Until so many activities wait at the gate."""
        eventually(lambda: self.waiting() >= count, what=f"{count} wait at gate {self.number}")

    def open(self) -> None:
        self._holder.execute("select pg_advisory_unlock_all()")


@contextlib.contextmanager
def gate(url: str, number: int = 1) -> Iterator[Gate]:
    with psycopg.connect(url, autocommit=True) as holder:
        holder.execute("select pg_advisory_lock(%s)", (number,))
        yield Gate(holder, number)
