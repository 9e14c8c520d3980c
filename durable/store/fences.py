"""What an attempt must still be when it writes in a transaction of its own, and what to tell authors who end that transaction."""

from __future__ import annotations

from typing import NamedTuple


class Fence(NamedTuple):
    """An attempt, as the database knows it (C5)."""

    owner: str
    shard: int
    run_id: str
    seq: int
    attempt: int


class TransactionRefused(Exception):
    """The attempt does not count any more, and what it wrote was rolled back.

    `verdict`: "lost" (another worker has it, or it has ended; kept as evidence) or "cancelled" (told to stop, or its run has closed).
    """

    def __init__(self, verdict: str) -> None:
        super().__init__(f"the attempt is {verdict}; what it wrote was rolled back")
        self.verdict = verdict


FORBIDDEN = (
    "a transactional activity called commit(), rollback() or uses another way to end the transaction on its connection; remove the call: the worker commits"
    " when the function returns and rolls back when it raises. For a part that may fail use `with connection.transaction():`, a savepoint"
)
ENDED = (
    "a transactional activity ended its transaction with a statement (commit, rollback); what it wrote before a commit stands without a recorded outcome. Remove the"
    " statement: the worker commits when the function returns and rolls back when it raises"
)
CLOSED = "a transactional activity closed its connection; it belongs to the worker, which commits when the function returns"
SWALLOWED = (
    "a transactional activity went on after an error of the database, which has aborted the transaction; let the error pass, or put"
    " `with connection.transaction():`, a savepoint, around what may fail"
)
