"""Attempts of this process whose outcome will come from outside: their tokens, and what is written when they end (see migrations/0007_completion.sql)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from durable.completion_tokens import digest_of, new_token
from durable.store.batch import Parked, TokenTaken

if TYPE_CHECKING:
    from durable_worker.attempts import Attempt


def token_maker(attempt: Attempt, write: Callable[[TokenTaken], None]) -> Callable[[], str]:
    """What makes the attempt's token. Called by the activity, maybe in a thread: its hash is written at once, for its user may be back at once."""
    loop = asyncio.get_running_loop()
    key = (attempt.shard, attempt.run_id, attempt.seq, attempt.attempt)

    def make() -> str:
        token = new_token(*key)
        loop.call_soon_threadsafe(write, TokenTaken(*key, digest_of(token)))
        return token

    return make


def parked(attempt: Attempt, token: str) -> Parked:
    """The attempt ended here; slot and lease are free."""
    elapsed_s = asyncio.get_running_loop().time() - attempt.begun
    key = (attempt.shard, attempt.run_id, attempt.seq, attempt.attempt)
    return Parked(*key, elapsed_s, digest_of(token))
