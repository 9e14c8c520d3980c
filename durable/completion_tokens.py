"""The token with which an activity's attempt is completed from outside (C5): bound to the attempt, unguessable, known to the database by its hash.

Its text is `dct.<shard>.<run>.<seq>.<attempt>.<secret>`. Whoever has it can complete the attempt, so it is never logged, and no error of ours repeats it.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import NamedTuple
from uuid import UUID

from durable.errors import InvalidOption

_SECRET_BYTES = 32


class ReadToken(NamedTuple):
    """A token as the database is asked about it; `digest` is the SHA-256 of its text, in hex."""

    shard: int
    run_id: str
    seq: int
    attempt: int
    digest: str


def new_token(shard: int, run_id: str, seq: int, attempt: int) -> str:
    """A token for an attempt."""
    return f"dct.{shard}.{run_id}.{seq}.{attempt}.{secrets.token_urlsafe(_SECRET_BYTES)}"


def digest_of(token: str) -> str:
    """What the database keeps of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def read_token(text: object) -> ReadToken:
    """Raises InvalidOption, without repeating the text, if it is no token."""
    try:
        assert isinstance(text, str)
        prefix, shard, run_id, seq, attempt, secret = text.split(".")
        assert prefix == "dct"
        assert len(secret) > _SECRET_BYTES
        numbers = int(shard), int(seq), int(attempt)
        assert all(0 <= number < 2**31 for number in numbers)
        assert numbers[0] < 2**15
        return ReadToken(numbers[0], str(UUID(run_id)), numbers[1], numbers[2], digest_of(text))
    except (AssertionError, ValueError):
        msg = "the completion token is malformed; give the whole text of activity_info().completion_token"
        raise InvalidOption(msg) from None
