"""Transactional activities in this process: what is called in place of the author's function (see durable/store/transactions_async.py)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

from durable.activity_outcomes import ActivityOutcome
from durable.definitions import Activity
from durable.payload_codecs import Payloads
from durable.store.fences import Fence
from durable.store.transactions_async import AsyncConnection, AsyncTransactions
from durable.store.transactions_sync import Connection, Transactions
from durable_worker.faults import reach

if TYPE_CHECKING:
    from durable_worker.attempts import Attempt

logger = logging.getLogger("durable.worker")

Recording = Callable[..., Any]
"""Takes the author's arguments, and records what the author's function returns. Its own value is the hint to give, or None."""


class TransactionalAttempts:
    """Connections for at most `limit` attempts of each kind, sync and async."""

    def __init__(
        self, url: str, owner: str, limit: int, warning_s: float, payloads: Payloads
    ) -> None:
        self._owner = owner
        self._payloads = payloads
        self._warning_s = warning_s
        self._sync = Transactions(url, limit, reach)
        self._async = AsyncTransactions(url, limit, reach)

    def recording(self, attempt: Attempt) -> Recording:
        """Return what to call instead of the function: in a thread if that is sync, else to await."""
        fence = Fence(self._owner, attempt.shard, attempt.run_id, attempt.seq, attempt.attempt)
        return (self._of_async if attempt.activity.is_async else self._of_sync)(attempt, fence)

    def _of_async(self, attempt: Attempt, fence: Fence) -> Recording:
        activity = attempt.activity

        def recorded(*args: Any, **kwargs: Any) -> Awaitable[str | None]:
            async def body(connection: AsyncConnection) -> str:
                value = await activity.fn(connection, *args, **kwargs)
                return self._payloads.sealed(_encoded(activity, value))

            return self._async.record(fence, body, lambda: not is_over(attempt))

        return recorded

    def _of_sync(self, attempt: Attempt, fence: Fence) -> Recording:
        activity = attempt.activity

        def recorded(*args: Any, **kwargs: Any) -> str | None:
            def body(connection: Connection) -> str:
                value = activity.fn(connection, *args, **kwargs)
                return self._payloads.sealed(_encoded(activity, value))

            return self._sync.record(fence, body, lambda: not is_over(attempt))

        return recorded

    @contextlib.contextmanager
    def watched(self, attempt: Attempt) -> Iterator[None]:
        """Name an attempt whose transaction stays open for long: it holds its locks, and keeps vacuum from cleaning up."""

        def warn() -> None:
            logger.warning(
                "transactional activity %s of %s has kept its transaction open for more than %s s; do what takes long in an activity of its own",
                attempt.name,
                attempt.workflow_id or attempt.run_id,
                self._warning_s,
            )

        timer = asyncio.get_running_loop().call_later(self._warning_s, warn)
        try:
            yield
        finally:
            timer.cancel()

    async def close(self) -> None:
        """Close the connections that are not in use; the others close when their attempt ends, or with the process."""
        await self._async.close()
        self._sync.close()


def is_over(attempt: Attempt) -> bool:
    """Nobody would take its outcome any more: do not even begin."""
    return attempt.lost or attempt.cancel_requested or attempt.timed_out is not None


def _encoded(activity: Activity[Any, Any], value: Any) -> str:
    """The result as JSON text. A Snooze, Cancel or Retry is raised, so that what the attempt wrote is rolled back."""
    if isinstance(value, ActivityOutcome):
        raise value
    return activity.arguments.result.encode(value)
